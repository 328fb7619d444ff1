import math
from dataclasses import replace

import pytest
from mpmath import mp, mpf

from lepton_flwr.errors import ConfigError
from lepton_flwr.privacy.accounting import (
    SampledGaussian,
    Unit,
    calibrate,
    epsilon_of,
    epsilon_rdp_of,
)
from lepton_flwr.privacy.budget import PrivacyStatement


def gaussian_delta(stddev, epsilon):
    """Balle and Wang 2018, theorem 8, sensitivity 1."""
    s, e = mpf(stddev), mpf(epsilon)
    return mp.ncdf(1 / (2 * s) - e * s) - mp.exp(e) * mp.ncdf(-1 / (2 * s) - e * s)


def plain(noise_multiplier):
    return SampledGaussian(noise_multiplier, 1.0, 1)


@pytest.mark.parametrize("stddev", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-9, 1e-11])
def test_the_plain_gaussian_matches_the_closed_form_from_above(stddev, delta):
    epsilon = epsilon_of(plain(stddev), delta, 1)
    assert gaussian_delta(stddev, epsilon) <= delta  # pessimistic
    assert gaussian_delta(stddev, epsilon - 2e-3) > delta  # and tight to two grid steps


@pytest.mark.parametrize("steps", [2, 25, 400])
def test_composed_gaussians_match_the_closed_form(steps):
    epsilon = epsilon_of(plain(10.0), 1e-5, steps)
    assert gaussian_delta(10 / math.sqrt(steps), epsilon) <= 1e-5
    assert gaussian_delta(10 / math.sqrt(steps), epsilon - 2e-3) > 1e-5


@pytest.mark.parametrize(("noise", "q"), [(1.0, 0.1), (2.0, 0.3), (0.7, 0.02)])
def test_one_sampled_step_matches_numerical_integration(noise, q):
    """Removing direction: P = (1-q) N(0) + q N(1), Q = N(0); delta = E_P[(1 - e^(eps) Q/P)+]."""
    epsilon = epsilon_of(SampledGaussian(noise, q, 1), 1e-5, 1)

    def delta(eps):
        s = mpf(noise)
        # the densities cross where e^(loss) = 1 - q + q exp((2x - 1) / 2 s^2)
        x = s**2 * mp.log((mp.exp(eps) - (1 - q)) / q) + mpf(1) / 2
        mixture = (1 - q) * mp.ncdf(-x / s) + q * mp.ncdf(-(x - 1) / s)
        return mixture - mp.exp(eps) * mp.ncdf(-x / s)

    assert delta(epsilon) <= 1e-5
    assert delta(epsilon - 2e-3) > 1e-5


@pytest.mark.parametrize(
    ("noise", "epochs", "published"),
    [(1.3, 15, 1.19), (1.1, 60, 3.01)],
)
def test_the_mnist_tutorial_of_tensorflow_privacy(noise, epochs, published):
    """Its table (n = 60000, batch 256, delta 1e-5) is RDP with the conversion of Mironov 2017.

    Recomputed here from integer orders alone (Mironov, Talwar, Zhang 2019, section 3.3); the
    library's RDP converts by Canonne et al. 2020, so it is below, and PLD is below that.
    """
    q, steps = 256 / 60_000, epochs * (60_000 // 256)

    def renyi(order):
        terms = (
            mp.binomial(order, k)
            * mpf(1 - q) ** (order - k)
            * mpf(q) ** k
            * mp.exp((k * k - k) / (2 * mpf(noise) ** 2))
            for k in range(order + 1)
        )
        return mp.log(mp.fsum(terms)) / (order - 1)

    curve = {order: steps * renyi(order) for order in range(2, 64)}
    classic = min(float(r) + math.log(1e5) / (order - 1) for order, r in curve.items())
    assert classic == pytest.approx(published, abs=0.02)

    newer = min(
        float(r) + math.log1p(-1 / order) - math.log(1e-5 * order) / (order - 1)
        for order, r in curve.items()
    )
    mechanism = SampledGaussian(noise, q, 1)
    rdp, pld = epsilon_rdp_of(mechanism, 1e-5, steps), epsilon_of(mechanism, 1e-5, steps)
    assert newer - 0.02 < rdp <= newer + 1e-6
    assert 0.75 * rdp < pld < rdp < published


def test_epsilon_moves_the_right_way_with_every_argument():
    def epsilon(noise=1.0, q=0.05, delta=1e-5, steps=100):
        return epsilon_of(SampledGaussian(noise, q, 1), delta, steps)

    assert epsilon(noise=1.1) < epsilon() < epsilon(noise=0.9)
    assert epsilon(q=0.04) < epsilon() < epsilon(q=0.06) < epsilon(q=1.0)
    assert epsilon(delta=1e-4) < epsilon() < epsilon(delta=1e-6)
    assert epsilon(steps=99) < epsilon() < epsilon(steps=101)
    assert epsilon(steps=0) == 0.0


@pytest.mark.parametrize("noise", [0.3, 0.05])
def test_a_coarser_grid_is_never_optimistic(noise, monkeypatch):
    from lepton_flwr.privacy import losses

    mechanism = SampledGaussian(noise, 0.02, 1)
    fine = epsilon_of(mechanism, 1e-5, 5)
    monkeypatch.setattr(losses, "GRID_POINTS", 500)
    losses._pld_epsilon.cache_clear()
    coarse = epsilon_of(mechanism, 1e-5, 5)
    losses._pld_epsilon.cache_clear()
    assert fine <= coarse
    assert coarse != fine


@pytest.mark.parametrize(
    ("epsilon", "delta", "q", "steps"),
    [(3.0, 1e-5, 0.02, 500), (8.0, 1e-5, 1.0, 10), (0.5, 1e-6, 0.1, 200), (0.05, 1e-5, 1.0, 3)],
)
def test_calibrated_noise_is_the_smallest_within_the_target(epsilon, delta, q, steps):
    noise = calibrate(epsilon, delta, q, steps)
    assert epsilon_of(SampledGaussian(noise, q, 1), delta, steps) <= epsilon
    assert epsilon_of(SampledGaussian(noise * 0.999, q, 1), delta, steps) > epsilon


def test_a_target_out_of_reach_is_refused():
    with pytest.raises(ConfigError, match="raise epsilon"):
        calibrate(1e-7, 1e-11, 1.0, 10_000)


def test_a_lavish_target_gets_the_least_noise_considered():
    assert calibrate(1e6, 1e-5, 0.01, 10) == 0.1


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_targets_are_refused(epsilon):
    with pytest.raises(ConfigError, match="epsilon"):
        calibrate(epsilon, 1e-5, 0.1, 10)


@pytest.mark.parametrize("delta", [0.0, 1e-13, 1.0, float("nan")])
def test_impossible_deltas_are_refused(delta):
    with pytest.raises(ConfigError, match="delta"):
        epsilon_of(plain(1.0), delta, 1)


@pytest.mark.parametrize(
    "bad", [{"noise_multiplier": 0.0}, {"sampling_probability": 1.1}, {"steps_per_round": 0}]
)
def test_impossible_mechanisms_are_refused(bad):
    good = {"noise_multiplier": 1.0, "sampling_probability": 0.1, "steps_per_round": 1}
    with pytest.raises(ConfigError, match=next(iter(bad))):
        SampledGaussian(**(good | bad))


def test_a_calibrated_run_fits_its_budget_and_not_one_round_more():
    noise = calibrate(2.0, 1e-5, 0.05, 8 * 20)
    mechanism = SampledGaussian(noise, 0.05, 20)
    assert epsilon_of(mechanism, 1e-5, 8 * 20) <= 2.0 < epsilon_of(mechanism, 1e-5, 9 * 20)


def test_the_statement_says_unit_relation_sampling_accountant_and_delta():
    mechanism = SampledGaussian(1.0, 0.02, 50)
    epsilon = epsilon_of(mechanism, 1e-5, 50)
    statement = PrivacyStatement(
        Unit.RECORD, epsilon, 1e-5, mechanism, 1, assumptions=("rows are independent",)
    )
    sentence = statement.sentence()
    for part in (
        "one record of one client",
        "adding or removing",
        "Poisson sampling with probability 0.02",
        "PLD",
        "1e-05",
        "50 Gaussian releases",
        "assuming that rows are independent.",
    ):
        assert part in sentence
    assert "earlier runs" not in sentence
    stated = float(sentence.split("is (")[1].split(",")[0])
    assert epsilon <= stated < epsilon + 1e-3
    assert "one client's records" in replace(statement, unit=Unit.CLIENT).sentence()
    assert "the epsilon of 0.5 that earlier" in replace(statement, epsilon_before=0.5).sentence()


def test_a_target_just_below_the_largest_noise_is_reached():
    steps = 10**6
    target = epsilon_of(SampledGaussian(9e4, 1.0, 1), 1e-5, steps)
    found = calibrate(target, 1e-5, 1.0, steps)
    assert 9e4 * (1 - 1e-3) <= found <= 9e4 * (1 + 2e-3)
    assert epsilon_of(SampledGaussian(found, 1.0, 1), 1e-5, steps) <= target
