"""What private and plain training share: data checks, caches, callbacks, optimizer reset."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from lepton_flwr import _validate as check
from lepton_flwr.errors import DataError
from lepton_flwr.training.model_checks import input_specs

_KEPT = "_lepton_kept"
_INITIAL = "_lepton_initial"
_Made = TypeVar("_Made")


def as_arrays(model: Any, x: Any, y: Any) -> tuple[Any, Any, int]:
    """Check a data set against the model.

    Args:
        model: a built Keras model.
        x: an array of shape (n, ...), or arrays nested as the model's inputs are.
        y: likewise for its outputs.

    Returns:
        Inputs and labels as arrays of the types that the model takes, and the number of rows.

    Raises:
        DataError: no rows, different lengths, or rows of another shape.
    """
    expected = input_specs(model)
    try:
        if expected is None:
            inputs = tf.nest.map_structure(np.asarray, x)
        else:
            # A list stands for one array, as in Keras, unless the model takes several.
            given = np.asarray(x) if isinstance(expected, tf.TensorSpec) else x
            inputs = tf.nest.map_structure(_as_rows, expected, given)
    except (ValueError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"rows: expected arrays nested as the model's inputs: {error}") from None
    labels = tf.nest.map_structure(_as_labels, np.asarray(y) if isinstance(y, list) else y)
    sizes = [len(array) for array in tf.nest.flatten((inputs, labels))]
    if min(sizes) == 0 or len(set(sizes)) > 1:
        rows, named = len(tf.nest.flatten(inputs)[0]), len(tf.nest.flatten(labels)[0])
        raise DataError(f"{rows} rows and {named} labels: expected as many, and at least one")
    return inputs, labels, sizes[0]


def _as_rows(spec: tf.TensorSpec, x: Any) -> np.ndarray:
    array, expected = np.asarray(x), tuple(spec.shape[1:])
    if array.ndim != len(expected) + 1 or any(
        want is not None and got != want
        for got, want in zip(array.shape[1:], expected, strict=True)
    ):
        raise DataError(f"rows of shape {array.shape[1:]}: expected {expected}, as the model takes")
    with np.errstate(over="ignore"):  # an infinite row is the engine's to drop
        return np.asarray(array, dtype=spec.dtype.as_numpy_dtype)


def _as_labels(y: Any) -> np.ndarray:
    labels = np.asarray(y)
    return labels if np.issubdtype(labels.dtype, np.integer) else labels.astype(np.float32)


def batch_specs(*data: Any) -> tuple[Any, ...]:
    """Specifications of arrays with any number of rows: one trace for all clients."""
    return tuple(
        tf.nest.map_structure(lambda t: tf.TensorSpec([None, *t.shape[1:]], t.dtype), part)
        for part in data
    )


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


def run_epochs(
    model: Any,
    step: Callable[[], object],
    *,
    epochs: int = 1,
    steps: int,
    callbacks: Iterable[Any] = (),
    initial_epoch: int = 0,
    verbose: int = 0,
    epoch_logs: Callable[[int], Mapping[str, float]] = lambda epoch: {},  # noqa: ARG005
) -> keras.callbacks.History:
    """Call `step` `steps` times in each epoch, with Keras' callbacks around it.

    The logs of a batch hold its number only. `model.stop_training = True` ends training after the
    step.

    Args:
        model: what the callbacks see.
        step: one optimizer step.
        epochs: the epoch before which to stop, counted from 0.
        steps: steps of an epoch.
        callbacks: Keras callbacks.
        initial_epoch: the first epoch.
        verbose: 1 shows Keras' progress bar, 2 a line per epoch.
        epoch_logs: what an epoch's logs hold besides the number of its steps.

    Returns:
        Keras' History.
    """
    check.integer("steps", steps, at_least=1)
    check.integer("epochs", epochs, at_least=1)
    check.integer("initial_epoch", initial_epoch, at_least=0)
    hooks = keras.callbacks.CallbackList(
        list(callbacks),
        add_history=True,
        add_progbar=verbose != 0,
        model=model,
        epochs=epochs,
        steps=steps,
        verbose=verbose,
    )
    model.stop_training = False
    hooks.on_train_begin()
    logs: dict[str, float] = {"steps": 0}
    for epoch in range(initial_epoch, epochs):
        hooks.on_epoch_begin(epoch)
        taken = 0
        while taken < steps and not model.stop_training:
            hooks.on_train_batch_begin(taken)
            step()
            taken += 1
            hooks.on_train_batch_end(taken - 1, {"step": taken})
        logs = {"steps": taken, **epoch_logs(epoch)}
        hooks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    hooks.on_train_end(logs)
    history: keras.callbacks.History = model.history
    return history
