"""Turns sessions into rounds: what each round did, as observers see it."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from logging import INFO
from typing import Any

from flwr.common import log

from lepton_flwr.failures import Failure, counted
from lepton_flwr.privacy.events import Unit
from lepton_flwr.runs.observer import RoundRecord, RunObserver
from lepton_flwr.secagg.encoding import Decoded, Kind, Segment
from lepton_flwr.training.models import ModelSpec
from lepton_flwr.training.scores import BINS, LARGEST_LOSS, Summary, summarise
from strategies.budgets import Budgets
from strategies.secure_session import SessionReport
from strategies.watcher import Watcher

NAMED = 4  # nodes of those waited for whose names are told


def evaluation_segments(model: ModelSpec, max_rows: int) -> tuple[Segment, ...]:
    """What evaluation adds to the sum; the names are those of `training.scores`."""
    return (
        Segment("examples", Kind.COUNT, 1, max_rows),
        Segment("correct", Kind.COUNT, 1, max_rows),
        Segment("loss-sum", Kind.SUM, 1, LARGEST_LOSS * max_rows),
        Segment("scores", Kind.COUNT, 2 * BINS * model.num_outputs, max_rows),
    )


class Rounds(Watcher):
    """Collects the sessions of a round and reports the round when it ends.

    Args:
        observer: told of progress and of every round.
        budgets: charged before a round trains.
        records: the rounds before this server's first.
    """

    def __init__(
        self, observer: RunObserver, budgets: Budgets, records: Sequence[RoundRecord] = ()
    ) -> None:
        self._observer = observer
        self._budgets = budgets
        self._sessions: list[SessionReport] = []
        self._saturated = 0
        self._summary: Summary | None = None
        self.records = list(records)
        self.roc: list[tuple[float, float]] | None = None

    @property
    def round(self) -> int:
        """Number of the round that is on, from 1."""
        return len(self.records) + 1

    def charge(self) -> None:
        """Charge the budgets for the round that is about to train.

        Raises:
            BudgetError: one of them does not allow it; none is charged then.
        """
        self._note("round started", {})
        self._budgets.charge(self.round)
        spent = {f"epsilon_{unit.value}": self._budgets.spent(unit) for unit in Unit}
        self._note("charged", {**spent, "ledger_rows": self._budgets.head[0]})

    def waiting(self, phase: str, done: int, total: int, nodes: Sequence[int]) -> None:
        """Replies of an exchange, as they come."""
        names = [str(node) for node in nodes[:NAMED]]
        self._observer.waiting(self.round, phase, done, total, names)

    def failed(self, phase: str, node: int, failure: Failure) -> None:
        """A node is out of a session."""
        self._note("failure", {"phase": phase, "node": str(node), "class": str(failure)})

    def exchanged(self, purpose: str, phase: str, done: int, total: int, seconds: float) -> None:
        """An exchange is over."""
        values = {"purpose": purpose, "phase": phase, "answered": done, "asked": total}
        self._note("exchange", {**values, "seconds": round(seconds, 3)})

    def retrying(self, attempt: int, seconds: float, reason: str) -> None:
        """A session is opened anew."""
        self._note("retry", {"attempt": attempt, "seconds": seconds, "reason": reason})

    def _note(self, event: str, values: Mapping[str, Any]) -> None:
        self._observer.noted(self.round, event, values)

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

    def finish(self) -> RoundRecord:
        """The round has ended; the next one is on."""
        self._budgets.settle()
        record = self._record()
        self.records.append(record)
        self._sessions, self._saturated, self._summary = [], 0, None
        return record

    def lose(self) -> RoundRecord:
        """A server charged the round and did not finish it: it stays charged, and is over."""
        record = replace(self._record(), reason="the server ended during this round")
        self.records.append(record)
        return record

    def _record(self) -> RoundRecord:
        trained = [session for session in self._sessions if session.purpose == "train"]
        training = trained[-1] if trained else None
        participants = training.participants if training else 0
        skipped = training.skipped if training else "no client was asked to train"
        if skipped and training and training.failures:
            skipped = f"{skipped} ({counted(training.failures)})"
        failures = sum((session.failures for session in self._sessions), Counter[Failure]())
        purposes = {session.purpose for session in self._sessions}
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
            failures={str(failure): count for failure, count in failures.items()},
            retries=len(self._sessions) - len(purposes),
            finished=time.time(),
        )
