import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.errors import ConfigError, PrivacyError
from lepton_flwr.privacy import losses
from lepton_flwr.privacy.events import Unbounded
from lepton_flwr.privacy.noise import GaussianNoise
from lepton_flwr.privacy.votes import (
    ConfidentGNMax,
    GNMax,
    MeanProbabilities,
    Plurality,
    ballots,
    shares,
)

QUERIES = 20_000
STDDEV = 4.0


def keyed() -> GaussianNoise:
    return GaussianNoise(CipherStream(bytes(32)))


def renyi(event, orders):
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(orders)
    accountant.compose(event.dp_event())
    return np.asarray(accountant.rdp)


@pytest.mark.parametrize("stddev", [2.0, 40.0, 100.0])
def test_an_answer_costs_what_proposition_8_says(stddev):
    orders = np.array([1.5, 2.0, 8.0, 64.0])
    assert renyi(GNMax(stddev).event(1), orders) == pytest.approx(orders / stddev**2, rel=1e-12)
    thousand = renyi(GNMax(stddev).event(1000), orders)
    assert thousand == pytest.approx(1000 * orders / stddev**2, rel=1e-12)


def test_a_check_costs_half_of_an_answer_with_the_same_noise():
    orders = np.array([2.0, 16.0])
    check = ConfidentGNMax(200.0, 150.0, GNMax(40.0))
    assert renyi(check.event(1), orders) == pytest.approx(orders / (2 * 150.0**2), rel=1e-12)


@pytest.mark.parametrize(("stddev", "queries"), [(4.0, 1), (40.0, 100), (40.0, 1000)])
def test_epsilon_is_that_of_the_analytic_gaussian_mechanism(stddev, queries):
    """Balle and Wang 2018, theorem 8, on all queries as one vector; sensitivity sqrt(2 queries)."""
    epsilon = losses.epsilon([(GNMax(stddev).event(queries), 1)], 1e-5)
    moved = math.sqrt(2 * queries) / stddev
    exact = norm.cdf(moved / 2 - epsilon / moved)
    exact -= math.exp(epsilon) * norm.cdf(-moved / 2 - epsilon / moved)
    assert exact == pytest.approx(1e-5, rel=0.02)
    assert exact <= 1e-5  # pessimistic


def test_calibrated_noise_spends_no_more_and_hardly_less():
    mechanism = GNMax.calibrated(2.0, 1e-5, 50)
    spent = losses.epsilon([(mechanism.event(50), 1)], 1e-5)
    assert 1.98 < spent <= 2.0


@given(st.data())
def test_one_vote_moves_the_counts_by_at_most_the_square_root_of_two(data):
    classes = data.draw(st.integers(2, 6))
    votes = st.lists(st.integers(0, classes - 1), min_size=3, max_size=9)
    cast = np.array(data.draw(votes))
    changed = cast.copy()
    changed[0] = data.draw(st.integers(0, classes - 1))
    before, after = (ballots(v, classes).sum(axis=0) for v in (cast, changed))
    assert np.linalg.norm(before - after) <= math.sqrt(2)
    assert abs(int(before.max()) - int(after.max())) <= 1


@given(st.data())
def test_one_participants_probabilities_move_the_rounded_sum_by_no_more_than_is_noised(data):
    classes, scale = data.draw(st.integers(2, 6)), data.draw(st.sampled_from([1.0, 7.0, 2.0**20]))
    weights = st.lists(st.floats(0, 1), min_size=classes, max_size=classes).filter(sum)
    one, other = (
        np.rint(shares(np.array([w]) / sum(w), classes) * scale)
        for w in (data.draw(weights), data.draw(weights))
    )
    assert np.linalg.norm(one - other) <= math.sqrt(2) * scale * (1 + 1e-9) + math.sqrt(classes)


def test_without_noise_the_most_votes_win():
    counts = np.array([[3, 5, 1], [0, 0, 9], [4, 4, 1]])
    assert Plurality().release(counts).tolist() == [1, 2, 0]
    assert Plurality().event(7) == Unbounded()


def wrong_answers(noise: GaussianNoise, margin: int = 6) -> np.ndarray:
    """Whether GNMax answers wrongly, for many queries that 13 win against 7."""
    counts = np.tile(np.array([[7, 7 + margin]]), (QUERIES, 1))
    return GNMax(STDDEV).release(counts, noise) != 1


def check_errors(wrong: np.ndarray) -> None:
    """Rate of errors and of runs of two errors, each within 7 standard errors.

    False-alarm rate below 1e-10: one of the keys is the system's. The first sees the size of the
    noise, the second whether queries share it.
    """
    expected = norm.cdf(-6 / (STDDEV * math.sqrt(2)))
    for observed, rate in ((wrong, expected), (wrong[::2] & wrong[1::2], expected**2)):
        error = math.sqrt(rate * (1 - rate) / observed.size)
        assert abs(observed.mean() - rate) < 7 * error


def test_answers_are_wrong_as_often_as_the_noise_says():
    check_errors(wrong_answers(keyed()))
    check_errors(wrong_answers(GaussianNoise()))


class Halved(GaussianNoise):
    def rounded(self, shape, stddev):
        return super().rounded(shape, stddev / 2)


class Shared(GaussianNoise):
    def rounded(self, shape, stddev):
        return np.repeat(super().rounded((shape[0] // 2, *shape[1:]), stddev), 2, axis=0)


class None_(GaussianNoise):  # noqa: N801
    def rounded(self, shape, stddev):
        return np.zeros(shape, np.int64)


class SameForClasses(GaussianNoise):
    def rounded(self, shape, stddev):
        return np.repeat(super().rounded((shape[0], 1), stddev), shape[1], axis=1)


@pytest.mark.parametrize("broken", [Halved, Shared, None_, SameForClasses])
def test_broken_noise_is_caught(broken):
    with pytest.raises(AssertionError):
        check_errors(wrong_answers(broken(CipherStream(bytes(32)))))


def test_a_check_passes_as_often_as_the_noise_says():
    """Within 4.5 standard errors: false-alarm rate 6.8e-6 (fixed key)."""
    counts = np.tile(np.array([[4, 16]]), (QUERIES, 1))
    passed = ConfidentGNMax(18.0, 3.0, GNMax(1.0)).passes(counts, keyed())
    rate = norm.cdf((16 - 18) / 3.0)
    assert abs(passed.mean() - rate) < 4.5 * math.sqrt(rate * (1 - rate) / QUERIES)


def test_noise_is_new_when_nothing_is_injected():
    counts = np.full((200, 5), 10, dtype=np.int64)
    assert not np.array_equal(GNMax(9.0).release(counts), GNMax(9.0).release(counts))


def test_averages_without_noise_are_exact():
    sums = np.array([[300, 700], [1000, 0]])
    means = MeanProbabilities().release(sums, 250.0, 4)
    assert means == pytest.approx(np.array([[0.3, 0.7], [1.0, 0.0]]))
    assert MeanProbabilities().event(3) == Unbounded()


def test_the_noise_of_averages_has_the_stated_deviation():
    """Variance within 4.5 standard errors: false-alarm rate 6.8e-6 (fixed key)."""
    scale, people = 1e6, 1000
    sums = np.full((QUERIES, 2), int(scale) * people // 2)
    first = MeanProbabilities(5.0).release(sums, scale, people, keyed())[:, 0]
    # Scaling a row to 1 leaves half of the difference of two draws.
    expected = (5.0 / people) ** 2 / 2
    assert abs(first.var() / expected - 1) < 4.5 * math.sqrt(2 / QUERIES)
    assert MeanProbabilities(5.0).event(3) == GNMax(5.0).event(3)


def test_noised_averages_stay_on_the_simplex():
    means = MeanProbabilities(50.0).release(np.zeros((500, 3), np.int64), 1000.0, 3, keyed())
    assert means.min() >= 0
    assert means.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize(
    "labels", [np.array([0, 3]), np.array([-1]), np.array([0.5]), np.array([[1]])]
)
def test_what_is_no_vote_is_refused(labels):
    with pytest.raises(PrivacyError, match="label"):
        ballots(labels, 3)


@pytest.mark.parametrize(
    "rows", [[[0.5, 0.6]], [[1.5, -0.5]], [[math.nan, 1.0]], [[1.0]], [1.0, 0.0], [[0.0, 0.0]]]
)
def test_what_is_no_probability_is_refused(rows):
    with pytest.raises(PrivacyError, match="probabilities"):
        shares(np.array(rows), 2)


@pytest.mark.parametrize(
    "counts",
    [np.zeros((2, 3)), np.zeros(3, np.int64), np.zeros((2, 1), np.int64), -np.ones((2, 3), int)],
)
def test_what_is_no_count_is_refused(counts):
    with pytest.raises(PrivacyError, match="expected"):
        GNMax(1.0).release(counts, keyed())


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_impossible_settings_are_refused(value):
    with pytest.raises(ConfigError, match="stddev"):
        GNMax(value)
    with pytest.raises(ConfigError, match="threshold"):
        ConfidentGNMax(value, 1.0, GNMax(1.0))


def test_margins_are_between_the_first_and_the_second():
    counts = np.array([[3, 9, 1], [4, 4, 2], [0, 0, 7]])
    labels, margins = Plurality().decide(counts)
    assert (labels.tolist(), margins.tolist()) == ([1, 0, 2], [6, 0, 7])


def test_a_noised_margin_tells_no_more_than_the_noised_counts():
    """Its mean is that of the counts' margin, its variance that of two counts' noise."""
    counts = np.tile(np.array([[200, 100]]), (QUERIES, 1))
    labels, margins = GNMax(STDDEV).decide(counts, keyed())
    assert (labels == 0).all()
    assert margins.mean() == pytest.approx(100, abs=5 * STDDEV * math.sqrt(2 / QUERIES))
    assert margins.std() == pytest.approx(STDDEV * math.sqrt(2), rel=0.03)
    again = GNMax(STDDEV).release(counts, keyed())
    assert again.tolist() == labels.tolist()
