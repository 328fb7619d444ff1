"""Asking all participants' models: their votes are added up under masks, noised and answered.

A participant's model never leaves it, and neither does its vote: the one who asks gets the sum of
at least `min_survivors` participants from secure aggregation, adds noise, and publishes the answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.errors import ConfigError, DataError
from lepton_flwr.privacy.events import Event, Unit
from lepton_flwr.privacy.ledger import Charge, Ledger, Limits
from lepton_flwr.privacy.noise import GaussianNoise
from lepton_flwr.privacy.votes import (
    ABSTAINED,
    ConfidentGNMax,
    GNMax,
    MeanProbabilities,
    Mechanism,
    ballots,
    shares,
)
from lepton_flwr.secagg.content import content_digest
from lepton_flwr.secagg.encoding import Kind, Layout, Segment
from lepton_flwr.secagg.graph import complete_threshold
from lepton_flwr.secagg.in_process import Party, SecureSum, secure_sum
from lepton_flwr.secagg.parameters import SessionConfig
from lepton_flwr.secagg.roles import Members

BALLOTS = "ballots"
LABEL = "lepton/inference/poll/v1"

Predict = Callable[[np.ndarray], np.ndarray]
Encode = Callable[[np.ndarray, int], np.ndarray]


@dataclass
class Participant:
    """One participant of a poll in this process.

    Attributes:
        party: as secure aggregation sees it.
        predict: its model: from rows (queries, ...) to probabilities, float (queries, classes).
    """

    party: Party
    predict: Predict


@dataclass(frozen=True)
class Answers:
    """What may be published.

    Attributes:
        labels: int64 (queries,), classes; -1 where the participants abstained.
        participants: how many votes there were on each query.
        epsilon: spent per participant so far, by everything in the ledger, at the poll's delta.
    """

    labels: np.ndarray
    participants: int
    epsilon: float


@dataclass(frozen=True)
class Averages:
    """Averaged probabilities, float64 (queries, classes); the rest is as in `Answers`."""

    probabilities: np.ndarray
    participants: int
    epsilon: float


class Poll:
    """Asks participants, and charges what their answers cost before any noise is drawn.

    **Guarantee**: with a mechanism that adds noise, everything that the poll returns is
    differentially private for one record and for all records of one participant, which stays a
    participant, against those who see the answers; all polls and runs on the same ledger and data
    set stay within the limits. The one who asks learns the exact sum over at least `min_survivors`
    participants, and no participant's own vote.

    Args:
        participants: who is asked, three or more.
        num_classes: number of classes.
        roster: the roster of the one who asks.
        ledger: its ledger, open.
        dataset: the participants' data, as `Ledger.dataset` names it; the name under which
            training on them was charged, if it was.
        limits: what may be spent, per record and per client.
        delta: at which epsilon is reported.
        min_survivors: fewest participants whose sum is released; 0 takes the protocol's threshold.
        name: what the ledger calls the poll.
        noise: None draws from a generator keyed by the operating system; tests inject one.

    Raises:
        ConfigError: too few participants, or a number out of range.
    """

    def __init__(
        self,
        participants: Sequence[Participant],
        num_classes: int,
        *,
        roster: Members,
        ledger: Ledger,
        dataset: str,
        limits: Limits,
        delta: float = 1e-5,
        min_survivors: int = 0,
        name: str = "poll",
        noise: GaussianNoise | None = None,
    ) -> None:
        if len(participants) < 3:
            raise ConfigError(f"{len(participants)} participants: expected 3 or more")
        self._participants = list(participants)
        self._num_classes = check.integer("num_classes", num_classes, at_least=2)
        self._roster = roster
        self._ledger = ledger
        self._dataset = dataset
        self._limits = limits
        self._delta = check.finite("delta", delta, above=0, below=1)
        check.integer("min_survivors", min_survivors, at_least=0, at_most=len(participants))
        self._min_survivors = min_survivors or complete_threshold(len(participants))
        self._name = name
        self._noise = noise

    def labels(self, queries: np.ndarray, mechanism: Mechanism) -> Answers:
        """The class that most participants' models choose, for each query.

        Args:
            queries: float (queries, ...), rows as the participants' models take them.
            mechanism: the noise; `Plurality` for none.

        Raises:
            DataError: no query, or one that is not finite.
            BudgetError: a limit would be exceeded: nothing of the query, or with `ConfidentGNMax`
                nothing beyond which queries it would have answered, is released.
            ThresholdError: too few participants answered; what was charged stays charged.
        """
        queries = _queries(queries)
        reservations = [self._reserve(mechanism.event(len(queries)))]
        found = self._sum(queries, Kind.COUNT, ballots)
        counts = found.total[: self._size(queries)].reshape(len(queries), self._num_classes)
        if isinstance(mechanism, ConfidentGNMax):
            answers = np.full(len(counts), ABSTAINED, dtype=np.int64)
            passed = np.flatnonzero(mechanism.passes(counts, self._noise))
            if passed.size:
                reservations.append(self._reserve(mechanism.answer.event(passed.size)))
                answers[passed] = mechanism.answer.release(counts[passed], self._noise)
        elif isinstance(mechanism, GNMax):
            answers = mechanism.release(counts, self._noise)
        else:
            answers = mechanism.release(counts)
        return Answers(answers, found.survivors, self._settle(reservations))

    def averages(self, queries: np.ndarray, mechanism: MeanProbabilities) -> Averages:
        """The mean of the participants' probabilities for each query.

        Args and errors as in `labels`.
        """
        queries = _queries(queries)
        reservation = self._reserve(mechanism.event(len(queries)))
        found = self._sum(queries, Kind.SUM, shares)
        sums = found.total[: self._size(queries)].reshape(len(queries), self._num_classes)
        layout = self._layout(queries, Kind.SUM)
        scale = layout.scale(layout.segments[0])
        means = mechanism.release(sums, scale, found.survivors, self._noise)
        return Averages(means, found.survivors, self._settle([reservation]))

    def _sum(self, queries: np.ndarray, kind: Kind, encode: Encode) -> SecureSum:
        parties = [participant.party for participant in self._participants]
        config = SessionConfig(
            self._name,
            1 + max(party.last_number for party in parties),
            "evaluate",
            self._layout(queries, kind),
            self._min_survivors,
        )
        asked = {"queries": queries, "kind": str(kind), "classes": self._num_classes}
        work = [partial(self._answer, p.predict, queries, encode) for p in self._participants]
        return secure_sum(config, content_digest({LABEL: asked}), self._roster, parties, work)

    def _answer(
        self, predict: Predict, queries: np.ndarray, encode: Encode, config: SessionConfig
    ) -> np.ndarray:
        """A participant's part of the sum."""
        probabilities = shares(predict(queries.copy()), self._num_classes)
        if len(probabilities) != len(queries):
            raise DataError(f"{len(probabilities)} answers: expected {len(queries)}")
        part = probabilities.argmax(axis=1) if encode is ballots else probabilities
        return config.layout.encode({BALLOTS: encode(part, self._num_classes)}, 1)

    def _layout(self, queries: np.ndarray, kind: Kind) -> Layout:
        segment = Segment(BALLOTS, kind, self._size(queries), 1.0)
        return Layout((segment,), len(self._participants))

    def _size(self, queries: np.ndarray) -> int:
        return len(queries) * self._num_classes

    def _reserve(self, event: Event) -> int:
        # What hides all records of a participant hides one of them.
        charges = [Charge(unit, self._dataset, event) for unit in (Unit.RECORD, Unit.CLIENT)]
        return self._ledger.reserve(charges, self._limits, self._name)

    def _settle(self, reservations: Sequence[int]) -> float:
        for number in reservations:
            self._ledger.commit(number)
        return self._ledger.spent(Unit.CLIENT, self._dataset, self._delta)


def _queries(queries: np.ndarray) -> np.ndarray:
    rows = np.asarray(queries)
    if rows.ndim < 2 or not len(rows) or rows.dtype.kind not in "iuf":
        raise DataError(f"queries of {rows.dtype}{rows.shape}: expected numbers (queries, ...)")
    if not np.isfinite(rows).all():
        raise DataError("queries hold NaN or infinity: expected finite numbers")
    return np.ascontiguousarray(rows)
