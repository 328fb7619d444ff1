"""The ring's parameters against a table and an oracle that counts in another way."""

import math
import time
from dataclasses import astuple, replace
from fractions import Fraction

import pytest
from scipy.stats import hypergeom

from lepton_flwr.errors import ConfigError
from lepton_flwr.secagg import degree
from lepton_flwr.secagg.degree import RingParameters, ring_parameters

# Security, corrupt and dropping share, clients; degree, threshold, spare, committee, quorum.
TABLE = [
    (80, 0.10, 129, (38, 13, 12, 37, 25)),
    (80, 0.10, 200, (56, 21, 17, 61, 41)),
    (80, 0.10, 500, (92, 43, 24, 110, 77)),
    (80, 0.10, 1_000, (110, 52, 28, 134, 94)),
    (80, 0.10, 10_000, (138, 66, 34, 168, 118)),
    (40, 0.10, 1_000, (90, 37, 25, 109, 73)),
    (80, 0.05, 1_000, (68, 32, 17, 73, 52)),
]
BITS = 42  # of correctness, for each of its three events


def events(bits, share, clients, ring):
    """What each event's chance may be times what it is, by scipy's tails: all must be below 1."""
    k, t, w, m, tau = ring
    marked = math.floor(share * clients)
    # scipy's tails are floats: far from the limit they decide the same.
    pairs = clients * (clients - k + 1) / 2
    secure, correct = 2.0 ** (bits + 2), 2.0**BITS
    return {
        "shares": secure * clients * hypergeom.sf(t - 1, clients - 1, marked, k),
        "committee": secure * hypergeom.sf(2 * tau - m - 1, clients, marked, m),
        "connection": secure * pairs * hypergeom.sf(k - 2 * w - 1, clients, marked, k),
        "neighbours": correct * clients * hypergeom.sf(k - t, clients - 1, marked, k),
        "stretch": correct * clients * hypergeom.sf(w, clients, marked, k // 2),
        "members": correct * hypergeom.sf(m - tau, clients, marked, m),
    }


@pytest.mark.parametrize(("bits", "share", "clients", "ring"), TABLE)
def test_the_table(bits, share, clients, ring):
    assert astuple(ring_parameters(clients, share, share, bits)) == ring


@pytest.mark.parametrize(("bits", "share", "clients", "ring"), TABLE)
def test_every_event_is_rare_enough(bits, share, clients, ring):
    assert max(events(bits, share, clients, ring).values()) <= 1


@pytest.mark.parametrize(("bits", "share", "clients", "ring"), TABLE)
def test_nothing_smaller_would_do(bits, share, clients, ring):
    k, t, w, m, tau = ring

    def fails(*names, **changes):
        made = events(bits, share, clients, astuple(replace(RingParameters(*ring), **changes)))
        return any(made[name] > 1 for name in names)

    assert fails("shares", threshold=t - 1)
    assert fails("stretch", spare=w - 1)
    assert fails("committee", quorum=tau - 1)
    for quorum in range(1, m):
        assert fails("committee", "members", committee=m - 1, quorum=quorum)
    # With the least spare and the least threshold that two neighbours fewer could have.
    spare = next(w for w in range(k) if not fails("stretch", degree=k - 2, spare=w))
    threshold = next(t for t in range(1, k) if not fails("shares", degree=k - 2, threshold=t))
    smaller = {"degree": k - 2, "threshold": threshold, "spare": spare}
    assert fails("neighbours", "connection", **smaller)


@pytest.mark.parametrize("clients", [129, 150, 300, 777, 2_500, 9_999])
def test_what_the_proof_takes_from_the_bounds(clients):
    ring = ring_parameters(clients)
    corrupt = math.floor(0.1 * clients)
    assert 2 * ring.quorum > ring.committee + min(corrupt, ring.committee * 0.1)
    assert ring.quorum <= ring.committee <= clients
    assert ring.threshold > ring.degree * 0.1
    # Who passes the check of stretches has enough neighbours left to be revealed.
    assert ring.threshold <= ring.degree - 2 * ring.spare
    assert ring.degree < clients - 1
    assert ring.degree % 2 == 0


@pytest.mark.parametrize(("bits", "share", "clients", "ring"), TABLE)
def test_what_is_left_of_the_chances_is_told(bits, share, clients, ring):
    security, correctness = degree.failure_bits(clients, RingParameters(*ring), share, share)
    assert security >= bits
    assert correctness >= BITS - 2
    chances = list(events(bits, share, clients, ring).values())
    for told, limit, parts in ((security, bits + 2, chances[:3]), (correctness, BITS, chances[3:])):
        if sum(parts):
            assert told == pytest.approx(limit - math.log2(sum(parts)), rel=1e-6)
        else:
            assert told == math.inf


def test_tails_are_exact():
    # By counting: 5 of 11 others, 4 of them marked.
    sample = degree._Sample(11, 5)
    ways = dict(sample._ways(4))
    assert ways == {c: math.comb(4, c) * math.comb(7, 5 - c) for c in range(5)}
    assert sum(ways.values()) == math.comb(11, 5)
    at_least = {c: Fraction(sum(ways[m] for m in range(c, 5)), 462) for c in range(5)}
    for least, chance in at_least.items():
        assert sample.at_least(4, least) == chance
    assert sample.at_least(4, 5) == 0  # five of four
    assert sample.at_least(4, -3) == 1
    assert 12 * at_least[4] < Fraction(1, 2) < 12 * at_least[3]
    assert sample.most(4, 12, 1) == 3


def test_gaps_on_both_sides_of_the_ring_ask_for_more_neighbours():
    # Few drop out: only corrupt clients in two stretches ask for neighbours.
    ring = ring_parameters(10_000, 0.3, 0.0, 40)
    assert ring.spare == 0
    pairs = 10_000 * (10_000 - ring.degree + 1) / 2
    chance = hypergeom.sf(ring.degree - 1, 10_000, 3_000, ring.degree)
    assert math.log2(pairs * chance) < -42


def test_the_largest_session_is_planned_in_half_a_second():
    def seconds():
        ring_parameters.cache_clear()
        start = time.process_time()
        ring_parameters(10_000)
        return time.process_time() - start

    # About 0.02 s: generous for a busy machine, one of whose collections of garbage may come in.
    assert min(seconds() for _ in range(3)) < 0.5


@pytest.mark.parametrize(
    "arguments",
    [(3,), (200, 1.0), (200, -0.1), (200, 0.1, 0.5), (200, 0.5, 0.3), (200, 0.1, 0.1, 0)],
)
def test_what_no_sparse_graph_can_do_is_refused(arguments):
    with pytest.raises(ConfigError):
        ring_parameters(*arguments)
