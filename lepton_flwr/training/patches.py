"""What each position of a convolution sees, by whichever of TensorFlow's ways is fastest here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from lepton_flwr.training.capture import UnsupportedError
from lepton_flwr.training.measure import fastest

# Entries of a patch up to which a convolution with the identity may be the way to take it.
LARGEST_CONVOLVED = 256


@dataclass(frozen=True)
class Geometry:
    """Where the patches of a convolution lie, along one to three axes of space.

    Attributes:
        kernel: its sizes.
        strides: steps from one position to the next.
        padding: "valid", "same", or, with one axis, "causal".
        dilation: distances between neighbouring cells of the kernel.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str
    dilation: tuple[int, ...]

    @property
    def dilated(self) -> bool:
        """Whether cells of the kernel have gaps between them."""
        return max(self.dilation) > 1

    def padded(self, x: tf.Tensor) -> tf.Tensor:
        """The input with the zeros around it that the padding adds.

        Args:
            x: shape (batch, *space, channels).

        Raises:
            UnsupportedError: an axis of space has no known size.
        """
        space = x.shape[1:-1]
        if not space.is_fully_defined():
            raise UnsupportedError("a convolution over space of unknown size")
        reach = [(k - 1) * d for k, d in zip(self.kernel, self.dilation, strict=True)]
        if self.padding == "causal":
            return tf.pad(x, [[0, 0], [reach[0], 0], [0, 0]])
        if self.padding == "valid":
            return x
        lost = [
            max((-(-n // s) - 1) * s + r + 1 - n, 0)
            for n, s, r in zip(space, self.strides, reach, strict=True)
        ]
        return tf.pad(x, [[0, 0], *([p // 2, p - p // 2] for p in lost), [0, 0]])

    def seen(self, axis: int, size: int) -> np.ndarray:
        """Indices along an axis of space of `size` padded entries, shape (positions, cells)."""
        kernel, stride, step = self.kernel[axis], self.strides[axis], self.dilation[axis]
        starts = np.arange(0, size - (kernel - 1) * step, stride)
        return starts[:, np.newaxis] + step * np.arange(kernel)


def patches(x: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """What each position sees.

    Args:
        x: shape (batch, *space, channels).
        geometry: of the convolution.

    Returns:
        Shape (batch, positions, cells of the kernel, channels).

    Raises:
        UnsupportedError: an axis of space has no known size.
    """
    x = geometry.padded(x)
    space, channels = x.shape[1:-1], x.shape[-1]
    along = [geometry.seen(axis, size) for axis, size in enumerate(space)]
    positions, cells = (math.prod(seen.shape[i] for seen in along) for i in (0, 1))
    kernel, strides, dilation = map(
        _in_the_plane, (geometry.kernel, geometry.strides, geometry.dilation)
    )
    width = cells * channels

    def gathered(x: tf.Tensor) -> tf.Tensor:
        index = tf.zeros([1, 1], tf.int32)  # put together in the step: it can be large
        for size, seen in zip(space, along, strict=True):
            among = tf.constant(seen[:, np.newaxis], tf.int32)
            index = index[:, tf.newaxis, :, tf.newaxis] * size + among
            index = tf.reshape(index, [math.prod(index.shape[:2]), -1])
        return tf.gather(tf.reshape(x, [-1, math.prod(space), channels]), index, axis=1)

    def extracted(x: tf.Tensor) -> tf.Tensor:
        sizes = ([1, *part, 1] for part in (kernel, strides, dilation))
        return tf.image.extract_patches(_image(x), *sizes, "VALID")

    def convolved(x: tf.Tensor) -> tf.Tensor:
        cell = tf.reshape(tf.eye(width, dtype=x.dtype), [*kernel, channels, width])
        return tf.nn.conv2d(_image(x), cell, strides, "VALID", dilations=dilation)

    ways = {"gather": gathered}
    if len(geometry.kernel) <= 2:
        ways["extract"] = extracted
        if width <= LARGEST_CONVOLVED and (max(strides) == 1 or not geometry.dilated):
            ways["convolve"] = convolved
    found = ways[fastest(("patches", geometry), ways, x)](x)
    return tf.reshape(found, [-1, positions, cells, channels])


def patch_rows(x: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """The same with the rows of the kernel apart, which is faster for few channels.

    Args:
        x: shape (batch, height, width, channels).
        geometry: of a convolution without dilation.

    Returns:
        Shape (batch, rows of the kernel, positions, columns of the kernel * channels).

    Raises:
        UnsupportedError: an axis of space has no known size.
    """
    x = geometry.padded(x)
    height, _, channels = x.shape[1:]
    columns = geometry.kernel[1]
    width = columns * channels
    cell = tf.reshape(tf.eye(width, dtype=x.dtype), [1, columns, channels, width])
    windows = tf.nn.conv2d(x, cell, [1, geometry.strides[1]], "VALID")
    across = windows.shape[2]
    rows = geometry.seen(0, height).T
    found = tf.gather(tf.reshape(windows, [-1, height, across * width]), rows, axis=1)
    return tf.reshape(found, [-1, *rows.shape[:1], rows.shape[1] * across, width])


def _in_the_plane(sizes: Sequence[int]) -> tuple[int, ...]:
    """Sizes along one axis as along two."""
    return (1,) * (2 - len(sizes)) + tuple(sizes)


def _image(x: tf.Tensor) -> tf.Tensor:
    return x if x.shape.rank == 4 else x[:, tf.newaxis]
