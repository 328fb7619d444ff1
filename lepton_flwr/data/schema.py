"""Turning columns into features, one row at a time, from public knowledge alone.

A feature of one row depends on that row and on what the schema declares: public ranges (a
codebook, physical bounds), public category lists, declared fill values. It never depends on a
mean, variance, quantile, minimum or maximum of the rows, so preprocessing spends no privacy
budget and each client can do it alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.errors import ConfigError, DataError

UNSEEN = ("other", "error")


@dataclass(frozen=True)
class Number:
    """A number with a public range, clipped to it and scaled.

    Attributes:
        column: its name.
        low: smallest value of the public range.
        high: largest value of the public range.
        log1p: scale `log(1 + value)`, for amounts over several magnitudes; needs `low` >= 0.
        centred: scale the range to [-1, 1]; otherwise to [0, 1], so that `low` is exactly 0.
        fill: the value that stands for a missing one; None refuses missing values.
        indicator: add a feature that is 1 where the value was missing.
    """

    column: str
    low: float
    high: float
    log1p: bool = False
    centred: bool = True
    fill: float | None = None
    indicator: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigError(
                f"range of {self.column}: [{self.low}, {self.high}], expected finite low < high"
            )
        if self.log1p and self.low < 0:
            raise ConfigError(f"range of {self.column}: log1p needs low >= 0, not {self.low}")
        if self.indicator and self.fill is None:
            raise ConfigError(f"{self.column}: a missing-value indicator needs a fill value")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The value and, if declared, its missing-value indicator."""
        return (self.column, f"{self.column} missing") if self.indicator else (self.column,)

    def write(self, values: Any, out: np.ndarray) -> None:
        """Write the features of `values` (n,) into `out`, float32 (n, features)."""
        found = numbers(self.column, values)
        missing = np.isnan(found)
        if self.fill is None and missing.any():
            raise DataError(f"column {self.column}: {_count(missing)}; remove or fill those rows")
        if self.fill is not None:
            found = np.where(missing, self.fill, found)
        found, low, high = np.clip(found, self.low, self.high), self.low, self.high
        if self.log1p:
            found, low, high = np.log1p(found), math.log1p(low), math.log1p(high)
        unit = (found - low) / (high - low)
        out[:, 0] = 2 * unit - 1 if self.centred else unit
        if self.indicator:
            out[:, 1] = missing


@dataclass(frozen=True)
class Category:
    """One of a public list of values, one-hot.

    Attributes:
        column: its name.
        values: the public list.
        other: add a feature for missing values and values off the list; otherwise these are zero
            in every feature.
        plain: values that are known too and have no feature: zero in all, as the list's first
            choice.
    """

    column: str
    values: tuple[Any, ...]
    other: bool = False
    plain: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) != len(self.values):
            raise ConfigError(f"{self.column}: expected a list of distinct categories")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One per category, then `other` if declared."""
        names = [f"{self.column}={value}" for value in self.values]
        return (*names, f"{self.column}=other") if self.other else tuple(names)

    def write(self, values: Any, out: np.ndarray) -> None:
        """Write the features of `values` (n,) into `out`, float32 (n, features)."""
        index = {value: i for i, value in enumerate(self.values)}
        off = len(self.values) if self.other else -1
        codes = np.fromiter((index.get(v, off) for v in np.asarray(values).tolist()), np.intp)
        out[:] = 0
        known = np.flatnonzero(codes >= 0)
        out[known, codes[known]] = 1

    def count_unseen(self, values: Any) -> int:
        """How many of `values` (n,) are neither known nor missing."""
        known = {*self.values, *self.plain, None}
        strange = (v for v in np.asarray(values).tolist() if v not in known)
        return sum(not (isinstance(v, float) and math.isnan(v)) for v in strange)


@dataclass(frozen=True)
class Cycle:
    """A number on a circle (an hour of 24, a wind direction of 360), as its sine and cosine.

    Attributes:
        column: its name.
        period: the length of the circle.
        optional: a missing value becomes (0, 0), the circle's centre; otherwise it is refused.
    """

    column: str
    period: float
    optional: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.period) and self.period > 0):
            raise ConfigError(f"{self.column}: period {self.period}, expected a finite number > 0")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Sine and cosine."""
        return f"{self.column} sin", f"{self.column} cos"

    def write(self, values: Any, out: np.ndarray) -> None:
        """Write the features of `values` (n,) into `out`, float32 (n, features)."""
        angles = numbers(self.column, values) * (2 * math.pi / self.period)
        missing = ~np.isfinite(angles)
        if missing.any() and not self.optional:
            raise DataError(f"column {self.column}: {_count(missing)}; remove or fill those rows")
        angles = np.where(missing, 0, angles)
        out[:, 0] = np.where(missing, 0, np.sin(angles))
        out[:, 1] = np.where(missing, 0, np.cos(angles))


@dataclass(frozen=True)
class Schema:
    """The columns that become features, in order.

    Guarantee: `transform` maps rows independently of each other: transforming some of the rows
    gives the same bytes as taking those rows of the transformed whole.
    """

    columns: Sequence[Number | Category | Cycle]

    def __post_init__(self) -> None:
        names = self.feature_names
        if not names or len(set(names)) != len(names):
            raise ConfigError("a schema needs at least one column, and each feature once")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return tuple(name for column in self.columns for name in column.feature_names)

    def transform(self, table: Mapping[str, Any], *, unseen: str = "other") -> np.ndarray:
        """Encode the declared columns of a table; its other columns are not read.

        Args:
            table: column name to n values; a pandas DataFrame will do.
            unseen: what a value off a category's list is: "other", encoded as the category says,
                or "error".

        Returns:
            float32, shape (n, features), every value finite and within [-1, 1].

        Raises:
            DataError: a column is absent, is not numeric, or misses a value it may not miss; with
                "error", a value is off a category's list.
        """
        check.choice("unseen", unseen, UNSEEN)
        absent = [c.column for c in self.columns if c.column not in table]
        if absent:
            raise DataError(f"missing column {', '.join(absent)}")
        num_rows = len(table[self.columns[0].column])
        out = np.empty((num_rows, len(self.feature_names)), dtype=np.float32)
        start = 0
        for column in self.columns:
            stop = start + len(column.feature_names)
            column.write(table[column.column], out[:, start:stop])
            start = stop
            if unseen == "error" and isinstance(column, Category):
                strange = column.count_unseen(table[column.column])
                if strange:
                    raise DataError(
                        f"column {column.column}: {strange} of {num_rows} values are none of its "
                        f"{len(column.values)} known categories: mend or remove those rows, or "
                        "take them as other ones (--unseen other)"
                    )
        return out


def numbers(column: str, values: Any) -> np.ndarray:
    """A column's values as float64 (n,), NaN where one is missing.

    Raises:
        DataError: they are no numbers.
    """
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"column {column}: holds text, expected numbers") from None


def _count(missing: np.ndarray) -> str:
    return f"{int(missing.sum())} of {len(missing)} values are missing"
