"""Federated learning on Flower: secure aggregation, differential privacy, Keras."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lepton_flwr._version import __version__

if TYPE_CHECKING:
    from lepton_flwr.sdk.client import LeptonClient

__all__ = ["LeptonClient", "__version__"]


def __getattr__(name: str) -> Any:
    """`LeptonClient`, imported when it is asked for: a device never does."""
    if name == "LeptonClient":
        return import_module("lepton_flwr.sdk").LeptonClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
