import math

import numpy as np
import pytest

from lepton_flwr.errors import ConfigError, PrivacyError
from lepton_flwr.privacy.accounting import SampledGaussian
from lepton_flwr.privacy.audit import (
    Evidence,
    clopper_pearson,
    distinguish,
    judge,
    noise_ceiling,
)

DELTA = 1e-5


def scores(rng, trials, noise, steps=1, q=1.0, shift=1.0):
    """Sums over the steps of a sampled Gaussian mechanism, with and without the record."""
    inside = (shift * (rng.random((trials, steps)) < q)).sum(axis=1)
    drawn = noise * math.sqrt(steps) * rng.normal(size=(2, trials))
    return inside + drawn[0], drawn[1]


@pytest.mark.parametrize("hits", [0, 1, 7, 19, 20])
def test_bounds_of_a_proportion_fail_exactly_as_often_as_stated(hits):
    """By definition, the bound is where the observed tail has the failure probability."""
    alpha, n = 1e-3, 20
    low, high = clopper_pearson(hits, n, alpha)

    def tail(p, counts):
        return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in counts)

    if hits:
        assert tail(low, range(hits, n + 1)) == pytest.approx(alpha, rel=1e-6)
    else:
        assert low == 0
    if hits < n:
        assert tail(high, range(hits + 1)) == pytest.approx(alpha, rel=1e-6)
    else:
        assert high == 1


def test_rates_of_a_gaussian_give_back_its_noise():
    """At every threshold: with q = 1 the claim's curve is that of mu = sqrt(steps) / noise."""
    from statistics import NormalDist

    gauss = NormalDist()
    mu = math.sqrt(4) / 2.0
    for threshold in (-1.0, 0.0, 0.5, 2.0):
        rates = Evidence(1 - gauss.cdf(threshold - mu), 1 - gauss.cdf(threshold), 0.0)
        assert rates.mu == pytest.approx(mu)
        assert noise_ceiling(rates, 1.0, 4) == pytest.approx(2.0)


@pytest.mark.parametrize("threshold", [0.3, 1.0, 2.0])
def test_rates_of_a_sampled_gaussian_give_back_its_noise(threshold):
    """Never less than it, and within 5 %: epsilon covers both directions, the rates are of one."""
    from statistics import NormalDist

    noise, q = 1.2, 0.5
    gauss = NormalDist(0, noise)
    outside = 1 - gauss.cdf(threshold)
    inside = (1 - q) * outside + q * (1 - gauss.cdf(threshold - 1))
    found = noise_ceiling(Evidence(inside, outside, 0.0), q, 1)
    assert noise <= found < 1.05 * noise


def test_epsilon_without_assumptions_is_the_log_ratio():
    assert Evidence(0.5, 0.1, 0.0).epsilon(0.0) == pytest.approx(math.log(5))
    assert Evidence(0.9, 0.5, 0.0).epsilon(0.1) == pytest.approx(math.log((0.5 - 0.1) / 0.1))
    assert Evidence(0.1, 0.5, 0.0).epsilon(0.0) == 0


@pytest.mark.parametrize(("q", "steps"), [(1.0, 4), pytest.param(0.5, 2, marks=pytest.mark.slow)])
def test_what_is_as_claimed_is_not_refuted_and_half_the_noise_is(q, steps):
    """False alarm 1e-6 by construction; the margins leave a miss about as likely (fixed seed)."""
    rng = np.random.default_rng(8)
    noise = 1.0 if q < 1 else 2.0
    claim = SampledGaussian(noise, q, steps)
    good = judge({"sum": scores(rng, 3000, noise, steps, q)}, claim, DELTA)
    assert not good.refuted
    assert 0.1 * good.claimed_epsilon < good.epsilon <= good.claimed_epsilon
    for broken in (scores(rng, 3000, noise / 2, steps, q), scores(rng, 3000, noise, steps, q, 2)):
        bad = judge({"sum": broken}, claim, DELTA)
        assert bad.refuted
        assert bad.epsilon > bad.claimed_epsilon
        assert "contradicts" in bad.sentence()


@pytest.mark.slow
def test_a_claim_that_holds_is_refuted_no_more_often_than_stated():
    """With a failure probability of 0.05, 400 audits: more than 36 alarms has chance 1e-4."""
    rng = np.random.default_rng(9)
    claim = SampledGaussian(1.0, 1.0, 1)
    alarms = sum(
        judge({"x": scores(rng, 400, 1.0)}, claim, DELTA, 0.05).refuted for _ in range(400)
    )
    assert alarms <= 36


def test_the_strongest_of_several_attacks_counts_and_they_share_the_failures():
    rng = np.random.default_rng(10)
    useless = rng.normal(size=(2, 3000))
    report = judge(
        {"useless": tuple(useless), "sum": scores(rng, 3000, 0.5)},
        SampledGaussian(1.0, 1.0, 1),
        DELTA,
    )
    assert report.attack == "sum"
    assert report.evidence.failure_probability == pytest.approx(report.failure_probability / 2)


def test_an_attack_that_fails_shows_nothing():
    rng = np.random.default_rng(11)
    report = judge({"x": tuple(rng.normal(size=(2, 500)))}, SampledGaussian(1.0, 1.0, 1), DELTA)
    assert report.epsilon == 0
    assert not report.refuted
    assert "does not contradict" in report.sentence()


def test_the_scores_that_choose_the_threshold_are_not_counted():
    """A threshold that only the first quarter supports proves nothing."""
    inside, outside = np.zeros(400), np.zeros(400)
    inside[:100] = 1.0
    assert distinguish(inside, outside).mu == 0


def test_constant_scores_that_differ_are_told_apart():
    evidence = distinguish(np.ones(400), np.zeros(400))
    assert evidence.mu > 3
    assert evidence.epsilon(DELTA) > 2


def test_scores_that_mean_nothing_are_refused():
    good = np.zeros(100)
    with pytest.raises(PrivacyError, match="at least 40"):
        distinguish(good, good[:39])
    with pytest.raises(PrivacyError, match="NaN"):
        distinguish(good, np.append(good, np.nan))
    with pytest.raises(ConfigError, match="failure_probability"):
        distinguish(good, good, 0.0)
    with pytest.raises(PrivacyError, match="no attack"):
        judge({}, SampledGaussian(1.0, 1.0, 1), DELTA)
