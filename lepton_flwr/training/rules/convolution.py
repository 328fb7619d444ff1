"""Rules of convolutions: plain, grouped, dilated, depthwise and separable ones.

A convolution is a dense layer over patches. Patches are taken by whichever of TensorFlow's ways is
fastest for their shape.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from lepton_flwr.training.capture import Parts, Site, UnsupportedError
from lepton_flwr.training.contributions import Outer
from lepton_flwr.training.measure import fastest
from lepton_flwr.training.rules import biases, register

layers = keras.layers


def patches(
    x: tf.Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: str,
    dilation: Sequence[int],
) -> tf.Tensor:
    """What each position of a convolution sees.

    Args:
        x: shape (batch, *space, channels), with one to three axes of space.
        kernel: sizes along the axes of space.
        strides: steps along them.
        padding: "valid", "same", or, with one axis, "causal".
        dilation: distances between neighbouring kernel cells.

    Returns:
        Shape (batch, positions, cells of the kernel, channels).

    Raises:
        UnsupportedError: an axis of space has no known size.
    """
    space, channels = x.shape[1:-1], x.shape[-1]
    if not space.is_fully_defined():
        raise UnsupportedError("a convolution over space of unknown size")
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    if padding == "causal":
        x = tf.pad(x, [[0, 0], [reach[0], 0], [0, 0]])
    elif padding == "same":
        lost = [
            max((-(-n // s) - 1) * s + r + 1 - n, 0)
            for n, s, r in zip(space, strides, reach, strict=True)
        ]
        x = tf.pad(x, [[0, 0], *([p // 2, p - p // 2] for p in lost), [0, 0]])
    if len(kernel) == 3:
        found = _by_slices(x, kernel, strides, dilation)
    else:
        if len(kernel) == 1:
            x = x[:, tf.newaxis]
            kernel, strides, dilation = (1, *kernel), (1, *strides), (1, *dilation)
        found = _in_the_plane(x, tuple(kernel), tuple(strides), tuple(dilation))
    positions = math.prod(found.shape[1:-1])
    return tf.reshape(found, [-1, positions, math.prod(kernel), channels])


def _in_the_plane(
    x: tf.Tensor, kernel: tuple[int, ...], strides: tuple[int, ...], dilation: tuple[int, ...]
) -> tf.Tensor:
    cells = math.prod(kernel) * x.shape[-1]

    def extracted(x: tf.Tensor) -> tf.Tensor:
        return tf.image.extract_patches(
            x, [1, *kernel, 1], [1, *strides, 1], [1, *dilation, 1], "VALID"
        )

    def convolved(x: tf.Tensor) -> tf.Tensor:
        cell = tf.reshape(tf.eye(cells, dtype=x.dtype), [*kernel, x.shape[-1], cells])
        return tf.nn.conv2d(x, cell, strides, "VALID", dilations=dilation)

    ways = {"extract": extracted}
    if cells <= 256 and (max(strides) == 1 or max(dilation) == 1):
        ways["convolve"] = convolved
    key = ("patches", kernel, strides, dilation)
    return ways[fastest(key, ways, x)](x)


def _by_slices(
    x: tf.Tensor, kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> tf.Tensor:
    ends = [n - (k - 1) * d for n, k, d in zip(x.shape[1:-1], kernel, dilation, strict=True)]
    parts = []
    for cell in range(math.prod(kernel)):
        index = cell
        starts: list[int] = []
        for size, step in zip(reversed(kernel), reversed(dilation), strict=True):
            index, offset = divmod(index, size)
            starts.insert(0, offset * step)
        where = [
            slice(start, start + end, stride)
            for start, end, stride in zip(starts, ends, strides, strict=True)
        ]
        parts.append(x[(slice(None), *where)])
    return tf.concat(parts, axis=-1)


def _covered(layer: Any) -> bool:
    plain = not getattr(layer, "lora_enabled", False)
    return plain and layer.data_format == "channels_last"


def _geometry(layer: Any) -> tuple[Any, Any, str, Any]:
    return layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate


@register(layers.Conv1D, layers.Conv2D, layers.Conv3D, when=_covered)
def convolution(site: Site, inputs: Any) -> Any:
    """Convolutions in one to three dimensions, grouped ones included."""
    layer = site.layer
    groups, filters = layer.groups, layer.filters
    seen = patches(inputs, *_geometry(layer))
    cells, channels = seen.shape[-2], seen.shape[-1] // groups
    fan_in, fan_out = cells * channels, filters // groups
    positions = seen.shape[1]
    if groups == 1:
        a = tf.reshape(seen, [-1, positions, fan_in])
    else:
        a = tf.reshape(seen, [-1, positions, cells, groups, channels])
        a = tf.reshape(tf.transpose(a, [0, 3, 1, 2, 4]), [-1, groups, positions, fan_in])

    def arrange(products: tf.Tensor, batch_axes: int) -> tf.Tensor:
        lead = [-1] * batch_axes
        products = tf.reshape(products, [*lead, groups, fan_in, fan_out])
        order = [*range(batch_axes), *(axis + batch_axes for axis in (1, 0, 2))]
        return tf.transpose(products, order)

    def explain(g: tf.Tensor) -> Parts:
        g_rows = tf.reshape(g, [-1, positions, filters])
        if groups > 1:
            g_rows = tf.reshape(g_rows, [-1, positions, groups, fan_out])
            g_rows = tf.transpose(g_rows, [0, 2, 1, 3])
        shape = tuple(layer.kernel.shape)
        kernel = Outer(a, g_rows, shape, arrange if groups > 1 else None)
        return [(layer.kernel, kernel), *biases(layer, g)]

    product = _from_patches(site, inputs, a) if groups == 1 else None
    outputs = site.tap(site.linear(inputs) if product is None else product, explain)
    return outputs if layer.activation is None else layer.activation(outputs)


def _from_patches(site: Site, inputs: tf.Tensor, a: tf.Tensor) -> tf.Tensor | None:
    """A convolution as one product of patches that are there anyway; None where that is slower.

    Few channels and a large kernel make it faster. Its gradient is that of the convolution.
    """
    layer = site.layer
    if len(layer.kernel_size) != 2 or max(layer.dilation_rate) > 1:
        return None
    kernel = tf.cast(site.cut(layer.kernel), inputs.dtype)
    strides, padding = [1, *layer.strides, 1], layer.padding.upper()

    def convolve(x: tf.Tensor, a: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:  # noqa: ARG001
        return tf.nn.conv2d(x, kernel, strides, padding)

    def multiply(x: tf.Tensor, a: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:  # noqa: ARG001
        return tf.tensordot(a, tf.reshape(kernel, [-1, layer.filters]), 1)

    ways = {"convolve": convolve, "multiply": multiply}
    key = ("product", tuple(layer.strides), padding)
    if fastest(key, ways, inputs, a, kernel) == "convolve":
        return None
    space = layer.compute_output_shape(inputs.shape)[1:]

    @tf.custom_gradient
    def product(x: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(x),
                filter=kernel,
                out_backprop=upstream,
                strides=strides,
                padding=padding,
            )

        return tf.reshape(multiply(x, a, kernel), [-1, *space]), gradient

    outputs = product(inputs)
    return outputs if layer.bias is None else outputs + tf.cast(site.cut(layer.bias), inputs.dtype)


def _depthwise(seen: tf.Tensor, g: tf.Tensor, kernel: Any) -> Outer:
    """The contribution to a depthwise kernel: every channel is a group of its own.

    Args:
        seen: patches, shape (batch, positions, cells, channels).
        g: shape (batch, *space, channels * multiplier).
        kernel: the variable, shape (*cells, channels, multiplier).
    """
    positions, _, channels = seen.shape[1:]
    multiplier = kernel.shape[-1]

    def arrange(products: tf.Tensor, batch_axes: int) -> tf.Tensor:
        order = [*range(batch_axes), *(axis + batch_axes for axis in (1, 0, 2))]
        return tf.transpose(products, order)

    g = tf.reshape(g, [-1, positions, channels, multiplier])
    return Outer(
        tf.transpose(seen, [0, 3, 1, 2]),
        tf.transpose(g, [0, 2, 1, 3]),
        tuple(kernel.shape),
        arrange,
    )


@register(layers.DepthwiseConv1D, layers.DepthwiseConv2D, when=_covered)
def depthwise_convolution(site: Site, inputs: Any) -> Any:
    """Depthwise convolutions."""
    layer = site.layer

    def explain(g: tf.Tensor) -> Parts:
        seen = patches(inputs, *_geometry(layer))
        return [(layer.kernel, _depthwise(seen, g, layer.kernel)), *biases(layer, g)]

    outputs = site.tap(site.linear(inputs), explain)
    return outputs if layer.activation is None else layer.activation(outputs)


@register(layers.SeparableConv1D, layers.SeparableConv2D, when=_covered)
def separable_convolution(site: Site, inputs: Any) -> Any:
    """Separable convolutions: a depthwise one, then a dense layer at each position."""
    layer = site.layer
    kernel, pointwise = layer.depthwise_kernel, layer.pointwise_kernel

    def explain_depthwise(g: tf.Tensor) -> Parts:
        return [(kernel, _depthwise(patches(inputs, *_geometry(layer)), g, kernel))]

    between = keras.ops.depthwise_conv(
        inputs,
        tf.cast(site.cut(kernel), inputs.dtype),
        strides=layer.strides,
        padding=layer.padding,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
    )
    between = site.tap(between, explain_depthwise)
    positions = math.prod(between.shape[1:-1])
    fan_in, fan_out = pointwise.shape[-2:]

    def explain(g: tf.Tensor) -> Parts:
        a = tf.reshape(between, [-1, positions, fan_in])
        g_rows = tf.reshape(g, [-1, positions, fan_out])
        return [(pointwise, Outer(a, g_rows, tuple(pointwise.shape))), *biases(layer, g)]

    matrix = tf.cast(tf.reshape(site.cut(pointwise), [fan_in, fan_out]), inputs.dtype)
    outputs = tf.tensordot(between, matrix, 1)
    if layer.bias is not None:
        outputs = outputs + tf.cast(site.cut(layer.bias), outputs.dtype)
    outputs = site.tap(outputs, explain)
    return outputs if layer.activation is None else layer.activation(outputs)
