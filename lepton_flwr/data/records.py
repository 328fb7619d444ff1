"""Names of records by their content: one for each, and one for all of them together."""

from collections.abc import Iterable, Mapping

import numpy as np

from lepton_flwr.crypto.digest import digest, field

_ROW, _RECORD, _POPULATION = (
    "lepton/data/row/v1",
    "lepton/data/record/v1",
    "lepton/data/population/v1",
)


def of_features(x: np.ndarray, y: np.ndarray) -> list[bytes]:
    """SHA-256 of each row's features and class.

    Args:
        x: features, float32, shape (n, ...); images by all their values.
        y: classes, int32, shape (n,).

    Returns:
        n digests of 32 bytes; equal rows have the same.
    """
    return [
        digest(_ROW, field(label), row.tobytes())
        for row, label in zip(_canonical(x, "<f4"), y.tolist(), strict=True)
    ]


def of_table(table: Mapping[str, np.ndarray], y: np.ndarray) -> list[bytes]:
    """SHA-256 of each record's values and class, as `of_features`; columns' names are not in it.

    Args:
        table: as `TableSchema.read` gives it; missing values are equal to each other.
        y: classes, int32, shape (n,).
    """
    numbers = [values for values in table.values() if values.dtype != object]
    texts = [values.tolist() for values in table.values() if values.dtype == object]
    rows = _canonical(np.stack(numbers, axis=1), "<f8") if numbers else np.zeros((len(y), 0))
    answers = zip(*texts, strict=True) if texts else ((),) * len(y)
    return [
        digest(_RECORD, field(label), row.tobytes(), *map(_text, answer))
        for row, label, answer in zip(rows, y.tolist(), answers, strict=True)
    ]


def population(records: Iterable[bytes]) -> bytes:
    """Names records together, 32 bytes, whoever holds them, in whatever order and how often."""
    return digest(_POPULATION, *sorted(set(records)))


def _canonical(values: np.ndarray, dtype: str) -> np.ndarray:
    """Rows of values in which equal ones have equal bytes: one zero and one NaN."""
    rows = np.array(values, dtype=dtype).reshape(len(values), -1)
    rows += 0.0  # -0 becomes 0
    rows[np.isnan(rows)] = np.nan
    return rows


def _text(value: str | None) -> bytes:
    return b"" if value is None else b"=" + value.encode()
