"""What private and plain training share: data checks, caches, callbacks, optimizer reset."""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from lepton_flwr import _validate as check
from lepton_flwr.errors import DataError

_KEPT = "_lepton_kept"
_INITIAL = "_lepton_initial"
_Made = TypeVar("_Made")


def as_tensors(model: Any, x: np.ndarray, y: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    """Check a data set against the model and hand it to TensorFlow once.

    Raises:
        DataError: no rows, different lengths, or rows of another shape.
    """
    expected = tuple(model.inputs[0].shape[1:])
    if len(x) != len(y) or len(x) == 0:
        raise DataError(f"{len(x)} rows and {len(y)} labels: expected as many, and at least one")
    if len(x.shape) != len(expected) + 1 or any(
        want is not None and got != want for got, want in zip(x.shape[1:], expected, strict=True)
    ):
        raise DataError(f"rows of shape {x.shape[1:]}: expected {expected}, as the model takes")
    with np.errstate(over="ignore"):  # an infinite row is the engine's to drop
        inputs = np.asarray(x, dtype=model.inputs[0].dtype)
    labels = np.asarray(y)
    labels = labels if np.issubdtype(labels.dtype, np.integer) else labels.astype(np.float32)
    return tf.convert_to_tensor(inputs), tf.convert_to_tensor(labels)


def batch_specs(model: Any, labels: tf.Tensor) -> tuple[tf.TensorSpec, tf.TensorSpec]:
    """Specifications of inputs and labels with any number of rows: one trace for all clients."""
    inputs = tf.TensorSpec([None, *model.inputs[0].shape[1:]], model.inputs[0].dtype)
    return inputs, tf.TensorSpec([None, *labels.shape[1:]], labels.dtype)


def cached(model: Any, key: Hashable, build: Callable[[], _Made]) -> _Made:
    """What `build` makes for `model` (an engine, a compiled step), made once and kept with it.

    It is made anew when the model was compiled again or other variables are trainable.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    kept = vars(model).setdefault(_KEPT, {})  # not setattr: Keras would track it
    now = (model.optimizer, model.loss, *model.trainable_variables)
    if key not in kept or [id(part) for part in kept[key][0]] != [id(part) for part in now]:
        kept[key] = (now, build())
    made: _Made = kept[key][1]
    return made


def reset_optimizer(model: Any) -> None:
    """Give the optimizer the state it has before its first step, without retracing.

    Momenta, accumulators and the step count; the learning rate stays as it is set.
    """
    optimizer = model.optimizer
    variables = model.trainable_variables
    if not optimizer.built:
        optimizer.build(variables)
    if _INITIAL not in vars(optimizer):
        fresh = type(optimizer).from_config(optimizer.get_config())
        fresh.build(variables)
        vars(optimizer)[_INITIAL] = [v.numpy() for v in fresh.variables]
    for variable, value in zip(optimizer.variables, vars(optimizer)[_INITIAL], strict=True):
        if variable is not getattr(optimizer, "_learning_rate", None):
            variable.assign(value)


def run_steps(
    model: Any, steps: int, callbacks: Iterable[Any], step: Callable[[], object]
) -> keras.callbacks.History:
    """Call `step` up to `steps` times as one epoch, with Keras' callbacks around it.

    The logs hold step numbers only. `model.stop_training = True` ends training after the step.

    Returns:
        Keras' History, whose only entry is the number of steps taken.
    """
    check.integer("steps", steps, at_least=1)
    hooks = keras.callbacks.CallbackList(
        list(callbacks), add_history=True, model=model, epochs=1, steps=steps
    )
    model.stop_training = False
    hooks.on_train_begin()
    hooks.on_epoch_begin(0)
    taken = 0
    while taken < steps and not model.stop_training:
        hooks.on_train_batch_begin(taken)
        step()
        taken += 1
        hooks.on_train_batch_end(taken - 1, {"step": taken})
    hooks.on_epoch_end(0, {"steps": taken})
    hooks.on_train_end({"steps": taken})
    history: keras.callbacks.History = model.history
    return history
