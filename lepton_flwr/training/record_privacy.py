"""What a private step releases, and what all steps of a training may spend."""

from dataclasses import dataclass

from lepton_flwr import _validate as check
from lepton_flwr.privacy import accounting
from lepton_flwr.privacy.accounting import SampledGaussian


@dataclass(frozen=True)
class RecordPrivacy:
    """What one step of record-level private training releases.

    Every record is clipped by itself: there are no microbatches of several records, whose clipped
    means one record would move by twice the clip.

    Attributes:
        l2_norm_clip: bound of one example's gradient.
        noise_multiplier: standard deviation of the noise over `l2_norm_clip`.
        sampling_probability: chance of each record to be in a step's batch.
        truncated_batch_size: batches larger than this are cut to it, uniformly, and all have its
            shape; None never cuts.
    """

    l2_norm_clip: float
    noise_multiplier: float
    sampling_probability: float
    truncated_batch_size: int | None = None

    def __post_init__(self) -> None:
        check.finite("l2_norm_clip", self.l2_norm_clip, at_least=1e-10, at_most=1e10)
        check.finite("noise_multiplier", self.noise_multiplier, above=0, at_most=1e6)
        check.finite("sampling_probability", self.sampling_probability, above=0, at_most=1)
        if self.truncated_batch_size is not None:
            check.integer("truncated_batch_size", self.truncated_batch_size, at_least=1)

    def mechanism(self, num_records: int) -> SampledGaussian:
        """One step on so many records, for the accountants."""
        plain = SampledGaussian(self.noise_multiplier, self.sampling_probability, 1)
        if self.truncated_batch_size is None:
            return plain
        return SampledGaussian.truncated(
            self.noise_multiplier,
            self.sampling_probability,
            1,
            truncated_batch_size=self.truncated_batch_size,
            num_records=num_records,
        )


@dataclass(frozen=True)
class StepBudget:
    """What a trainer may spend in all.

    Attributes:
        epsilon: the most that its steps may spend, by the PLD accountant.
        delta: the delta of all steps.
        num_records: n, of the one data set that is trained on.
    """

    epsilon: float
    delta: float
    num_records: int

    def __post_init__(self) -> None:
        check.finite("epsilon", self.epsilon, above=0)
        check.finite("delta", self.delta, at_least=accounting.SMALLEST_DELTA, below=1)
        check.integer("num_records", self.num_records, at_least=1)
