"""Turns sessions into rounds: what each round did, as observers see it."""

from collections import Counter
from collections.abc import Sequence
from logging import INFO

import numpy as np
from flwr.common import log

from lepton_flwr.privacy.events import Unit
from lepton_flwr.runs.observer import RoundRecord, RunObserver
from lepton_flwr.secagg.encoding import Decoded, Kind, Segment
from lepton_flwr.training.models import ModelSpec
from lepton_flwr.training.scores import BINS, LARGEST_LOSS, Summary, summarise
from strategies.budgets import Budgets
from strategies.secure_session import SessionReport


def evaluation_segments(model: ModelSpec, max_rows: int) -> tuple[Segment, ...]:
    """What evaluation adds to the sum; the names are those of `training.scores`."""
    return (
        Segment("examples", Kind.COUNT, 1, max_rows),
        Segment("correct", Kind.COUNT, 1, max_rows),
        Segment("loss-sum", Kind.SUM, 1, LARGEST_LOSS * max_rows),
        Segment("scores", Kind.COUNT, 2 * BINS * model.num_outputs, max_rows),
    )


class Rounds:
    """Collects the sessions of a round and reports the round when it ends.

    Args:
        observer: told of progress and of every round.
        budgets: charged before a round trains.
    """

    def __init__(self, observer: RunObserver, budgets: Budgets) -> None:
        self._observer = observer
        self._budgets = budgets
        self._sessions: list[SessionReport] = []
        self._saturated = 0
        self._summary: Summary | None = None
        self.round = 1
        self.roc: list[tuple[float, float]] | None = None

    def charge(self) -> None:
        """Charge the budgets for the round that is about to train.

        Raises:
            BudgetError: one of them does not allow it; none is charged then.
        """
        self._budgets.charge(self.round)

    def progress(self, phase: str, done: int, total: int) -> None:
        """Replies of an exchange, as they come."""
        self._observer.waiting(self.round, phase, done, total)

    def session(self, report: SessionReport, decoded: Decoded | None) -> None:
        """A session of this round has ended."""
        self._sessions.append(report)
        if decoded is None:
            log(INFO, "No %s in round %d: %s", report.purpose, self.round, report.skipped)
            return
        self._saturated += decoded.saturated
        if report.purpose == "evaluate":
            sums = {
                name: values.item() if values.size == 1 else values
                for name, values in decoded.sums.items()
            }
            self._summary = summarise(sums)
            if self._summary.roc is not None:
                self.roc = [(float(x), float(y)) for x, y in self._summary.roc]

    def finish(self, weights: Sequence[np.ndarray]) -> None:
        """The round has ended with these global weights."""
        self._budgets.settle()
        self._observer.round_finished(self._record(), weights)
        self._sessions, self._saturated, self._summary = [], 0, None
        self.round += 1

    def _record(self) -> RoundRecord:
        training = next((s for s in self._sessions if s.purpose == "train"), None)
        participants = training.participants if training else 0
        skipped = training.skipped if training else "no client was asked to train"
        failures = training.failures if training else Counter[str]()
        if skipped and failures:
            counted = ", ".join(f"{count} x {name}" for name, count in failures.most_common())
            skipped = f"{skipped} ({counted})"
        seconds: dict[str, float] = {}
        for session in self._sessions:
            for phase, value in session.seconds.items():
                name = phase if session.purpose == "train" else "evaluate"
                seconds[name] = seconds.get(name, 0.0) + value
        clients = max(participants, 1)
        metrics = self._summary or Summary(None, None, None, None)
        return RoundRecord(
            round=self.round,
            status="skipped" if skipped else "ok",
            reason=skipped,
            participants=participants,
            survivors=training.survivors if training else 0,
            accuracy=metrics.accuracy,
            auc=metrics.auc,
            loss=metrics.loss,
            epsilon_record=self._budgets.spent(Unit.RECORD),
            epsilon_client=self._budgets.spent(Unit.CLIENT),
            bytes_up=sum(s.bytes_up for s in self._sessions) // clients,
            bytes_down=sum(s.bytes_down for s in self._sessions) // clients,
            saturated=self._saturated,
            seconds=seconds,
            l2_norm_clip=(training.l2_norm_clip or None) if training else None,
        )
