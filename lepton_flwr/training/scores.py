"""Evaluation as vectors that add up over clients: accuracy, loss and AUC of the sum alone.

The counts of one client describe its held-out rows without noise: they go through secure
aggregation, never in clear.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_flwr.errors import DataError

BINS = 512
LARGEST_LOGIT = 12.0
LARGEST_LOSS = 20.0
_ROWS_AT_ONCE = 4096
_ROC_POINTS = 201


@dataclass(frozen=True)
class Summary:
    """Metrics of all counted examples together; None where they are not defined.

    Attributes:
        accuracy: share of examples whose largest logit is their class.
        auc: area under the ROC curve; with several classes, the mean over the classes that occur
            of one against the rest.
        loss: mean cross-entropy, each example's at most 20.
        roc: float64 of shape (201, 2), false and true positive rate, the latter averaged over
            classes as `auc` is.
    """

    accuracy: float | None
    auc: float | None
    loss: float | None
    roc: np.ndarray | None


def evaluate_counts(
    model: Any, x: np.ndarray, y: np.ndarray, num_classes: int
) -> dict[str, np.ndarray | float]:
    """Count what the metrics need on one data set.

    Args:
        model: a Keras model whose output is one logit (two classes) or one for each class.
        x: inputs, shape (n, ...); n may be 0.
        y: class numbers, shape (n,) or (n, 1).
        num_classes: number of classes, at least 2.

    Returns:
        `examples` and `correct` (int), `loss-sum` (float), and `scores`: int64 of shape
        (num_outputs * 2 * 512,), for each output the histograms of log-odds of negative and of
        positive examples on [-12, 12], with the rest in the edge bins. An example whose logits
        hold NaN or infinity counts as wrong, with the largest loss and the lowest score.

    Raises:
        DataError: as many labels as rows, class numbers or the model's outputs do not fit.
    """
    labels = np.asarray(y).reshape(-1).astype(np.int64)
    if len(labels) != len(x):
        raise DataError(f"{len(x)} rows and {len(labels)} labels: expected as many")
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise DataError(f"class numbers: expected 0 to {num_classes - 1}")
    outputs = 1 if num_classes == 2 else num_classes
    if model.output_shape[-1] != outputs:
        raise DataError(f"the model has {model.output_shape[-1]} outputs: expected {outputs}")
    starts = range(0, len(x), _ROWS_AT_ONCE)
    parts = [np.asarray(model(x[s : s + _ROWS_AT_ONCE], training=False)) for s in starts]
    logits = np.concatenate([np.empty((0, outputs)), *parts]).astype(np.float64)
    return counts_of(logits, labels)


def counts_of(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray | float]:
    """Count from logits, float64 of shape (n, outputs), and class numbers, int64 of shape (n,)."""
    broken = ~np.isfinite(logits).all(axis=1)
    logits = np.where(broken[:, None], 0.0, logits)
    rows, outputs = logits.shape
    if outputs == 1:
        odds = logits
        of_label = np.where(labels == 1, logits[:, 0], -logits[:, 0])
        correct = (logits[:, 0] > 0) == (labels == 1)
        positive = (labels == 1)[:, None]
    else:
        odds = _log_odds(logits)
        of_label = odds[np.arange(rows), labels]
        correct = logits.argmax(axis=1) == labels
        positive = labels[:, None] == np.arange(outputs)
    losses = np.minimum(np.logaddexp(0.0, -of_label), LARGEST_LOSS)
    bins = np.floor((odds + LARGEST_LOGIT) * (BINS / (2 * LARGEST_LOGIT)))
    bins = np.where(broken[:, None], 0, np.clip(bins, 0, BINS - 1)).astype(np.int64)
    cells = (np.arange(outputs) * 2 + positive) * BINS + bins
    return {
        "examples": rows,
        "correct": int(np.sum(correct & ~broken)),
        "loss-sum": float(np.sum(np.where(broken, LARGEST_LOSS, losses))),
        "scores": np.bincount(cells.ravel(), minlength=outputs * 2 * BINS),
    }


def summarise(counts: Mapping[str, Any]) -> Summary:
    """Metrics from the sum over clients of what `evaluate_counts` returns.

    Within a bin, examples count as tied.

    Raises:
        DataError: `scores` has a length that no model gives.
    """
    scores = np.asarray(counts["scores"], dtype=np.float64)
    if scores.ndim != 1 or not scores.size or scores.size % (2 * BINS):
        raise DataError(f"scores of shape {scores.shape}: expected a multiple of {2 * BINS}")
    areas, curves = [], []
    grid = np.linspace(0.0, 1.0, _ROC_POINTS)
    for negative, positive in scores.reshape(-1, 2, BINS):
        if negative.sum() <= 0 or positive.sum() <= 0:
            continue
        false_rate = np.append(0.0, np.cumsum(negative[::-1]) / negative.sum())
        true_rate = np.append(0.0, np.cumsum(positive[::-1]) / positive.sum())
        areas.append(float(np.diff(false_rate) @ (true_rate[1:] + true_rate[:-1]) / 2))
        curves.append(np.interp(grid, false_rate, true_rate))
    examples = float(counts["examples"])
    return Summary(
        accuracy=float(counts["correct"]) / examples if examples > 0 else None,
        auc=float(np.mean(areas)) if areas else None,
        loss=float(counts["loss-sum"]) / examples if examples > 0 else None,
        roc=np.column_stack([grid, np.mean(curves, axis=0)]) if curves else None,
    )


def _log_odds(logits: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of each class under the softmax; exact far beyond the histograms' range."""
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    rest = np.maximum(-np.expm1(log_p), np.finfo(np.float64).tiny)
    odds: np.ndarray = log_p - np.log(rest)
    return odds
