"""A federated run on a client's encrypted rows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lepton_flwr.config import RunConfig
from lepton_flwr.errors import FederationError
from lepton_flwr.runs.folder import RunFolder
from lepton_flwr.runs.observer import RoundRecord, RunEnd, RunObserver, RunStart
from lepton_flwr.runs.progress import Observers, ProgressBar
from lepton_flwr.sdk.guarantee import Guarantee
from lepton_flwr.sdk.rows import EncryptedRows
from lepton_flwr.sdk.settings import TRAINING, Settings
from lepton_flwr.sdk.spending import Spending

TITLE = "a table of your own"
SCENARIO = "csv"
LEARNING_RATE = 4.0  # of training with noise, by plain gradient descent
PLAIN_LEARNING_RATE = 0.05  # of training on perturbed rows, by Adam


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

    def waiting(self, round: int, phase: str, done: int, total: int) -> None:
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


def run_config(
    settings: Settings, delta: float, rows: EncryptedRows, guarantee: Guarantee
) -> RunConfig:
    """The run that the settings and the guarantee ask for."""
    private = guarantee.mechanism == TRAINING
    rate = LEARNING_RATE if private else PLAIN_LEARNING_RATE
    record = {
        "enabled": private,
        "epsilon": settings.epsilon,
        "l2_norm_clip": settings.l2_norm_clip,
        **({"noise_multiplier": guarantee.noise_multiplier} if private else {}),
    }
    return RunConfig.build(
        {
            "scenario": SCENARIO,
            "clients": len(rows.digests),
            "rounds": settings.rounds,
            "seed": settings.seed,
            "data": {"test_fraction": settings.test_fraction},
            "train": {
                "optimizer": "sgd" if private else "adam",
                "learning_rate": settings.learning_rate or rate,
                "local_steps": settings.local_steps,
                "sampling_probability": settings.sampling_probability,
                "hidden_units": list(settings.hidden_units),
            },
            "dp": {"delta": delta, "record": record},
        }
    )


def learn(
    settings: Settings,
    rows: EncryptedRows,
    spending: Spending,
    guarantee: Guarantee,
    *,
    folder: Path,
    kept: Weights,
) -> None:
    """Run the federation; the participants decrypt their rows in their own processes.

    Args:
        settings: the client's.
        rows: the participants'.
        spending: their ledgers, which the run goes on with.
        guarantee: what was promised.
        folder: of the run; it gets the report, and no model.
        kept: gets the global weights, also of a run that is interrupted.

    Raises:
        EnvelopeError: a file of rows was altered, or is not for its participant's key.
        FederationError: no round released a sum.
        PrivacyError: a budget does not allow the run.
        RunInterrupted: Ctrl-C.
    """
    from simulations import runner
    from strategies.federate import Origin
    from strategies.server_app import with_data

    data = rows.checked()
    config = with_data(run_config(settings, spending.limit.delta, rows, guarantee), data)
    run_folder = RunFolder(config, save_model=None, folder=folder)
    observers: list[RunObserver] = [kept, run_folder]
    if settings.progress:
        observers.append(ProgressBar())
    promises = () if guarantee.mechanism == TRAINING else (guarantee.text,)
    origin = Origin(TITLE, spending.population, promises)
    runner.run(config, data, run_folder, Observers(observers), spending.folder, origin=origin)
    if not kept.learnt:
        raise FederationError(
            f"no round released a sum: {kept.reason or 'no participant answered'}"
        )
