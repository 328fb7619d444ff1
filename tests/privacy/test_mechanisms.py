"""Mechanisms for statistics and votes: what they publish and what they say it costs."""

import math
import subprocess
import sys

import dp_accounting as dp
import numpy as np
import pytest
from scipy.stats import chi2, kstest, norm
from scipy.stats import laplace as laplace_distribution

from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.errors import ConfigError, PrivacyError
from lepton_flwr.privacy import losses, mechanisms
from lepton_flwr.privacy.events import DiscreteLaplace, Laplace

N = 20_000
ALARM = 1e-10


def cost(event, delta=1e-9):
    return losses.epsilon([(event, 1)], delta)


def test_laplace_noise_has_its_distribution_and_costs_its_epsilon():
    """Kolmogorov-Smirnov; false alarms: 1e-10, with the operating system's randomness."""
    result = mechanisms.laplace(np.full((N // 2, 2), 3.5), sensitivity=2.0, epsilon=0.5)
    assert result.value.shape == (N // 2, 2)
    noise = result.value.ravel() - 3.5
    assert kstest(noise, laplace_distribution(scale=4.0).cdf).pvalue > ALARM
    assert 0.5 - 1e-6 <= cost(result.event) < 0.502
    assert isinstance(result.event.dp_event(), dp.LaplaceDpEvent)


def test_gaussian_noise_has_its_distribution_and_costs_its_epsilon():
    """Kolmogorov-Smirnov; false alarms: 1e-10."""
    result = mechanisms.gaussian(np.zeros(N), sensitivity=2.0, epsilon=1.0, delta=1e-6)
    multiplier = result.event.noise_multiplier
    assert kstest(result.value, norm(scale=2.0 * multiplier).cdf).pvalue > ALARM
    assert cost(result.event, 1e-6) <= 1.0 < cost(result.event, 0.9e-6)
    assert dp.SelfComposedDpEvent(dp.GaussianDpEvent(multiplier), 1) == result.event.dp_event()


def test_discrete_laplace_noise_has_its_distribution_and_costs_its_epsilon():
    """Chi-square; false alarms: 1e-10."""
    result = mechanisms.discrete_laplace(np.full(N, 7), sensitivity=3, epsilon=1.5)
    assert result.value.dtype == np.int64
    noise = np.clip(result.value - 7, -8, 8)
    x = np.arange(-60, 61)
    p = np.exp(-np.abs(x) / 2.0)
    expected = N * np.bincount(np.clip(x, -8, 8) + 8, weights=p / p.sum())
    statistic = ((np.bincount(noise + 8, minlength=17) - expected) ** 2 / expected).sum()
    assert statistic < chi2.isf(ALARM, 16)
    assert result.event == DiscreteLaplace(2.0, 3)
    assert 1.5 - 1e-6 <= cost(result.event) < 1.502


def test_discrete_gaussian_noise_costs_what_zcdp_says():
    result = mechanisms.discrete_gaussian(
        np.arange(6).reshape(2, 3), sensitivity=5.0, epsilon=1.0, delta=1e-6
    )
    assert (result.value.shape, result.value.dtype) == ((2, 3), np.int64)
    assert 0.99 < cost(result.event, 1e-6) <= 1.0
    rho = result.event.dp_event().rho
    assert rho == pytest.approx(0.5 / result.event.noise_multiplier**2)
    # Bun and Steinke 2016, proposition 1.3, is looser.
    assert cost(result.event, 1e-6) < rho + 2 * math.sqrt(rho * math.log(1e6))


def test_votes_keep_their_chances_and_cost_their_epsilon():
    """Chi-square with a fixed key; false alarms over keys: 1e-6."""
    k, epsilon = 5, 1.2
    result = mechanisms.randomized_response(
        np.full(200_000, 3), k, epsilon=epsilon, stream=CipherStream(bytes(32))
    )
    other = 1 / (math.exp(epsilon) + k - 1)
    expected = 200_000 * np.where(np.arange(k) == 3, math.exp(epsilon) * other, other)
    observed = np.bincount(result.value, minlength=k)
    assert ((observed - expected) ** 2 / expected).sum() < chi2.isf(1e-6, k - 1)
    assert epsilon - 1e-6 <= cost(result.event) < epsilon + 2e-3


def test_many_randomized_responses_compose_where_dp_accounting_forgets_them():
    """Its PLD takes one of n self-composed responses; RDP and a loop tell."""
    event = mechanisms.randomized_response([1], 2, epsilon=0.5).event
    relation = dp.NeighboringRelation.REPLACE_ONE
    trap = dp.pld.PLDAccountant(relation)
    trap.compose(dp.SelfComposedDpEvent(event.dp_event(), 20))
    loop = dp.pld.PLDAccountant(relation)
    for _ in range(20):
        loop.compose(event.dp_event())
    wanted = loop.get_epsilon(1e-6)
    assert losses.epsilon([(event, 20)], 1e-6) == pytest.approx(wanted, rel=1e-2)
    assert trap.get_epsilon(1e-6) < 0.2 * wanted  # the trap is real
    assert losses.epsilon([(event, 20)], 1e-6, renyi=True) > 0.99 * wanted


@pytest.mark.parametrize("count", [1, 7, 30])
def test_composed_laplace_agrees_with_dp_accounting(count):
    accountant = dp.pld.PLDAccountant()
    accountant.compose(dp.LaplaceDpEvent(8.0), count)
    ours = losses.epsilon([(Laplace(8.0), count)], 1e-5)
    assert ours == pytest.approx(accountant.get_epsilon(1e-5), abs=1e-3 * max(1, ours))


def test_one_number_is_taken_and_whole_numbers_stay_whole():
    assert mechanisms.laplace(3.0, sensitivity=1.0, scale=1.0).value.shape == ()
    value = mechanisms.discrete_gaussian(3, sensitivity=1.0, scale=2.0).value
    assert (value.shape, value.dtype) == ((), np.int64)


@pytest.mark.parametrize("bad", [[1.0, float("nan")], [float("inf")], ["a"], [None], [1j]])
def test_values_that_are_no_numbers_are_refused_and_not_told(bad):
    for mechanism in (mechanisms.laplace, mechanisms.gaussian):
        with pytest.raises(PrivacyError, match="expected finite numbers") as caught:
            mechanism(bad, sensitivity=1.0, scale=1.0)
        assert "nan" not in str(caught.value)


@pytest.mark.parametrize("bad", [[1.5], [2**60], [True]])
def test_values_that_are_not_whole_are_refused(bad):
    with pytest.raises(PrivacyError):
        mechanisms.discrete_gaussian(bad, sensitivity=1.0, scale=1.0)


def test_votes_outside_the_answers_are_refused():
    for votes in ([5], [-1]):
        with pytest.raises(PrivacyError, match="outside 0"):
            mechanisms.randomized_response(votes, 5, epsilon=1.0)


@pytest.mark.parametrize(
    ("mechanism", "bad"),
    [
        (mechanisms.laplace, {"sensitivity": 0.0, "scale": 1.0}),
        (mechanisms.laplace, {"sensitivity": 1.0}),
        (mechanisms.laplace, {"sensitivity": 1.0, "scale": 1.0, "epsilon": 1.0}),
        (mechanisms.gaussian, {"sensitivity": 1.0, "epsilon": 1.0}),
        (mechanisms.gaussian, {"sensitivity": 1.0, "epsilon": 1.0, "delta": 0.0}),
        (mechanisms.discrete_laplace, {"sensitivity": 1.5, "scale": 1.0}),
        (mechanisms.discrete_gaussian, {"sensitivity": 1.0, "scale": float("nan")}),
    ],
)
def test_parameters_out_of_range_are_refused(mechanism, bad):
    with pytest.raises(ConfigError):
        mechanism([1], **bad)


def test_without_opendp_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['opendp'] = None\n"
        "from lepton_flwr.privacy.mechanisms import discrete_gaussian, laplace\n"
        "discrete_gaussian([1], sensitivity=1.0, scale=1.0)\n"
        "try:\n    laplace([1.0], sensitivity=1.0, scale=1.0)\n"
        "except Exception as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install" in done.stdout
