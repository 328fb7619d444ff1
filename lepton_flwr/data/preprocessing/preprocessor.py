"""A fitted pipeline: plain numbers that turn rows of a table into features.

It travels with a model as JSON. Nothing in it is code, and reading it runs none.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr._files import write_atomic
from lepton_flwr.data.preprocessing.columns import (
    CATEGORY,
    NUMBER,
    Column,
    TableSchema,
    num_rows,
)
from lepton_flwr.data.preprocessing.questions import HASH_BITS, SALT_BYTES, hash_text
from lepton_flwr.errors import ConfigError, DataError

FORMAT, VERSION = "lepton-preprocessor", 1
PREPROCESSOR_FILE = "preprocessor.json"
UNSEEN = ("other", "error")
MAX_JSON = 2**26
MOST_OTHERS = 4096
MOST_FEATURES = 2**17
SLOT_BITS = 16  # most leading bits of a hash that name a slot
LARGEST_FEATURE = 1e30  # finite in float32, and so are sums of its squares in float64


@dataclass(frozen=True)
class FittedNumber:
    """A column of numbers: cut to bounds, filled, centred and scaled.

    Attributes:
        name: the column's.
        mean: of the participants' values, cut to the bounds.
        scale: their standard deviation, or what stands for one of 0.
        fill: what stands for a missing value.
        low: values below are cut to it; None cuts nothing.
        high: values above are cut to it.
        indicator: whether a feature says that the value was missing.
    """

    name: str
    mean: float
    scale: float
    fill: float
    low: float | None = None
    high: float | None = None
    indicator: bool = False

    def __post_init__(self) -> None:
        for key in ("mean", "fill"):
            check.finite(f"{key} of column {self.name}", getattr(self, key))
        check.finite(f"scale of column {self.name}", self.scale, above=0)
        for key in ("low", "high"):
            if getattr(self, key) is not None:
                check.finite(f"{key} of column {self.name}", getattr(self, key))
        if not isinstance(self.indicator, bool):
            raise ConfigError(f"column {self.name}: indicator: expected true or false")

    @property
    def num_features(self) -> int:
        """How many features it has."""
        return 1 + self.indicator

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The value and, if there is one, its missing-value indicator."""
        return (self.name, f"{self.name} missing") if self.indicator else (self.name,)

    def write(self, values: np.ndarray, out: np.ndarray) -> None:
        """Write the features of `values` (n,) into `out` (n, features), each of them finite.

        Whatever the mean and the scale are: a refusal that depended on the values would tell of
        them to whoever has chosen those.
        """
        missing = np.isnan(values)
        if self.low is not None or self.high is not None:
            values = np.clip(values, self.low, self.high)
        with np.errstate(over="ignore"):
            scaled = (np.where(missing, self.fill, values) - self.mean) / self.scale
        out[:, 0] = np.clip(scaled, -LARGEST_FEATURE, LARGEST_FEATURE)
        if self.indicator:
            out[:, 1] = missing


@dataclass(frozen=True)
class FittedCategory:
    """A category, one-hot.

    Attributes:
        name: the column's.
        values: the texts that have a feature; empty if hashes have.
        slots: the hashes that have a feature, of `bits` bits under the salt.
        bits: leading bits of a hash that make a slot; 0 if texts have features.
        missing: whether missing values have a feature.
        others: features that all other texts share, by another part of their hash; without one
            they are zero in every feature.
        fill: position of the text or slot that stands for a missing value; None for none.
    """

    name: str
    values: tuple[str, ...] = ()
    slots: tuple[int, ...] = ()
    bits: int = 0
    missing: bool = False
    others: int = 0
    fill: int | None = None

    def __post_init__(self) -> None:
        if self.values and self.slots:
            raise ConfigError(f"column {self.name}: expected texts or hashes, not both")
        known = self.values or self.slots
        if len(set(known)) != len(known):
            raise ConfigError(f"column {self.name}: expected each category once")
        check.integer(f"bits of column {self.name}", self.bits, at_least=0, at_most=SLOT_BITS)
        check.integer(f"others of column {self.name}", self.others, at_least=0, at_most=MOST_OTHERS)
        if not isinstance(self.missing, bool):
            raise ConfigError(f"column {self.name}: missing: expected true or false")
        if self.fill is not None:
            check.integer(
                f"fill of column {self.name}", self.fill, at_least=0, at_most=len(known) - 1
            )

    @property
    def num_features(self) -> int:
        """How many features it has."""
        return len(self.values) + len(self.slots) + self.missing + self.others

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One for each text or slot, then missing values', and those of all others."""
        names = [f"{self.name}={value}" for value in self.values]
        names += [f"{self.name}#{slot}" for slot in self.slots]
        names += [f"{self.name} missing"] if self.missing else []
        if self.others == 1:
            return (*names, f"{self.name} other")
        return (*names, *(f"{self.name} other {i}" for i in range(self.others)))

    def write(self, values: np.ndarray, out: np.ndarray, salt: bytes) -> int:
        """Write the features of `values` (n,) into `out` (n, features).

        Returns:
            How many texts are none of those that have a feature of their own.
        """
        known = {key: i for i, key in enumerate(self.values or self.slots)}
        first = len(known) + self.missing  # of the features that others share
        missing = len(known) if self.missing else first if self.others else -1
        if self.fill is not None:
            missing = self.fill
        codes: dict[str | None, int] = {None: missing}
        index = np.empty(len(values), dtype=np.intp)
        unseen: set[str] = set()
        for row, value in enumerate(values.tolist()):
            if value not in codes:
                hashed = hash_text(value, salt) if self.bits or self.others > 1 else 0
                key = hashed >> (HASH_BITS - self.bits) if self.bits else value
                codes[value] = known.get(key, -1)
                if key not in known:
                    unseen.add(value)
                    if self.others:
                        # Of bits that name no slot, so that texts of one slot do not stay together.
                        codes[value] = first + hashed % (1 << (HASH_BITS - SLOT_BITS)) % self.others
            index[row] = codes[value]
        out[:] = 0
        given = np.flatnonzero(index >= 0)
        out[given, index[given]] = 1
        return sum(value in unseen for value in values.tolist()) if unseen else 0


@dataclass(frozen=True)
class Preprocessor:
    """Turns tables into features; `fit` makes one.

    **Guarantee**: a row's features depend on that row and on this object alone. If `private`, all
    that this object knows of the records came out of Gaussian mechanisms of `noise_multiplier`, one
    for each of `releases`, each for adding or removing one record; the columns' names and kinds
    are public.

    Attributes:
        columns: in the order of the features.
        salt: of the hashes.
        noise_multiplier: of each release; 0 if the statistics are exact.
        releases: how many there were.
        dropped: columns that are not used, for too few records were found in them.
        order: all columns that there were, in the order that an array has them; empty takes those
            of `columns`.
    """

    columns: tuple[FittedNumber | FittedCategory, ...]
    salt: bytes
    noise_multiplier: float = 0.0
    releases: int = 0
    dropped: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    _schema: TableSchema = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.salt) != SALT_BYTES:
            raise ConfigError(f"salt of {len(self.salt)} bytes: expected {SALT_BYTES}")
        check.finite("noise_multiplier", self.noise_multiplier, at_least=0)
        check.integer("releases", self.releases, at_least=0)
        kinds = tuple(
            Column(c.name, NUMBER if isinstance(c, FittedNumber) else CATEGORY)
            for c in self.columns
        )
        object.__setattr__(self, "_schema", TableSchema(kinds))
        self._check_size()
        if not self.order:
            object.__setattr__(self, "order", tuple(column.name for column in self.columns))
        if len(set(self.feature_names)) != len(self.feature_names) or not self.feature_names:
            raise ConfigError("expected at least one feature, and each name once")

    def _check_size(self) -> None:
        """Count features and letters of their names before any is made."""
        features = sum(column.num_features for column in self.columns)
        letters = sum(column.num_features * len(column.name) for column in self.columns)
        if features > MOST_FEATURES or letters > MAX_JSON:
            raise ConfigError(
                f"{features:,} features with names of {letters:,} letters: expected at most "
                f"{MOST_FEATURES:,} and {MAX_JSON:,}; keep fewer categories, or shorten the names"
            )

    @property
    def private(self) -> bool:
        """Whether its statistics were noised."""
        return self.noise_multiplier > 0

    @property
    def schema(self) -> TableSchema:
        """Names and kinds of the columns that it reads."""
        return self._schema

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return tuple(name for column in self.columns for name in column.feature_names)

    def transform(
        self, source: Any, *, unseen: str = "other", dtype: type[np.floating] = np.float32
    ) -> np.ndarray:
        """Turn rows into features.

        Args:
            source: as in `TableSchema.read`: a DataFrame or mapping with the columns' names, in
                any order and beside others, or an array of shape (n, columns). An array has all
                columns that there were when it was fitted, those that were dropped too.
            unseen: what a text without a feature of its own is: "other", one of the features that
                all such texts share (where there is none, zero in every feature of the column), or
                "error".
            dtype: of the features, float32 or wider.

        Returns:
            Shape (n, features), every value finite.

        Raises:
            DataError: a column is missing or holds another kind of values; with "error", a text
                has no feature.
        """
        check.choice("unseen", unseen, UNSEEN)
        table = self._schema.read(self._named(source))
        out = np.empty((num_rows(table), len(self.feature_names)), dtype)
        start = 0
        for column in self.columns:
            stop = start + column.num_features
            if isinstance(column, FittedNumber):
                column.write(table[column.name], out[:, start:stop])
            else:
                strange = column.write(table[column.name], out[:, start:stop], self.salt)
                if strange and unseen == "error":
                    raise DataError(
                        f"column {column.name!r}: {strange} values are none of the categories that "
                        'were seen often enough: remove those rows, or pass unseen="other" '
                        "(--unseen other)"
                    )
            start = stop
        return out

    def _named(self, source: Any) -> Any:
        if hasattr(source, "columns") or isinstance(source, Mapping):
            return source
        array = np.asarray(source)
        if array.ndim != 2 or array.shape[1] != len(self.order):
            raise DataError(
                f"an array of shape {array.shape}: expected (rows, {len(self.order)}): "
                + ", ".join(self.order[:20])
            )
        return {name: array[:, i] for i, name in enumerate(self.order)}

    def to_json(self) -> str:
        """Canonical JSON; `from_json` is its inverse."""
        columns = [
            {
                "kind": NUMBER if isinstance(column, FittedNumber) else CATEGORY,
                **dataclasses.asdict(column),
            }
            for column in self.columns
        ]
        return json.dumps(
            {
                "format": FORMAT,
                "version": VERSION,
                "noise_multiplier": self.noise_multiplier,
                "releases": self.releases,
                "salt": self.salt.hex(),
                "order": self.order,
                "dropped": self.dropped,
                "columns": columns,
            },
            indent=1,
            ensure_ascii=False,
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            DataError: it is something else, of a newer version, or holds values out of range.
        """
        try:
            values = json.loads(text) if len(text) <= MAX_JSON else None
            if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
                raise DataError("not a preprocessor: expected what a run left as its preprocessor")
            if (version := values.pop("version", None)) != VERSION:
                raise DataError(
                    f"preprocessor of version {version!r}: this program reads {VERSION}; "
                    "install the newer one"
                )
            columns = tuple(map(_fitted, values.pop("columns")))
            order, dropped = _texts(values.pop("order")), _texts(values.pop("dropped"))
            salt = bytes.fromhex(values.pop("salt"))
            return cls(columns=columns, salt=salt, order=order, dropped=dropped, **values)
        except DataError:
            raise
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
            OverflowError,
        ) as error:
            raise DataError(f"damaged preprocessor ({type(error).__name__}): fit again") from None

    def save(self, path: Path) -> None:
        """Write it as JSON, as a whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        write_atomic(path, f"{self.to_json()}\n".encode())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing, damaged, or no preprocessor.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise DataError(f"{path}: {reason}") from None
        return cls.from_json(text)


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DataError("damaged preprocessor: expected a list of texts; fit again")
    return tuple(values)


def _fitted(values: dict[str, Any]) -> FittedNumber | FittedCategory:
    kind = values.pop("kind")
    if kind == NUMBER:
        return FittedNumber(**values)
    slots = values.pop("slots")
    if kind != CATEGORY or not all(type(slot) is int and slot >= 0 for slot in slots):
        raise DataError("damaged preprocessor: expected numbers and categories; fit again")
    return FittedCategory(values=_texts(values.pop("values")), slots=tuple(slots), **values)
