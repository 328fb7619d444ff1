"""Rules: how the per-example gradients of a layer's weights follow from one backward pass.

A rule is a function `rule(site, *args, **kwargs)` in place of the layer's `call`. It returns what
the layer returns, and taps what it needs on the way (`capture.Site`). To add one for a layer
`Scale` that multiplies its input by the weight `gamma`:

    @register(Scale)
    def scale(site, inputs):
        layer = site.layer
        return site.tap(
            inputs * site.cut(layer.gamma),
            lambda g: [(layer.gamma, Summed.over(g * inputs, layer.gamma.shape))],
        )

A rule is for layers of exactly the registered types: a subclass may compute something else. What a
rule says is not trusted with privacy: whatever it returns is what gets clipped.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from lepton_flwr.training.capture import Parts, Rule, UnsupportedError
from lepton_flwr.training.contributions import Summed

_RULES: dict[type, tuple[Rule, Callable[[Any], bool]]] = {}


def register(
    *layer_types: type, when: Callable[[Any], bool] = lambda _: True
) -> Callable[[Rule], Rule]:
    """Make the decorated function the rule of layers of exactly these types.

    Args:
        *layer_types: subclasses of `keras.Layer`.
        when: whether the rule covers a given layer as it is configured.
    """

    def add(rule: Rule) -> Rule:
        for layer_type in layer_types:
            _RULES[layer_type] = (rule, when)
        return rule

    return add


def biases(layer: Any, g: tf.Tensor) -> Parts:
    """The contribution to a layer's bias, if it has one, from the gradient of the sum with it."""
    return [] if layer.bias is None else [(layer.bias, Summed.over(g, layer.bias.shape))]


def rules_of(model: Any) -> dict[int, tuple[Any, Rule]]:
    """The rule of each layer of `model` that has trainable weights of its own, by the layer's id.

    Layers that only contain layers need none.

    Raises:
        UnsupportedError: a layer has no rule.
    """
    from lepton_flwr.training.rules import (  # noqa: F401 - they register what they hold
        convolution,
        dense,
        elementwise,
        recurrent,
    )

    wanted = {id(v) for v in model.trainable_variables}
    found: dict[int, tuple[Any, Rule]] = {}
    covered: set[int] = set()

    def visit(layer: Any) -> None:
        if id(layer) in covered:
            return
        covered.add(id(layer))
        rule, when = _RULES.get(type(layer), (None, None))
        if rule is not None and when is not None and when(layer):
            if any(id(v) in wanted for v in layer.trainable_variables):
                found[id(layer)] = (layer, rule)
            return
        inner = _inner_layers(layer)
        below = {id(v) for part in inner for v in part.variables}
        own = [v for v in layer.trainable_variables if id(v) in wanted and id(v) not in below]
        if own:
            raise UnsupportedError(
                f"there is no rule for {type(layer).__name__} as {layer.name} is configured"
            )
        for part in inner:
            visit(part)

    visit(model)
    return found


def _inner_layers(layer: Any) -> list[Any]:
    return list(layer._flatten_layers(include_self=False, recursive=False))
