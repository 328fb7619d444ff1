"""Adaptive clipping: the bound follows a quantile of the updates' norms, privately."""

import math
from dataclasses import dataclass

from lepton_flwr import _validate as check

SMALLEST_CLIP, LARGEST_CLIP = 1e-6, 1e6


@dataclass(frozen=True)
class AdaptiveClip:
    """Andrew, Thakkar, McMahan, Ramaswamy 2021, algorithm 1, through a secure sum.

    Beside its clipped update, each client adds 1 to one more coordinate if its update was not
    scaled. The noised share of such clients moves the bound geometrically:

        clip <- clip * exp(-learning_rate * (share - target_quantile))

    Update and count are released together as one Gaussian mechanism with the noise multiplier z
    of the run: a part `privacy_share` of 1/z^2 pays for the count, whose sensitivity is 1 for
    adding or removing a client (the paper centres it to 1/2, which takes the exact number of
    clients), and the rest for the update.

    Attributes:
        target_quantile: share of clients whose updates are not scaled, in the long run.
        learning_rate: of the logarithm of the bound, per round.
        privacy_share: of the count in the privacy of a round.
    """

    target_quantile: float = 0.5
    learning_rate: float = 0.2
    privacy_share: float = 0.05

    def __post_init__(self) -> None:
        check.finite("target_quantile", self.target_quantile, above=0, below=1)
        check.finite("learning_rate", self.learning_rate, above=0, at_most=10)
        check.finite("privacy_share", self.privacy_share, above=0, below=1)

    def update_multiplier(self, noise_multiplier: float) -> float:
        """Noise multiplier of the update, within the run's `noise_multiplier`."""
        return noise_multiplier / math.sqrt(1 - self.privacy_share)

    def count_multiplier(self, noise_multiplier: float) -> float:
        """Noise multiplier, and so standard deviation, of the count.

        The two together are one mechanism: 1/update^2 + 1/count^2 = 1/noise_multiplier^2.
        """
        return noise_multiplier / math.sqrt(self.privacy_share)

    def next_clip(self, clip: float, noised_count: float, expected_cohort: float) -> float:
        """The bound of the next round.

        Args:
            clip: this round's.
            noised_count: clients whose update was not scaled, noised.
            expected_cohort: clients of a round, a public constant.
        """
        share = min(max(noised_count / expected_cohort, 0.0), 1.0)
        moved = clip * math.exp(-self.learning_rate * (share - self.target_quantile))
        return min(max(moved, SMALLEST_CLIP), LARGEST_CLIP)
