"""Rules of layers that multiply by a matrix: Dense, EinsumDense, Embedding."""

import math
from typing import Any

import keras
import tensorflow as tf

from lepton_flwr.training.capture import Parts, Site
from lepton_flwr.training.contributions import Lookup, Outer
from lepton_flwr.training.rules import biases, register

layers = keras.layers


def _plain(layer: Any) -> bool:
    return not getattr(layer, "lora_enabled", False) and layer.quantization_mode is None


@register(layers.Dense, when=_plain)
def dense(site: Site, inputs: Any, training: Any = None) -> Any:  # noqa: ARG001
    """Dense over any number of positions."""
    layer = site.layer
    fan_in, fan_out = layer.kernel.shape

    def explain(g: tf.Tensor) -> Parts:
        a = tf.reshape(inputs, [tf.shape(inputs)[0], _positions(inputs), fan_in])
        g_rows = tf.reshape(g, [tf.shape(g)[0], _positions(inputs), fan_out])
        return [(layer.kernel, Outer(a, g_rows, (fan_in, fan_out))), *biases(layer, g)]

    outputs = site.tap(site.linear(inputs), explain)
    return outputs if layer.activation is None else layer.activation(outputs)


def _positions(inputs: tf.Tensor) -> int:
    inner = inputs.shape[1:-1]
    return math.prod(inner) if inner.is_fully_defined() else -1


def _einsum_covered(layer: Any) -> bool:
    """Whether batch comes first and no axis is summed within one operand."""
    if not _plain(layer):
        return False
    (x, w), out = _letters(layer)
    once = all(len(set(part)) == len(part) for part in (x, w, out))
    shared = set(x) & set(w) | set(out)
    return once and x[0] == out[0] and x[0] not in w and set(x) <= shared and set(w) <= set(x + out)


def _letters(layer: Any) -> tuple[tuple[str, str], str]:
    """The equation's operands and result, dots written out by free letters."""
    left, out = layer.equation.replace(" ", "").split("->")
    x, w = left.split(",")
    if "..." in x:
        missing = layer.input_spec.ndim - (len(x) - 3)
        free = [c for c in "ABCDEFGHIJKL" if c not in layer.equation][:missing]
        x, out = (part.replace("...", "".join(free)) for part in (x, out))
    return (x, w), out


@register(layers.EinsumDense, when=_einsum_covered)
def einsum_dense(site: Site, inputs: Any, training: Any = None) -> Any:  # noqa: ARG001
    """EinsumDense whose axes are each contracted, kept, shared or free."""
    layer = site.layer
    (x, w), out = _letters(layer)
    batch = x[0]
    groups = "".join(c for c in w if c in x and c in out)
    contracted = "".join(c for c in w if c in x and c not in out)
    kept = "".join(c for c in w if c not in x)
    positions = "".join(c for c in x[1:] if c not in w)
    sizes = dict(zip(w, layer.kernel.shape, strict=True))

    def rows(values: tf.Tensor, axes: str, last: str) -> tf.Tensor:
        values = tf.einsum(f"{axes}->{batch}{groups}{positions}{last}", values)
        inner = [axes.index(c) for c in positions]
        static = [values.shape[1 + len(groups) + i] for i in range(len(inner))]
        count = -1 if None in static else math.prod(static)
        return tf.reshape(
            values,
            [
                tf.shape(values)[0],
                *(sizes[c] for c in groups),
                count,
                math.prod(sizes[c] for c in last),
            ],
        )

    def arrange(products: tf.Tensor, batch_axes: int) -> tf.Tensor:
        products = tf.reshape(
            products, [*([-1] * batch_axes), *(sizes[c] for c in groups + contracted + kept)]
        )
        lead = batch * batch_axes
        return tf.einsum(f"{lead}{groups}{contracted}{kept}->{lead}{w}", products)

    def explain(g: tf.Tensor) -> Parts:
        a, g_rows = rows(inputs, x, contracted), rows(g, out, kept)
        plain = groups + contracted + kept == w
        kernel = Outer(a, g_rows, tuple(layer.kernel.shape), None if plain else arrange)
        return [(layer.kernel, kernel), *biases(layer, g)]

    outputs = site.tap(site.linear(inputs), explain)
    return outputs if layer.activation is None else layer.activation(outputs)


@register(layers.Embedding, when=_plain)
def embedding(site: Site, inputs: Any) -> Any:
    """Embedding of ids in any arrangement."""
    layer = site.layer
    rows, width = layer.embeddings.shape

    def explain(g: tf.Tensor) -> Parts:
        batch = tf.shape(g)[0]
        inner = inputs.shape[1:]
        count = math.prod(inner) if inner.is_fully_defined() else -1
        ids = tf.reshape(tf.cast(inputs, tf.int32), [batch, count])
        return [(layer.embeddings, Lookup(ids, tf.reshape(g, [batch, count, width]), rows))]

    return site.tap(site.call(inputs), explain)


@register(layers.ReversibleEmbedding, when=_plain)
def reversible_embedding(site: Site, inputs: Any, reverse: bool = False) -> Any:
    """An embedding whose table, or another, also maps back from vectors to ids."""
    layer = site.layer
    if not reverse:
        outputs = embedding(site, inputs)
        if layer.mask_zero:
            outputs._keras_mask = tf.not_equal(inputs, 0)
        return outputs
    rows, width = layer.embeddings.shape
    dtype = layer.reverse_dtype or inputs.dtype
    inputs = tf.cast(inputs, dtype)
    table = site.cut(layer.embeddings if layer.tie_weights else layer.reverse_embeddings)

    def explain(g: tf.Tensor) -> Parts:
        vectors = tf.reshape(inputs, [tf.shape(g)[0], _positions(inputs), width])
        g_rows = tf.reshape(g, [tf.shape(g)[0], _positions(inputs), rows])
        if layer.tie_weights:
            return [(layer.embeddings, Outer(g_rows, vectors, (rows, width)))]
        return [(layer.reverse_embeddings, Outer(vectors, g_rows, (width, rows)))]

    matrix = tf.cast(tf.transpose(table) if layer.tie_weights else table, dtype)
    outputs = site.tap(tf.tensordot(inputs, matrix, 1), explain)
    cap = layer.logit_soft_cap
    return outputs if cap is None else tf.tanh(outputs / cap) * cap
