"""Auditing private training: many short trainings with and without one canary."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lepton_flwr import _validate as check
from lepton_flwr.errors import DataError
from lepton_flwr.privacy.accounting import SampledGaussian
from lepton_flwr.privacy.audit import FAILURE_PROBABILITY, AuditReport, judge
from lepton_flwr.training.private import PrivateTrainer, RecordPrivacy

SUM, SPREAD = "the sum of the steps", "the spread of the steps"


def audit_training(
    model: Any,
    x: np.ndarray,
    y: np.ndarray,
    canary: tuple[Any, Any],
    privacy: RecordPrivacy,
    *,
    steps: int,
    trials: int = 1000,
    delta: float = 1e-5,
    failure_probability: float = FAILURE_PROBABILITY,
    make_trainer: Callable[[Any, RecordPrivacy], Any] = PrivateTrainer,
) -> AuditReport:
    """Train over and over from the same weights, with a canary and without, and compare.

    The adversary is the strongest that the guarantee speaks of: it knows all other records and the
    initial weights, and sees the weights after every step (white box; Nasr et al. 2021, section
    4.6). Its scores come from the moves of the weights along the canary's gradient at the initial
    weights: their sum, which finds too little noise and too large a contribution; and their spread,
    which finds noise that repeats.

    What is shown is close to the claim if the canary's gradient keeps its direction, exceeds the
    clip in every step, and is not hidden among those of other records: few records, or a feature
    that only the canary has. With `sampling_probability` 1 or near it, the audit is sharpest; it
    audits the code, which is the same for every probability.

    Args:
        model: compiled and built; its weights are restored at the end. SGD without momentum shows
            most.
        x: the other records, shape (n, ...); n >= 1.
        y: their labels.
        canary: input and label of one record. It becomes the last row.
        privacy: the claim.
        steps: steps of each training.
        trials: trainings of each kind. A bound on mu is short of the truth by about
            8 / sqrt(trials).
        delta: where epsilon is read off.
        failure_probability: chance that training as claimed is refuted.
        make_trainer: makes the trainer of one training, anew for each.

    Returns:
        The lower bound on epsilon; `refuted` says whether it contradicts the claim.

    Raises:
        DataError: the canary does not look like a row, or its gradient is zero or not finite.
        ConfigError, PrivacyError: an argument is out of range; at least 40 trials.
    """
    check.integer("steps", steps, at_least=1)
    check.integer("trials", trials, at_least=1)
    with_x, with_y = _appended(x, canary[0]), _appended(y, canary[1])
    direction = _direction(model, with_x[-1:], with_y[-1:])
    initial = model.get_weights()
    moves = np.empty((2, trials, steps))
    try:
        for trial in range(trials):
            for side, (rows, labels) in enumerate(((with_x, with_y), (x, y))):
                model.set_weights(initial)
                seen: list[float] = []
                watch = _watch(model, direction, seen)
                make_trainer(model, privacy).fit(rows, labels, steps=steps, callbacks=[watch])
                moves[side, trial] = -len(rows) * np.diff(seen)  # steps divide by q n
    finally:
        model.set_weights(initial)
    scores = {SUM: (moves[0].sum(axis=1), moves[1].sum(axis=1))}
    if steps > 1:
        scores[SPREAD] = (np.ptp(moves[0], axis=1), np.ptp(moves[1], axis=1))
    q = privacy.sampling_probability
    claim = SampledGaussian(privacy.noise_multiplier, q, steps)
    return judge(scores, claim, delta, failure_probability)


def _watch(model: Any, direction: list[np.ndarray], seen: list[float]) -> Any:
    """A callback that notes where the weights are along a direction, at first and after a step."""

    def look(*_: Any, **__: Any) -> None:
        pairs = zip(model.trainable_variables, direction, strict=True)
        seen.append(float(sum(np.vdot(v.numpy(), d) for v, d in pairs)))

    return keras.callbacks.LambdaCallback(on_train_begin=look, on_train_batch_end=look)


def _appended(rows: np.ndarray, row: Any) -> np.ndarray:
    rows, row = np.asarray(rows), np.asarray(row)
    if row.shape != rows.shape[1:]:
        raise DataError(f"a canary of shape {row.shape}: expected {rows.shape[1:]}, as a row has")
    return np.concatenate([rows, row[np.newaxis].astype(rows.dtype)])


def _direction(model: Any, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """The gradient of one example's loss, scaled to norm 1, float64."""
    with tf.GradientTape() as tape:
        inputs, labels = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
        loss = model.compute_loss(inputs, labels, model(inputs, training=True))
    gradients = tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")
    parts = [tf.convert_to_tensor(g).numpy().astype(np.float64) for g in gradients]
    norm = np.sqrt(sum(float(np.sum(p**2)) for p in parts))
    if not np.isfinite(norm) or norm == 0:
        raise DataError("the canary's gradient is zero or not finite: expected one to be clipped")
    return [p / norm for p in parts]
