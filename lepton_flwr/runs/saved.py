"""A run's folder, read: its model, and how a table like the run's becomes rows and answers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lepton_flwr.config import RunConfig
from lepton_flwr.config_tables import read_toml
from lepton_flwr.data import csv_rows
from lepton_flwr.data.preprocessing import PREPROCESSOR_FILE, Preprocessor
from lepton_flwr.data.preprocessing.columns import position_names
from lepton_flwr.data.scenario import Tabular
from lepton_flwr.data.scenarios import csv, get
from lepton_flwr.data.scenarios.csv import class_text
from lepton_flwr.data.table_spec import TableSpec
from lepton_flwr.errors import ConfigError, DataError
from lepton_flwr.runs.artifacts import GetKey, find_model, read_model, read_preprocessor
from lepton_flwr.training.predictions import predict_logits, probabilities

CONFIG = "config.toml"


@dataclass(frozen=True)
class SavedRun:
    """What it takes to predict.

    Attributes:
        config: the run's.
        model: the Keras model.
        table: how tables become rows and answers.
        preprocessor: of a run that left one, else None.
    """

    config: RunConfig
    model: Any
    table: Tabular
    preprocessor: Preprocessor | None = None

    @classmethod
    def open(cls, path: Path, key: GetKey | None = None) -> "SavedRun":
        """Read a run.

        Args:
            path: its folder, or the model in it.
            key: called for the key if the model is encrypted.

        Raises:
            ConfigError: no run's folder, no key, or a scenario whose rows are no table's.
            DataError: a file is damaged or does not fit the others.
            EnvelopeError: the key is another's, or the envelope was altered.
        """
        file = find_model(path)
        if not file.with_name(CONFIG).exists():
            raise ConfigError(f"{file}: expected the run's {CONFIG} beside it")
        config = RunConfig.build(read_toml(file.with_name(CONFIG)))
        preprocessor = preprocessor_of(config, file.parent, key)
        table = table_of(config, preprocessor)
        model = read_model(file, key)
        outputs = 1 if len(table.classes) == 2 else len(table.classes)
        if getattr(model, "output_shape", (None, 0))[-1] != outputs:
            raise DataError(
                f"{file}: a model of other outputs than the {outputs} that {len(table.classes)} "
                f"classes need: is {CONFIG} of another run?"
            )
        return cls(config, model, table, preprocessor)

    def read(self, path: Path) -> Any:
        """Read a CSV file as the run's own tables were read.

        Raises:
            DataError: it is no such file.
        """
        return read_rows(path, self.config, self.table, self.preprocessor)

    def probabilities(self, table: Any, unseen: str = "error") -> np.ndarray:
        """Probability of each class, float64 (n, classes), for a table's n rows.

        Args:
            table: a pandas DataFrame with the columns that the run was trained on, and any others.
            unseen: "error", or "other" to take unknown categories as training took rare ones.

        Raises:
            DataError: a column is missing or cannot be used.
        """
        return probabilities(predict_logits(self.model, self.table.transform(table, unseen)))


def read_rows(
    path: Path, config: RunConfig, table: Tabular, preprocessor: Preprocessor | None
) -> Any:
    """Read a CSV file as the tables of a run were read; see `SavedRun.read`."""
    spec = config.table
    if spec is None or preprocessor is None:
        order = () if preprocessor is None else preprocessor.order
        if order and order == position_names(len(order)):
            return _read_by_position(path, order, table.label)
        return csv.read(path, {table.label})
    # As devices read theirs: value by value, so that "007" is no number among categories.
    rows, answers = csv_rows.read_file(path, preprocessor.schema, spec.label)
    return {**rows, **({spec.label: np.array(answers, dtype=object)} if answers else {})}


def _read_by_position(path: Path, order: tuple[str, ...], label: str) -> Any:
    """A run on an array has no names for its columns: first they, then perhaps the label."""
    names = csv.header(path)
    if len(names) not in (len(order), len(order) + 1):
        raise DataError(
            f"{path}: {len(names)} columns: expected the {len(order)} of the array that the run "
            "was given, in their order, and perhaps the label after them"
        )
    rows = csv.read(path, names[len(order) :])
    rows.columns = [*order, label][: len(names)]
    return rows


def preprocessor_of(
    config: RunConfig, folder: Path, key: GetKey | None = None
) -> Preprocessor | None:
    """What a run left in its folder, where its scenario needs one; errors of `SavedRun.open`."""
    return read_preprocessor(folder, key) if get(config.scenario).table is None else None


def table_of(config: RunConfig, preprocessor: Preprocessor | None) -> Tabular:
    """How tables like that of a run become rows and answers; errors as of `SavedRun.open`."""
    known = get(config.scenario).table
    if known is not None:
        return known
    if preprocessor is None or not config.model.classes:
        raise ConfigError(
            f"a run of scenario {config.scenario} that left no {PREPROCESSOR_FILE}: expected one "
            "of a table"
        )
    spec = TableSpec.of(config.table) if config.table is not None else None
    label, classes = config.model.label, config.model.classes
    numbers = {name: number for number, name in enumerate(classes)}

    def answers(values: Any) -> np.ndarray:
        found = [numbers.get(class_text(value), -1) for value in values.tolist()]
        if wrong := found.count(-1):
            raise DataError(
                f"label column {label!r}: {wrong} of {len(found)} values are none of the "
                f"{len(classes)} classes: remove those rows, or the column"
            )
        return np.array(found, dtype=np.int32)

    return Tabular(
        tuple(column.name for column in preprocessor.columns),
        lambda rows, unseen: preprocessor.transform(rows, unseen=unseen),
        label,
        classes,
        spec.answers if spec is not None else answers,
    )
