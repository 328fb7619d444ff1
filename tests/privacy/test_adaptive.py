import math

import numpy as np
import pytest

from lepton_flwr.errors import ConfigError
from lepton_flwr.privacy import losses
from lepton_flwr.privacy.adaptive import LARGEST_CLIP, SMALLEST_CLIP, AdaptiveClip
from lepton_flwr.privacy.events import SampledGaussian


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("noise", [0.5, 1.0, 4.0])
def test_update_and_count_together_cost_what_the_run_accounts(share, noise):
    """Two Gaussians of the same clients compose to one: independent of the code's own formula."""
    adaptive = AdaptiveClip(privacy_share=share)
    parts = [adaptive.update_multiplier(noise), adaptive.count_multiplier(noise)]
    both = losses.epsilon([(SampledGaussian(part, 1.0, 1), 1) for part in parts], 1e-5)
    whole = losses.epsilon([(SampledGaussian(noise, 1.0, 1), 1)], 1e-5)
    assert both == pytest.approx(whole, abs=5e-3 * whole)
    # One noised vector (update / clip, count) has a sensitivity of at most:
    sensitivity = math.hypot(1 / parts[0], 1 / parts[1]) * noise
    assert sensitivity == pytest.approx(1.0)
    assert parts[0] > noise


def test_the_bound_finds_the_quantile_of_the_norms():
    rng = np.random.default_rng(4)
    adaptive = AdaptiveClip(target_quantile=0.7, learning_rate=0.3)
    clip = 50.0
    for _ in range(200):
        norms = rng.lognormal(0, 1, 400)
        count = float((norms <= clip).sum()) + rng.normal(0, adaptive.count_multiplier(1.0))
        clip = adaptive.next_clip(clip, count, 400)
    assert clip == pytest.approx(math.exp(0.524), rel=0.15)  # the 70th percentile


@pytest.mark.parametrize("count", [-1e9, 0.0, 5.0, 1e9])
def test_noise_moves_the_bound_within_limits(count):
    adaptive = AdaptiveClip(learning_rate=10.0)
    clip = 1.0
    for _ in range(100):
        clip = adaptive.next_clip(clip, count, 10)
        assert SMALLEST_CLIP <= clip <= LARGEST_CLIP


@pytest.mark.parametrize(
    "bad",
    [{"target_quantile": 1.0}, {"learning_rate": 0.0}, {"privacy_share": 0.0}],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        AdaptiveClip(**bad)
