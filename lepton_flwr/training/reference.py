"""Clipped per-example gradients by tensorflow-privacy's own code: a reference, not fast."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

import keras
import tensorflow as tf

from lepton_flwr.training import tensorflow_privacy
from lepton_flwr.training.losses import one_loss
from lepton_flwr.training.vectorized import VectorizedEngine

_LARGEST = 2.0**48  # of an entry; the squares of a billion such still fit float32


class TensorFlowPrivacyEngine(VectorizedEngine):
    """The gradients that `DPModel` of tensorflow-privacy 0.7.3 computes and clips.

    Its `_compute_per_example_grads` and `_process_per_example_grads` run on the Keras 3 model.
    Its noise, from TensorFlow's seeded generator, and its division by the rows that came are left
    out: both belong to the trainer here.

    It alone does not keep the contract of `GradientEngine`, and is held to it from outside:

    | example | tensorflow-privacy | here |
    |---|---|---|
    | NaN or infinity | the whole sum becomes NaN | dropped after its clipping |
    | padding | does not know of it | dropped after its clipping |
    | an entry above 2^48 | float32 squares overflow, zero comes out | scaled down before |
    | norm above C | scaled by a float32 norm, up to rounding above C | held to C in float64 |

    Raises:
        ConfigError: tensorflow-privacy is not installed, or as of `GradientEngine`.
    """

    name: ClassVar[str] = "tensorflow-privacy"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._dp_model = _on_keras_3(tensorflow_privacy.module("keras_models.dp_keras_model"))

    def clipped_sum(
        self,
        x: Any,
        y: Any,
        mask: tf.Tensor,
        l2_norm_clip: tf.Tensor,
        sample_weight: tf.Tensor | None = None,
    ) -> list[tf.Tensor]:
        """See `GradientEngine.clipped_sum`."""
        dp_model = self._dp_model(l2_norm_clip, 0.0, False, self.model, self._seeds)
        seeds = self._example_seeds(tf.shape(mask)[0])
        weight = tf.ones_like(mask) if sample_weight is None else sample_weight
        example = ((x, seeds), (y, weight))
        _, _, clipped = tf.vectorized_map(dp_model._compute_per_example_grads, example)
        return self._sum_clipped(clipped, mask, l2_norm_clip)


def _on_keras_3(dp_keras_model: ModuleType) -> Callable[..., Any]:
    """Derive `DPModel` from a Keras 3 model instead of a Keras 2 one."""

    class Model:
        """What `DPModel` asks of its base class."""

        def __init__(self, model: Any, seeds: list[Any]) -> None:
            self.model = model
            self.seeds = seeds
            self.losses: tuple[()] = ()  # regularisation depends on no example
            self.trainable_variables = [v.value for v in model.trainable_variables]
            self.scope: Any = None
            self.weight: Any = None

        def __call__(self, rows: tf.Tensor, training: bool) -> Any:
            for (
                v
            ) in self.model.trainable_variables:  # regularisers read the scope; the tape sees this
                self.scope.add_update((v, tf.convert_to_tensor(v.value)))
            return self.model(rows, training=training)

        def compiled_loss(self, y: tf.Tensor, predicted: Any, **_: Any) -> Any:
            loss = one_loss(self.model, y, predicted, self.weight)
            return tf.add_n([loss, *(tf.cast(added, loss.dtype) for added in self.scope.losses)])

    base: Any = dp_keras_model.make_dp_model_class(Model)

    class DPModel(base):
        """Gives each example its own random state, and gradients that float32 can square."""

        def _compute_per_example_grads(self, data: Any) -> Any:
            (x, seeds), (y, weight) = data
            self.weight = weight[tf.newaxis]
            state = zip(self.seeds, seeds, strict=True)
            with keras.StatelessScope(state, collect_losses=True) as self.scope:
                return super()._compute_per_example_grads((_Single(x), _Single(y)))

        def _process_per_example_grads(self, grads: Any) -> Any:
            dense = [
                tf.zeros(v.shape) if g is None else tf.cast(tf.convert_to_tensor(g), tf.float32)
                for g, v in zip(grads, self.trainable_variables, strict=True)
            ]
            largest = tf.reduce_max([tf.reduce_max(tf.abs(g)) for g in dense])
            return super()._process_per_example_grads(
                [g * tf.minimum(_LARGEST / largest, 1.0) for g in dense]
            )

    return DPModel


class _Single:
    """One example, whose `[None]` is a batch of one, also where it has several parts."""

    def __init__(self, parts: Any) -> None:
        self.parts = parts

    def __getitem__(self, _: None) -> Any:
        return tf.nest.map_structure(lambda part: part[tf.newaxis], self.parts)
