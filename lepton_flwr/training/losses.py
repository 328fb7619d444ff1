"""The compiled loss of each example as if it were a batch of one, and the regularisation apart."""

from typing import Any

import keras
import tensorflow as tf

from lepton_flwr.training.contributions import wide

_MASK = "_keras_mask"


def example_losses(
    model: Any, y: Any, outputs: Any, sample_weight: tf.Tensor | None = None
) -> tf.Tensor:
    """Per-example losses of a batch, computed on the outputs alone.

    Args:
        model: the compiled Keras model; its `compute_loss` is what is called, one example at a
            time, so any loss and any reduction has the meaning that it has for a batch of one.
        y: labels, a tensor or nested tensors of shape (batch, ...).
        outputs: the model's outputs, likewise.
        sample_weight: float32 of shape (batch,), or None.

    Returns:
        float32 (float64 for a float64 loss) of shape (batch,), without weight regularisation.
    """
    flat = tf.nest.flatten(outputs)
    masks = [getattr(output, _MASK, None) for output in flat]
    given = [mask for mask in masks if mask is not None]

    def one(arguments: Any) -> tf.Tensor:
        y, outputs, given, weight = arguments
        waiting = iter(given)
        singles = [output[tf.newaxis] for output in outputs]
        for single, mask in zip(singles, masks, strict=True):
            if mask is not None:
                setattr(single, _MASK, next(waiting)[tf.newaxis])
        return one_loss(
            model,
            tf.nest.map_structure(lambda t: t[tf.newaxis], y),
            tf.nest.pack_sequence_as(structure, singles),
            weight[tf.newaxis] if sample_weight is not None else None,
        )

    structure = tf.nest.map_structure(lambda _: 0, outputs)
    weight = tf.zeros([tf.shape(flat[0])[0]]) if sample_weight is None else sample_weight
    losses: tf.Tensor = tf.vectorized_map(one, (y, flat, given, weight))
    return losses


def one_loss(model: Any, y: Any, outputs: Any, sample_weight: tf.Tensor | None) -> tf.Tensor:
    """The compiled loss of a batch of one, a scalar without weight regularisation."""
    # In a scope Keras looks for the weights that are penalised nowhere else.
    penalised = [(v, v.value) for v in model.trainable_variables if v.regularizer is not None]
    with keras.StatelessScope(penalised, collect_losses=True):
        loss = model.compute_loss(y=y, y_pred=outputs, sample_weight=sample_weight, training=True)
    loss = wide(loss)
    return loss - tf.cast(regularisation(model), loss.dtype)


def regularisation(model: Any) -> tf.Tensor:
    """The weights' own penalties: they depend on no example. A scalar."""
    penalties = [
        wide(v.regularizer(v)) for v in model.trainable_variables if v.regularizer is not None
    ]
    return tf.add_n(penalties) if penalties else tf.constant(0.0)
