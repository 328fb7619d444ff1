"""Rules of layers that scale and shift: normalisations and PReLU."""

from typing import Any

import keras
import tensorflow as tf

from lepton_flwr.training.capture import Parts, Site
from lepton_flwr.training.contributions import Summed
from lepton_flwr.training.rules import register

layers = keras.layers


def _affine(site: Site, inputs: Any, scale: Any, shift: Any, shape: list[int]) -> Any:
    """A layer that ends in normalised * scale + shift, both broadcast from `shape`."""
    neutral = [] if scale is None else [(scale, tf.ones(scale.shape, scale.dtype))]
    if shift is not None:
        neutral.append((shift, tf.zeros(shift.shape, shift.dtype)))
    normalised = site.call(inputs, values=neutral)
    outputs = normalised
    if scale is not None:
        outputs = outputs * tf.cast(tf.reshape(site.cut(scale), shape), outputs.dtype)
    if shift is not None:
        outputs = outputs + tf.cast(tf.reshape(site.cut(shift), shape), outputs.dtype)

    def explain(g: tf.Tensor) -> Parts:
        pairs = ((scale, g * tf.cast(normalised, g.dtype)), (shift, g))
        return [
            (variable, Summed.over(values, shape).reshaped(variable.shape))
            for variable, values in pairs
            if variable is not None
        ]

    return site.tap(outputs, explain)


def _along(axes: Any, rank: int, sizes: Any) -> list[int]:
    """The shape, batch left out, of a variable that varies along `axes`."""
    chosen = [axis % rank for axis in (axes if isinstance(axes, list | tuple) else [axes])]
    return [size if axis in chosen else 1 for axis, size in enumerate(sizes)][1:]


@register(layers.LayerNormalization)
def layer_normalization(site: Site, inputs: Any) -> Any:
    """LayerNormalization, RMS scaling included."""
    layer = site.layer
    shape = _along(layer.axis, inputs.shape.rank, inputs.shape)
    return _affine(site, inputs, layer.gamma, layer.beta, shape)


@register(layers.RMSNormalization)
def rms_normalization(site: Site, inputs: Any) -> Any:
    """RMSNormalization."""
    layer = site.layer
    shape = _along(layer.axis, inputs.shape.rank, inputs.shape)
    return _affine(site, inputs, layer.scale, None, shape)


@register(layers.GroupNormalization)
def group_normalization(site: Site, inputs: Any) -> Any:
    """GroupNormalization, instance normalisation included."""
    layer = site.layer
    shape = _along(layer.axis, inputs.shape.rank, inputs.shape)
    scale = layer.gamma if layer.scale else None
    return _affine(site, inputs, scale, layer.beta if layer.center else None, shape)


@register(layers.PReLU)
def prelu(site: Site, inputs: Any) -> Any:
    """PReLU, with shared axes or not."""
    alpha = site.layer.alpha
    negative = -tf.nn.relu(-inputs)
    return site.tap(
        tf.nn.relu(inputs) + tf.cast(site.cut(alpha), inputs.dtype) * negative,
        lambda g: [(alpha, Summed.over(g * tf.cast(negative, g.dtype), alpha.shape))],
    )
