"""What a table's columns are, and reading any table as such columns.

The columns' names and kinds are public: all participants know them before any statistic is asked.
No pandas is needed: a DataFrame is read by its columns, like any mapping of names to values.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.errors import ConfigError, DataError

NUMBER, CATEGORY = "number", "category"
LARGEST_NUMBER = 2.0**64
MAX_TEXT = 256  # bytes of a category's text
MISSING_WORDS = frozenset(("", "NA", "N/A", "nan", "NaN", "null", "NULL", "None", "<NA>", "NaT"))

Table = Mapping[str, np.ndarray]  # float64 with NaN for missing, or objects: text or None


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: as in the table.
        kind: "number" or "category".
        low: public lower bound of a number, with `high`; else it is learnt, privately if asked.
        high: public upper bound.
        values: public list of a category's texts; empty lets it be learnt.
    """

    name: str
    kind: str
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"column name {self.name!r}: expected text")
        check.choice(f"kind of column {self.name}", self.kind, (NUMBER, CATEGORY))
        if (self.low is None) != (self.high is None) or (
            self.kind == CATEGORY and self.low is not None
        ):
            raise ConfigError(f"column {self.name}: expected both bounds, of a number, or none")
        if self.low is not None and self.high is not None:
            low = check.finite(f"low of column {self.name}", self.low)
            high = check.finite(f"high of column {self.name}", self.high)
            if not low < high or max(-low, high) >= LARGEST_NUMBER:
                raise ConfigError(
                    f"column {self.name}: [{low:g}, {high:g}]: expected low < high below 2^64"
                )
        if self.values and (
            self.kind == NUMBER
            or len(set(self.values)) != len(self.values)
            or not all(isinstance(value, str) and value for value in self.values)
        ):
            raise ConfigError(f"column {self.name}: values: expected different texts of a category")

    @property
    def bounded(self) -> bool:
        """Whether its bounds are public."""
        return self.low is not None


@dataclass(frozen=True)
class TableSchema:
    """The feature columns of a table, in order.

    Raises:
        ConfigError: no column, or a name twice.
    """

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if not names or len(set(names)) != len(names):
            raise ConfigError("a table's schema needs at least one column, and each name once")

    @classmethod
    def infer(cls, source: Any, bounds: Mapping[str, Sequence[float]] | None = None) -> Self:
        """Take names and kinds from a table: for one owner of all rows, who may look at them.

        A column is of numbers if every value that is not missing is one (truth values are
        numbers); else it is a category. With several participants the schema must be stated.

        Args:
            source: as in `read`; columns of an array are named "column 0", "column 1", ...
            bounds: column name to public [low, high].

        Raises:
            DataError: it is no table.
        """
        bounds = bounds or {}
        columns = []
        for name, values in _columns(source, None).items():
            if _is_numeric(values):
                low, high = bounds.get(name, (None, None))
                columns.append(Column(name, NUMBER, low, high))
            else:
                columns.append(Column(name, CATEGORY))
        if unknown := set(bounds) - {c.name for c in columns if c.kind == NUMBER}:
            raise ConfigError(f"bounds of {sorted(unknown)[0]!r}: no such column of numbers")
        return cls(tuple(columns))

    def of_kind(self, kind: str) -> tuple[Column, ...]:
        """The columns of a kind, in order."""
        return tuple(column for column in self.columns if column.kind == kind)

    def read(self, source: Any) -> Table:
        """Read the schema's columns of a table; other columns are not looked at.

        Args:
            source: a pandas DataFrame, a mapping of names to n values, or an array of shape
                (n, columns) in the schema's order.

        Returns:
            Names to arrays (n,): float64 with NaN for missing numbers, or objects that are text
            or None. Texts are stripped; 3 and 3.0 are the same category.

        Raises:
            DataError: a column is missing or ragged, text in a column of numbers, an infinite
                number or one beyond 2^64, a text longer than 256 bytes.
        """
        raw = _columns(source, tuple(column.name for column in self.columns))
        table = {}
        for column in self.columns:
            values = raw[column.name]
            table[column.name] = (
                _numbers(column.name, values)
                if column.kind == NUMBER
                else _categories(column.name, values)
            )
        lengths = {len(values) for values in table.values()}
        if len(lengths) != 1:
            raise DataError("columns of different lengths: expected one value for each row")
        return table


def position_names(count: int) -> tuple[str, ...]:
    """What the columns of an array are called, which have no names."""
    return tuple(f"column {i}" for i in range(count))


def num_rows(table: Table) -> int:
    """Rows of a table that was read."""
    return len(next(iter(table.values())))


def take(table: Table, rows: np.ndarray) -> Table:
    """Some rows of a table."""
    return {name: values[rows] for name, values in table.items()}


def distinct_rows(table: Table, *others: np.ndarray) -> np.ndarray:
    """Numbers of the first of every group of equal rows, ascending, int64.

    Args:
        table: the features; missing values are equal to each other.
        *others: more columns that must be equal, as the label.

    **Guarantee**: adding a record to the table adds at most one to the rows that are kept, so
    record-level neighbours stay neighbours; `partition.hold_out` keeps them so.
    """
    codes = [_codes(values) for values in (*table.values(), *others)]
    _, first = np.unique(np.stack(codes, axis=1), axis=0, return_index=True)
    return np.sort(first).astype(np.int64)


def _codes(values: np.ndarray) -> np.ndarray:
    """A number for each value, equal ones alike."""
    if values.dtype != object:
        return np.unique(values, return_inverse=True)[1]
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values.tolist()])


def _columns(source: Any, names: tuple[str, ...] | None) -> dict[str, np.ndarray]:
    """Raw columns by name; `names` are those wanted, None takes all."""
    if hasattr(source, "columns") or isinstance(source, Mapping):
        known = [*(source.columns if hasattr(source, "columns") else source)]
        texts = [str(name) for name in known]
        if len(set(texts)) != len(texts):
            raise DataError("two columns have the same name: expected different names")
        keys = dict(zip(texts, known, strict=True))
        wanted = texts if names is None else names
        if absent := [name for name in wanted if name not in keys]:
            near = difflib.get_close_matches(absent[0], texts, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
            raise DataError(f"missing column {absent[0]!r}{more}: expected it in the table{hint}")
        return {name: _array(source[keys[name]]) for name in wanted}
    # Not text throughout because of one text.
    array = source if isinstance(source, np.ndarray) else np.array(source, dtype=object)
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"an array of shape {array.shape}: expected (rows, columns)")
    if names is None:
        names = position_names(array.shape[1])
    if array.shape[1] != len(names):
        raise DataError(f"{array.shape[1]} columns: expected {len(names)}, those of the schema")
    return {name: array[:, i] for i, name in enumerate(names)}


def _array(values: Any) -> np.ndarray:
    if not isinstance(values, list | tuple):
        return np.asarray(values)
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        array[i] = value
    return array


def _missing(value: Any) -> bool:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    if isinstance(value, str):
        return value.strip() in MISSING_WORDS
    return str(value) in ("<NA>", "NaT", "nan")


def _is_numeric(values: np.ndarray) -> bool:
    if values.dtype.kind in "iufb":
        return True
    if values.dtype != object:
        return False
    present = [value for value in values.tolist() if not _missing(value)]
    return bool(present) and all(_is_number(value) for value in present)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number | np.bool_)


def _numbers(name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind in "iufb":
        numbers = values.astype(np.float64)
    else:
        items = values.tolist()
        absent = [_missing(value) for value in items]
        wrong = sum(
            not gone and not _is_number(value) for value, gone in zip(items, absent, strict=True)
        )
        if wrong:
            raise DataError(
                f"column {name!r}: {wrong} of {len(items)} values are not numbers: expected "
                "numbers, or missing values"
            )
        numbers = np.array(
            [math.nan if gone else float(v) for v, gone in zip(items, absent, strict=True)],
            dtype=np.float64,
        )
    if numbers.ndim != 1:
        raise DataError(f"column {name!r} of shape {numbers.shape}: expected one value for a row")
    if (np.abs(numbers) >= LARGEST_NUMBER).any():
        raise DataError(f"column {name!r} has infinite values, or beyond 2^64: expected smaller")
    return numbers


def _categories(name: str, values: np.ndarray) -> np.ndarray:
    if values.ndim != 1:
        raise DataError(f"column {name!r} of shape {values.shape}: expected one value for a row")
    known: dict[Any, str | None] = {}
    out = np.empty(len(values), dtype=object)
    for row, value in enumerate(values.tolist()):
        try:
            text = known[value]
        except KeyError:
            text = known[value] = _text(name, value)
        except TypeError:
            raise DataError(f"column {name!r}: expected text or numbers in every row") from None
        out[row] = text
    return out


def _text(name: str, value: Any) -> str | None:
    if _missing(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(int(value)) if isinstance(value, bool) else str(value).strip()
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise DataError(f"column {name!r}: text that UTF-8 cannot encode") from None
    if size > MAX_TEXT or "\0" in text:
        raise DataError(
            f"column {name!r}: a text of {size} bytes: expected at most {MAX_TEXT}, none of them "
            "zero; leave out columns of free text"
        )
    return text
