"""What a running federation tells those who watch it: progress bars, run folders, logs.

Nothing here is of one client's data: counts, times, what the secure sums decrypt to, and the nodes
that did not answer with the class of their failure.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np

from lepton_flwr.config import RunConfig

PHASES = ("keys", "shares", "train", "attest", "reveal", "aggregate", "evaluate")


@dataclass(frozen=True)
class RunStart:
    """What is known before the first round.

    Attributes:
        config: the resolved configuration.
        scenario_title: the scenario in a few words.
        clients: clients of the federation.
        num_parameters: trainable and other weights of the model.
        guarantee: plain sentences, one for each promise.
        noise_multiplier_record: noise over clip norm on the client, if any.
        noise_multiplier_client: noise over clip norm on the sum, if any.
        private_inputs: whether the rows were made private before training, as `guarantee` says.
        rounds_done: rounds that a server before this one has ended.
    """

    config: RunConfig
    scenario_title: str
    clients: int
    num_parameters: int
    guarantee: tuple[str, ...]
    noise_multiplier_record: float | None
    noise_multiplier_client: float | None
    private_inputs: bool = False
    rounds_done: int = 0


@dataclass(frozen=True)
class RoundRecord:
    """One round: a row of `metrics.csv`. None means not known.

    Attributes:
        round: number of the round, from 1.
        status: "ok" or "skipped"; a skipped round leaves the model unchanged.
        reason: why it was skipped, else empty.
        participants: clients that were asked.
        survivors: clients whose updates are in the sum.
        accuracy: on the held-out rows of all clients together.
        auc: area under the ROC curve on the same rows (mean over classes if more than two).
        loss: mean loss on the same rows.
        epsilon_record: spent so far, per record.
        epsilon_client: spent so far, per client.
        bytes_up: sent by one client in this round, mean over the participants.
        bytes_down: received by one client in this round, mean over the participants.
        saturated: coordinates of the sum's inputs beyond the fixed-point range.
        seconds: by phase, see `PHASES`.
        l2_norm_clip: to which each client's update was clipped, with client-level privacy.
        failures: clients that its sessions lost, by class, see `Failure`.
        retries: sessions that were opened anew.
        finished: when, in seconds since 1970.
    """

    round: int
    status: str
    reason: str
    participants: int
    survivors: int
    accuracy: float | None
    auc: float | None
    loss: float | None
    epsilon_record: float | None
    epsilon_client: float | None
    bytes_up: int
    bytes_down: int
    saturated: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    l2_norm_clip: float | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    retries: int = 0
    finished: float = 0.0

    def to_plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_plain`.

        Raises:
            TypeError: unknown or missing values.
        """
        return cls(**values)


@dataclass(frozen=True)
class RunEnd:
    """How a run ended.

    Attributes:
        reason: "finished", "interrupted", "failed" or "budget".
        roc: (false positive rate, true positive rate) of the last evaluation, if known.
        delta: the delta of every epsilon.
        accountant: what computed the epsilons.
    """

    reason: str
    roc: list[tuple[float, float]] | None
    delta: float
    accountant: str


class RunObserver(Protocol):
    """Watches a run; an exception in an observer ends the run."""

    def run_started(self, start: RunStart) -> None:
        """Before the first round."""

    def waiting(
        self, round: int, phase: str, done: int, total: int, nodes: Sequence[str] = ()
    ) -> None:
        """`done` of `total` clients have answered this phase; `nodes` names some that have not."""

    def noted(self, round: int, event: str, values: Mapping[str, Any]) -> None:
        """Something else has happened in a round; see `lepton_flwr.runs.journal` for what."""

    def round_finished(self, record: RoundRecord, weights: Sequence[np.ndarray]) -> None:
        """After each round; `weights` are the global model's."""

    def run_ended(self, end: RunEnd) -> None:
        """Once, however the run ended."""
