"""A CSV file's rows as the inputs of models that were trained elsewhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lepton_flwr.data.scenario import Tabular
from lepton_flwr.data.scenarios import csv
from lepton_flwr.errors import ConfigError, DataError

MOST = 100_000


@dataclass(frozen=True)
class Queries:
    """Rows to be answered.

    Attributes:
        rows: float32 (n, ...), finite, n >= 1.
        classes: names of the answers, in the order of their numbers.
        answers: class numbers, int32 (n,), where the file has the label column; else None.
    """

    rows: np.ndarray
    classes: tuple[str, ...]
    answers: np.ndarray | None = None


def read_table(path: Path, found: Any, table: Tabular, unseen: str = "error") -> Queries:
    """Rows with the columns that a scenario or a run knows by name.

    Args:
        path: the CSV file.
        found: its columns by name, as `saved.read_rows` reads them.
        table: how its rows become features.
        unseen: what is done with unknown categories, "error" or "other".

    Raises:
        DataError: the file or a column cannot be used.
    """
    rows = _checked(path, table.transform(found, unseen))
    answers = table.answers(found[table.label]) if table.label in found else None
    return Queries(rows, table.classes, answers)


def read_features(path: Path, shape: Sequence[int], classes: Sequence[str], count: int) -> Queries:
    """Rows that are features already: every column a number, in the order of the model's inputs.

    Args:
        path: the CSV file, with a header of any names.
        shape: of one row.
        classes: names of the classes; none numbers them.
        count: number of classes.

    Raises:
        ConfigError: the shape is not known.
        DataError: the file, a column or their number cannot be used.
    """
    if not shape:
        raise ConfigError(
            "nothing says how rows become inputs: name a scenario of tables, --run, or under "
            "[model] of --config input_shape and num_classes"
        )
    found = csv.read(path, ())
    if found.shape[1] != math.prod(shape):
        raise DataError(
            f"{path}: {found.shape[1]} columns: expected the {math.prod(shape)} features of a row, "
            "and no label"
        )
    for name in found:
        if found[name].dtype.kind not in "iufb":
            raise DataError(f"{path}: column {name!r}: text: expected features, as numbers")
    rows = _checked(path, found.to_numpy(np.float32).reshape(-1, *shape))
    return Queries(rows, tuple(classes) or tuple(str(number) for number in range(count)))


def _checked(path: Path, rows: Any) -> np.ndarray:
    made: np.ndarray = np.asarray(rows, dtype=np.float32)
    if len(made) > MOST:
        raise DataError(f"{path}: {len(made):,} rows: expected at most {MOST:,} of one poll")
    if not np.isfinite(made).all():
        wrong = int((~np.isfinite(made.reshape(len(made), -1)).all(axis=1)).sum())
        raise DataError(
            f"{path}: {wrong} rows with a missing or infinite value: expected finite numbers"
        )
    return made
