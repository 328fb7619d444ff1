"""Weights of examples: they scale a loss before its gradient is clipped."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.errors import DataError


def example_weights(
    labels: Any,
    num_records: int,
    sample_weight: np.ndarray | None,
    class_weight: Mapping[int, float] | None,
) -> np.ndarray | None:
    """One weight per example, as Keras combines them: sample weight times class weight.

    Args:
        labels: array of shape (n,), (n, 1), or one-hot (n, classes).
        num_records: n.
        sample_weight: shape (n,); None is 1 for all.
        class_weight: class to weight; classes left out weigh 1.

    Returns:
        float32 of shape (n,); None where all weigh 1.

    Raises:
        DataError: another shape, a weight that is negative or not finite, or class weights for
            labels that are not one tensor of classes.
        ConfigError: a class weight is negative or not finite.
    """
    if sample_weight is None and class_weight is None:
        return None
    weights = np.ones(num_records, np.float32)
    if sample_weight is not None:
        given = np.asarray(sample_weight, dtype=np.float32)
        if given.shape not in ((num_records,), (num_records, 1)):
            raise DataError(
                f"sample_weight of shape {given.shape}: expected ({num_records},), one per row"
            )
        if not (np.isfinite(given).all() and (given >= 0).all()):
            raise DataError("sample_weight: expected finite numbers >= 0")
        weights *= given.reshape(-1)
    if class_weight is not None:
        for label, weight in class_weight.items():
            check.finite(f"class_weight[{label!r}]", weight, at_least=0)
        classes = _classes(labels)
        for label, weight in class_weight.items():
            weights[classes == label] *= weight
    return weights


def _classes(labels: Any) -> np.ndarray:
    if not isinstance(labels, np.ndarray):
        raise DataError("class_weight: expected a model with one output; use sample_weight")
    if labels.ndim == 2 and labels.shape[1] > 1:
        return np.asarray(labels.argmax(axis=1))
    if labels.ndim > 2:
        raise DataError("class_weight: expected one class per row; use sample_weight")
    return labels.reshape(len(labels))
