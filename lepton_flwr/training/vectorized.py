"""Per-example gradients by `tf.vectorized_map`: any model, any loss."""

import math
from typing import Any, ClassVar

import keras
import tensorflow as tf

from lepton_flwr.training.engine import GradientEngine, seed_states

_BELOW = 1 - 2.0**-21  # more than the three float32 roundings after the norm can add


class VectorizedEngine(GradientEngine):
    """One batch-of-one backward pass per example, vectorised by TensorFlow.

    The loss of an example is the compiled loss of a batch of one, regularisation included.
    Random layers draw anew for each example. Memory is batch size times parameters.
    """

    name: ClassVar[str] = "vectorized"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._seeds = seed_states(model)

    def clipped_sum(
        self, x: tf.Tensor, y: tf.Tensor, mask: tf.Tensor, l2_norm_clip: tf.Tensor
    ) -> list[tf.Tensor]:
        """See `GradientEngine.clipped_sum`. Norms are computed in float64."""
        seeds = self._example_seeds(tf.shape(mask)[0])
        gradients = tf.vectorized_map(self._example_gradient, (x, y, seeds))
        shapes = [variable.shape for variable in self.model.trainable_variables]
        rows = [tf.reshape(g, [-1, math.prod(s)]) for g, s in zip(gradients, shapes, strict=True)]

        squares = [tf.reduce_sum(tf.square(tf.cast(g, tf.float64)), axis=1) for g in rows]
        norm = tf.sqrt(tf.add_n(squares))
        finite = tf.math.is_finite(norm)
        bound = tf.cast(l2_norm_clip, tf.float64) * _BELOW
        factor = tf.cast(tf.minimum(bound / norm, 1.0), tf.float32)
        weight = tf.where(finite & (mask > 0), factor, 0.0)
        rows = tf.cond(
            tf.reduce_all(finite),
            lambda: rows,
            lambda: [tf.where(finite[:, tf.newaxis], g, 0.0) for g in rows],
        )
        sums = [tf.linalg.matvec(g, weight, transpose_a=True) for g in rows]
        return [tf.reshape(s, shape) for s, shape in zip(sums, shapes, strict=True)]

    def _example_gradient(self, example: Any) -> list[tf.Tensor]:
        x, y, seeds = example
        x, y = x[tf.newaxis], y[tf.newaxis]
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            # Regularisers read weights from the scope; the read is on the tape.
            values = [(v, tf.convert_to_tensor(v.value)) for v in variables]
            state = [*values, *zip(self._seeds, seeds, strict=True)]
            with keras.StatelessScope(state, collect_losses=True):
                loss = self.model.compute_loss(x, y, self.model(x, training=True))
        gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
        return [tf.cast(tf.convert_to_tensor(g), tf.float32) for g in gradients]

    def _example_seeds(self, batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Per seed state, int64 of shape (batch, 2); the state moves on by one draw."""
        drawn = []
        for state in self._seeds:
            seed = tf.cast(state.value, tf.int64)
            drawn.append(tf.random.stateless_uniform([batch, 2], seed, 0, 2**31 - 1, tf.int64))
            state.assign_add([0, 1])
        return tuple(drawn)
