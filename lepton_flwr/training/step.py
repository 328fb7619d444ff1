"""The compiled parts of a private step: the clipped sum of a batch, and its noised release."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from lepton_flwr.training.engine import GradientEngine
from lepton_flwr.training.losses import regularisation


@dataclass(frozen=True)
class CompiledStep:
    """Compiled functions of one engine and one kind of data; they serve any number of rows.

    Attributes:
        at_once: clipped sum and release of a batch that is computed in one piece.
        clipped_sum: of one piece.
        release: of the sum of all pieces.
    """

    at_once: Callable[..., None]
    clipped_sum: Callable[..., list[tf.Tensor]]
    release: Callable[..., None]

    def run(
        self, data: tuple[Any, ...], rows: Any, noise: Any, settings: tf.Tensor, piece: int | None
    ) -> None:
        """One private step.

        Args:
            data: inputs, labels and example weights of all records.
            rows: int64 indices of the batch, -1 for padding.
            noise: float32 draws of N(0, 1), one per trainable parameter.
            settings: float32: clip norm, noise standard deviation, expected batch size.
            piece: rows computed at a time; None takes all at once.
        """
        if piece is None or len(rows) <= piece:
            self.at_once(*data, rows, noise, settings)
            return
        padding = -len(rows) % piece
        pieces = tf.reshape(tf.pad(rows, [[0, padding]], constant_values=-1), [-1, piece])
        total: Sequence[tf.Tensor] | None = None
        for part in pieces:
            sums = self.clipped_sum(*data, part, settings)
            total = sums if total is None else [a + b for a, b in zip(total, sums, strict=True)]
        self.release(total, noise, settings)


def build_step(engine: GradientEngine, x: Any, y: Any, weights: Any) -> CompiledStep:
    """Compile the step of an engine's model.

    Args:
        engine: computes clipped sums.
        x: specifications of all inputs.
        y: specifications of all labels.
        weights: specification of all examples' weights, or an empty tuple.

    Raises:
        ConfigError: the examples of a batch depend on each other; see `GradientEngine.verified`.
    """
    summed = engine.verified(x, y, weights)
    model = engine.model
    variables = model.trainable_variables
    sizes = [math.prod(v.shape) for v in variables]
    penalised = any(v.regularizer is not None for v in variables)

    def clipped_sum(
        x: Any, y: Any, weights: Any, indices: tf.Tensor, settings: tf.Tensor
    ) -> list[tf.Tensor]:
        rows = tf.maximum(indices, 0)
        mask = tf.cast(indices >= 0, tf.float32)
        x, y, weights = tf.nest.map_structure(lambda t: tf.gather(t, rows), (x, y, weights))
        return summed(x, y, mask, settings[0], weights)

    def release(sums: Sequence[tf.Tensor], noise: tf.Tensor, settings: tf.Tensor) -> None:
        draws = tf.split(noise * settings[1], sizes)
        gradients = [
            (total + tf.reshape(draw, v.shape)) / settings[2]
            for total, draw, v in zip(sums, draws, variables, strict=True)
        ]
        if penalised:  # penalties tell of weights that are released already
            with tf.GradientTape() as tape:
                penalty = regularisation(model)
            extra = tape.gradient(penalty, variables, unconnected_gradients="zero")
            gradients = [g + tf.cast(e, g.dtype) for g, e in zip(gradients, extra, strict=True)]
        _apply(model.optimizer, [tf.cast(g, v.dtype) for g, v in zip(gradients, variables, strict=True)], variables)

    def at_once(x: Any, y: Any, weights: Any, indices: Any, noise: Any, settings: Any) -> None:
        release(clipped_sum(x, y, weights, indices, settings), noise, settings)

    indices = tf.TensorSpec([None], tf.int64)
    flat = tf.TensorSpec([sum(sizes)], tf.float32)
    settings = tf.TensorSpec([3], tf.float32)
    sums = [tf.TensorSpec(v.shape, tf.float32) for v in variables]

    def compiled(function: Callable[..., Any], *signature: Any) -> Callable[..., Any]:
        made: Callable[..., Any] = tf.function(
            function, autograph=False, input_signature=signature
        )
        return made

    return CompiledStep(
        at_once=compiled(at_once, x, y, weights, indices, flat, settings),
        clipped_sum=compiled(clipped_sum, x, y, weights, indices, settings),
        release=compiled(release, sums, flat, settings),
    )


def _apply(optimizer: Any, gradients: Sequence[tf.Tensor], variables: Sequence[Any]) -> None:
    """Apply gradients that no loss scale is in; the engines take their own out."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    factor = optimizer.loss_scale_factor
    if factor is not None:  # the optimizer divides by it
        gradients = [gradient * factor for gradient in gradients]
    optimizer.apply(gradients, variables)
