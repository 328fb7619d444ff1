"""What a private step takes from the operating system's randomness: its batch and its noise."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.privacy.noise import GaussianNoise, poisson_sample

_SMALLEST_BUCKET = 16
_NO_ROW = -1


@dataclass(frozen=True)
class Draw:
    """The random part of one step.

    Attributes:
        rows: int64 indices of the batch's records; -1 is padding. The length is the truncated
            batch size, or else one of few.
        noise: float32 draws of N(0, 1), one per trainable parameter.
    """

    rows: np.ndarray
    noise: np.ndarray


@dataclass(frozen=True)
class DrawSource:
    """Draws the batches and the noise of one data set.

    Attributes:
        num_records: n.
        sampling_probability: q.
        truncated_batch_size: batches are cut to it, uniformly, and padded to it; None pads to the
            next of few sizes and never cuts.
        dimension: number of trainable parameters.
        sampling: where batches come from.
        noise: where the noise comes from.
    """

    num_records: int
    sampling_probability: float
    truncated_batch_size: int | None
    dimension: int
    sampling: CipherStream
    noise: GaussianNoise

    def draw(self) -> Draw:
        """One step's draw, independent of all others."""
        rows = poisson_sample(self.sampling, self.num_records, self.sampling_probability)
        size = self.truncated_batch_size
        if size is None:
            size = bucket(rows.size)
        elif rows.size > size:
            # 64 random bits a record; which one goes where two are equal does not matter at 2^-64.
            ranks = np.argpartition(self.sampling.uint64(rows.size), size)
            rows = rows[np.sort(ranks[:size])]
        padded = np.full(size, _NO_ROW, dtype=np.int64)
        padded[: rows.size] = rows
        return Draw(padded, self.noise.standard_normal(self.dimension, np.float32))

    @contextmanager
    def ahead(self, count: int) -> Iterator[Iterator[Draw]]:
        """`count` draws in order, each made by a second thread while the one before is in use."""
        with ThreadPoolExecutor(1, "lepton-draws") as pool:
            yield self._ahead(pool, count)

    def _ahead(self, pool: ThreadPoolExecutor, count: int) -> Iterator[Draw]:
        waiting: Future[Draw] = pool.submit(self.draw)
        for left in range(count - 1, -1, -1):
            ready = waiting.result()
            if left:
                waiting = pool.submit(self.draw)
            yield ready


def bucket(size: int) -> int:
    """The padded size of a batch: the least of 16, 20, 24, 28, 32, 40, ... that holds it.

    Four sizes per octave: at most a quarter is padding, and few shapes occur.
    """
    if size <= _SMALLEST_BUCKET:
        return _SMALLEST_BUCKET
    quarter = 1 << max((size - 1).bit_length() - 3, 0)
    return -(-size // quarter) * quarter
