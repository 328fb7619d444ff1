"""The central Gaussian mechanism of client-level privacy, on the fixed-point grid of the sum."""

import math
from dataclasses import dataclass

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.errors import PrivacyError
from lepton_flwr.privacy.noise import GaussianNoise


@dataclass(frozen=True)
class ClientLevelGaussian:
    """Gaussian noise on the integer sum of clipped, fixed-point updates.

    Every client clips its update to L2 norm `l2_norm_clip`, multiplies it by `scale` and rounds
    each coordinate to the nearest integer, all with the same weight. Rounding moves a coordinate
    by at most 1/2, so one client moves the sum of d coordinates by at most

        sensitivity = l2_norm_clip * scale + sqrt(d) / 2    (L2, grid units, add or remove one)

    and the noise is derived from that. The noised sum is a continuous Gaussian release rounded to
    the integer grid: rounding is post-processing.

    **Guarantee**: the released vector is one Gaussian mechanism with `noise_multiplier` per
    client. It covers only coordinates that pass through `release`: a count or a loss that is
    summed beside the update and published without it is not private.

    Attributes:
        l2_norm_clip: bound of one client's update, in model units.
        noise_multiplier: standard deviation of the noise over the sensitivity.
        scale: grid units per 1.0.
    """

    l2_norm_clip: float
    noise_multiplier: float
    scale: float

    def __post_init__(self) -> None:
        check.finite("l2_norm_clip", self.l2_norm_clip, above=0)
        check.finite("noise_multiplier", self.noise_multiplier, above=0)
        check.finite("scale", self.scale, above=0)

    def sensitivity(self, dimension: int) -> float:
        """Largest L2 change of the sum by one client, in grid units."""
        return self.l2_norm_clip * self.scale + math.sqrt(dimension) / 2

    def stddev(self, dimension: int) -> float:
        """Standard deviation of the noise on each coordinate, in grid units."""
        return self.noise_multiplier * self.sensitivity(dimension)

    def release(self, total: np.ndarray, noise: GaussianNoise | None = None) -> np.ndarray:
        """Noise the decrypted sum.

        Args:
            total: int64 of shape (d,), the exact sum over the survivors in grid units.
            noise: None draws from a generator keyed by the operating system; tests inject one.

        Returns:
            int64 of shape (d,), in grid units.

        Raises:
            PrivacyError: `total` is not an int64 vector, or so large that noise could overflow.
            ConfigError: the standard deviation does not fit the grid.
        """
        if total.dtype != np.int64 or total.ndim != 1:
            raise PrivacyError(
                f"a sum of {total.dtype} and shape {total.shape}: expected an int64 vector, the "
                "integers on which the sensitivity is computed"
            )
        if total.size and (total.max() >= 2**62 or total.min() <= -(2**62)):
            raise PrivacyError("a coordinate of the sum exceeds 2^62: expected room for the noise")
        noise = GaussianNoise() if noise is None else noise
        noised: np.ndarray = total + noise.rounded(total.size, self.stddev(total.size))
        return noised
