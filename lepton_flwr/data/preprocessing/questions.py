"""What a participant is asked of its table, and its answer: whole numbers that add up.

A question is a list of parts, one or more for each column. Every part maps a record to a short
vector whose L2 norm is at most the part's `norm`, whatever the record holds; a table's answer is
the sum over its records, on a grid of whole numbers. With privacy the answer leaves only after
Gaussian noise of the full size was added to it.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.data.preprocessing.columns import Table, num_rows
from lepton_flwr.errors import ConfigError, DataError
from lepton_flwr.privacy.events import Event, SampledGaussian, Unbounded
from lepton_flwr.privacy.noise import GaussianNoise

PRIVATE_GRID = 2**16  # units per 1.0: what rounding costs is far below the noise
EXACT_GRID = 2**40  # of moments without privacy: as exact as float64 can add them
MAX_ROWS = 2**20  # of one participant
SMALLEST_EXPONENT, LARGEST_EXPONENT = -62, 64
OCTAVES = LARGEST_EXPONENT - SMALLEST_EXPONENT + 1
SALT_BYTES = 16
HASH_BITS = 48
NAME_BYTES = 256


@dataclass(frozen=True)
class Rows:
    """Number of records: 1 for each."""

    norm = 1.0
    size = 1

    def contributions(self, table: Table) -> np.ndarray:
        """Sum over records, float64 (size,)."""
        return np.array([float(num_rows(table))])


@dataclass(frozen=True)
class Magnitudes:
    """Histogram of a number over a grid that no data shaped: its sign and power of two.

    Bins in ascending order: negative powers of two, zero (and what is below 2^-63), positive ones.
    Each record is in one bin, a missing value in none.
    """

    column: str
    norm = 1.0
    size = 2 * OCTAVES + 1
    widest = 4  # octaves that are tested together

    def contributions(self, table: Table) -> np.ndarray:
        """Sum over records, float64 (size,)."""
        numbers = _present(table[self.column])
        exponents = np.frexp(np.abs(numbers))[1]
        octave = np.minimum(exponents, LARGEST_EXPONENT) - SMALLEST_EXPONENT
        signed = np.where(octave < 0, 0, np.sign(numbers) * (octave + 1))
        return _histogram(signed.astype(np.int64) + OCTAVES, self.size)

    @staticmethod
    def edges() -> np.ndarray:
        """Edges of the bins, float64 (size + 1,)."""
        powers = 2.0 ** np.arange(SMALLEST_EXPONENT - 1, LARGEST_EXPONENT + 1)
        return np.concatenate([-powers[::-1], powers])


@dataclass(frozen=True)
class Bins:
    """Histogram of a number between two bounds; values beyond them are in the outer bins."""

    column: str
    edges: tuple[float, ...]
    norm = 1.0

    def __post_init__(self) -> None:
        if len(self.edges) < 2 or not all(map(math.isfinite, self.edges)):
            raise ConfigError(f"bins of {self.column}: expected two finite edges or more")
        if any(a > b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ConfigError(f"bins of {self.column}: expected ascending edges")

    @property
    def size(self) -> int:
        """Bins."""
        return len(self.edges) - 1

    def contributions(self, table: Table) -> np.ndarray:
        """Sum over records, float64 (size,)."""
        inner = np.array(self.edges[1:-1])
        index = np.searchsorted(inner, _present(table[self.column]), side="right")
        return _histogram(index, self.size)


@dataclass(frozen=True)
class Moments:
    """Missing values, and the sums of u and u^2, for u = (x - centre) / half cut to [-1, 1].

    A record's vector is (1, 0, 0) if its value is missing, else (0, u, u^2).
    """

    column: str
    centre: float
    half: float
    norm = math.sqrt(2.0)
    size = 3

    def __post_init__(self) -> None:
        check.finite(f"centre of {self.column}", self.centre)
        check.finite(f"half of {self.column}", self.half, above=0)

    def contributions(self, table: Table) -> np.ndarray:
        """Each record's vector, float64 (n, size): rounded before they are added."""
        numbers = table[self.column]
        missing = np.isnan(numbers)
        unit = np.clip((numbers - self.centre) / self.half, -1.0, 1.0)
        unit = np.where(missing, 0.0, unit)
        return np.stack([missing.astype(np.float64), unit, unit * unit], axis=1)


@dataclass(frozen=True)
class Hashes:
    """Histogram of a category's salted hash; missing is the first bin.

    With `prefixes`, only of texts whose hash starts with one of them, by their next `bits` bits.

    Attributes:
        column: its name.
        salt: public and random, so that nobody can have chosen texts that collide.
        bits: of the hash, per prefix.
        prefixes: leading bits of hashes, as numbers.
        prefix_bits: how many bits a prefix has.
    """

    column: str
    salt: bytes
    bits: int
    prefixes: tuple[int, ...] = (0,)
    prefix_bits: int = 0
    norm = 1.0

    @property
    def size(self) -> int:
        """Missing, then 2^bits for each prefix."""
        return 1 + (len(self.prefixes) << self.bits)

    def contributions(self, table: Table) -> np.ndarray:
        """Sum over records, float64 (size,)."""
        texts, counts, missing = _texts(table[self.column])
        out = np.zeros(self.size)
        out[0] = missing
        place = {prefix: i for i, prefix in enumerate(self.prefixes)}
        for text, count in zip(texts, counts, strict=True):
            head = hash_text(text, self.salt) >> (HASH_BITS - self.prefix_bits - self.bits)
            known = place.get(head >> self.bits)
            if known is not None:
                out[1 + (known << self.bits) + (head & ((1 << self.bits) - 1))] += count
        return out


@dataclass(frozen=True)
class Listed:
    """Counts of a category's public values: missing, each in order, all others."""

    column: str
    values: tuple[str, ...]
    norm = 1.0

    @property
    def size(self) -> int:
        """Bins."""
        return len(self.values) + 2

    def contributions(self, table: Table) -> np.ndarray:
        """Sum over records, float64 (size,)."""
        texts, counts, missing = _texts(table[self.column])
        out = np.zeros(self.size)
        out[0] = missing
        place = {value: 1 + i for i, value in enumerate(self.values)}
        for text, count in zip(texts, counts, strict=True):
            out[place.get(text, self.size - 1)] += count
        return out


@dataclass(frozen=True)
class Names:
    """The texts of known hashes: for each, who holds it (0 or 1) and its bytes, padded by zeros.

    Of no record's bound: never asked with privacy.
    """

    column: str
    salt: bytes
    hashes: tuple[int, ...]
    norm = math.inf

    @property
    def size(self) -> int:
        """Bins."""
        return len(self.hashes) * (1 + NAME_BYTES)

    def contributions(self, table: Table) -> np.ndarray:
        """One vector for the whole table, float64 (size,)."""
        texts, _, _ = _texts(table[self.column])
        out = np.zeros((len(self.hashes), 1 + NAME_BYTES))
        place = {value: i for i, value in enumerate(self.hashes)}
        for text in texts:
            row = place.get(hash_text(text, self.salt))
            if row is not None:
                content = text.encode()
                out[row, 0] += 1
                out[row, 1 : 1 + len(content)] += np.frombuffer(content, np.uint8)
        return out.reshape(-1)


Part = Rows | Magnitudes | Bins | Moments | Hashes | Listed | Names


@dataclass(frozen=True)
class Question:
    """One release: the same parts for every participant.

    Attributes:
        parts: what is asked.
        noise_multiplier: deviation of the noise that each participant adds over the L2 norm of
            one record's part of the answer; 0 asks for exact sums.
        most_rows: no participant has more records: bounds the numbers that are added.

    **Guarantee**: with a noise multiplier, what `answer` returns is one Gaussian mechanism of it
    for adding or removing one record of the table, whoever sees it.

    Raises:
        ConfigError: a part of no bounded norm under privacy.
    """

    parts: tuple[Part, ...]
    noise_multiplier: float = 0.0
    most_rows: int = MAX_ROWS
    _norm: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check.finite("noise_multiplier", self.noise_multiplier, at_least=0)
        check.integer("most_rows", self.most_rows, at_least=1, at_most=MAX_ROWS)
        if not self.parts:
            raise ConfigError("a question without parts: expected one or more")
        # A record's part of Moments is rounded to the grid: up to half a unit in two coordinates.
        rounding = sum(2 for part in self.parts if isinstance(part, Moments)) / 4
        norm = math.sqrt(sum(part.norm**2 for part in self.parts)) * PRIVATE_GRID
        object.__setattr__(self, "_norm", norm + math.sqrt(rounding))
        if self.private and not math.isfinite(self._norm):
            raise ConfigError("names are asked for with noise: expected hashes only")

    @property
    def private(self) -> bool:
        """Whether answers are noised."""
        return self.noise_multiplier > 0

    @property
    def grid(self) -> int:
        """Units per 1.0."""
        if self.private:
            return PRIVATE_GRID
        return EXACT_GRID if any(isinstance(part, Moments) for part in self.parts) else 1

    @property
    def size(self) -> int:
        """Numbers in an answer."""
        return sum(part.size for part in self.parts)

    @property
    def stddev(self) -> float:
        """Deviation of one participant's noise, in units of 1.0."""
        return self.noise_multiplier * self._norm / PRIVATE_GRID if self.private else 0.0

    @property
    def bound(self) -> int:
        """Largest absolute number of one answer, noise included but for 2^-64 of it."""
        most = max(self.most_rows, NAME_BYTES)
        return math.ceil((most + 10 * self.stddev) * self.grid)

    @property
    def event(self) -> Event:
        """What an answer costs; without noise nothing bounds it."""
        return SampledGaussian(self.noise_multiplier, 1.0, 1) if self.private else Unbounded()

    def answer(self, table: Table, noise: GaussianNoise | None = None) -> np.ndarray:
        """One participant's answer: int64, shape (size,), in units of 1 / grid.

        Charge `event` to the data's ledger before this is called.

        Args:
            table: its records, as `TableSchema.read` returns them.
            noise: None draws from a generator keyed by the operating system; tests inject one.

        Raises:
            DataError: more records than `most_rows`.
        """
        if num_rows(table) > self.most_rows:
            raise DataError(
                f"more than {self.most_rows} records: divide them among more participants"
            )
        answer = np.concatenate([self._on_grid(part.contributions(table)) for part in self.parts])
        if self.private:
            noise = GaussianNoise() if noise is None else noise
            answer += noise.rounded(answer.size, self.stddev * self.grid)
        return answer

    def split(self, totals: Sequence[float]) -> list[np.ndarray]:
        """A total in units of 1.0, by parts."""
        ends = np.cumsum([part.size for part in self.parts])[:-1]
        return np.split(np.asarray(totals, dtype=np.float64), ends)

    def _on_grid(self, contributions: np.ndarray) -> np.ndarray:
        if contributions.ndim == 1:
            contributions = contributions.reshape(1, -1)
        if not self.private:
            contributions = contributions.sum(axis=0, keepdims=True)
        rounded = np.rint(contributions * self.grid).astype(np.int64)
        return np.asarray(rounded.sum(axis=0), dtype=np.int64)


def hash_text(text: str, salt: bytes) -> int:
    """A category's hash: HASH_BITS bits of keyed BLAKE2b."""
    content = hashlib.blake2b(text.encode(), key=salt, digest_size=HASH_BITS // 8).digest()
    return int.from_bytes(content, "big")


def _present(numbers: np.ndarray) -> np.ndarray:
    present: np.ndarray = numbers[~np.isnan(numbers)]
    return present


def _histogram(index: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(np.bincount(index, minlength=size), dtype=np.float64)


def _texts(values: np.ndarray) -> tuple[list[str], list[int], int]:
    counts: dict[str, int] = {}
    missing = 0
    for value in values.tolist():
        if value is None:
            missing += 1
        else:
            counts[value] = counts.get(value, 0) + 1
    return list(counts), list(counts.values()), missing
