"""A CSV file read by a schema, without pandas, which devices do not have.

Every value is read by itself: what one row says of a column changes no other row's value, so that
the same text means the same at every device.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lepton_flwr.data.preprocessing.columns import (
    MISSING_WORDS,
    NUMBER,
    Column,
    Table,
    TableSchema,
)
from lepton_flwr.errors import DataError

_TRUTH = {"True": 1.0, "true": 1.0, "TRUE": 1.0, "False": 0.0, "false": 0.0, "FALSE": 0.0}


def read(content: bytes, schema: TableSchema, label: str, name: str) -> tuple[Table, list[str]]:
    """Read the schema's columns and the label of a CSV file with a header.

    Args:
        content: of the file, UTF-8, with or without a byte order mark.
        schema: which columns; others are not looked at.
        label: the label column; where there is none, its values are none.
        name: of the file, for errors.

    Returns:
        The table, as `TableSchema.read` returns it, and the label's n texts, or none.

    Raises:
        DataError: no CSV in UTF-8, no rows, rows of different lengths, unnamed or equal columns, a
            column is missing, text among numbers.
    """
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        names = column_names(reader, name)
        rows = [row for row in reader if row]
    except (UnicodeDecodeError, csv.Error):
        raise DataError(f"{name}: no CSV file in UTF-8") from None
    if not rows:
        raise DataError(f"{name}: a header and no rows")
    if wrong := sum(len(row) != len(names) for row in rows):
        raise DataError(
            f"{name}: {wrong} of {len(rows)} rows do not have the {len(names)} values that the "
            "header names"
        )
    places = {column: place for place, column in enumerate(names)}
    raw = {
        column.name: _values(column, [row[places[column.name]] for row in rows])
        for column in schema.columns
        if column.name in places
    }
    texts = [row[places[label]].strip() for row in rows] if label in places else []
    return schema.read(raw), texts


def read_file(path: Path, schema: TableSchema, label: str) -> tuple[Table, list[str]]:
    """As `read`, of a file.

    Raises:
        DataError: as in `read`, or the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    return read(content, schema, label, str(path))


def column_names(reader: Iterator[list[str]], name: str) -> list[str]:
    """The names in the first line of a CSV file.

    Raises:
        DataError: there is none, or unnamed or equal columns.
    """
    names = [column.strip() for column in next(reader, [])]
    for column in names:
        if names.count(column) > 1:
            raise DataError(f"{name}: column {column!r} appears more than once; rename one")
    if not names or not all(names):
        raise DataError(f"{name}: expected a first line that names every column")
    return names


def _values(column: Column, texts: Sequence[str]) -> np.ndarray:
    if column.kind != NUMBER:
        values = np.empty(len(texts), dtype=object)
        values[:] = texts
        return values
    numbers = np.empty(len(texts))
    wrong = 0
    for row, text in enumerate(texts):
        number = _number(text.strip())
        wrong += number is None
        numbers[row] = np.nan if number is None else number
    if wrong:
        raise DataError(
            f"column {column.name!r}: {wrong} of {len(texts)} values are not numbers: expected "
            "numbers, or missing values"
        )
    return numbers


def _number(text: str) -> float | None:
    if text in MISSING_WORDS:
        return np.nan
    if text in _TRUTH:
        return _TRUTH[text]
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None
