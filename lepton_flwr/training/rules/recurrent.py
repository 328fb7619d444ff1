"""Rules of SimpleRNN, LSTM and GRU.

Inputs are projected for all time steps at once, and the loop over time sees only the projections:
their gradients are those of the gates' pre-activations, with which the input kernel, the recurrent
kernel and the biases are dense layers over time.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from lepton_flwr.training.capture import Parts, Site
from lepton_flwr.training.contributions import Outer, Summed, wide
from lepton_flwr.training.rules import biases, register

layers = keras.layers
# From a step's projected inputs and its states to the output, the new states, and what else the
# gradients need of the step.
Step = Callable[[tf.Tensor, list[tf.Tensor]], tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]]


class _Cell:
    """A cell whose outputs carry what else a rule needs, and the state before if it is asked to."""

    def __init__(self, step: Step, layer: Any, *, with_state: bool, extra: int) -> None:
        sizes = layer.cell.state_size
        self.step = step
        self.with_state = with_state
        self.state_size = list(sizes) if isinstance(sizes, list | tuple) else [sizes]
        self.output_size = (1 + with_state + extra) * layer.units
        self.compute_dtype = layer.compute_dtype

    def __call__(
        self, inputs: tf.Tensor, states: list[tf.Tensor]
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        output, after, extra = self.step(inputs, list(states))
        parts = [output, *extra, *([states[0]] if self.with_state else [])]
        return (output if len(parts) == 1 else tf.concat(parts, axis=-1)), after

    call = __call__


def _covered(layer: Any) -> bool:
    return layer.dropout == 0 and layer.recurrent_dropout == 0 and not layer.stateful


def _run(
    site: Site, projected: tf.Tensor, step: Step, mask: Any, initial_state: Any, *, extra: int = 0
) -> tuple[Any, tf.Tensor, tf.Tensor]:
    """Loop over time.

    Returns:
        What the layer returns; per time step the state before it, and the extra values.
    """
    layer = site.layer
    units = layer.units
    masked = mask is not None  # then the state before a step need not be the output before it
    loop = layers.RNN(
        _Cell(step, layer, with_state=masked, extra=extra),
        return_sequences=True,
        return_state=True,
        unroll=layer.unroll,
        zero_output_for_mask=layer.zero_output_for_mask,
        dtype=layer.dtype_policy,
    )
    sequences, *states = loop.call(projected, initial_state=initial_state, mask=mask)
    seen = tf.stop_gradient(sequences)
    kept = seen[..., units : (1 + extra) * units]
    if masked:
        before = seen[..., -units:]
    else:
        first = tf.zeros_like(seen[:, 0, :units])
        if initial_state is not None:
            first = tf.cast(tf.nest.flatten(initial_state)[0], first.dtype)
        before = tf.concat([tf.stop_gradient(first)[:, tf.newaxis], seen[:, :-1, :units]], axis=1)
    if layer.return_sequences:
        outputs = sequences[..., :units]
    else:
        outputs = sequences[:, -1, :units] if masked else states[0]
    return ((outputs, *states) if layer.return_state else outputs), before, kept


def _ordered(layer: Any, sequences: Any, mask: Any) -> tuple[Any, Any]:
    """Inputs in the order in which the layer reads them."""
    if not layer.go_backwards:
        return sequences, mask
    return tf.reverse(sequences, [1]), None if mask is None else tf.reverse(mask, [1])


def _project(site: Site, sequences: tf.Tensor, bias: Any) -> tf.Tensor:
    kernel = tf.cast(site.cut(site.layer.cell.kernel), sequences.dtype)
    projected = tf.tensordot(sequences, kernel, 1)
    return projected if bias is None else projected + tf.cast(bias, sequences.dtype)


@register(layers.SimpleRNN, layers.LSTM, when=_covered)
def gated_at_once(
    site: Site,
    sequences: Any,
    initial_state: Any = None,
    mask: Any = None,
    training: Any = None,  # noqa: ARG001 - as the layers' call
) -> Any:
    """SimpleRNN and LSTM: one product with the state per step."""
    cell = site.layer.cell
    sequences, mask = _ordered(site.layer, sequences, mask)
    recurrent = tf.cast(site.cut(cell.recurrent_kernel), sequences.dtype)
    seen: list[tf.Tensor] = []

    def explain(g: tf.Tensor) -> Parts:
        return [
            (cell.kernel, Outer(sequences, g, tuple(cell.kernel.shape))),
            (cell.recurrent_kernel, Outer(seen[0], g, tuple(cell.recurrent_kernel.shape))),
            *biases(cell, g),
        ]

    bias = site.cut(cell.bias) if cell.use_bias else None
    projected = site.tap(_project(site, sequences, bias), explain)

    def simple(inputs: tf.Tensor, states: list[tf.Tensor]) -> Any:
        output = inputs + tf.matmul(states[0], recurrent)
        output = output if cell.activation is None else cell.activation(output)
        return output, [output], []

    def lstm(inputs: tf.Tensor, states: list[tf.Tensor]) -> Any:
        gates = tf.split(inputs + tf.matmul(states[0], recurrent), 4, axis=-1)
        i, f, o = (cell.recurrent_activation(gates[n]) for n in (0, 1, 3))
        carry = f * states[1] + i * cell.activation(gates[2])
        output = o * cell.activation(carry)
        return output, [output, carry], []

    step = lstm if isinstance(site.layer, layers.LSTM) else simple
    outputs, before, _ = _run(site, projected, step, mask, initial_state)
    seen.append(before)
    return outputs


@register(layers.GRU, when=_covered)
def gru(
    site: Site,
    sequences: Any,
    initial_state: Any = None,
    mask: Any = None,
    training: Any = None,  # noqa: ARG001 - as the layers' call
) -> Any:
    """GRU with the reset gate before or after the product with the state."""
    cell = site.layer.cell
    units = cell.units
    sequences, mask = _ordered(site.layer, sequences, mask)
    recurrent = tf.cast(site.cut(cell.recurrent_kernel), sequences.dtype)
    bias: Any = tf.cast(site.cut(cell.bias), sequences.dtype) if cell.use_bias else None
    two = cell.use_bias and cell.reset_after
    seen: list[tf.Tensor] = []

    def explain(g: tf.Tensor) -> Parts:
        before, reset = (wide(part) for part in seen)
        gates, candidate = g[..., : 2 * units], g[..., 2 * units :]
        found: Parts = [(cell.kernel, Outer(sequences, g, tuple(cell.kernel.shape)))]
        if not cell.reset_after:
            columns = [
                tf.matmul(before, gates, transpose_a=True),
                tf.matmul(before * reset, candidate, transpose_a=True),
            ]
            recurrent_part = Summed(tf.concat(columns, axis=-1))
            return [*found, (cell.recurrent_kernel, recurrent_part), *biases(cell, g)]
        inner = tf.concat([gates, candidate * reset], axis=-1)
        shape = tuple(cell.recurrent_kernel.shape)
        found.append((cell.recurrent_kernel, Outer(before, inner, shape)))
        if two:
            both = [Summed.over(part, [3 * units]).values for part in (g, inner)]
            found.append((cell.bias, Summed(tf.stack(both, axis=1))))
        return found

    projected = site.tap(_project(site, sequences, bias[0] if two else bias), explain)

    def step(inputs: tf.Tensor, states: list[tf.Tensor]) -> Any:
        before = states[0]
        x_gates, x_candidate = inputs[..., : 2 * units], inputs[..., 2 * units :]
        if cell.reset_after:
            inner = tf.matmul(before, recurrent)
            inner = inner + bias[1] if two else inner
            update, reset = tf.split(
                cell.recurrent_activation(x_gates + inner[..., : 2 * units]), 2, axis=-1
            )
            candidate = cell.activation(x_candidate + reset * inner[..., 2 * units :])
        else:
            inner = tf.matmul(before, recurrent[:, : 2 * units])
            update, reset = tf.split(cell.recurrent_activation(x_gates + inner), 2, axis=-1)
            product = tf.matmul(reset * before, recurrent[:, 2 * units :])
            candidate = cell.activation(x_candidate + product)
        output = update * before + (1 - update) * candidate
        return output, [output], [reset]

    outputs, before, reset = _run(site, projected, step, mask, initial_state, extra=1)
    seen.extend([before, reset])
    return outputs
