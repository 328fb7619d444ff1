"""Asking all participants' models: their votes are added up under masks, noised and answered.

A participant's model never leaves it, and neither does its vote: the one who asks gets the sum of
many participants from secure aggregation, adds noise, and publishes the answer.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.errors import DataError
from lepton_flwr.inference.ballot import BALLOTS, Question
from lepton_flwr.privacy import losses
from lepton_flwr.privacy.events import Event, Unit
from lepton_flwr.privacy.ledger import Charge, Ledger, Limits
from lepton_flwr.privacy.noise import GaussianNoise
from lepton_flwr.privacy.votes import (
    ABSTAINED,
    ConfidentGNMax,
    MeanProbabilities,
    Mechanism,
)
from lepton_flwr.secagg.encoding import Layout


@dataclass(frozen=True)
class Tally:
    """What secure aggregation gives the one who asks.

    Attributes:
        sums: int64 (queries, classes), in grid units.
        scale: grid units per vote.
        participants: how many are in the sums.
    """

    sums: np.ndarray
    scale: float
    participants: int

    @classmethod
    def of(cls, total: np.ndarray, layout: Layout, num_classes: int, participants: int) -> Self:
        """From the centred sum of a session, int64 (dimension,), and its layout."""
        (segment,) = layout.segments
        sums = total[layout.slice(BALLOTS)].reshape(-1, num_classes)
        return cls(sums, layout.scale(segment), participants)


# From queries, float (queries, ...), and what is asked of them.
Voters = Callable[[np.ndarray, Question], Tally]


@dataclass(frozen=True)
class Answers:
    """What may be published.

    Attributes:
        labels: int64 (queries,), classes; -1 where the participants abstained.
        margins: float64 (queries,), votes between the first and the second class, with the noise
            that decided; NaN where the participants abstained.
        participants: how many votes there were on each query.
        cost: epsilon of these answers alone, per participant and per record, at the poll's delta.
        epsilon: per record, of everything that the ledger holds, at the poll's delta; infinite if
            a release in it is not accounted per record. There is none per participant: what runs
            with record-level privacy have told of all records of one is not bounded.
    """

    labels: np.ndarray
    margins: np.ndarray
    participants: int
    cost: float
    epsilon: float


@dataclass(frozen=True)
class Averages:
    """Averaged probabilities, float64 (queries, classes); the rest is as in `Answers`."""

    probabilities: np.ndarray
    participants: int
    cost: float
    epsilon: float


class Poll:
    """Asks voters, and charges what their answers cost before any noise is drawn.

    **Guarantee**: with a mechanism that adds noise, everything that the poll returns is
    differentially private for one record and for all records of one participant, which stays a
    participant, against those who see the answers; all that the ledger has accounted of the same
    data set and unit, in polls and runs, stays within the limits of that unit. A run with
    record-level privacy alone is accounted per record alone: the limit per client is one of the
    polls, and of runs with client-level privacy, together. The one who asks learns the exact sums
    and no participant's own vote; see `voters`.

    Args:
        voters: adds up the ballots of those who are asked.
        num_classes: number of classes.
        ledger: the ledger of the one who asks, open.
        dataset: the participants' data, as `Ledger.dataset` names it; the name under which
            training on them was charged, if it was.
        limits: what may be spent, per record and per client.
        delta: at which epsilon is reported.
        name: what the ledger calls the poll.
        noise: None draws from a generator keyed by the operating system; tests inject one.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        voters: Voters,
        num_classes: int,
        *,
        ledger: Ledger,
        dataset: str,
        limits: Limits,
        delta: float = 1e-5,
        name: str = "poll",
        noise: GaussianNoise | None = None,
    ) -> None:
        self._voters = voters
        self._num_classes = check.integer("num_classes", num_classes, at_least=2)
        self._ledger = ledger
        self._dataset = dataset
        self._limits = limits
        self._delta = check.finite("delta", delta, above=0, below=1)
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
            SecAggError: too few participants answered; what was charged stays charged.
        """
        queries = _queries(queries)
        bill = [self._reserve(mechanism.event(len(queries)))]
        tally = self._voters(queries, Question.of(mechanism, self._num_classes))
        if isinstance(mechanism, ConfidentGNMax):
            labels = np.full(len(queries), ABSTAINED, dtype=np.int64)
            margins = np.full(len(queries), np.nan)
            passed = np.flatnonzero(mechanism.passes(tally.sums, self._noise))
            if passed.size:
                bill.append(self._reserve(mechanism.answer.event(passed.size)))
                labels[passed], margins[passed] = mechanism.answer.decide(
                    tally.sums[passed], self._noise
                )
        else:
            labels, margins = mechanism.decide(tally.sums, self._noise)
        return Answers(labels, margins, tally.participants, *self._settle(bill))

    def averages(self, queries: np.ndarray, mechanism: MeanProbabilities) -> Averages:
        """The mean of the participants' probabilities for each query.

        Args and errors as in `labels`.
        """
        queries = _queries(queries)
        bill = [self._reserve(mechanism.event(len(queries)))]
        tally = self._voters(queries, Question.of(mechanism, self._num_classes))
        means = mechanism.release(tally.sums, tally.scale, tally.participants, self._noise)
        return Averages(means, tally.participants, *self._settle(bill))

    def _reserve(self, event: Event) -> tuple[int, Event]:
        # What hides all records of a participant hides one of them.
        charges = [Charge(unit, self._dataset, event) for unit in (Unit.RECORD, Unit.CLIENT)]
        return self._ledger.reserve(charges, self._limits, self._name), event

    def _settle(self, bill: list[tuple[int, Event]]) -> tuple[float, float]:
        for number, _ in bill:
            self._ledger.commit(number)
        cost = losses.epsilon([(event, 1) for _, event in bill], self._delta)
        if self._ledger.unaccounted(Unit.RECORD, self._dataset):
            return cost, math.inf
        return cost, self._ledger.spent(Unit.RECORD, self._dataset, self._delta)


def _queries(queries: np.ndarray) -> np.ndarray:
    rows = np.asarray(queries)
    if rows.ndim < 2 or not len(rows) or rows.dtype.kind not in "iuf":
        raise DataError(f"queries of {rows.dtype}{rows.shape}: expected numbers (queries, ...)")
    if not np.isfinite(rows).all():
        raise DataError("queries hold NaN or infinity: expected finite numbers")
    return np.ascontiguousarray(rows)
