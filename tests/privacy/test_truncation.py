"""Poisson samples cut to a batch, the replace-one relation and microbatches, against oracles."""

import math
from dataclasses import replace

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from mpmath import mp, mpf
from scipy.stats import binom, norm

from lepton_flwr.errors import ConfigError
from lepton_flwr.privacy import losses
from lepton_flwr.privacy.accounting import (
    Neighbours,
    SampledGaussian,
    Unit,
    batch_size,
    calibrate,
    epsilon_of,
    epsilon_rdp_of,
    suggest_batch_size,
    tolerable_truncation,
    truncation_probability,
)
from lepton_flwr.privacy.budget import PrivacyStatement

ADD, REPLACE = Neighbours.ADD_OR_REMOVE_ONE, Neighbours.REPLACE_ONE


def cut(noise, q, size, records, **details):
    return SampledGaussian(noise, q, 1, truncation_probability(records, q, size), **details)


@pytest.mark.parametrize("relation", list(Neighbours))
@pytest.mark.parametrize(
    ("records", "q", "noise", "steps"),
    [(60_000, 256 / 60_000, 1.1, 1_000), (1_000, 0.05, 1.5, 200), (300, 0.02, 1.5, 500)],
)
def test_truncation_agrees_with_dp_accounting_for_both_neighbours(
    records, q, noise, steps, relation
):
    plain = SampledGaussian(noise, q, 1, neighbours=relation)
    size = suggest_batch_size(plain, records, 1e-5, steps)
    ours = epsilon_of(cut(noise, q, size, records, neighbours=relation), 1e-5, steps)
    theirs = []
    for larger in (records, records + 1):  # of the two data sets
        distribution = pld.from_truncated_subsampled_gaussian_mechanism(
            larger,
            q,
            size,
            noise,
            value_discretization_interval=1e-3,
            neighboring_relation=dp_accounting.NeighboringRelation[relation.name],
        )
        theirs.append(distribution.self_compose(steps).get_epsilon_for_delta(1e-5))
    assert max(theirs) - 1e-9 <= ours <= max(theirs) * (1 + 1e-3)


def exact_delta(noise, q, size, records, epsilon):
    """Of the real mechanism on its worst numbers, by summing over every sample and integrating.

    The others are all -1 and the unit is 1: with k others in the sample, the sum is -min(k, B), or
    with the unit too, kept with chance min(1, B / (k + 1)).
    """
    x = np.linspace(-size - 12 * noise, 2 + 12 * noise, 200_001)
    without, with_it = np.zeros_like(x), np.zeros_like(x)
    for k in range(records + 1):
        p, kept = binom.pmf(k, records, q), min(1.0, size / (k + 1))
        absent = norm.pdf(x, -min(k, size), noise)
        present = norm.pdf(x, -min(k, size - 1) + 1, noise)
        without += p * absent
        with_it += p * ((1 - q) * absent + q * (kept * present + (1 - kept) * absent))
    width = x[1] - x[0]
    return max(
        float(np.maximum(a - math.exp(epsilon) * b, 0).sum() * width)
        for a, b in ((with_it, without), (without, with_it))
    )


@pytest.mark.parametrize(
    ("noise", "q", "size", "records"), [(1.0, 0.3, 2, 4), (0.7, 0.5, 3, 5), (2.0, 0.2, 2, 8)]
)
def test_the_real_mechanism_stays_within_epsilon_and_outside_the_untruncated_one(
    noise, q, size, records
):
    # The mechanism of one sum is less than the pair that dominates every sum: only a bound.
    delta = 1e-4
    assert exact_delta(noise, q, size, records, 0.0) > delta
    bound = epsilon_of(cut(noise, q, size, records), delta, 1)
    assert exact_delta(noise, q, size, records, bound) <= delta
    # With all others at a far end a cut sample shifts by 2, which plain Poisson does not cover.
    untruncated = epsilon_of(SampledGaussian(noise, q, 1), delta, 1)
    assert untruncated < bound


def test_forgetting_the_truncation_would_understate_the_loss():
    """q = 1 and a batch of one: the unit displaces the other half of the time."""
    noise, delta = 1.0, 1e-3
    plain = epsilon_of(SampledGaussian(noise, 1.0, 1), delta, 1)
    assert exact_delta(noise, 1.0, 1, 1, plain) > delta
    assert exact_delta(noise, 1.0, 1, 1, epsilon_of(cut(noise, 1.0, 1, 1), delta, 1)) <= delta


@pytest.mark.parametrize("relation", list(Neighbours))
def test_renyi_is_the_looser_bound_of_the_same_mechanism(relation):
    for size in (264, 280, 400):
        mechanism = cut(1.0, 0.02, size, 10_000, neighbours=relation)
        assert epsilon_of(mechanism, 1e-5, 300) < epsilon_rdp_of(mechanism, 1e-5, 300)
    plain = SampledGaussian(1.0, 0.02, 1, neighbours=relation)
    whole = epsilon_rdp_of(plain, 1e-5, 300)
    rare = replace(plain, truncation_probability=1e-30)
    assert epsilon_rdp_of(rare, 1e-5, 300) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("order", [1.5, 2.0, 8.0, 64.0])
@pytest.mark.parametrize(("noise", "q"), [(1.0, 0.01), (0.5, 0.3), (40.0, 0.1)])
def test_renyi_of_replacing_one_matches_arbitrary_precision(noise, q, order):
    mp.dps = 30
    s, a = mpf(noise), mpf(order)

    def density(x, mean):
        return mp.exp(-((x - mean) ** 2) / (2 * s**2)) / (s * mp.sqrt(2 * mp.pi))

    def integrand(x):
        p = (1 - q) * density(x, 0) + q * density(x, 1)
        r = (1 - q) * density(x, 0) + q * density(x, -1)
        return p * (p / r) ** (a - 1)

    points = [-14 * noise - 2, -2, 0, 2, order, 2 * order, 2 * order + 14 * noise + 2]
    wanted = mp.log(mp.quad(integrand, sorted(points), maxdegree=8)) / (a - 1)
    (got,) = losses._replaced_rdp(noise, q, np.array([order]))
    assert got == pytest.approx(float(wanted), rel=1e-7, abs=1e-9)


def test_replacing_one_halves_the_multiplier_of_an_unsampled_gaussian():
    """dp-accounting's RDP takes no notice of the relation; this must not be inherited."""
    replaced = SampledGaussian(2.0, 1.0, 1, neighbours=REPLACE)
    halved = SampledGaussian(1.0, 1.0, 1)
    assert epsilon_of(replaced, 1e-5, 3) == epsilon_of(halved, 1e-5, 3)
    assert epsilon_rdp_of(replaced, 1e-5, 3) == epsilon_rdp_of(halved, 1e-5, 3)

    trap = dp_accounting.rdp.RdpAccountant(
        neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE
    )
    trap.compose(dp_accounting.GaussianDpEvent(2.0), 3)
    assert trap.get_epsilon(1e-5) < epsilon_of(replaced, 1e-5, 3)  # unsound: the trap is real


def test_replacing_one_costs_more_than_adding_one():
    for q in (0.02, 0.3, 1.0):
        mechanism = SampledGaussian(1.5, q, 1)
        replaced = replace(mechanism, neighbours=REPLACE)
        added = epsilon_of(mechanism, 1e-5, 50)
        assert added < epsilon_of(replaced, 1e-5, 50)
        assert epsilon_rdp_of(mechanism, 1e-5, 50) < epsilon_rdp_of(replaced, 1e-5, 50)


def test_a_doubled_sensitivity_is_a_halved_multiplier():
    doubled = SampledGaussian(2.0, 0.05, 1, sensitivity_factor=2.0)
    assert epsilon_of(doubled, 1e-5, 90) == epsilon_of(SampledGaussian(1.0, 0.05, 1), 1e-5, 90)
    noise = calibrate(2.0, 1e-5, 0.05, 90, sensitivity_factor=2.0)
    assert noise == pytest.approx(2 * calibrate(2.0, 1e-5, 0.05, 90), rel=2e-3)


@pytest.mark.parametrize("chance", [0.0, 1e-9, 1e-6, 0.1, 1.0])
@pytest.mark.parametrize(("records", "q"), [(1, 0.5), (7, 1.0), (50, 0.01), (5_000, 0.02)])
def test_the_batch_is_the_smallest_that_fills_up_rarely_enough(records, q, chance):
    size = batch_size(records, q, chance)
    assert size % 8 == 0
    assert truncation_probability(records, q, size) <= chance
    if size > 8:
        assert truncation_probability(records, q, size - 8) > chance
    assert size <= records + 8


def test_the_tolerable_truncation_costs_at_most_the_slack():
    mechanism = SampledGaussian(1.0, 0.02, 1)
    whole = epsilon_of(mechanism, 1e-5, 500)
    tolerable = tolerable_truncation(mechanism, 1e-5, 500)
    for chance, within in ((tolerable, True), (2 * tolerable, False)):
        epsilon = epsilon_of(replace(mechanism, truncation_probability=chance), 1e-5, 500)
        assert (epsilon <= 1.01 * whole) is within
    size = suggest_batch_size(mechanism, 10_000, 1e-5, 500)
    assert size == batch_size(10_000, 0.02, tolerable)
    assert epsilon_of(cut(1.0, 0.02, size, 10_000), 1e-5, 500) <= 1.01 * whole


def test_calibration_makes_room_for_the_truncation():
    chance = 1e-4
    noise = calibrate(0.5, 1e-5, 0.1, 50, truncation_probability=chance)
    mechanism = SampledGaussian(noise, 0.1, 1, truncation_probability=chance)
    assert epsilon_of(mechanism, 1e-5, 50) <= 0.5
    assert noise > calibrate(0.5, 1e-5, 0.1, 50)


def test_the_sentence_names_truncation_relation_and_sensitivity():
    mechanism = SampledGaussian.truncated(
        1.0, 0.02, 5, truncated_batch_size=264, num_records=10_000
    )
    mechanism = replace(mechanism, sensitivity_factor=2.0, neighbours=REPLACE)
    sentence = PrivacyStatement(Unit.RECORD, 4.5, 1e-5, mechanism, 1).sentence()
    assert "cut to a fixed size with probability 7.2e-06 at most" in sentence
    assert "replacing one record of one client" in sentence
    assert "noise multiplier 1 over 2 times the clip norm" in sentence


@pytest.mark.parametrize(
    "bad",
    [
        {"truncation_probability": -0.1},
        {"truncation_probability": float("nan")},
        {"sensitivity_factor": 0.5},
    ],
)
def test_impossible_details_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        SampledGaussian(1.0, 0.1, 1, **bad)


def test_impossible_batches_are_refused():
    with pytest.raises(ConfigError, match="num_records"):
        truncation_probability(0, 0.1, 8)
    with pytest.raises(ConfigError, match="truncated_batch_size"):
        truncation_probability(10, 0.1, 0)
    with pytest.raises(ConfigError, match="largest_truncation"):
        batch_size(10, 0.1, 1.5)
