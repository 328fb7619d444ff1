"""Discrete Gaussian draws against exact probabilities.

Statistical tests draw from fixed keys, so that they either always pass or always fail; each stands
for a test with the false-alarm rate that it states, over the choice of the key.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
from mpmath import mp, mpf
from scipy.stats import chi2, norm

from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.errors import ConfigError
from lepton_flwr.privacy import discrete
from lepton_flwr.privacy.discrete import DiscreteGaussianNoise

DEVIATIONS = [0.05, 0.3, 1.0, 2.5, 20.0, 512.0, 513.0, 5000.0]


def stream(number):
    return CipherStream(number.to_bytes(32, "big"))


def exact(stddev, beyond=12):
    """Numbers and their probabilities, in float64."""
    reach = math.ceil(beyond * stddev) + 2
    x = np.arange(-reach, reach + 1)
    weights = np.exp(-(x.astype(np.float64) ** 2) / (2 * stddev**2))
    return x, weights / weights.sum()


@pytest.mark.parametrize("stddev", DEVIATIONS)
def test_draws_have_the_exact_distribution(stddev):
    """Chi-square; false alarms: 1e-6 for each deviation."""
    draws = 1_000_000
    got = DiscreteGaussianNoise(stddev, stream(7)).draw(draws)
    x, p = exact(stddev)
    # Cells of at least 50 expected draws, from runs of neighbours; tails are joined.
    edges, mass = [], 0.0
    for number, chance in zip(x, p, strict=True):
        mass += chance
        if mass * draws >= max(50, draws / 400):
            edges.append(number)
            mass = 0.0
    edges = np.array(edges[:-1])
    observed = np.bincount(np.searchsorted(edges, got), minlength=len(edges) + 1)
    expected = draws * np.bincount(np.searchsorted(edges, x), weights=p, minlength=len(edges) + 1)
    statistic = float(((observed - expected) ** 2 / expected).sum())
    if len(edges):
        assert statistic < chi2.isf(1e-6, len(edges))
    else:  # 0.05: all mass is on zero
        assert not got.any()


@pytest.mark.parametrize("stddev", [1.0, 20.0, 513.0, 2.0**20, 2.0**40])
def test_mean_variance_and_kurtosis_are_those_of_the_distribution(stddev):
    """Normal approximations; false alarms: 3e-6 for each deviation."""
    n, limit = 1_000_000, norm.isf(5e-7)
    z = DiscreteGaussianNoise(stddev, stream(3)).draw(n) / stddev
    if stddev < 100:
        x, p = exact(stddev)
        moments = [float((p * (x / stddev) ** k).sum()) for k in (2, 4, 8)]
    else:
        moments = [1.0, 3.0, 105.0]
    second, fourth, eighth = moments
    assert abs(z.mean()) < limit * math.sqrt(second / n)
    assert abs((z**2).mean() - second) < limit * math.sqrt((fourth - second**2) / n)
    assert abs((z**4).mean() - fourth) < limit * math.sqrt((eighth - fourth**2) / n)


def test_the_low_bits_of_wide_noise_are_uniform():
    """The coarse table leaves no trace. Chi-square on 64 cells; false alarms: 1e-6."""
    got = DiscreteGaussianNoise(1e6, stream(5)).draw(640_000)
    for shift in (0, 6, 11):
        counts = np.bincount((got >> shift) & 63, minlength=64)
        assert ((counts - 10_000) ** 2 / 10_000).sum() < chi2.isf(1e-6, 63)


@pytest.mark.slow
def test_within_a_run_of_the_coarse_table_the_probability_still_falls():
    """Runs of 4,096 numbers, a 256th of the deviation: the lower half is a little likelier.

    Weighted by where the run begins, by width / (4 stddev) E z^2 = 1/1024. False alarms: 1e-6.
    Without rejection it would be 0, six standard errors away.
    """
    n, stddev, width = 40, 2.0**20, 4096
    noise = DiscreteGaussianNoise(stddev, stream(11))
    assert 2**noise._shift == width
    total = 0.0
    for _ in range(n):
        size = np.abs(noise.draw(1_000_000))
        run, lower = size // width, (size % width) < width // 2
        total += float(np.where(lower, run, -run).sum()) * width / stddev
    error = 1 / math.sqrt(n * 1e6)
    assert abs(total / (n * 1e6) - 1 / 1024) < norm.isf(5e-7) * error
    assert 6 * error < 1 / 1024


def test_draws_are_independent_of_their_neighbours():
    """Correlations at lags 1, 2 and one chunk; false alarms: 3e-6."""
    n = 500_000
    z = DiscreteGaussianNoise(50.0, stream(9)).draw(n) / 50.0
    for lag in (1, 2, discrete._CHUNK):
        correlation = float((z[:-lag] * z[lag:]).mean())
        assert abs(correlation) < norm.isf(5e-7) / math.sqrt(n - lag)


@pytest.mark.parametrize("stddev", [0.3, 1.0, 20.0, 512.0])
def test_the_table_is_within_the_stated_distance(stddev):
    """Every probability of the alias table, exactly, against 60 digits."""
    mp.dps = 60
    table = discrete._table(stddev, signed=True)
    columns = len(table.alias)
    masses = [0] * columns
    for column in range(columns):
        own = int(table.threshold[column])
        masses[column] += own
        masses[int(table.alias[column])] += 2**64 - own
    assert sum(masses) == columns << 64
    reach = math.ceil(30 * stddev) + 2
    weights = {x: mp.exp(-mpf(x * x) / (2 * mpf(stddev) ** 2)) for x in range(-reach, reach + 1)}
    whole = mp.fsum(weights.values())
    got = {
        column - table.zero: mpf(mass) / (columns << 64)
        for column, mass in enumerate(masses)
        if mass
    }
    distance = mp.fsum(abs(got.get(x, mpf(0)) - w / whole) for x, w in weights.items()) / 2
    assert set(got) <= set(weights)
    assert distance < mpf(2) ** -64


def test_the_rejection_of_wide_noise_is_within_the_stated_distance():
    """float64 against fractions, for every kind of place within a run."""
    noise = DiscreteGaussianNoise(2.0**30 * 1.37)
    size = 2**noise._shift
    variance = Fraction(noise.stddev) ** 2
    mp.dps = 60
    worst = mpf(0)
    for run in (0, 1, 7, 100, 1000, 5000):
        for place in (0, 1, size // 3, size // 2, size - 1):
            exponent = place * (2.0 * (run * size) + place) / (2.0 * noise.stddev**2)
            got = mpf(float(-np.expm1(-exponent)))
            true = Fraction(place * (2 * run * size + place)) / (2 * variance)
            wanted = -mp.expm1(-mpf(true.numerator) / mpf(true.denominator))
            worst = max(worst, abs(got - wanted))
    assert worst < mpf(2) ** -54
    assert 256 <= noise.stddev / size < 512


def test_only_an_injected_stream_repeats_itself():
    def draws(*arguments):
        return DiscreteGaussianNoise(10.0, *arguments).draw(1000).tolist()

    assert draws(stream(1)) == draws(stream(1))
    assert draws(stream(1)) != draws(stream(2))
    assert draws() != draws()
    np.random.seed(1)  # noqa: NPY002 - it must not matter
    first = draws()
    np.random.seed(1)  # noqa: NPY002
    assert first != draws()


def test_any_number_of_draws_can_be_had():
    noise = DiscreteGaussianNoise(1000.0)
    for count in (0, 1, 5, discrete._CHUNK + 1):
        draws = noise.draw(count)
        assert (draws.shape, draws.dtype) == ((count,), np.int64)
    with pytest.raises(ConfigError, match="count"):
        noise.draw(-1)


@pytest.mark.parametrize("stddev", [0.0, 0.04, -1.0, 2.0**41, float("nan"), float("inf"), True])
def test_deviations_out_of_range_are_refused(stddev):
    with pytest.raises(ConfigError, match="stddev"):
        DiscreteGaussianNoise(stddev)
