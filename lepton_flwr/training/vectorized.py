"""Per-example gradients by `tf.vectorized_map`: any model, any loss."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from lepton_flwr.training.contributions import wide
from lepton_flwr.training.engine import GradientEngine, clip_factors
from lepton_flwr.training.losses import one_loss
from lepton_flwr.training.model_checks import seed_states


class VectorizedEngine(GradientEngine):
    """One batch-of-one backward pass per example, vectorised by TensorFlow.

    Random layers draw anew for each example. Memory is batch size times parameters.
    """

    name: ClassVar[str] = "vectorized"
    alone: ClassVar[bool] = True

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._seeds = seed_states(model)

    def clipped_sum(
        self,
        x: Any,
        y: Any,
        mask: tf.Tensor,
        l2_norm_clip: tf.Tensor,
        sample_weight: tf.Tensor | None = None,
    ) -> list[tf.Tensor]:
        """See `GradientEngine.clipped_sum`. Norms are computed in float64."""
        seeds = self._example_seeds(tf.shape(mask)[0])
        weights = () if sample_weight is None else (sample_weight,)
        gradients = tf.vectorized_map(self._example_gradient, (x, y, seeds, weights))
        return self._sum_clipped(gradients, mask, l2_norm_clip)

    def _sum_clipped(
        self, gradients: Sequence[tf.Tensor], mask: tf.Tensor, l2_norm_clip: tf.Tensor
    ) -> list[tf.Tensor]:
        """Clip and add up gradients of shape (batch, *variable shape), one for each variable."""
        shapes = [variable.shape for variable in self.model.trainable_variables]
        rows = [tf.reshape(g, [-1, math.prod(s)]) for g, s in zip(gradients, shapes, strict=True)]

        squares = [tf.reduce_sum(tf.square(tf.cast(g, tf.float64)), axis=1) for g in rows]
        norms = tf.sqrt(tf.add_n(squares))
        finite = tf.math.is_finite(norms)
        factors = clip_factors(norms, mask, l2_norm_clip)
        rows = tf.cond(
            tf.reduce_all(finite),
            lambda: rows,
            lambda: [tf.where(finite[:, tf.newaxis], g, tf.zeros_like(g)) for g in rows],
        )
        sums = [tf.linalg.matvec(g, tf.cast(factors, g.dtype), transpose_a=True) for g in rows]
        return [tf.reshape(s, shape) for s, shape in zip(sums, shapes, strict=True)]

    def _example_gradient(self, example: Any) -> list[tf.Tensor]:
        x, y, seeds, weights = example
        x, y, weights = tf.nest.map_structure(lambda t: t[tf.newaxis], (x, y, weights))
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            # Regularisers read weights from the scope; the read is on the tape.
            values = [(v, tf.convert_to_tensor(v.value)) for v in variables]
            state = [*values, *zip(self._seeds, seeds, strict=True)]
            with keras.StatelessScope(state, collect_losses=True) as scope:
                outputs = self.model(x, training=True)
                loss = one_loss(self.model, y, outputs, weights[0] if weights else None)
                added = [tf.cast(extra, loss.dtype) for extra in scope.losses]
            scaled = tf.add_n([loss, *added]) * self.loss_scale
        gradients = tape.gradient(scaled, variables, unconnected_gradients="zero")
        return [wide(tf.convert_to_tensor(g)) / self.loss_scale for g in gradients]

    def _example_seeds(self, batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Per seed state, int64 of shape (batch, 2); the state moves on by one draw."""
        drawn = []
        for state in self._seeds:
            seed = tf.cast(state.value, tf.int64)
            drawn.append(tf.random.stateless_uniform([batch, 2], seed, 0, 2**31 - 1, tf.int64))
            state.assign_add([0, 1])
        return tuple(drawn)
