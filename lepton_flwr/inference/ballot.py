"""What one participant adds to a poll, wherever it is."""

from collections.abc import Callable

import numpy as np

from lepton_flwr.errors import DataError
from lepton_flwr.privacy.votes import ballots, shares
from lepton_flwr.secagg.encoding import Kind, Layout, Segment

BALLOTS = "ballots"  # the segment, and the metric of a Flower reply

Predict = Callable[[np.ndarray], np.ndarray]


def layout_of(num_queries: int, num_classes: int, kind: Kind, participants: int) -> Layout:
    """The vector that every participant sends; whole votes are `Kind.COUNT`, shares `Kind.SUM`.

    Raises:
        ConfigError: too many numbers for one sum.
    """
    return Layout((Segment(BALLOTS, kind, num_queries * num_classes, 1.0),), participants)


def cast(predict: Predict, queries: np.ndarray, num_classes: int, kind: Kind) -> np.ndarray:
    """A participant's ballots on all queries.

    Args:
        predict: its model: from rows (queries, ...) to probabilities, float (queries, classes).
        queries: the rows.
        num_classes: number of classes.
        kind: `Kind.COUNT` casts one vote on each query, `Kind.SUM` the probabilities themselves.

    Returns:
        (queries, classes): int64 with a single 1 in every row, or float64 rows on the simplex.

    Raises:
        PrivacyError: the answers are no probabilities: they would count for more than one.
        DataError: not one answer for each query.
    """
    probabilities = shares(predict(queries.copy()), num_classes)
    if len(probabilities) != len(queries):
        raise DataError(f"{len(probabilities)} answers: expected {len(queries)}")
    if kind is Kind.COUNT:
        return ballots(probabilities.argmax(axis=1), num_classes)
    return probabilities
