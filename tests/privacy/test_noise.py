"""Fixed injected keys make the statistical tests deterministic; each says its false-alarm rate."""

import numpy as np
import pytest
from scipy import stats

from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.errors import ConfigError
from lepton_flwr.privacy.noise import GaussianNoise, poisson_sample

KEY = bytes(range(32))


def keyed(last: int = 0) -> CipherStream:
    return CipherStream(bytes(31) + bytes([last]))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_draws_follow_the_standard_normal(dtype):
    """Kolmogorov-Smirnov, false-alarm rate 1e-4 per parameter."""
    draws = GaussianNoise(keyed()).standard_normal((400, 500), dtype)
    assert draws.dtype == dtype
    assert draws.shape == (400, 500)
    assert stats.kstest(draws.ravel().astype(np.float64), "norm").pvalue > 1e-4


def test_variance_and_tails_are_those_of_the_standard_normal():
    """Variance and tail count within 4 standard errors: false-alarm rate 2e-4."""
    draws = GaussianNoise(keyed(1)).standard_normal(4_000_000)
    assert abs(draws.var() - 1) < 4 * np.sqrt(2 / draws.size)
    expected = draws.size * 2 * stats.norm.sf(4)
    assert abs(np.sum(np.abs(draws) > 4) - expected) < 4 * np.sqrt(expected)


def test_both_halves_of_a_pair_are_uncorrelated():
    """Correlations of draws and of squares within 4 standard errors: false-alarm rate 2e-4."""
    draws = GaussianNoise(keyed(2)).standard_normal(400_000)
    first, second = draws[:200_000], draws[200_000:]
    for power in (1, 2):
        assert abs(np.corrcoef(first**power, second**power)[0, 1]) < 4 / np.sqrt(first.size)


class ConstantBits(CipherStream):
    def __init__(self, value):
        self.value = value

    def uint64(self, count):
        return np.full(count, self.value, dtype=np.uint64)


@pytest.mark.parametrize("bits", [0, 1, 2**63, 2**64 - 1])
def test_extreme_bits_give_finite_draws(bits):
    draws = GaussianNoise(ConstantBits(bits)).standard_normal(4)
    assert np.isfinite(draws).all()
    assert np.abs(draws).max() <= 9.42


def test_one_key_gives_one_sequence_and_the_operating_system_never_does():
    def draw(stream):
        return GaussianNoise(stream).standard_normal(16)

    np.testing.assert_array_equal(draw(CipherStream(KEY)), draw(CipherStream(KEY)))
    assert not np.array_equal(draw(None), draw(None))


@pytest.mark.parametrize("shape", [0, 1, 7, (3, 5), (0, 4)])
def test_any_shape_is_served(shape):
    assert GaussianNoise(keyed()).standard_normal(shape).shape == np.empty(shape).shape


def test_rounded_draws_have_the_rounded_variance():
    """Variance sigma^2 + 1/12 within 4 standard errors: false-alarm rate 1e-4."""
    draws = GaussianNoise(keyed(3)).rounded(500_000, 2.5)
    assert draws.dtype == np.int64
    variance = 2.5**2 + 1 / 12
    assert abs(draws.var() - variance) < 4 * variance * np.sqrt(2 / draws.size)


@pytest.mark.parametrize("stddev", [-1.0, float("nan"), float("inf"), 2.0**60])
def test_impossible_deviations_are_refused(stddev):
    with pytest.raises(ConfigError, match="stddev"):
        GaussianNoise(keyed()).rounded(1, stddev)


@pytest.mark.parametrize("q", [0.001, 0.02, 0.5])
def test_each_record_is_chosen_with_its_probability(q):
    """Count, and variance of counts of 200 samples: 4 standard errors, false-alarm rate 4e-4."""
    stream = keyed(4)
    counts = np.array([poisson_sample(stream, 10_000, q).size for _ in range(200)])
    variance = 10_000 * q * (1 - q)
    assert abs(counts.mean() - 10_000 * q) < 4 * np.sqrt(variance / 200)
    assert abs(counts.var() / variance - 1) < 4 * np.sqrt(2 / 200)


def test_positions_are_chosen_evenly():
    """Chi-square over 50 blocks of positions, false-alarm rate 1e-4."""
    stream = keyed(5)
    chosen = np.concatenate([poisson_sample(stream, 5_000, 0.1) for _ in range(100)])
    assert stats.chisquare(np.bincount(chosen // 100, minlength=50)).pvalue > 1e-4


def test_indices_increase_and_are_int64():
    chosen = poisson_sample(keyed(), 1_000, 0.3)
    assert chosen.dtype == np.int64
    assert (np.diff(chosen) > 0).all()
    assert chosen.min() >= 0
    assert chosen.max() < 1_000


def test_probability_one_takes_everyone_and_no_records_give_none():
    np.testing.assert_array_equal(poisson_sample(keyed(), 5, 1.0), np.arange(5))
    assert poisson_sample(keyed(), 0, 0.5).size == 0


def test_the_probability_is_never_rounded_up():
    """Bits equal to the threshold are not chosen; bits just below it are."""
    q = 0.25
    assert poisson_sample(ConstantBits(2**62), 3, q).size == 0
    assert poisson_sample(ConstantBits(2**62 - 1), 3, q).size == 3


@pytest.mark.parametrize("q", [0.0, -0.1, 1.5, float("nan"), 1e-30])
def test_impossible_probabilities_are_refused(q):
    with pytest.raises(ConfigError, match="sampling_probability"):
        poisson_sample(keyed(), 10, q)
