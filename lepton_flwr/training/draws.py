"""What a private step takes from the data and from the operating system's randomness."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.privacy.noise import GaussianNoise, poisson_sample

_SMALLEST_BUCKET = 16
_ALIGNMENT = 64  # bytes; TensorFlow cuts a tensor there without copying it
_BLOCK = _ALIGNMENT // 4
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Draw:
    """One step's batch and noise.

    Attributes:
        data: inputs, labels and example weights of the batch, nested as those of the data set.
        mask: float32 of shape (batch,): `factor` for an example, 0 for padding.
        noise: float32 of the step's standard deviation, for all variables: see `NoiseLayout`.
    """

    data: Any
    mask: np.ndarray
    noise: np.ndarray

    def pieces(self, size: int) -> Iterator[tuple[Any, np.ndarray]]:
        """Data and mask in pieces of at most `size` rows."""
        for start in range(0, self.mask.size, size):
            rows = slice(start, start + size)
            yield tf.nest.map_structure(lambda a, r=rows: a[r], self.data), self.mask[rows]

    def up_to(self, rows: int) -> "Draw":
        """The first rows of it, and all of its noise."""
        data = tf.nest.map_structure(lambda a: a[:rows], self.data)
        return Draw(data, self.mask[:rows], self.noise)


@dataclass(frozen=True)
class NoiseLayout:
    """Where the noise of each variable is in one array of shape (blocks, 16).

    TensorFlow takes one array much faster than several, and cuts it at its rows, of 64 bytes,
    without copying. Every variable begins a row; what is left of its last row is drawn in vain.

    Attributes:
        shapes: of the variables.
    """

    shapes: list[tuple[int, ...]]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the array."""
        return sum(self._blocks), _BLOCK

    @property
    def _blocks(self) -> list[int]:
        return [-(-math.prod(shape) // _BLOCK) for shape in self.shapes]

    def split(self, noise: Any) -> list[Any]:
        """Array or tensor of each variable's noise, in the variable's shape."""
        found, start = [], 0
        for shape, blocks in zip(self.shapes, self._blocks, strict=True):
            entries = tf.reshape if tf.is_tensor(noise) else np.reshape
            rows = entries(noise[start : start + blocks], (-1,))
            found.append(entries(rows[: math.prod(shape)], shape))
            start += blocks
        return found


@dataclass(frozen=True)
class DrawSource:
    """Draws the batches and the noise of one data set.

    Attributes:
        data: nested arrays of shape (n, ...).
        num_records: n.
        sampling_probability: q.
        truncated_batch_size: batches are cut to it, uniformly, and padded to it; None pads to the
            next of few sizes and never cuts.
        multiple_of: batches are padded further to a multiple of this.
        factor: what examples are multiplied with.
        shapes: of the trainable variables.
        stddev: standard deviation of the noise on each parameter.
        sampling: where batches come from.
        noise: where the noise comes from.
    """

    data: Any
    num_records: int
    sampling_probability: float
    truncated_batch_size: int | None
    multiple_of: int
    factor: float
    shapes: list[tuple[int, ...]]
    stddev: float
    sampling: CipherStream
    noise: GaussianNoise
    # Two, for one is filled while the other is in use; new memory is slow to touch.
    _buffers: dict[int, Draw] = field(default_factory=dict, repr=False)

    def draw(self, turn: int = 0) -> Draw:
        """One step's draw, independent of all others; the next one of the same turn replaces it."""
        rows = self.rows()
        size = self.truncated_batch_size or bucket(rows.size)
        size += -size % self.multiple_of
        made = self._buffer(turn, size).up_to(size)
        padded = np.zeros(size, dtype=np.int64)
        padded[: rows.size] = rows
        tf.nest.map_structure(
            lambda source, out: np.take(source, padded, axis=0, out=out, mode="clip"),
            self.data,
            made.data,
        )
        made.mask[: rows.size] = self.factor
        made.mask[rows.size :] = 0.0
        self.noise.fill(made.noise.reshape(-1), self.stddev)
        return made

    def rows(self) -> np.ndarray:
        """A Poisson sample, cut if it is too large: increasing indices, int64."""
        rows = poisson_sample(self.sampling, self.num_records, self.sampling_probability)
        size = self.truncated_batch_size
        if size is not None and rows.size > size:
            # The order of 64 random bits each is uniform but for ties, of chance 2^-64 a pair.
            kept = np.argpartition(self.sampling.uint64(rows.size), size)[:size]
            rows = rows[np.sort(kept)]
        return rows

    @contextmanager
    def ahead(self, count: int, made: Callable[[Draw], _Made]) -> Iterator[Iterator[_Made]]:
        """What is made of `count` draws in order, each while the one before is in use.

        Args:
            count: how many.
            made: called in a second thread, as is `draw`.
        """
        with ThreadPoolExecutor(1, "lepton-draws") as pool:
            yield self._ahead(pool, count, made)

    def _ahead(
        self, pool: ThreadPoolExecutor, count: int, made: Callable[[Draw], _Made]
    ) -> Iterator[_Made]:
        def make(turn: int) -> _Made:
            return made(self.draw(turn))

        waiting: Future[_Made] = pool.submit(make, 0)
        for number in range(1, count + 1):
            ready = waiting.result()
            if number < count:
                waiting = pool.submit(make, number % 2)
            yield ready

    def _buffer(self, turn: int, size: int) -> Draw:
        """The memory of a turn, with room for `size` rows."""
        kept = self._buffers.get(turn)
        if kept is not None and kept.mask.size >= size:
            return kept
        expected = self.sampling_probability * self.num_records
        size = max(size, bucket(math.ceil(expected + 4 * math.sqrt(expected))))  # seldom outgrown
        single = np.dtype(np.float32)
        data = tf.nest.map_structure(
            lambda source: _aligned((size, *source.shape[1:]), source.dtype), self.data
        )
        noise = _aligned(NoiseLayout(self.shapes).shape, single) if kept is None else kept.noise
        made = self._buffers[turn] = Draw(data, _aligned((size,), single), noise)
        return made


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    memory = np.zeros(num_bytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + num_bytes].view(dtype).reshape(shape)


def bucket(size: int) -> int:
    """The padded size of a batch: the least of 16, 24, 32, ..., 256, 272, ... that holds it.

    Multiples of 8, and from 128 on of a sixteenth of the power of two below: few shapes occur, and
    of large batches a thirty-second is padding on average.
    """
    step = max(8, 1 << max(size.bit_length() - 5, 0))
    return max(_SMALLEST_BUCKET, -(-size // step) * step)
