"""The transcript on a sparse graph: 150 clients, each joined to some of the others."""

import dataclasses

import numpy as np
import pytest

from lepton_flwr.secagg.errors import (
    AttestationError,
    MessageError,
    OrderError,
    ThresholdError,
)
from lepton_flwr.secagg.floors import ClientFloors
from lepton_flwr.secagg.messages import RevealRequest, ShareBundle, SurvivorRequest
from lepton_flwr.secagg.transcript import to_bitmap

CLIENTS = 150
CONTENT = bytes(range(32))


def expected(fed, survivors):
    layout = fed.config.layout
    return sum(
        layout.encode({"update": fed.vectors[i]}, 1).view(np.int32).astype(np.int64)
        for i in survivors
    )


def neighbourhood(fed, node):
    """Nodes joined to a node."""
    return [fed.server._order[j] for j in fed.server._graph.neighbours(fed.server._index[node])]


@pytest.mark.parametrize("exchange", range(5))
def test_every_tenth_client_may_drop_at_any_exchange(sparse, exchange):
    fed = sparse()
    dropped = dict.fromkeys(range(0, CLIENTS, 10), exchange)
    survivors = [i for i in range(CLIENTS) if dropped.get(i, 9) > 2]
    np.testing.assert_array_equal(fed.run(dropped), expected(fed, survivors))


def test_some_vanish_at_every_exchange(sparse):
    fed = sparse()
    dropped = {i: i % 5 for i in range(0, CLIENTS, 13)}
    survivors = [i for i in range(CLIENTS) if dropped.get(i, 9) > 2]
    np.testing.assert_array_equal(fed.run(dropped), expected(fed, survivors))


def test_a_client_sends_and_keeps_what_concerns_its_neighbours_only(sparse):
    fed = sparse()
    requests = fed.until_work()
    graph, client = fed.server._graph, fed.clients[0]
    assert graph.degree < CLIENTS // 2
    bundles = [seen for seen in fed.seen if isinstance(seen, ShareBundle)]
    assert {len(bundle.ciphertexts) for bundle in bundles} == {graph.degree}
    assert len(requests[0].ciphertexts) == graph.degree
    assert set(client.state.mask_publics) == set(graph.neighbours(client.state.index))
    assert set(client.state.secrets.channels) == set(graph.neighbours(client.state.index))


def test_a_session_survives_the_end_of_its_process(sparse):
    fed = sparse()

    def restart():
        for i, session in fed.clients.items():
            fields = session.to_fields()
            fed.clients[i] = type(session).from_fields(
                fields, fed.identities[i], fed.roster, ClientFloors()
            )

    roster = fed.keys(fed.everyone())
    restart()
    requests = fed.shares(roster, fed.everyone())
    restart()
    left = range(5, CLIENTS)
    survivors = fed.work(requests, left)
    restart()
    signatures = fed.attest(survivors, left)
    restart()
    np.testing.assert_array_equal(fed.reveal(signatures, left), expected(fed, left))


def test_a_client_whose_neighbours_did_not_share_does_not_start(sparse):
    fed = sparse()
    roster = fed.keys(fed.everyone())
    graph = fed.server._graph
    gone = set(neighbourhood(fed, 0)[: graph.degree - graph.threshold + 1])
    assert CLIENTS - len(gone) > fed.config.floor(CLIENTS)  # in all there are enough
    requests = fed.shares(roster, [i for i in fed.everyone() if i not in gone])
    with pytest.raises(ThresholdError, match="neighbours"):
        fed.clients[0].start(requests[0], CONTENT)


def test_a_client_whose_neighbours_vanished_does_not_sign(sparse):
    fed = sparse()
    requests = fed.until_work()
    graph = fed.server._graph
    allowed = neighbourhood(fed, 0)[: graph.degree - graph.threshold]
    one_more = neighbourhood(fed, 0)[graph.degree - graph.threshold]
    survivors = fed.work(requests, [i for i in fed.everyone() if i not in {*allowed, one_more}])
    with pytest.raises(ThresholdError, match="neighbours"):
        fed.clients[0].attest(survivors)
    fed = sparse()
    requests = fed.until_work()
    allowed = neighbourhood(fed, 0)[: graph.degree - graph.threshold]
    fed.clients[0].attest(fed.work(requests, [i for i in fed.everyone() if i not in allowed]))


class TestReveal:
    def test_it_takes_the_threshold_of_neighbours_attestations(self, sparse):
        fed = sparse()
        requests = fed.until_reveal()
        threshold = fed.server._graph.threshold

        def cut(node, most):
            whole = requests[node]
            return RevealRequest(whole.senders[:most], whole.tags[:most])

        assert len(fed.clients[0].reveal(cut(0, threshold)).shares) == fed.server._graph.degree
        with pytest.raises(AttestationError, match=f"expected at least {threshold}"):
            fed.clients[1].reveal(cut(1, threshold - 1))

    def test_tags_of_others_than_neighbours_do_not_count(self, sparse):
        fed = sparse()
        requests = fed.until_reveal()
        near = {0, *neighbourhood(fed, 0)}
        stranger = next(i for i in fed.everyone() if i not in near)
        whole = requests[0]
        request = RevealRequest(
            (*whole.senders[1:], fed.server._index[stranger]), (*whole.tags[1:], bytes(16))
        )
        with pytest.raises(AttestationError, match="neighbours only"):
            fed.clients[0].reveal(request)

    def test_without_enough_shares_of_one_client_there_is_no_sum(self, sparse):
        fed = sparse()
        requests = fed.until_reveal()
        graph = fed.server._graph
        silent = set(neighbourhood(fed, 0)[: graph.degree - graph.threshold + 1])
        with pytest.raises(ThresholdError, match="one client's neighbours"):
            fed.reveal(requests, [i for i in fed.everyone() if i not in silent])

    def test_a_second_reveal_is_refused(self, sparse):
        fed = sparse()
        requests = fed.until_reveal()
        fed.clients[0].reveal(requests[0])
        with pytest.raises(OrderError):
            fed.clients[0].reveal(requests[0])


@pytest.mark.parametrize("most_told", ["alive", "half", "dead"])
def test_both_secrets_of_one_client_are_never_in_reach(sparse, most_told):
    # The server calls one client a survivor before some neighbours and dropped out before the
    # others; it wants the threshold of shares of both kinds.
    fed = sparse()
    survivors = fed.until_attest()
    graph, near, index = fed.server._graph, neighbourhood(fed, 0), fed.server._index[0]
    spare = graph.degree - graph.threshold
    number = {"alive": spare, "half": graph.degree // 2, "dead": graph.degree - spare}[most_told]
    dead = set(near[:number])
    without = SurvivorRequest(to_bitmap((i for i in range(CLIENTS) if i != index), CLIENTS))
    tags = {}
    for i in fed.everyone():
        others = [j for j in neighbourhood(fed, i) if j != 0 or i not in dead]
        answer = fed.clients[i].attest(without if i in dead else survivors)
        tags[i] = dict(zip(others, answer.tags, strict=True))
    shares = {"seed": 0, "key": 0}
    for i in near:
        agree = [j for j in neighbourhood(fed, i) if (j in dead) == (i in dead) and i in tags[j]]
        request = RevealRequest(
            tuple(fed.server._index[j] for j in agree), tuple(tags[j][i] for j in agree)
        )
        try:
            fed.clients[i].reveal(request)
        except AttestationError:
            continue
        shares["key" if i in dead else "seed"] += 1
    assert min(shares.values()) < graph.threshold
    if most_told == "alive":  # and the attack was a real one: clients do answer
        assert shares["seed"] > 0


def test_a_bundle_for_everybody_is_refused_by_the_server(sparse):
    fed = sparse()
    roster = fed.keys(fed.everyone())
    bundle = fed.clients[0].share(roster[0])
    longer = dataclasses.replace(bundle, ciphertexts=bundle.ciphertexts * 2)
    with pytest.raises(MessageError):
        fed.server.receive_shares(0, longer)
    fed.server.receive_shares(0, bundle)
