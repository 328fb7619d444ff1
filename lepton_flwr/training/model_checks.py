"""What a model must be for the gradient of an example to exist and tell of that example only."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lepton_flwr.errors import ConfigError

_SEED_STATE = "seed_generator_state"


def seed_states(model: Any) -> list[Any]:
    """The model's random seed states (of Dropout and the like), which depend on no example."""
    return [v for v in model.non_trainable_variables if v.name == _SEED_STATE]


def refuse_unusable(model: Any) -> None:
    """Check what can be checked of a model without data.

    Raises:
        ConfigError: with the remedy.
    """
    if not getattr(model, "compiled", False) or not model.built or model.loss is None:
        raise ConfigError("the model: expected one that is built and compiled with a loss")
    if not model.trainable_variables:
        raise ConfigError("the model has no trainable variables: expected at least one")
    expected = input_specs(model)
    if expected is not None:
        refuse_state(model, expected)


def input_specs(model: Any) -> Any:
    """What a model takes: specifications, nested as its inputs are; None if it does not say."""
    if not getattr(model, "inputs", None):
        return None
    inputs = model.inputs if isinstance(model, keras.Sequential) else model.input
    if isinstance(inputs, list) and len(inputs) == 1:
        inputs = inputs[0]
    return tf.nest.map_structure(lambda t: tf.TensorSpec([None, *t.shape[1:]], t.dtype), inputs)


def refuse_state(model: Any, x: Any) -> None:
    """Check that training updates nothing but seeds besides the trainable variables.

    Raises:
        ConfigError: it does, with the remedy.
    """
    rows = tf.nest.map_structure(lambda spec: tf.zeros([1, *_known(spec)], spec.dtype), x)
    with keras.StatelessScope() as scope:
        model(rows, training=True)
    seeds = {id(v) for v in seed_states(model)}
    kept = [
        v.path
        for v in model.non_trainable_variables
        if id(v) not in seeds and scope.get_current_value(v) is not None
    ]
    if kept:
        raise ConfigError(
            f"training updates {', '.join(kept)} from the examples, outside of clipping and "
            "noise, which would publish them: expected no such state; replace BatchNormalization "
            "by GroupNormalization or LayerNormalization, or freeze it (trainable = False)"
        )


def refuse_mixing(
    model: Any, run: Callable[..., list[tf.Tensor]], x: Any, y: Any, weights: Any
) -> None:
    """Check on random rows that what a masked example holds changes nothing.

    Raises:
        ConfigError: it does: the model, its loss or a layer of its own looks across the batch.
    """
    rng = np.random.default_rng(1)
    states = [(state, tf.identity(state.value)) for state in seed_states(model)]
    mask, clip = tf.constant([1.0, 0.0, 1.0]), tf.constant(1e6)
    rows, labels = (
        tf.nest.map_structure(lambda spec: _random(rng, spec, 3), part) for part in (x, y)
    )
    ones = tf.nest.map_structure(lambda spec: tf.ones([3], spec.dtype), weights)
    found = []
    for scale in (1.0, 10.0, -3.0):
        other = tf.nest.map_structure(lambda t, by=scale: _with_row(t, rng, by), rows)
        for state, value in states:
            state.assign(value)
        found.append([part.numpy() for part in run(other, labels, mask, clip, ones)])
    for state, value in states:
        state.assign(value)
    size = max(float(np.abs(part).max(initial=0.0)) for part in found[0])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            if not np.allclose(one, other, rtol=1e-4, atol=1e-5 * size, equal_nan=True):
                raise ConfigError(
                    "the gradient of one example depends on other examples of its batch: expected "
                    "layers and a loss that treat each row by itself; look for operations across "
                    "the batch axis"
                )


def _known(spec: tf.TensorSpec) -> list[int]:
    return [8 if size is None else size for size in spec.shape[1:]]


def _random(rng: np.random.Generator, spec: tf.TensorSpec, rows: int) -> tf.Tensor:
    shape = [rows, *_known(spec)]
    if spec.dtype.is_floating:
        return tf.constant(rng.normal(size=shape), spec.dtype)
    return tf.cast(rng.integers(0, 2, shape), spec.dtype)  # any table of ids has two rows


def _with_row(values: tf.Tensor, rng: np.random.Generator, scale: float) -> tf.Tensor:
    row = _random(rng, tf.TensorSpec([None, *values.shape[1:]], values.dtype), 1)
    row = row * tf.cast(scale, row.dtype) if row.dtype.is_floating else row
    return tf.concat([values[:1], row, values[2:]], axis=0)
