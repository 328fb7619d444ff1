"""The interface of gradient engines: sums of per-example clipped gradients, without noise.

An engine decides how fast per-example gradients are clipped, never how private the result is:
sampling, noise and scaling belong to the trainer (`private.py`).
"""

import importlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import keras
import tensorflow as tf

from lepton_flwr import _validate as check
from lepton_flwr.errors import ConfigError

SEED_STATE = "seed_generator_state"
_ENGINES = {
    "vectorized": "lepton_flwr.training.vectorized:VectorizedEngine",
    "tensorflow-privacy": "lepton_flwr.training.reference:TensorFlowPrivacyEngine",
}


class GradientEngine(ABC):
    """Computes the clipped sum for one compiled Keras model.

    Args:
        model: a compiled, built model with one input and one output.

    Raises:
        ConfigError: the model is not compiled or built, or what it computes for one example
            depends on the others (batch normalisation), or it keeps state about the examples.
    """

    name: ClassVar[str]

    def __init__(self, model: Any) -> None:
        refuse_unusable(model)
        self.model = model

    @abstractmethod
    def clipped_sum(
        self, x: tf.Tensor, y: tf.Tensor, mask: tf.Tensor, l2_norm_clip: tf.Tensor
    ) -> list[tf.Tensor]:
        """Sum per-example gradients of the compiled loss, each clipped. Called in a tf.function.

        Args:
            x: inputs, shape (batch, ...); the batch dimension may be unknown.
            y: labels, shape (batch, ...).
            mask: float32 of shape (batch,): 1 for an example, 0 for padding.
            l2_norm_clip: scalar float32, the bound C.

        Returns:
            One tensor per `model.trainable_variables`, in their order and shapes.

        **Guarantee**: adding or removing one example changes the result by at most C in L2 norm
        over all tensors together (up to float32 rounding of the sum itself).

        | example | contributes |
        |---|---|
        | gradient g, norm at most C | g |
        | gradient g, norm above C | g scaled to norm C or a hair below |
        | gradient with NaN or infinity | exactly zero |
        | padding | exactly zero |
        """


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
    """Check that per-example gradients of `model` exist and tell of nothing but their example.

    Raises:
        ConfigError: with the remedy.
    """
    if not getattr(model, "compiled", False) or not model.built or model.loss is None:
        raise ConfigError("the model: expected one that is built and compiled with a loss")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ConfigError(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs: expected "
            "one of each; concatenate them"
        )
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    if scaled or model.optimizer.loss_scale_factor is not None:
        raise ConfigError("the optimizer scales the loss: expected none; use float32 or bfloat16")
    if not model.trainable_variables:
        raise ConfigError("the model has no trainable variables: expected at least one")

    row = tf.zeros([1, *model.inputs[0].shape[1:]], model.inputs[0].dtype)
    with keras.StatelessScope() as scope:
        model(row, training=True)
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
