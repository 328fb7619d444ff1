"""The interface of gradient engines: sums of per-example clipped gradients, without noise.

An engine decides how fast per-example gradients are clipped, never how private the result is:
sampling, noise and scaling belong to the trainer (`private.py`).
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from lepton_flwr import _validate as check
from lepton_flwr.errors import ConfigError

SEED_STATE = "seed_generator_state"
HALF_LOSS_SCALE = 1024.0  # keeps float16 gradients of single examples from vanishing
_BELOW = 1 - 2.0**-21  # more than the three float32 roundings after the norm can add
_ENGINES = {
    "bookkeeping": "lepton_flwr.training.bookkeeping:BookkeepingEngine",
    "vectorized": "lepton_flwr.training.vectorized:VectorizedEngine",
    "tensorflow-privacy": "lepton_flwr.training.reference:TensorFlowPrivacyEngine",
}


class GradientEngine(ABC):
    """Computes the clipped sum for one compiled Keras model.

    Args:
        model: a compiled, built model.

    Raises:
        ConfigError: the model is not compiled or built, or it keeps state about the examples
            (batch normalisation).
    """

    name: ClassVar[str]
    alone: ClassVar[bool] = False  # whether an example is computed in a batch of its own

    def __init__(self, model: Any) -> None:
        refuse_unusable(model)
        self.model = model
        half = any(layer.compute_dtype == "float16" for layer in model._flatten_layers())
        self.loss_scale = HALF_LOSS_SCALE if half else 1.0

    @abstractmethod
    def clipped_sum(
        self,
        x: Any,
        y: Any,
        mask: tf.Tensor,
        l2_norm_clip: tf.Tensor,
        sample_weight: tf.Tensor | None = None,
    ) -> list[tf.Tensor]:
        """Sum per-example gradients of the compiled loss, each clipped. Called in a tf.function.

        The loss of an example is the compiled loss of a batch of one, times its weight. Weight
        regularisation is left out: it depends on no example.

        Args:
            x: inputs, a tensor or nested tensors of shape (batch, ...); the batch dimension may be
                unknown.
            y: labels, likewise.
            mask: float32 of shape (batch,): what an example's clipped gradient is multiplied with;
                0 for padding, otherwise m for all.
            l2_norm_clip: scalar float32, the bound C.
            sample_weight: float32 of shape (batch,); None is 1 for all.

        Returns:
            One tensor per `model.trainable_variables`, in their order and shapes, float32 or, for
            float64 models, float64.

        **Guarantee**: adding or removing one example changes the result by at most m C in L2 norm
        over all tensors together (up to float32 rounding of the sum itself).

        | example | contributes |
        |---|---|
        | gradient g, norm at most C | m g |
        | gradient g, norm above C | m g scaled to norm m C or a hair below |
        | gradient with NaN or infinity | exactly zero |
        | padding | exactly zero |
        """

    def verified(self, x: Any, y: Any, weights: Any) -> Callable[..., list[tf.Tensor]]:
        """Compile `clipped_sum`, and check that no example's part of it depends on another.

        Args:
            x: specifications of the inputs, with an unknown batch dimension.
            y: those of the labels.
            weights: that of the examples' weights, or an empty tuple.

        Returns:
            A function of inputs, labels, mask, clip norm and weights, as `clipped_sum`.

        Raises:
            ConfigError: training updates state, or examples mix.
        """
        refuse_state(self.model, x)

        def summed(x: Any, y: Any, mask: Any, clip: Any, weights: Any) -> list[tf.Tensor]:
            weights = None if isinstance(weights, tuple) else weights
            return self.clipped_sum(x, y, mask, clip, weights)

        mask, clip = tf.TensorSpec([None], tf.float32), tf.TensorSpec([], tf.float32)
        run = tf.function(summed, autograph=False, input_signature=[x, y, mask, clip, weights])
        if not self.alone:
            refuse_mixing(self.model, run, x, y, weights)
        return run


def clip_factors(norms: tf.Tensor, mask: tf.Tensor, l2_norm_clip: tf.Tensor) -> tf.Tensor:
    """What each example's gradient is multiplied with.

    Args:
        norms: float64 of shape (batch,), never below the true norms.
        mask: float32 of shape (batch,), 0 for padding.
        l2_norm_clip: scalar.

    Returns:
        float64 of shape (batch,), at most the mask; zero where a norm is not finite.
    """
    bound = tf.cast(l2_norm_clip, tf.float64) * _BELOW
    counted = tf.math.is_finite(norms) & (mask > 0)
    return tf.where(counted, tf.minimum(bound / norms, 1.0) * tf.cast(mask, tf.float64), 0.0)


def get_engine(name: str) -> type[GradientEngine]:
    """Find an engine by name.

    Raises:
        ConfigError: there is none of that name.
    """
    check.choice("engine", name, tuple(_ENGINES))
    module, _, attribute = _ENGINES[name].partition(":")
    engine: type[GradientEngine] = getattr(importlib.import_module(module), attribute)
    return engine


def seed_states(model: Any) -> list[Any]:
    """The model's random seed states (of Dropout and the like), which depend on no example."""
    return [v for v in model.non_trainable_variables if v.name == SEED_STATE]


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
