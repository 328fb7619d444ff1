"""One forward and one backward pass that keep what per-example gradients are made of.

While the model is traced, the `call` of each layer with weights of its own is replaced by its rule
(`rules/`). A rule computes what the layer computes, with the weights cut out of differentiation,
and taps the tensors whose gradients it needs. Weights reached on any other way than through a rule
then show up as gradients of their own, and the model is refused.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from lepton_flwr.errors import ConfigError
from lepton_flwr.training.contributions import Contribution, combined, wide

# Pairs of a variable and something; Keras variables cannot be keys.
Parts = list[tuple[Any, Contribution]]
Values = Sequence[tuple[Any, tf.Tensor]]
# From the gradient of a tapped tensor to contributions to variables.
Explain = Callable[[tf.Tensor], Parts]


class UnsupportedError(ConfigError):
    """Per-example gradients of this model cannot be read off one backward pass."""


@dataclass(frozen=True)
class _Tap:
    tensor: tf.Tensor
    explain: Explain


class Site:
    """Where a rule works: one layer in one traced forward pass.

    Attributes:
        layer: the Keras layer.
    """

    def __init__(self, layer: Any, tape: tf.GradientTape, taps: list[_Tap]) -> None:
        self.layer = layer
        self._tape = tape
        self._taps = taps

    def tap(self, tensor: tf.Tensor, explain: Explain) -> tf.Tensor:
        """Ask for the gradient of `tensor`, which the rule must go on with in its place.

        Args:
            tensor: floats of shape (batch, ...), computed from weights that are cut.
            explain: takes the gradient of the summed losses, in the shape of `tensor`, and gives
                the contributions to the variables; those to frozen ones are dropped.
        """
        tapped = tf.identity(tensor)
        self._tape.watch(tapped)
        self._taps.append(_Tap(tapped, explain))
        return tapped

    def cut(self, variable: Any) -> tf.Tensor:
        """A variable's value, without differentiation through it."""
        return tf.stop_gradient(tf.convert_to_tensor(variable))

    def call(self, *args: Any, values: Values = (), **kwargs: Any) -> Any:
        """What the layer itself computes, with its weights cut.

        Args:
            *args: of the layer's `call`.
            values: what to take in place of some of the weights.
            **kwargs: of the layer's `call`.
        """
        with self.weights(values):
            return type(self.layer).call(self.layer, *args, **kwargs)

    def linear(self, *args: Any, **kwargs: Any) -> Any:
        """`call` without the layer's activation."""
        with _attribute(self.layer, "activation", None):
            return self.call(*args, **kwargs)

    @contextmanager
    def weights(self, values: Values = ()) -> Iterator[None]:
        """Within this the layer's weights are cut, and those in `values` replaced."""
        known = {id(variable): value for variable, value in values}
        cut = [
            (v, known[id(v)] if id(v) in known else tf.stop_gradient(v.value))
            for v in self.layer.trainable_variables
        ]
        with keras.StatelessScope(cut):
            yield


Rule = Callable[..., Any]


def per_example(
    model: Any,
    rules: Mapping[int, tuple[Any, Rule]],
    x: Any,
    losses: Callable[[Any], tf.Tensor],
    loss_scale: float = 1.0,
) -> list[Contribution | None]:
    """Per-example gradients of a model's trainable variables.

    Args:
        model: the Keras model.
        rules: by the id of each layer that has weights of its own: the layer and its rule.
        x: inputs.
        losses: from the model's outputs to per-example losses, of shape (batch,).
        loss_scale: what losses are multiplied with before the backward pass; the gradients are
            divided by it.

    Returns:
        One contribution per `model.trainable_variables`; None where no loss depends on it.

    Raises:
        UnsupportedError: a variable is used where no rule sees it, or a layer adds a loss.
    """
    variables = model.trainable_variables
    taps: list[_Tap] = []
    with tf.GradientTape() as tape:
        with (
            keras.StatelessScope(collect_losses=True) as scope,
            _rules_in_place(rules, tape, taps),
        ):
            outputs = model(x, training=True)
        if scope.losses:
            raise UnsupportedError("a layer adds a loss of its own (activity regularisation)")
        total = tf.reduce_sum(losses(outputs)) * loss_scale
    for state in model.non_trainable_variables:
        value = scope.get_current_value(state)
        if value is not None:
            state.assign(value)
    direct = [v.value for v in variables]
    gradients = tape.gradient(total, [*(tap.tensor for tap in taps), *direct])
    for variable, gradient in zip(variables, gradients[len(taps) :], strict=True):
        if gradient is not None:
            raise UnsupportedError(f"{variable.path} is used outside of the layer that holds it")
    found: dict[int, list[Contribution]] = {id(v): [] for v in variables}
    for tap, gradient in zip(taps, gradients, strict=False):
        if gradient is None:
            continue
        unscaled = wide(tf.convert_to_tensor(gradient)) / loss_scale
        for variable, part in tap.explain(unscaled):
            if id(variable) in found:
                found[id(variable)].append(part)
    return [combined(found[id(v)]) if found[id(v)] else None for v in variables]


@contextmanager
def _rules_in_place(
    rules: Mapping[int, tuple[Any, Rule]], tape: tf.GradientTape, taps: list[_Tap]
) -> Iterator[None]:
    def bind(layer: Any, rule: Rule) -> Callable[..., Any]:
        site = Site(layer, tape, taps)
        return lambda *args, **kwargs: rule(site, *args, **kwargs)

    for layer, rule in rules.values():
        vars(layer)["call"] = bind(layer, rule)  # not setattr: Keras would track it
    try:
        yield
    finally:
        for layer, _ in rules.values():
            del vars(layer)["call"]


@contextmanager
def _attribute(holder: Any, name: str, value: Any) -> Iterator[None]:
    kept = vars(holder)[name]
    vars(holder)[name] = value
    try:
        yield
    finally:
        vars(holder)[name] = kept
