"""A scenario: a data set, what its clients are, and how a run on it starts out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lepton_flwr._validate import choice
from lepton_flwr.config import RunConfig
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.data.tables import FederatedTables

MODELS = ("mlp", "cnn")


@dataclass(frozen=True)
class Scenario:
    """One data set made federated.

    Attributes:
        name: what the command line calls it.
        title: a few words.
        description: one or two sentences: data, source, label, what a client is.
        model: the kind of model, "mlp" or "cnn".
        load: reads the rows and divides them, by `clients`, `seed` and `data` of a configuration.
            It is the only part that imports pandas or scikit-learn. Tables are to be preprocessed
            by federated statistics first, which the budget pays for.
        defaults: settings that differ from `RunConfig`'s own, as nested tables.
    """

    name: str
    title: str
    description: str
    model: str
    load: Callable[[RunConfig], FederatedData | FederatedTables]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        choice(f"model of scenario {self.name}", self.model, MODELS)
