"""A federated run on a client's encrypted rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lepton_flwr.errors import FederationError
from lepton_flwr.runs.observer import RoundRecord, RunEnd, RunStart
from lepton_flwr.runs.progress import Observers
from lepton_flwr.sdk.guarantee import Guarantee
from lepton_flwr.sdk.preparation import Basis
from lepton_flwr.sdk.rows import EncryptedRows
from lepton_flwr.sdk.settings import TRAINING

TITLE = "a table of your own"


class Weights:
    """Keeps the global weights of the second half of the rounds, whose mean is the model.

    The mean of the last models has less of the noise than the last of them (Polyak and Juditsky
    1992), and costs nothing: all of them are released anyway.

    Args:
        rounds: planned rounds.

    Attributes:
        reason: why the last round released no sum, else empty.
    """

    def __init__(self, rounds: int) -> None:
        self._from = rounds // 2 + 1
        self._kept: list[list[np.ndarray]] = []
        self.reason = ""

    @property
    def learnt(self) -> bool:
        """Whether a round has released a sum."""
        return bool(self._kept)

    def average(self) -> list[np.ndarray]:
        """The model: the mean of what was kept, in the model's order."""
        return [np.mean(layers, axis=0) for layers in zip(*self._kept, strict=True)]

    def run_started(self, start: RunStart) -> None:
        """Nothing to keep."""

    def waiting(
        self, round: int, phase: str, done: int, total: int, nodes: Sequence[str] = ()
    ) -> None:
        """Nothing to keep."""

    def noted(self, round: int, event: str, values: Mapping[str, Any]) -> None:
        """Nothing to keep."""

    def round_finished(self, record: RoundRecord, weights: Sequence[np.ndarray]) -> None:
        """Keep them; until the second half, only the newest."""
        self.reason = record.reason
        if record.status == "ok":
            if record.round <= self._from:
                self._kept.clear()
            self._kept.append([np.array(weight) for weight in weights])

    def run_ended(self, end: RunEnd) -> None:
        """Nothing to keep."""


def learn(
    basis: Basis,
    rows: EncryptedRows,
    guarantee: Guarantee,
    kept: Weights,
    *,
    folder: Path,
    progress: bool,
) -> None:
    """Run the federation; the participants decrypt their rows in their own processes.

    Args:
        basis: the run and its ledgers.
        rows: the participants'.
        guarantee: what was promised.
        kept: gets the global weights, also of a run that is interrupted.
        folder: of the run; it gets the report, and the model as an envelope.
        progress: whether the run shows how it goes.

    Raises:
        EnvelopeError: a file of rows was altered, or is not for its participant's key.
        FederationError: no round released a sum.
        PrivacyError: a budget does not allow the run.
        RunInterrupted: Ctrl-C.
    """
    from simulations import runner
    from strategies.federate import Origin
    from strategies.server_app import observers

    data = rows.checked()
    config = basis.config
    promises: tuple[str, ...] = ()
    if guarantee.mechanism != TRAINING:
        record = replace(config.dp.record, enabled=False, noise_multiplier=0.0)
        config = replace(config, dp=replace(config.dp, record=record))
        promises = (guarantee.text,)
    run_folder, shown = observers(config, folder=folder, progress=progress)
    origin = Origin(TITLE, basis.population, promises)
    runner.run(
        config,
        data,
        run_folder,
        Observers([kept, shown]),
        basis.ledgers,
        name=basis.run,
        origin=origin,
    )
    if not kept.learnt:
        raise FederationError(
            f"no round released a sum: {kept.reason or 'no participant answered'}"
        )
