"""Fixed point: real vectors as integers modulo 2^32 whose sum cannot overflow.

A layout is a list of named segments. The bound of every segment, the largest weight and the
number of clients fix the scale, so that the sum of all clients fits a signed 32-bit integer:
`num_clients * (bound * scale + 1/2) <= 2^31 - 1`. That is checked when the layout is made.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from lepton_flwr.errors import ConfigError
from lepton_flwr.secagg.errors import OverflowConfigError, VectorError

LARGEST = 2**31 - 1
MAX_DIMENSION = 2**28
_PIECE = 1 << 14  # numbers
WEIGHT = "weight"
SATURATED = "saturated"


class Kind(StrEnum):
    """How a segment is combined over the clients."""

    MEAN = "mean"  # weighted mean of real numbers
    SUM = "sum"  # sum of real numbers
    COUNT = "count"  # sum of whole numbers, exact


@dataclass(frozen=True)
class Segment:
    """One named part of the vector.

    Attributes:
        name: unique in its layout.
        kind: how clients are combined.
        size: coordinates.
        bound: largest absolute value of one client's coordinate; a whole number for counts, which
            are then between 0 and bound.
    """

    name: str
    kind: Kind
    size: int
    bound: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", Kind(self.kind))
        if not self.name or not 1 <= self.size <= MAX_DIMENSION:
            raise ConfigError(f"segment {self.name!r} of size {self.size}: expected 1 or more")
        if not (math.isfinite(self.bound) and self.bound > 0):
            raise ConfigError(f"segment {self.name}: bound={self.bound}: expected a number > 0")
        if self.kind is Kind.COUNT and self.bound != int(self.bound):
            raise ConfigError(f"segment {self.name}: bound={self.bound}: expected a whole number")


@dataclass(frozen=True)
class Layout:
    """The vector that every client sends, and how it adds up.

    The coordinates of `segments` come first, in order, then the weight and the number of
    saturated coordinates, both exact counts.

    Attributes:
        segments: the caller's segments.
        num_clients: most clients in one sum.
        max_weight: largest weight of one client; 1 makes all weights equal.

    Raises:
        OverflowConfigError: the sum of `num_clients` clients could overflow.
    """

    segments: tuple[Segment, ...]
    num_clients: int
    max_weight: int = 1
    _parts: tuple[Segment, ...] = field(init=False, repr=False, compare=False)
    _offsets: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.num_clients < 1 or self.max_weight < 1:
            raise ConfigError(
                f"num_clients={self.num_clients}, max_weight={self.max_weight}: expected >= 1"
            )
        total = sum(part.size for part in self.segments)
        parts = (
            *self.segments,
            Segment(WEIGHT, Kind.COUNT, 1, self.max_weight),
            Segment(SATURATED, Kind.COUNT, 1, max(1, min(total, LARGEST // self.num_clients - 1))),
        )
        names = [part.name for part in parts]
        if len(set(names)) != len(names):
            raise ConfigError(f"segments {names}: expected different names")
        if total > MAX_DIMENSION:
            raise ConfigError(f"{total} coordinates: expected at most {MAX_DIMENSION}")
        offsets = [0]
        for part in parts:
            offsets.append(offsets[-1] + part.size)
        object.__setattr__(self, "_parts", parts)
        object.__setattr__(self, "_offsets", tuple(offsets))
        for part in parts:
            if self.num_clients * (part.bound * self.scale(part) + 0.5) > LARGEST:
                raise OverflowConfigError(
                    f"segment {part.name}: {self.num_clients} clients of at most {part.bound:g} "
                    f"could pass 2^31: expected a bound below {LARGEST // self.num_clients}"
                )

    @property
    def dimension(self) -> int:
        """Coordinates of the whole vector."""
        return self._offsets[-1]

    def scale(self, part: Segment) -> float:
        """Integer units per 1.0 of a (weighted) coordinate."""
        if part.kind is Kind.COUNT:
            return 1.0
        # A few units of room cover the rounding of this very division.
        return (LARGEST / self.num_clients - 1.0) / part.bound

    def encode(self, values: Mapping[str, np.ndarray | float], weight: int) -> np.ndarray:
        """Encode one client's values.

        Args:
            values: every segment's value, of its size.
            weight: 0 <= weight; more than `max_weight` counts as `max_weight`.

        Returns:
            uint32, shape (dimension,). Coordinates beyond their bound are cut to it and counted.

        Raises:
            VectorError: a segment is missing, of the wrong size, or holds NaN or infinity; a
                count that is not a whole number >= 0.
        """
        if weight < 0:
            raise VectorError("weight: expected a number of examples >= 0")
        weight = min(weight, self.max_weight)
        if unknown := set(values) - {part.name for part in self.segments}:
            raise VectorError(f"unknown segments {sorted(unknown)}")
        out = np.empty(self.dimension, dtype=np.uint32)
        saturated = 0
        for part, start in zip(self.segments, self._offsets, strict=False):
            if part.name not in values:
                raise VectorError(f"segment {part.name} is missing")
            numbers = np.asarray(values[part.name], dtype=np.float64).reshape(-1)
            if numbers.size != part.size:
                raise VectorError(
                    f"segment {part.name}: {numbers.size} numbers, expected {part.size}"
                )
            if not np.isfinite(numbers).all():
                raise VectorError(f"segment {part.name}: NaN or infinity, expected finite numbers")
            if part.kind is Kind.COUNT and ((numbers < 0) | (numbers != np.rint(numbers))).any():
                raise VectorError(f"segment {part.name}: expected whole numbers >= 0")
            factor = self.scale(part)
            if part.kind is Kind.MEAN:
                factor *= weight / self.max_weight
            saturated += _round(numbers, part.bound, factor, out[start : start + part.size])
        out[-2] = weight
        out[-1] = min(saturated, int(self._parts[-1].bound))
        return out

    def lift(self, total: np.ndarray) -> np.ndarray:
        """Centre the sum: uint32 modulo 2^32 to int64 in [-2^31, 2^31), shape (dimension,).

        Raises:
            VectorError: wrong dtype or shape.
        """
        if total.dtype != np.uint32 or total.shape != (self.dimension,):
            raise VectorError(
                f"sum of {total.dtype}{total.shape}: expected uint32({self.dimension},)"
            )
        return total.view(np.int32).astype(np.int64)

    def slice(self, name: str) -> slice:
        """Where a segment lies."""
        for part, start in zip(self._parts, self._offsets, strict=False):
            if part.name == name:
                return slice(start, start + part.size)
        raise ConfigError(f"no segment {name!r}")

    def decode(self, lifted: np.ndarray) -> "Decoded":
        """Decode a centred sum of one or more clients.

        Raises:
            VectorError: no client had weight, so that there is no mean.
        """
        weight = int(lifted[-2])
        means: dict[str, np.ndarray] = {}
        sums: dict[str, np.ndarray] = {}
        for part in self.segments:
            numbers = lifted[self.slice(part.name)]
            if part.kind is Kind.COUNT:
                sums[part.name] = numbers
            elif part.kind is Kind.SUM:
                sums[part.name] = numbers / self.scale(part)
            else:
                if weight < 1:
                    raise VectorError("the survivors have no examples: there is no mean")
                means[part.name] = numbers * (self.max_weight / (self.scale(part) * weight))
        return Decoded(means=means, sums=sums, weight=weight, saturated=int(lifted[-1]))


def _round(numbers: np.ndarray, bound: float, factor: float, out: np.ndarray) -> int:
    """Write `rint(numbers * factor)`, cut to the bound; how many were cut.

    In pieces that stay in the cache; the caller's numbers stay as they are.
    """
    scaled = np.empty(min(_PIECE, numbers.size))
    whole = np.empty(scaled.size, dtype=np.int64)
    saturated = 0
    for start in range(0, numbers.size, _PIECE):
        piece = numbers[start : start + _PIECE]
        target, integers = scaled[: piece.size], whole[: piece.size]
        if max(piece.max(), -piece.min()) > bound:
            saturated += int(np.count_nonzero(np.abs(piece) > bound))
            piece = np.clip(piece, -bound, bound, out=target)
        np.multiply(piece, factor, out=target)
        np.rint(target, out=target)
        # Through int64: a negative number has no defined value as uint32.
        np.copyto(integers, target, casting="unsafe")
        np.copyto(out[start : start + piece.size], integers, casting="unsafe")
    return saturated


@dataclass(frozen=True)
class Decoded:
    """What a sum says: means and sums by segment, the total weight, saturated coordinates."""

    means: dict[str, np.ndarray]
    sums: dict[str, np.ndarray]
    weight: int
    saturated: int
