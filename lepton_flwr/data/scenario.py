"""A scenario: a data set, what its clients are, and how a run on it starts out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from lepton_flwr._validate import choice
from lepton_flwr.config import RunConfig
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.data.schema import Schema
from lepton_flwr.data.tables import FederatedTables
from lepton_flwr.errors import DataError

MODELS = ("mlp", "cnn")


@dataclass(frozen=True)
class Tabular:
    """How a table like the scenario's own becomes rows and answers.

    Attributes:
        columns: what `features` reads.
        features: from a pandas DataFrame, and what to do with unseen categories ("other" or
            "error"), to features, float32, shape (n, ...).
        label: the column that holds the answer.
        classes: names of the answers, in the order of their numbers.
        answers: from the label column's n values to class numbers, int32, shape (n,); raises
            `DataError` for one that is no answer.
    """

    columns: tuple[str, ...]
    features: Callable[[Any, str], np.ndarray]
    label: str
    classes: tuple[str, ...]
    answers: Callable[[Any], np.ndarray]

    @classmethod
    def of(
        cls,
        schema: Schema,
        label: str,
        classes: tuple[str, ...],
        answers: Callable[[Any], np.ndarray],
    ) -> Self:
        """A table with a schema's own columns."""
        columns = tuple(column.column for column in schema.columns)
        return cls(columns, lambda t, u: schema.transform(t, unseen=u), label, classes, answers)

    def transform(self, table: Any, unseen: str = "other") -> np.ndarray:
        """Features of a table's rows.

        Raises:
            DataError: a column is missing or cannot be used; with "error", a category is unseen.
        """
        missing = [name for name in self.columns if name not in table]
        if missing:
            more = f" (and {len(missing) - 5} more)" if len(missing) > 5 else ""
            raise DataError(
                f"missing column {', '.join(missing[:5])}{more}: expected those that the model was "
                "trained on, by name"
            )
        return self.features(table, unseen)


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
        table: how other tables of its kind become rows; None where no column is known beforehand.
    """

    name: str
    title: str
    description: str
    model: str
    load: Callable[[RunConfig], FederatedData | FederatedTables]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    table: Tabular | None = None

    def __post_init__(self) -> None:
        choice(f"model of scenario {self.name}", self.model, MODELS)
