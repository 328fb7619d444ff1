"""Federated learning on Flower: secure aggregation, differential privacy, Keras."""

import os
import platform
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lepton_flwr._version import __version__

if platform.machine() in ("x86_64", "AMD64"):
    # TensorFlow reads it when it is imported, and by itself takes oneDNN only where there is
    # AVX-512: elsewhere convolutions and batched products take two to five times as long.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

if TYPE_CHECKING:
    from lepton_flwr.sdk.client import LeptonClient

__all__ = ["LeptonClient", "__version__"]


def __getattr__(name: str) -> Any:
    """`LeptonClient`, imported when it is asked for: a device never does."""
    if name == "LeptonClient":
        return import_module("lepton_flwr.sdk").LeptonClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
