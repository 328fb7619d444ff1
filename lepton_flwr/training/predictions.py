"""From a model's logits to probabilities and classes."""

from typing import Any

import numpy as np
from scipy.special import expit, softmax

from lepton_flwr.errors import DataError

_ROWS_AT_ONCE = 4096


def predict_logits(model: Any, x: np.ndarray) -> np.ndarray:
    """Logits of rows.

    Args:
        model: a Keras model whose output is one logit (two classes) or one for each class.
        x: inputs, shape (n, ...); n may be 0.

    Returns:
        float64, shape (n, outputs).

    Raises:
        DataError: the rows do not have the shape that the model takes, or the model gives
            logits that are not finite.
    """
    if tuple(x.shape[1:]) != tuple(model.input_shape[1:]):
        raise DataError(
            f"rows of shape {tuple(x.shape[1:])}: expected {tuple(model.input_shape[1:])}, as the "
            "model takes"
        )
    starts = range(0, len(x), _ROWS_AT_ONCE)
    parts = [np.asarray(model(x[s : s + _ROWS_AT_ONCE], training=False)) for s in starts]
    logits = np.concatenate([np.empty((0, model.output_shape[-1])), *parts]).astype(np.float64)
    if not np.isfinite(logits).all():
        raise DataError("the model's answers hold NaN or infinity: expected finite numbers")
    return logits


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Probability of each class, float64 (n, classes); one logit is that of class 1 of two."""
    if logits.shape[1] == 1:
        one = expit(logits)
        return np.concatenate([1 - one, one], axis=1)
    shares: np.ndarray = softmax(logits, axis=1)
    return shares
