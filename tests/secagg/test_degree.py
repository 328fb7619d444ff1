"""Degrees and thresholds against the design's table and an oracle that counts in another way."""

import math
import time
from fractions import Fraction

import pytest
from scipy.stats import hypergeom

from lepton_flwr.errors import ConfigError
from lepton_flwr.secagg import degree

# The design's: security, corrupt and dropping share, clients, degree, threshold.
TABLE = [
    (40, 0.10, 200, 62, 42),
    (40, 0.10, 500, 104, 70),
    (40, 0.10, 1_000, 128, 86),
    (40, 0.10, 10_000, 166, 111),
    (40, 0.05, 200, 32, 22),
    (40, 0.05, 500, 58, 39),
    (40, 0.05, 1_000, 68, 46),
    (40, 0.05, 10_000, 86, 58),
    (80, 0.10, 200, 62, 42),
    (80, 0.10, 500, 118, 82),
    (80, 0.10, 1_000, 152, 106),
    (80, 0.10, 10_000, 208, 145),
]


@pytest.mark.parametrize(("bits", "share", "clients", "k", "t"), TABLE)
def test_the_designs_table(bits, share, clients, k, t):
    assert degree.degree_and_threshold(clients, share, share, bits) == (k, t)


@pytest.mark.parametrize(("bits", "share", "clients", "k", "t"), TABLE)
def test_the_answer_is_safe_and_two_neighbours_fewer_are_not(bits, share, clients, k, t):
    marked = round(share * clients)

    def fails(k, t):
        # scipy's tails are floats: far from the limit they decide the same.
        shares = clients * hypergeom.sf(2 * t - k - 1, clients - 1, marked, k)
        gone = clients * hypergeom.sf(k - t, clients - 1, marked, k)
        return shares > 2.0 ** -(bits + 1) or gone > 2.0**-40

    assert not fails(k, t)
    assert all(fails(k - 2, lower) for lower in range(1, k - 1))
    security, correctness = degree.failure_bits(clients, k, t, share, share)
    assert security >= bits + 1
    assert correctness >= 40
    if math.isfinite(security):
        tail = clients * hypergeom.sf(2 * t - k - 1, clients - 1, marked, k)
        assert security == pytest.approx(-math.log2(tail), rel=1e-6)


@pytest.mark.parametrize("clients", [129, 150, 300, 777, 2_500, 9_999])
def test_half_the_neighbours_and_the_corrupt_ones_never_reach_the_threshold(clients):
    k, t = degree.degree_and_threshold(clients)
    # Of the chance left over, the likely corrupt neighbours are far below.
    assert 2 * t > k + k * 0.1
    assert t <= k < clients - 1


def test_tails_are_exact():
    # By counting: 5 of 11 others, 4 of them marked.
    ways = dict(degree._ways(12, 4, 5))
    assert ways == {c: math.comb(4, c) * math.comb(7, 5 - c) for c in range(5)}
    assert sum(ways.values()) == math.comb(11, 5)
    assert degree.failure_bits(12, 5, 5, 4 / 12, 0.0)[0] == math.inf  # five of four
    at_least = {c: Fraction(12 * sum(ways[m] for m in range(c, 5)), 462) for c in range(5)}
    assert at_least[4] < Fraction(1, 2) < at_least[3]
    assert degree._most(12, 4, 5, 1) == 3


def test_gaps_on_both_sides_of_the_ring_ask_for_more_neighbours():
    # Hardly any corrupt: only the connection asks for neighbours.
    k, t = degree.degree_and_threshold(10_000, 0.0, 0.3, 40)
    pairs = 10_000 * (10_000 - k - 1) / 2
    assert math.log2(pairs) + k * math.log2(0.3) < -40
    assert t == k // 2 + 1


def test_the_largest_session_is_planned_in_half_a_second():
    degree.degree_and_threshold.cache_clear()
    start = time.process_time()
    degree.degree_and_threshold(10_000)
    assert time.process_time() - start < 0.5  # about 0.02 s: generous for a busy machine


@pytest.mark.parametrize(
    "arguments",
    [(3,), (200, 1.0), (200, -0.1), (200, 0.1, 0.5), (200, 0.5, 0.3), (200, 0.1, 0.1, 0)],
)
def test_what_no_sparse_graph_can_do_is_refused(arguments):
    with pytest.raises(ConfigError):
        degree.degree_and_threshold(*arguments)
