import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_flwr.secagg import graph
from lepton_flwr.secagg.degree import ring_parameters
from lepton_flwr.secagg.errors import ThresholdError

SID = bytes(range(32))


@pytest.mark.parametrize("size", [2, 3, 10, 128])
def test_up_to_128_everybody_is_joined_to_everybody(size):
    complete = graph.session_graph(SID, size)
    assert complete.threshold == 2 * size // 3 + 1
    assert complete.committee == ()
    complete.check_present([])  # whoever is left is in one piece
    for i in range(size):
        assert complete.holders(i) == tuple(range(size))
        assert complete.neighbours(i) == tuple(j for j in range(size) if j != i)


@pytest.mark.parametrize("size", [129, 150, 1_000])
def test_above_128_each_is_joined_to_k_others_and_they_to_it(size):
    sparse = graph.session_graph(SID, size)
    parameters = ring_parameters(size)
    k = parameters.degree
    assert (sparse.degree, sparse.threshold) == (k, parameters.threshold)
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


@given(st.sets(st.integers(0, 199), max_size=60))
@settings(max_examples=200, deadline=None)
def test_a_list_is_refused_exactly_if_a_stretch_misses_more_than_the_bound(missing):
    sparse = graph.session_graph(SID, 200)
    half, spare = sparse.degree // 2, ring_parameters(200).spare
    # Missing places are put together so that both answers are met.
    gone = {sparse._ring[(place // 3 + place % 3) % 200] for place in missing}
    most = max(
        sum(sparse._ring[(start + step) % 200] in gone for step in range(half))
        for start in range(200)
    )
    left = set(range(200)) - gone
    if most <= spare:
        sparse.check_present(left)
    else:
        with pytest.raises(ThresholdError, match=f"{most} of {half} clients in a row"):
            sparse.check_present(left)


@pytest.mark.parametrize("start", [0, 100, 190, 199])
def test_stretches_go_around_the_ring(start):
    sparse = graph.session_graph(SID, 200)
    spare = ring_parameters(200).spare
    row = [sparse._ring[(start + step) % 200] for step in range(spare + 1)]
    sparse.check_present(set(range(200)) - set(row[1:]))
    with pytest.raises(ThresholdError, match="in a row"):
        sparse.check_present(set(range(200)) - set(row))


def test_the_committee_follows_from_the_session_and_everybody_is_as_likely_on_it():
    size = ring_parameters(200).committee
    graphs = [graph.session_graph(i.to_bytes(32, "big"), 200) for i in range(400)]
    assert {len(set(one.committee)) for one in graphs} == {size}
    assert len({one.committee for one in graphs}) == 400
    assert graph.Ring(SID, 200).committee == graph.Ring(SID, 200).committee
    assert graph.Ring(SID, 200).quorum == ring_parameters(200).quorum
    # Five standard deviations; 200 clients and 100 pairs give a false alarm below 300 * 6e-7.
    chance = size / 200
    deviation = (400 * chance * (1 - chance)) ** 0.5
    for i in range(200):
        assert abs(sum(i in one.committee for one in graphs) - 400 * chance) < 5 * deviation
    both = size * (size - 1) / (200 * 199)
    deviation = (400 * both * (1 - both)) ** 0.5
    for i, j in itertools.islice(itertools.combinations(range(0, 200, 13), 2), 100):
        on = sum({i, j} <= set(one.committee) for one in graphs)
        assert abs(on - 400 * both) < 5 * deviation


def test_who_is_on_the_committee_has_nothing_to_do_with_the_places():
    # Of 400 sessions: how often the client of a place is on it; as above.
    size = ring_parameters(200).committee
    graphs = [graph.session_graph(i.to_bytes(32, "big"), 200) for i in range(400)]
    chance = size / 200
    deviation = (400 * chance * (1 - chance)) ** 0.5
    for place in range(200):
        on = sum(one._ring[place] in one.committee for one in graphs)
        assert abs(on - 400 * chance) < 5 * deviation


def test_every_pair_is_as_likely_to_be_joined():
    # 400 sessions: a given pair is joined k / (n - 1) of the time. Over 100 pairs (independent
    # enough for a bound), five standard deviations give a false alarm below 100 * 6e-7.
    k = ring_parameters(200).degree
    chance = k / 199
    graphs = [graph.session_graph(i.to_bytes(32, "big"), 200) for i in range(400)]
    deviation = (400 * chance * (1 - chance)) ** 0.5
    for i, j in itertools.islice(itertools.combinations(range(0, 200, 13), 2), 100):
        joined = sum(j in one.holders(i) for one in graphs)
        assert abs(joined - 400 * chance) < 5 * deviation


def test_the_bound_on_holders_covers_every_session():
    sizes = [*range(129, 1_000, 97), 1_000, 2_000, 5_000, 9_990, graph.MAX_CLIENTS]
    for parameters in map(ring_parameters, sizes):
        assert max(parameters.degree, parameters.committee) <= graph.MAX_HOLDERS
