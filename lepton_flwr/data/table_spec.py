"""What a raw table holds, as a device's `schema.toml` and a run's settings say it."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.config import TableConfig
from lepton_flwr.data.preprocessing.columns import Column, TableSchema
from lepton_flwr.data.wire import SCHEMA_FILE
from lepton_flwr.errors import ConfigError, DataError
from lepton_flwr.failures import Failure

if TYPE_CHECKING:
    from lepton_flwr.data.preprocessing import Preprocessor

MAX_CLASSES = 100
MOST_TABLE_FEATURES = 2**14  # that a device makes of its table
_COLUMN_KEYS = {"name", "kind", "low", "high", "values"}
_KEYS = {"label", "classes", "columns", "test_fraction", "drop_duplicates"}


class SchemaMismatchError(DataError):
    """A run is for tables of other columns or classes than this device has."""

    failure = Failure.DATA


@dataclass(frozen=True)
class TableSpec:
    """Names and kinds of a table's columns, and the classes of its label: all public.

    Attributes:
        label: the column that holds the classes.
        classes: their texts; class i is the i-th, numbers in their order, else texts in theirs.
        schema: the feature columns.
        test_fraction: chance of a row to be held out by the device, drawn by the row alone. The
            device's own, as the next: a server has no say in it.
        drop_duplicates: whether equal rows are one record.

    Raises:
        ConfigError: a value is out of its range.
    """

    label: str
    classes: tuple[str, ...]
    schema: TableSchema
    test_fraction: float = field(default=0.2, compare=False)
    drop_duplicates: bool = field(default=True, compare=False)

    def __post_init__(self) -> None:
        _ = self.config  # checks itself
        if len(self.classes) > MAX_CLASSES:
            raise ConfigError(f"{len(self.classes)} classes: expected at most {MAX_CLASSES}")
        check.finite("test_fraction", self.test_fraction, above=0, below=1)
        if not isinstance(self.drop_duplicates, bool):
            raise ConfigError(f"drop_duplicates={self.drop_duplicates!r}: expected true or false")
        object.__setattr__(self, "classes", tuple(sorted(self.classes, key=_order)))

    @classmethod
    def of(cls, config: TableConfig, **own: Any) -> Self:
        """From settings; `own` are the attributes that only a device has."""
        columns = tuple(_column(column["name"], column) for column in config.columns)
        return cls(config.label, config.classes, TableSchema(columns), **own)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """From tables as TOML or JSON hold them.

        Raises:
            ConfigError: a key is unknown or missing, or a value out of its range.
        """
        if unknown := sorted(set(plain) - _KEYS):
            raise ConfigError(f"{unknown[0]}: unknown; expected {', '.join(sorted(_KEYS))}")
        label, classes, columns = (plain.get(key) for key in ("label", "classes", "columns"))
        if not isinstance(label, str) or not isinstance(classes, list | tuple):
            raise ConfigError('expected label = "COLUMN" and classes = ["A", "B"]')
        if not isinstance(columns, Mapping):
            raise ConfigError("expected a table [columns] of names and kinds")
        own = {key: plain[key] for key in ("test_fraction", "drop_duplicates") if key in plain}
        tables = tuple(
            {"name": name, **(kind if isinstance(kind, Mapping) else {"kind": kind})}
            for name, kind in columns.items()
        )
        return cls.of(TableConfig(label, tuple(classes), tables), **own)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a `schema.toml`; errors name the file alone, for a device tells a server of them.

        Raises:
            ConfigError: it cannot be read, is not TOML, or not such a file.
        """
        try:
            return cls.from_plain(tomllib.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(f"{path.name}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path.name}: not TOML: {error}") from None
        except ConfigError as error:
            raise ConfigError(f"{path.name}: {error}") from None

    @property
    def config(self) -> TableConfig:
        """As settings of a run; what only devices have is not in it."""
        return TableConfig(self.label, self.classes, tuple(map(_plain, self.schema.columns)))

    def to_plain(self) -> dict[str, Any]:
        """What `from_plain` reads, without what only devices have."""
        columns = {column.pop("name"): column for column in map(_plain, self.schema.columns)}
        return {"label": self.label, "classes": [*self.classes], "columns": columns}

    def check_run(self, asked: "TableSpec") -> None:
        """Refuse a run whose columns or classes are not those of this table.

        Raises:
            SchemaMismatchError: the label, a class or a column differs.
        """
        if (asked.label, asked.classes) != (self.label, self.classes):
            raise SchemaMismatchError(
                f"the run's label and {len(asked.classes)} classes are not those of {SCHEMA_FILE}: "
                "expected the same texts"
            )
        own = {column.name: column for column in self.schema.columns}
        for column in asked.schema.columns:
            if own.get(column.name) != column:
                raise SchemaMismatchError(
                    f"column {column.name!r} of the run is not the one of {SCHEMA_FILE}: expected "
                    "the same name, kind, bounds and values"
                )

    def check_preprocessor(self, preprocessor: "Preprocessor") -> None:
        """Refuse statistics of other columns than this table's, or too many features.

        **Guarantee**: it depends on no row, so a server learns nothing of them from a refusal.

        Raises:
            SchemaMismatchError: a column is not this table's, or of another kind; or more than
                `MOST_TABLE_FEATURES` features.
        """
        kinds = {column.name: column.kind for column in self.schema.columns}
        for column in preprocessor.schema.columns:
            if kinds.get(column.name) != column.kind:
                raise SchemaMismatchError(
                    f"column {column.name!r} of the statistics is not one of {SCHEMA_FILE}: "
                    "expected the same name and kind"
                )
        features = sum(column.num_features for column in preprocessor.columns)
        if features > MOST_TABLE_FEATURES:
            raise SchemaMismatchError(
                f"{features:,} features: expected at most {MOST_TABLE_FEATURES:,}"
            )

    def answers(self, values: Any) -> np.ndarray:
        """Classes of a label column's values: int32 of their shape (n,).

        Args:
            values: n texts, numbers or truth values; 1 and 1.0 are alike.

        Raises:
            DataError: a value is none of the classes.
        """
        numbers = {text: number for number, text in enumerate(self.classes)}
        found = [_class(numbers, value) for value in values]
        if wrong := found.count(-1):
            raise DataError(
                f"label column {self.label!r}: {wrong} of {len(found)} values are none of the "
                f"{len(self.classes)} classes: remove those rows"
            )
        return np.array(found, dtype=np.int32)


def _class(numbers: Mapping[str, int], value: Any) -> int:
    text = str(value).strip()
    if text not in numbers and _is_number(text) and float(text).is_integer():
        text = str(int(float(text)))
    return numbers.get(text, -1)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False


def _order(text: str) -> tuple[bool, float, str]:
    """Numbers first and as such, so that labels that are numbers are classes in their order."""
    return (not _is_number(text), float(text) if _is_number(text) else 0.0, text)


def _column(name: Any, table: Mapping[str, Any]) -> Column:
    if not set(table) <= _COLUMN_KEYS or "kind" not in table:
        raise ConfigError(
            f'columns.{name}: expected "number", "category", or a table of '
            f"{', '.join(sorted(_COLUMN_KEYS - {'name'}))}"
        )
    values = table.get("values", [])
    if not isinstance(values, list | tuple):
        raise ConfigError(f"columns.{name}.values: expected a list of texts")
    return Column(name, table["kind"], table.get("low"), table.get("high"), tuple(values))


def _plain(column: Column) -> dict[str, Any]:
    plain: dict[str, Any] = {"name": column.name, "kind": column.kind}
    if column.low is not None and column.high is not None:
        plain |= {"low": float(column.low), "high": float(column.high)}
    return plain | ({"values": [*column.values]} if column.values else {})
