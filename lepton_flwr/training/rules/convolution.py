"""Rules of convolutions: plain, grouped, dilated, depthwise and separable ones.

A convolution is a dense layer over patches.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from lepton_flwr.training.capture import Parts, Site
from lepton_flwr.training.contributions import Outer
from lepton_flwr.training.measure import fastest
from lepton_flwr.training.patches import LARGEST_CONVOLVED, Geometry, patch_rows, patches
from lepton_flwr.training.rules import biases, register

layers = keras.layers


def _covered(layer: Any) -> bool:
    plain = not getattr(layer, "lora_enabled", False)
    return plain and layer.data_format == "channels_last"


def _geometry(layer: Any) -> Geometry:
    return Geometry(layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate)


@register(layers.Conv1D, layers.Conv2D, layers.Conv3D, when=_covered)
def convolution(site: Site, inputs: Any) -> Any:
    """Convolutions in one to three dimensions, grouped ones included."""
    layer = site.layer
    way = _way(layer, inputs) if layer.groups == 1 else "convolve"
    a = _patches_of(layer, inputs) if way == "multiply" else None

    def explain(g: tf.Tensor) -> Parts:
        groups, filters, shape = layer.groups, layer.filters, tuple(layer.kernel.shape)
        with tf.control_dependencies([g]):  # taken earlier, patches would only fill memory
            late = tf.identity(inputs)
        if way == "rows":
            g_rows = tf.reshape(g, [-1, 1, math.prod(g.shape[1:-1]), filters])
            kernel = Outer(patch_rows(late, _geometry(layer)), g_rows, shape)
        else:
            seen = _patches_of(layer, late) if a is None else a
            g_rows = tf.reshape(g, [-1, seen.shape[-2], filters])
            if groups > 1:
                g_rows = tf.reshape(g_rows, [-1, seen.shape[-2], groups, filters // groups])
                g_rows = tf.transpose(g_rows, [0, 2, 1, 3])
            kernel = Outer(seen, g_rows, shape, _grouped(layer) if groups > 1 else None)
        return [(layer.kernel, kernel), *biases(layer, g)]

    outputs = site.tap(site.linear(inputs) if a is None else _product(site, inputs, a), explain)
    return outputs if layer.activation is None else layer.activation(outputs)


def _patches_of(layer: Any, inputs: tf.Tensor) -> tf.Tensor:
    """Shape (batch, positions, fan-in); with groups (batch, groups, positions, fan-in)."""
    seen, groups = patches(inputs, _geometry(layer)), layer.groups
    positions, cells, channels = seen.shape[1:]
    if groups == 1:
        return tf.reshape(seen, [-1, positions, cells * channels])
    seen = tf.reshape(seen, [-1, positions, cells, groups, channels // groups])
    seen = tf.transpose(seen, [0, 3, 1, 2, 4])
    return tf.reshape(seen, [-1, groups, positions, cells * channels // groups])


def _grouped(layer: Any) -> Callable[[tf.Tensor, int], tf.Tensor]:
    """From (groups, fan-in, fan-out) to the kernel's order; see `Outer.arrange`."""
    groups, filters = layer.groups, layer.filters
    fan_in = math.prod(layer.kernel.shape[:-1])

    def arrange(products: tf.Tensor, batch_axes: int) -> tf.Tensor:
        lead = [-1] * batch_axes
        products = tf.reshape(products, [*lead, groups, fan_in, filters // groups])
        order = [*range(batch_axes), *(axis + batch_axes for axis in (1, 0, 2))]
        return tf.transpose(products, order)

    return arrange


def _way(layer: Any, inputs: tf.Tensor) -> str:
    """How to compute a convolution and the gradients of its kernel, whichever is fastest.

    "convolve" as Keras does, and patches for the gradients; "multiply" the kernel with the patches
    that are there anyway; "rows" as Keras does, and `patch_rows`.
    """
    geometry, filters = _geometry(layer), layer.filters
    if len(geometry.kernel) != 2 or geometry.dilated:
        return "convolve"

    def convolved(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(x, kernel, geometry.strides, geometry.padding.upper())

    def convolve(x: tf.Tensor, kernel: tf.Tensor) -> Any:
        outputs, a = convolved(x, kernel), _patches_of(layer, x)
        g = tf.reshape(outputs, [-1, a.shape[-2], filters])
        return outputs, tf.matmul(a, g, transpose_a=True)

    def multiply(x: tf.Tensor, kernel: tf.Tensor) -> Any:
        a = _patches_of(layer, x)
        outputs = _times(a, kernel)
        return outputs, tf.matmul(a, outputs, transpose_a=True)

    def rows(x: tf.Tensor, kernel: tf.Tensor) -> Any:
        outputs, a = convolved(x, kernel), patch_rows(x, geometry)
        g = tf.reshape(outputs, [-1, 1, a.shape[-2], filters])
        return outputs, tf.matmul(a, g, transpose_a=True)

    ways = {"convolve": convolve, "multiply": multiply}
    if math.prod(layer.kernel.shape[:-1]) <= LARGEST_CONVOLVED and geometry.kernel[0] > 1:
        ways["rows"] = rows
    kernel = tf.TensorSpec(layer.kernel.shape, inputs.dtype)
    return fastest(("convolution", geometry), ways, inputs, kernel)


def _times(a: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Patches times the kernel, shape (batch, positions, filters)."""
    return tf.tensordot(a, tf.reshape(kernel, [-1, kernel.shape[-1]]), 1)


def _product(site: Site, inputs: tf.Tensor, a: tf.Tensor) -> tf.Tensor:
    """A convolution as one product of its patches. Its gradient is that of the convolution."""
    layer = site.layer
    kernel = tf.cast(site.cut(layer.kernel), inputs.dtype)
    space = layer.compute_output_shape(inputs.shape)[1:]

    @tf.custom_gradient
    def product(x: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(x),
                filter=kernel,
                out_backprop=upstream,
                strides=[1, *layer.strides, 1],
                padding=layer.padding.upper(),
            )

        return tf.reshape(_times(a, kernel), [-1, *space]), gradient

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
        seen = patches(inputs, _geometry(layer))
        return [(layer.kernel, _depthwise(seen, g, layer.kernel)), *biases(layer, g)]

    outputs = site.tap(site.linear(inputs), explain)
    return outputs if layer.activation is None else layer.activation(outputs)


@register(layers.SeparableConv1D, layers.SeparableConv2D, when=_covered)
def separable_convolution(site: Site, inputs: Any) -> Any:
    """Separable convolutions: a depthwise one, then a dense layer at each position."""
    layer = site.layer
    kernel, pointwise = layer.depthwise_kernel, layer.pointwise_kernel

    def explain_depthwise(g: tf.Tensor) -> Parts:
        return [(kernel, _depthwise(patches(inputs, _geometry(layer)), g, kernel))]

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
