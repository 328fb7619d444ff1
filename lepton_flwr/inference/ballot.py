"""What one participant adds to a poll, wherever it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.errors import ConfigError, DataError
from lepton_flwr.privacy.events import Event, SampledGaussian, Unbounded
from lepton_flwr.privacy.votes import (
    ConfidentGNMax,
    GNMax,
    MeanProbabilities,
    Mechanism,
    ballots,
    shares,
)
from lepton_flwr.secagg.encoding import Kind, Layout, Segment

BALLOTS = "ballots"  # the segment, and the metric of a Flower reply
VOTE = "vote"  # the action of a Flower message, and its record with the question
QUERIES = "queries"  # its record with the rows

Predict = Callable[[np.ndarray], np.ndarray]


def layout_of(question: "Question", num_queries: int, participants: int) -> Layout:
    """The vector that every participant sends.

    Raises:
        ConfigError: too many numbers for one sum.
    """
    size = num_queries * question.num_classes
    return Layout((Segment(BALLOTS, question.kind, size, 1.0),), participants)


def cast(predict: Predict, queries: np.ndarray, question: "Question") -> np.ndarray:
    """A participant's ballots on all queries.

    Args:
        predict: its model: from rows (queries, ...) to probabilities, float (queries, classes).
        queries: the rows.
        question: whether votes or the probabilities themselves are asked for.

    Returns:
        (queries, classes): int64 with a single 1 in every row, or float64 rows on the simplex.

    Raises:
        PrivacyError: the answers are no probabilities: they would count for more than one.
        DataError: not one answer for each query.
    """
    probabilities = shares(predict(queries.copy()), question.num_classes)
    if len(probabilities) != len(queries):
        raise DataError(f"{len(probabilities)} answers: expected {len(queries)}")
    if question.kind is Kind.COUNT:
        return ballots(probabilities.argmax(axis=1), question.num_classes)
    return probabilities


@dataclass(frozen=True)
class Question:
    """What the one who asks says of a poll to those who are asked.

    Attributes:
        num_classes: number of classes.
        kind: `Kind.COUNT` for one vote on each query, `Kind.SUM` for probabilities.
        stddev: of the noise on each count of an answer, in votes; 0 for none.
        threshold_stddev: of the noise of the check that precedes an answer; 0 without one.
    """

    num_classes: int
    kind: Kind
    stddev: float
    threshold_stddev: float = 0.0

    def __post_init__(self) -> None:
        check.integer("num_classes", self.num_classes, at_least=2, at_most=10_000)
        if self.kind not in (Kind.COUNT, Kind.SUM):
            raise ConfigError(f"kind={self.kind!r}: expected {Kind.COUNT} or {Kind.SUM}")
        object.__setattr__(self, "kind", Kind(self.kind))
        for name in ("stddev", "threshold_stddev"):
            check.finite(name, getattr(self, name), at_least=0, at_most=1e6)

    @classmethod
    def of(cls, mechanism: Mechanism | MeanProbabilities, num_classes: int) -> Self:
        """What a mechanism asks for."""
        if isinstance(mechanism, ConfidentGNMax):
            stddev, threshold = mechanism.answer.stddev, mechanism.threshold_stddev
            return cls(num_classes, Kind.COUNT, stddev, threshold)
        if isinstance(mechanism, MeanProbabilities):
            return cls(num_classes, Kind.SUM, mechanism.stddev)
        stddev = mechanism.stddev if isinstance(mechanism, GNMax) else 0.0
        return cls(num_classes, Kind.COUNT, stddev)

    def to_fields(self) -> dict[str, int | float | str]:
        """As a message holds it; `from_fields` is the inverse."""
        return {
            "classes": self.num_classes,
            "kind": str(self.kind),
            "stddev": float(self.stddev),
            "threshold-stddev": float(self.threshold_stddev),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read a question that came from a server.

        Raises:
            ConfigError: a field is missing, of another type, or out of range.
        """
        names = ("classes", "kind", "stddev", "threshold-stddev")
        return cls(*(fields.get(name) for name in names))  # type: ignore[arg-type]

    def events(self, queries: int) -> list[Event]:
        """What so many answers cost a participant, all of them given."""
        answer: Event = GNMax(self.stddev).event(queries) if self.stddev else Unbounded()
        if not self.threshold_stddev:
            return [answer]
        return [SampledGaussian(self.threshold_stddev, 1.0, queries), answer]
