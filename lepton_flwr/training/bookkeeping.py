"""Clipped sums from one backward pass.

Book-keeping: Bu et al. (2023), "Differentially private optimization on large model at small cost".
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import tensorflow as tf

from lepton_flwr.training.capture import Rule, UnsupportedError, per_example
from lepton_flwr.training.contributions import Contribution, Outer, wide
from lepton_flwr.training.engine import GradientEngine, clip_factors
from lepton_flwr.training.losses import example_losses
from lepton_flwr.training.measure import fastest
from lepton_flwr.training.rules import rules_of
from lepton_flwr.training.vectorized import VectorizedEngine

log = logging.getLogger(__name__)
_LARGEST_FORMED = 2**20  # entries of one example's gradient of one variable, formed at all
_FEW = 2**13  # with more, a batch's gradients are formed in pieces
_PIECE = 2**19  # entries of a piece, two mebibytes


class BookkeepingEngine(GradientEngine):
    """One forward and one backward pass for the whole batch.

    Per-example norms follow from layer inputs and output gradients by the rules of `rules/`; the
    clipped sum is one weighted contraction of the same tensors. A model with a layer that has no
    rule is computed by the vectorized engine, and the reason logged once.

    Attributes:
        fallback: why the vectorized engine does the work; None where it does not.
    """

    name: ClassVar[str] = "bookkeeping"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.fallback: str | None = None
        self._other: VectorizedEngine | None = None
        self._rules: dict[int, tuple[Any, Rule]] = {}
        try:
            self._rules = rules_of(model)
        except UnsupportedError as error:
            self._other = self._fall_back(error)

    def clipped_sum(
        self,
        x: Any,
        y: Any,
        mask: tf.Tensor,
        l2_norm_clip: tf.Tensor,
        sample_weight: tf.Tensor | None = None,
    ) -> list[tf.Tensor]:
        """See `GradientEngine.clipped_sum`."""
        if self._other is None:
            try:
                parts = per_example(
                    self.model,
                    self._rules,
                    x,
                    lambda outputs: example_losses(self.model, y, outputs, sample_weight),
                    self.loss_scale,
                )
                return self._clip(parts, mask, l2_norm_clip)
            except UnsupportedError as error:
                self._other = self._fall_back(error)
        return self._other.clipped_sum(x, y, mask, l2_norm_clip, sample_weight)

    def _fall_back(self, error: UnsupportedError) -> VectorizedEngine:
        inner = error.__context__  # Keras tells an error of a layer's call anew, with its arguments
        self.fallback = str(inner if isinstance(inner, UnsupportedError) else error)
        log.warning(
            "per-example gradients by tf.vectorized_map, which is slower: %s", self.fallback
        )
        return VectorizedEngine(self.model)

    def _clip(
        self, parts: Sequence[Contribution | None], mask: tf.Tensor, l2_norm_clip: tf.Tensor
    ) -> list[tf.Tensor]:
        """Scale every example to the clip norm and add up."""
        present = [_quickest(part) for part in parts if part is not None]
        norms = tf.sqrt(tf.add_n([part.squared_norms() for part in present]))

        def plain() -> list[tf.Tensor]:
            weights = clip_factors(norms, mask, l2_norm_clip)
            return [part.weighted_sum(weights) for part in present]

        def careful() -> list[tf.Tensor]:
            """Some square overflows float32, or some gradient is not finite."""
            tamed = [part.tamed() for part in present]
            squared = [scale**2 * part.squared_norms() for part, scale in tamed]
            weights = clip_factors(tf.sqrt(tf.add_n(squared)), mask, l2_norm_clip)
            return [
                part.weighted_sum(tf.where(weights > 0, weights * scale, 0.0))
                for part, scale in tamed
            ]

        sums = iter(tf.cond(tf.reduce_all(tf.math.is_finite(norms)), plain, careful))
        return [
            tf.zeros(v.shape, wide(v.value).dtype)
            if part is None
            else tf.reshape(next(sums), v.shape)
            for part, v in zip(parts, self.model.trainable_variables, strict=True)
        ]


def _quickest(part: Contribution) -> Contribution:
    """An outer product with its norms computed in the way that is faster here."""
    if not isinstance(part, Outer) or part.ghost or part.a.shape[-2] == 1:
        return part
    ghost = replace(part, ghost=True)
    positions, entries = part.a.shape[-2], 1
    for size in (*part.a.shape[1:-2], part.a.shape[-1], part.g.shape[-1]):
        entries *= size
    if entries > _FEW:
        part = replace(part, piece=max(_PIECE // entries, 1))
    if positions is None or entries > _LARGEST_FORMED:
        return ghost if entries > _LARGEST_FORMED else part

    def run(ghost: bool) -> Any:
        def way(a: tf.Tensor, g: tf.Tensor) -> tf.Tensor:
            outer = replace(part, a=a, g=g, ghost=ghost)
            return outer.weighted_sum(1.0 / (1.0 + outer.squared_norms()))

        return way

    ways = {"formed": run(ghost=False), "ghost": run(ghost=True)}
    return ghost if fastest("outer", ways, part.a, part.g) == "ghost" else part
