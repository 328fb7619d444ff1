"""The mean of the second half of a run's models, which has less of the noise than the last one."""

from collections.abc import Sequence

import numpy as np

from lepton_flwr.runs.observer import RoundRecord


class SecondHalf:
    """Keeps the global weights of the second half of the rounds (Polyak and Juditsky 1992).

    Their mean costs no privacy: all of them are released anyway. Until the second half it is the
    newest model; of a run that goes on, it is that of the rounds since.

    Args:
        rounds: planned rounds.
    """

    def __init__(self, rounds: int) -> None:
        self._from = rounds // 2 + 1
        self._sums: list[np.ndarray] = []
        self._count = 0

    def add(self, record: RoundRecord, weights: Sequence[np.ndarray]) -> None:
        """Keep a round's weights, if it has released a sum."""
        if record.status != "ok":
            return
        layers = [np.array(weight, dtype=np.float64) for weight in weights]
        if record.round <= self._from or not self._count:
            self._sums, self._count = layers, 1
        else:
            self._sums = [total + layer for total, layer in zip(self._sums, layers, strict=True)]
            self._count += 1

    @property
    def learnt(self) -> bool:
        """Whether a round has released a sum."""
        return self._count > 0

    def mean(self) -> list[np.ndarray]:
        """The model, float32, in the model's order."""
        return [(total / self._count).astype(np.float32) for total in self._sums]
