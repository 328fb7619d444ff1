import itertools

import pytest

from lepton_flwr.secagg import graph
from lepton_flwr.secagg.degree import degree_and_threshold

SID = bytes(range(32))


@pytest.mark.parametrize("size", [2, 3, 10, 128])
def test_up_to_128_everybody_is_joined_to_everybody(size):
    complete = graph.session_graph(SID, size)
    assert complete.threshold == 2 * size // 3 + 1
    for i in range(size):
        assert complete.holders(i) == tuple(range(size))
        assert complete.neighbours(i) == tuple(j for j in range(size) if j != i)


@pytest.mark.parametrize("size", [129, 150, 1_000])
def test_above_128_each_is_joined_to_k_others_and_they_to_it(size):
    sparse = graph.session_graph(SID, size)
    k, t = degree_and_threshold(size)
    assert (sparse.degree, sparse.threshold) == (k, t)
    for i in range(size):
        others = sparse.holders(i)
        assert others == sparse.neighbours(i)
        assert list(others) == sorted(set(others))
        assert len(others) == k
        assert i not in others
        assert all(i in sparse.holders(j) for j in others)


def test_only_two_gaps_of_half_the_degree_cut_the_ring():
    sparse = graph.session_graph(SID, 200)
    half = sparse.degree // 2

    def pieces(missing):
        left = set(range(200)) - set(missing)
        count = 0
        while left:
            count += 1
            reached = {left.pop()}
            while reached:
                near = set(sparse.neighbours(reached.pop())) & left
                left -= near
                reached |= near
        return count

    ring = sparse._ring
    assert pieces([*ring[:half], *ring[100 : 100 + half]]) == 2
    assert pieces([*ring[: half - 1], *ring[100 : 100 + half]]) == 1


def test_the_order_follows_from_the_session_and_nothing_else():
    orders = {graph.session_graph(bytes([i]) * 32, 200)._ring for i in range(20)}
    assert len(orders) == 20
    assert graph.session_graph(SID, 200)._ring == graph.session_graph(SID, 200)._ring
    assert all(sorted(order) == list(range(200)) for order in orders)


def test_every_pair_is_as_likely_to_be_joined():
    # 400 sessions: a given pair is joined k / (n - 1) of the time. Over 100 pairs (independent
    # enough for a bound), five standard deviations give a false alarm below 100 * 6e-7.
    k, _ = degree_and_threshold(200)
    chance = k / 199
    graphs = [graph.session_graph(i.to_bytes(32, "big"), 200) for i in range(400)]
    deviation = (400 * chance * (1 - chance)) ** 0.5
    for i, j in itertools.islice(itertools.combinations(range(0, 200, 13), 2), 100):
        joined = sum(j in one.holders(i) for one in graphs)
        assert abs(joined - 400 * chance) < 5 * deviation


def test_the_bound_on_holders_covers_every_session():
    sizes = [*range(129, 1_000, 97), 1_000, 2_000, 5_000, 9_990, graph.MAX_CLIENTS]
    assert max(degree_and_threshold(size)[0] for size in sizes) <= graph.MAX_HOLDERS
