"""Per-example gradients of one variable, without forming them where that is slower.

A layer's rule describes the gradient of each of its variables as one of three forms, from what the
forward pass saw (a) and what the backward pass returned (g):

| form | per-example gradient | norm without forming it |
|---|---|---|
| `Outer` | sum_t a_t g_t^T | sum_ts (a_t . a_s)(g_t . g_s); of one position the product |
| `Lookup` | row id_t gets g_t | sum_ts [id_t = id_s] g_t . g_s |
| `Summed` | already formed | - |

Goodfellow (2015) for one position; Rochette et al. (2019), Li et al. (2022, section 4) for several;
Bu et al. (2023) for the weighted sum that reuses a and g ("book-keeping").
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import tensorflow as tf

# Of a type: its unit round-off, and the number below which a result may be flushed to zero.
_PRECISION = {tf.float32: (2.0**-24, 2.0**-126), tf.float64: (2.0**-53, 2.0**-1022)}
_BLOCK = 64  # so many are added in the type itself, in whatever order, and the rest in float64


def wide(values: tf.Tensor) -> tf.Tensor:
    """Float64 as it is, everything else as float32."""
    return values if values.dtype == tf.float64 else tf.cast(values, tf.float32)


def squares(values: tf.Tensor) -> tf.Tensor:
    """Per-example sum of squares, rounded up.

    Args:
        values: float tensor of shape (batch, ...).

    Returns:
        float64 of shape (batch,), never below the exact sum, and above it by at most a relative
        9e-6 and 2^-125 an element in float32; not finite where a value is not, or where squares
        overflow.
    """
    values = wide(values)
    ulp, tiny = _PRECISION[values.dtype]
    if values.shape[1:].is_fully_defined():
        # One pass over memory in place of two; an approximate square root adds a few roundings.
        norms = tf.raw_ops.EuclideanNorm(input=_blocks(values), axis=[2])
        sums = tf.reduce_sum(tf.square(tf.cast(norms, tf.float64)), axis=1)
    else:
        sums = _row_sums(tf.square(values))
    return sums * (1 + (_BLOCK + 16) * ulp) + 2 * _entries(values) * tiny


def _row_sums(values: tf.Tensor) -> tf.Tensor:
    """Per-example sums, float64 of shape (batch,); at most 64 are added in their own type."""
    if not values.shape[1:].is_fully_defined():
        rows = tf.reshape(tf.cast(values, tf.float64), [tf.shape(values)[0], -1])
        return tf.reduce_sum(rows, axis=1)
    blocks = tf.reduce_sum(_blocks(values), axis=2)
    return tf.reduce_sum(tf.cast(blocks, tf.float64), axis=1)


def _blocks(values: tf.Tensor) -> tf.Tensor:
    """Shape (batch, blocks, entries of a block), at most 64 of them."""
    count = math.prod(values.shape[1:])
    block = max(size for size in range(1, _BLOCK + 1) if count % size == 0)
    return tf.reshape(values, [-1, count // block, block])


def _entries(values: tf.Tensor) -> tf.Tensor:
    """Entries of one example, float64."""
    return tf.cast(tf.reduce_prod(tf.shape(values)[1:]), tf.float64)


class Contribution(ABC):
    """The per-example gradients of one variable, in one of the forms above."""

    @abstractmethod
    def squared_norms(self) -> tf.Tensor:
        """Squared L2 norms, float64 of shape (batch,), rounded up; see `squares`."""

    @abstractmethod
    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:
        """Sum over examples of weight times gradient, in the variable's shape.

        Args:
            weights: float64 of shape (batch,).
        """

    @abstractmethod
    def formed(self) -> tf.Tensor:
        """The gradients themselves, of shape (batch, *variable shape)."""

    @abstractmethod
    def tamed(self) -> tuple[Self, tf.Tensor]:
        """Scale each example to a largest entry of 1, so that no square overflows or vanishes.

        Returns:
            The scaled contribution, in which an example with NaN or infinity is zero; and the
            scale, float64 of shape (batch,), infinite for such an example.
        """


@dataclass(frozen=True)
class Summed(Contribution):
    """Gradients that are formed already: biases, scales, and what no other form fits.

    Attributes:
        values: shape (batch, *variable shape).
    """

    values: tf.Tensor

    @classmethod
    def over(cls, values: tf.Tensor, shape: Sequence[int]) -> Self:
        """Sum `values` over the axes along which a variable of `shape` was broadcast.

        Args:
            values: gradients of the broadcast result, shape (batch, ...).
            shape: the variable's shape, aligned with the last axes of `values`.
        """
        values = wide(values)
        lead = values.shape.rank - len(shape)
        ones = [lead + i for i, size in enumerate(shape) if size == 1]
        axes = [axis for axis in [*range(1, lead), *ones] if values.shape[axis] != 1]
        if axes:
            values = tf.reduce_sum(values, axis=axes, keepdims=True)
        return cls(tf.reshape(values, [-1, *shape]))

    def reshaped(self, shape: Sequence[int]) -> Self:
        """The same gradients for a variable of another shape."""
        return replace(self, values=tf.reshape(self.values, [-1, *shape]))

    def squared_norms(self) -> tf.Tensor:
        """See `Contribution`."""
        return squares(self.values)

    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:
        """See `Contribution`."""
        values = wide(self.values)
        rows = tf.reshape(values, [-1, math.prod(values.shape[1:])])
        total = tf.linalg.matvec(rows, tf.cast(weights, rows.dtype), transpose_a=True)
        return tf.reshape(total, values.shape[1:])

    def formed(self) -> tf.Tensor:
        """See `Contribution`."""
        return self.values

    def tamed(self) -> tuple[Self, tf.Tensor]:
        """See `Contribution`."""
        values, scale = _unit(self.values)
        return replace(self, values=values), scale


@dataclass(frozen=True)
class Outer(Contribution):
    """Sums of outer products: kernels of dense, convolutional and recurrent layers.

    Attributes:
        a: layer inputs, shape (batch, ..., positions, fan-in).
        g: gradients of the pre-activations, shape (batch, ..., positions, fan-out); an axis before
            the positions may be 1 for all of a's.
        shape: the variable's shape.
        arrange: brings (..., fan-in, fan-out), per example or summed, into that shape; the number
            of leading batch axes is its second argument. None reshapes.
        ghost: whether norms are computed without forming the gradients.
        piece: for norms, the gradients of so many examples are formed at a time, and formed anew
            for the sum; None forms them all, once.
    """

    a: tf.Tensor
    g: tf.Tensor
    shape: tuple[int, ...]
    arrange: Callable[[tf.Tensor, int], tf.Tensor] | None = None
    ghost: bool = False
    piece: int | None = None

    def squared_norms(self) -> tf.Tensor:
        """See `Contribution`.

        With several positions and `ghost` the products can cancel, and rounding could hide a norm.
        What rounding can do at worst, (fan-in + fan-out + 68) 2^-24 (sum_t |a_t||g_t|)^2, is added.
        """
        if self._single:
            return squares(self.a) * squares(self.g)
        if not self.ghost:
            return squares(self._products) if self.piece is None else self._norms_in_pieces()
        a, g = wide(self.a), wide(self.g)
        products = tf.matmul(a, a, transpose_b=True) * tf.matmul(g, g, transpose_b=True)
        lengths = tf.sqrt(tf.reduce_sum(a * a, axis=-1) * tf.reduce_sum(g * g, axis=-1))
        entries = a.shape[-1] + g.shape[-1] + _BLOCK + 4
        ulp, tiny = _PRECISION[a.dtype]
        worst = _row_sums(tf.square(tf.reduce_sum(lengths, axis=-1, keepdims=True)))
        floor = _entries(a[..., :1]) ** 2 * entries * tiny
        return tf.maximum(_row_sums(products), 0.0) + 1.01 * entries * ulp * worst + floor

    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:
        """See `Contribution`."""
        if not self._single and not self.ghost and self.piece is None:
            formed = self._products
            flat = tf.reshape(formed, [-1, math.prod(formed.shape[1:])])
            total = tf.linalg.matvec(flat, tf.cast(weights, flat.dtype), transpose_a=True)
            return self._arranged(tf.reshape(total, formed.shape[1:]), 0)
        a, g = wide(self.a), wide(self.g)
        weights = tf.reshape(tf.cast(weights, g.dtype), [-1] + [1] * (g.shape.rank - 1))
        if a.shape[-1] < g.shape[-1]:  # the smaller one is copied
            a = a * weights
        else:
            g = g * weights
        if a.shape.rank > 3:  # batch and positions side by side, in each group
            order = [*range(1, a.shape.rank - 2), 0, a.shape.rank - 2, a.shape.rank - 1]
            a, g = tf.transpose(a, order), tf.transpose(g, order)
        a, g = (tf.reshape(t, [*t.shape[:-3], -1, t.shape[-1]]) for t in (a, g))
        return self._arranged(tf.matmul(a, g, transpose_a=True), 0)

    def formed(self) -> tf.Tensor:
        """See `Contribution`."""
        return self._arranged(self._products, 1)

    def tamed(self) -> tuple[Self, tf.Tensor]:
        """See `Contribution`."""
        a, scale_a = _unit(self.a)
        g, scale_g = _unit(self.g)
        return replace(self, a=a, g=g), scale_a * scale_g

    def _norms_in_pieces(self) -> tf.Tensor:
        rows = tf.shape(self.a)[0]

        def add(start: tf.Tensor, found: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            a, g = (wide(part[start : start + self.piece]) for part in (self.a, self.g))
            norms = squares(tf.matmul(a, g, transpose_a=True))
            return start + self.piece, found.write(found.size(), norms)

        found = tf.TensorArray(
            tf.float64, 0, dynamic_size=True, infer_shape=False, element_shape=[None]
        )
        _, found = tf.while_loop(
            lambda start, _: start < rows, add, (0, found), parallel_iterations=1
        )
        return found.concat()

    @property
    def _single(self) -> bool:
        return self.a.shape.rank == 3 and self.a.shape[1] == 1

    @property
    def _products(self) -> tf.Tensor:
        """Shape (batch, ..., fan-in, fan-out); made once."""
        kept: tf.Tensor | None = vars(self).get("_kept")
        if kept is None:
            a, g = wide(self.a), wide(self.g)
            kept = tf.matmul(a, g, transpose_a=True)
            vars(self)["_kept"] = kept
        return kept

    def _arranged(self, products: tf.Tensor, batch_axes: int) -> tf.Tensor:
        if self.arrange is not None:
            products = self.arrange(products, batch_axes)
        return tf.reshape(products, [*([-1] * batch_axes), *self.shape])


@dataclass(frozen=True)
class Lookup(Contribution):
    """Rows of a table, as an embedding takes them.

    Attributes:
        ids: int, shape (batch, positions).
        g: gradients of the looked-up rows, shape (batch, positions, width).
        num_rows: rows of the table.
    """

    ids: tf.Tensor
    g: tf.Tensor
    num_rows: int

    def squared_norms(self) -> tf.Tensor:
        """See `Contribution`. Gradients of equal ids are added before they are squared."""
        batch, positions = tf.unstack(tf.shape(self.ids))
        order = tf.argsort(self.ids, axis=1, stable=True)
        ids = tf.gather(self.ids, order, batch_dims=1)
        g = tf.gather(wide(self.g), order, batch_dims=1)
        new = tf.pad(ids[:, 1:] != ids[:, :-1], [[0, 0], [1, 0]])
        slots = tf.cumsum(tf.cast(new, tf.int32), axis=1) + positions * tf.range(batch)[:, None]
        width = self.g.shape[-1]
        rows = tf.math.unsorted_segment_sum(
            tf.reshape(g, [-1, width]), tf.reshape(slots, [-1]), batch * positions
        )
        count = -1 if self.g.shape[1] is None else self.g.shape[1]
        return squares(tf.reshape(rows, [batch, count, width]))

    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:
        """See `Contribution`."""
        g = wide(self.g)
        g = g * tf.cast(weights, g.dtype)[:, tf.newaxis, tf.newaxis]
        return tf.math.unsorted_segment_sum(
            tf.reshape(g, [-1, self.g.shape[-1]]), tf.reshape(self.ids, [-1]), self.num_rows
        )

    def formed(self) -> tf.Tensor:
        """See `Contribution`."""
        return self.as_outer().formed()

    def as_outer(self) -> Outer:
        """The same gradients as outer products with one-hot rows."""
        one_hot = tf.one_hot(self.ids, self.num_rows, dtype=wide(self.g).dtype)
        return Outer(one_hot, self.g, (self.num_rows, self.g.shape[-1]), ghost=True)

    def tamed(self) -> tuple[Self, tf.Tensor]:
        """See `Contribution`."""
        g, scale = _unit(self.g)
        return replace(self, g=g), scale


def combined(parts: Sequence[Contribution]) -> Contribution:
    """The sum of several contributions to one variable: a layer used twice, or tied weights."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, Lookup) for part in parts):
        lookups = [part for part in parts if isinstance(part, Lookup)]
        ids = tf.concat([part.ids for part in lookups], axis=1)
        g = tf.concat([part.g for part in lookups], axis=1)
        return Lookup(ids, g, lookups[0].num_rows)
    outers = [part.as_outer() if isinstance(part, Lookup) else part for part in parts]
    if all(isinstance(part, Outer) and part.arrange is None for part in outers):
        joined: list[Any] = [part for part in outers if isinstance(part, Outer)]
        if len({(p.a.shape.rank, p.a.shape[-1], p.g.shape[-1]) for p in joined}) == 1:
            a = tf.concat([wide(part.a) for part in joined], axis=-2)
            g = tf.concat([wide(part.g) for part in joined], axis=-2)
            ghost = any(part.ghost for part in joined)
            return Outer(a, g, joined[0].shape, ghost=ghost)
    return Summed(tf.add_n([part.formed() for part in parts]))


def _unit(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    values = wide(values)
    axes = list(range(1, values.shape.rank))
    finite = tf.reduce_sum(values * 0.0, axis=axes) == 0.0  # NaN where a value is not finite
    largest = tf.reduce_max(tf.abs(values), axis=axes)
    kept = finite & (largest > 0)
    divisor = tf.where(kept, largest, 1.0)
    shape = [-1] + [1] * len(axes)
    unit = tf.where(tf.reshape(kept, shape), values / tf.reshape(divisor, shape), 0.0)
    return unit, tf.where(finite, tf.cast(divisor, tf.float64), math.inf)
