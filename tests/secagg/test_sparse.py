"""The transcript on a sparse graph: 150 clients, each joined to some of the others."""

import copy
import dataclasses

import numpy as np
import pytest

from lepton_flwr.crypto.authority import Authority
from lepton_flwr.secagg.degree import ring_parameters
from lepton_flwr.secagg.errors import (
    AttestationError,
    MessageError,
    OrderError,
    SurvivorError,
    ThresholdError,
)
from lepton_flwr.secagg.floors import ClientFloors
from lepton_flwr.secagg.messages import Attestation, RevealRequest, ShareBundle
from lepton_flwr.secagg.state import Stage
from lepton_flwr.secagg.transcript import lists_digest, survivors_digest, to_bitmap

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


def test_a_client_sends_and_keeps_what_concerns_its_neighbours_only(rehearsal):
    fed, requests = rehearsal.at("E2")
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


def everyone_but(indices):
    return set(range(CLIENTS)) - set(indices)


def row(fed, client, start, count):
    """Indices of clients in a row, from `start` places after a client on."""
    graph = fed.server._graph
    place = graph._place[fed.server._index[client]]
    return [graph._ring[(place + start + step) % CLIENTS] for step in range(count)]


class TestWhoIsMissing:
    """Each client refuses a list with a gap, wherever on the ring."""

    @pytest.mark.parametrize("far", [False, True])
    def test_it_is_checked_before_the_work(self, rehearsal, far):
        fed, requests = rehearsal.at("E2")
        spare = ring_parameters(CLIENTS).spare
        start = 60 if far else 1
        told = everyone_but(row(fed, 0, start, spare))
        assert fed.clients[0].start(fed.participants(requests, 0, told), CONTENT).tags
        one = fed.server._order[row(fed, 0, 0, 1)[0]]
        assert one == 0
        told = everyone_but(row(fed, 1, start, spare + 1))
        with pytest.raises(ThresholdError, match=f"{spare + 1} of 22 clients in a row"):
            fed.clients[1].start(fed.participants(requests, 1, told), CONTENT)

    @pytest.mark.parametrize("far", [False, True])
    def test_it_is_checked_before_a_word_on_the_survivors(self, rehearsal, far):
        fed, _ = rehearsal.at("E3")
        spare = ring_parameters(CLIENTS).spare
        start = 60 if far else 1
        fed.clients[0].attest(fed.survivors(0, everyone_but(row(fed, 0, start, spare))))
        told = everyone_but(row(fed, 1, start, spare + 1))
        with pytest.raises(ThresholdError, match="in a row"):
            fed.clients[1].attest(fed.survivors(1, told))

    def test_they_need_not_be_side_by_side(self, rehearsal):
        fed, _ = rehearsal.at("E3")
        half = fed.server._graph.degree // 2
        spare = ring_parameters(CLIENTS).spare
        stretch = row(fed, 0, 60, half)
        gone = [*stretch[: spare // 2], *stretch[spare // 2 - spare - 1 :]]
        assert len(gone) == spare + 1
        with pytest.raises(ThresholdError, match="in a row"):
            fed.clients[0].attest(fed.survivors(0, everyone_but(gone)))
        # One place further, and no stretch has them all.
        stretch = row(fed, 1, 60, half + 1)
        gone = [*stretch[: spare // 2], *stretch[spare // 2 - spare - 1 :]]
        assert fed.clients[1].attest(fed.survivors(1, everyone_but(gone)))

    def test_the_server_ends_the_session_as_well(self, rehearsal):
        spare = ring_parameters(CLIENTS).spare
        fed, roster = rehearsal.at("E1")
        gone = {fed.server._order[i] for i in row(fed, 0, 60, spare + 1)}
        alive = [i for i in fed.everyone() if i not in gone]
        with pytest.raises(ThresholdError, match="in a row"):
            fed.shares(roster, alive)
        fed, requests = rehearsal.at("E2")
        gone = {fed.server._order[i] for i in row(fed, 0, 60, spare + 1)}
        with pytest.raises(ThresholdError, match="in a row"):
            fed.work(requests, [i for i in fed.everyone() if i not in gone])

    def test_a_client_whose_neighbours_did_not_share_does_not_start(self, rehearsal):
        fed, requests = rehearsal.at("E2")
        graph = fed.server._graph
        near = graph.neighbours(fed.server._index[0])
        told = everyone_but(near[: graph.degree - graph.threshold + 1])
        assert len(told) > fed.config.floor(CLIENTS)  # in all there are enough
        with pytest.raises(ThresholdError, match="neighbours"):
            fed.clients[0].start(fed.participants(requests, 0, told), CONTENT)


class TestParticipants:
    """A survivor's own word that it was told the same participants."""

    def test_a_neighbour_who_was_told_others_is_noticed(self, rehearsal):
        fed, requests = rehearsal.at("E2")
        far = row(fed, 0, 70, 1)
        requests[0] = fed.participants(requests, 0, everyone_but(far))
        survivors = fed.work(requests, fed.everyone())
        near = neighbourhood(fed, 0)
        for i in near:
            with pytest.raises(SurvivorError, match="participants"):
                fed.clients[i].attest(survivors[i])
        with pytest.raises(SurvivorError):  # it was not told of all
            fed.clients[0].attest(survivors[0])
        stranger = next(i for i in fed.everyone() if i not in {0, *near})
        fed.clients[stranger].attest(survivors[stranger])

    @pytest.mark.parametrize("change", ["altered", "swapped", "sent back"])
    def test_only_the_neighbours_own_tag_to_this_client_counts(self, rehearsal, change):
        fed, survivors = rehearsal.at("E3")
        request = survivors[0]
        first, second, *rest = request.tags
        if change == "altered":
            tags = (bytes([first[0] ^ 1]) + first[1:], second, *rest)
        elif change == "swapped":
            tags = (second, first, *rest)
        else:
            tags = (fed.server._masked[0][neighbourhood(fed, 0)[0]], second, *rest)
        with pytest.raises(SurvivorError, match="participants"):
            fed.clients[0].attest(dataclasses.replace(request, tags=tags))

    def test_one_of_each_neighbour_is_expected(self, rehearsal):
        fed, survivors = rehearsal.at("E3")
        request = survivors[0]
        with pytest.raises(MessageError, match="43 tags: expected 44"):
            fed.clients[0].attest(dataclasses.replace(request, tags=request.tags[1:]))


class TestCommittee:
    def test_it_follows_from_the_session_and_has_the_size_of_the_bound(self, rehearsal):
        fed, _ = rehearsal.at("E1")
        graph = fed.server._graph
        assert len(set(graph.committee)) == ring_parameters(CLIENTS).committee == 46
        assert graph.quorum == 31

    def test_its_members_sign_and_nobody_else(self, rehearsal):
        fed, survivors = rehearsal.at("E3")
        committee = {fed.server._order[i] for i in fed.server._graph.committee}
        for i in fed.everyone():
            assert len(fed.clients[i].attest(survivors[i]).proof) == 64 * (i in committee)

    def test_a_member_signs_once(self, rehearsal):
        fed, survivors = rehearsal.at("E3")
        member = fed.server._order[fed.server._graph.committee[0]]
        client = fed.clients[member]
        client.attest(survivors[member])
        with pytest.raises(OrderError):
            client.attest(fed.survivors(member, everyone_but(row(fed, member, 60, 1))))
        assert client.to_fields()["stage"] == Stage.CLOSED

    def test_the_server_takes_a_members_own_signature_only(self, rehearsal):
        fed, survivors = rehearsal.at("E3")
        first, second, *_ = (fed.server._order[i] for i in fed.server._graph.committee)
        signed = fed.clients[first].attest(survivors[first])
        with pytest.raises(AttestationError, match="refused"):
            fed.server.receive_attestation(second, signed)
        with pytest.raises(MessageError, match="expected 64"):
            fed.server.receive_attestation(first, Attestation(b""))
        committee = set(fed.server._graph.committee)
        other = next(i for i in fed.everyone() if fed.server._index[i] not in committee)
        with pytest.raises(MessageError, match="expected 0"):
            fed.server.receive_attestation(other, signed)
        fed.server.receive_attestation(first, signed)

    def test_without_a_quorum_there_is_no_sum(self, rehearsal):
        fed, survivors = rehearsal.at("E3")
        graph = fed.server._graph
        silent = {fed.server._order[i] for i in graph.committee[graph.quorum - 1 :]}
        with pytest.raises(ThresholdError, match="30 of 46 members of the committee"):
            fed.attest(survivors, [i for i in fed.everyone() if i not in silent])
        fed, survivors = rehearsal.at("E3")
        silent = {fed.server._order[i] for i in fed.server._graph.committee[graph.quorum :]}
        requests = fed.attest(survivors, [i for i in fed.everyone() if i not in silent])
        node, request = next(iter(requests.items()))
        assert fed.clients[node].reveal(request).shares


class TestReveal:
    def signed(self, fed, digest):
        """The quorum of signatures on anything, if the whole committee were corrupt."""
        devices = [fed.identities[fed.server._order[i]] for i in fed.server._graph.committee]
        signers = dict(zip(fed.server._graph.committee, devices, strict=True))
        senders = tuple(sorted(signers))[: fed.server._graph.quorum]
        return RevealRequest(
            senders,
            tuple(signers[i].sign(digest) for i in senders),
            tuple(signers[i].certificate for i in senders),
        )

    def digest(self, fed, sid=None, without_participant=(), without_survivor=()):
        bitmaps = (
            to_bitmap(everyone_but(indices), CLIENTS)
            for indices in (without_participant, without_survivor)
        )
        return lists_digest(fed.server._sid if sid is None else sid, *bitmaps)

    def test_the_quorum_on_its_own_lists_is_enough(self, rehearsal):
        fed, requests = rehearsal.at("E4")
        assert len(requests[0].senders) == fed.server._graph.quorum
        assert requests[0] == self.signed(fed, self.digest(fed))
        assert len(fed.clients[0].reveal(requests[0]).shares) == fed.server._graph.degree

    @pytest.mark.parametrize("other", ["sid", "without_participant", "without_survivor"])
    def test_of_another_session_or_list_it_is_not(self, rehearsal, other):
        fed, _ = rehearsal.at("E4")
        value = bytes(32) if other == "sid" else [fed.server._index[9]]
        request = self.signed(fed, self.digest(fed, **{other: value}))
        with pytest.raises(AttestationError, match="signature"):
            fed.clients[0].reveal(request)
        assert fed.clients[0].to_fields()["stage"] == Stage.CLOSED

    def test_a_list_of_survivors_signed_as_the_keys_are_is_not(self, rehearsal):
        fed, _ = rehearsal.at("E4")
        bitmap = to_bitmap(range(CLIENTS), CLIENTS)
        for said in (survivors_digest(fed.server._sid, bitmap), bitmap):
            fed.clients[1].state = copy.deepcopy(fed.clients[0].state)
            with pytest.raises(AttestationError, match="signature"):
                fed.clients[1].reveal(self.signed(fed, said))

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ("one missing", "30 signatures"),
            ("one twice", "one of each sender"),
            ("two swapped", "signature"),
            ("two swapped with their credentials", "listed member"),
            ("one of another client", "one of each sender"),
            ("one of another client, named a member", "listed member"),
            ("one of an outsider", "signature"),
            ("one credential missing", "credential"),
            ("one altered", "signature"),
            ("one cut short", "signature"),
        ],
    )
    def test_every_one_must_be_of_another_member_of_the_committee(
        self, rehearsal, authority, change, text
    ):
        fed, requests = rehearsal.at("E4")
        request = requests[0]
        senders, proofs, credentials = (
            list(column) for column in (request.senders, request.proofs, request.credentials)
        )
        digest = self.digest(fed)
        other = next(i for i in range(CLIENTS) if i not in fed.server._graph.committee)
        device = fed.identities[fed.server._order[other]]
        if change == "one missing":
            senders, proofs, credentials = senders[1:], proofs[1:], credentials[1:]
        elif change == "one twice":
            senders[1], proofs[1], credentials[1] = senders[0], proofs[0], credentials[0]
        elif change == "two swapped":
            proofs[:2] = proofs[1::-1]
        elif change == "two swapped with their credentials":
            proofs[:2], credentials[:2] = proofs[1::-1], credentials[1::-1]
        elif change == "one of another client":
            senders[0], proofs[0], credentials[0] = other, device.sign(digest), device.certificate
        elif change == "one of another client, named a member":
            proofs[0], credentials[0] = device.sign(digest), device.certificate
        elif change == "one of an outsider":
            device = Authority.create("other").issue("device")
            proofs[0], credentials[0] = device.sign(digest), device.certificate
        elif change == "one credential missing":
            credentials = credentials[1:]
        elif change == "one altered":
            proofs[0] = bytes([proofs[0][0] ^ 1]) + proofs[0][1:]
        else:
            proofs[0] = proofs[0][:16]
        with pytest.raises(AttestationError, match=text):
            fed.clients[0].reveal(RevealRequest(tuple(senders), tuple(proofs), tuple(credentials)))
        assert fed.clients[0].to_fields()["stage"] == Stage.CLOSED

    def test_without_enough_shares_of_one_client_there_is_no_sum(self, rehearsal):
        fed, requests = rehearsal.at("E4")
        graph = fed.server._graph
        silent = set(neighbourhood(fed, 0)[: graph.degree - graph.threshold + 1])
        with pytest.raises(ThresholdError, match="one client's neighbours"):
            fed.reveal(requests, [i for i in fed.everyone() if i not in silent])

    def test_a_second_reveal_is_refused(self, rehearsal):
        fed, requests = rehearsal.at("E4")
        fed.clients[0].reveal(requests[0])
        with pytest.raises(OrderError):
            fed.clients[0].reveal(requests[0])


def test_a_bundle_for_everybody_is_refused_by_the_server(rehearsal):
    fed, roster = rehearsal.at("E1")
    bundle = fed.clients[0].share(roster[0])
    longer = dataclasses.replace(bundle, ciphertexts=bundle.ciphertexts * 2)
    with pytest.raises(MessageError):
        fed.server.receive_shares(0, longer)
    fed.server.receive_shares(0, bundle)
