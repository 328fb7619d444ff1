"""A federated run on a client's encrypted rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lepton_flwr.errors import FederationError
from lepton_flwr.runs.average import SecondHalf
from lepton_flwr.runs.observer import RoundRecord, RunEnd, RunStart
from lepton_flwr.runs.progress import Observers
from lepton_flwr.sdk.guarantee import Guarantee
from lepton_flwr.sdk.preparation import Basis
from lepton_flwr.sdk.rows import EncryptedRows
from lepton_flwr.sdk.settings import TRAINING

TITLE = "a table of your own"


class Weights:
    """Keeps the mean of the second half of the rounds' global models, which is the model.

    Args:
        rounds: planned rounds.

    Attributes:
        reason: why the last round released no sum, else empty.
    """

    def __init__(self, rounds: int) -> None:
        self._kept = SecondHalf(rounds)
        self.reason = ""

    @property
    def learnt(self) -> bool:
        """Whether a round has released a sum."""
        return self._kept.learnt

    def average(self) -> list[np.ndarray]:
        """The model, in the model's order."""
        return self._kept.mean()

    def run_started(self, start: RunStart) -> None:
        """Nothing to keep."""

    def waiting(
        self, round: int, phase: str, done: int, total: int, nodes: Sequence[str] = ()
    ) -> None:
        """Nothing to keep."""

    def noted(self, round: int, event: str, values: Mapping[str, Any]) -> None:
        """Nothing to keep."""

    def round_finished(self, record: RoundRecord, weights: Sequence[np.ndarray]) -> None:
        """Keep them."""
        self.reason = record.reason
        self._kept.add(record, weights)

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
