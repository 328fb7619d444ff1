"""The interface of gradient engines: sums of per-example clipped gradients, without noise.

An engine decides how fast per-example gradients are clipped, never how private the result is:
sampling, noise and scaling belong to the trainer (`private.py`).
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import tensorflow as tf

from lepton_flwr import _validate as check
from lepton_flwr.training.model_checks import refuse_mixing, refuse_state, refuse_unusable

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
