"""What an honest client refuses, whoever sends it."""

import dataclasses
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from lepton_flwr.crypto.authority import Authority
from lepton_flwr.crypto.certificates import parse_der
from lepton_flwr.crypto.identity import Roster
from lepton_flwr.crypto.revocation import Revoked
from lepton_flwr.secagg.client import ClientSession, Stage
from lepton_flwr.secagg.errors import (
    AttestationError,
    FloorError,
    KeyRecordError,
    MessageError,
    ModelMismatchError,
    OrderError,
    ReplayError,
    ShareError,
    SurvivorError,
    ThresholdError,
    VectorError,
)
from lepton_flwr.secagg.floors import ClientFloors
from lepton_flwr.secagg.messages import (
    RevealRequest,
    SurvivorRequest,
    WorkRequest,
)
from lepton_flwr.secagg.transcript import keys_digest, to_bitmap

CONTENT = bytes(range(32))


def refuses(client, error, step, *args):
    """The step raises, the secrets are gone, and no later step answers."""
    with pytest.raises(error):
        step(*args)
    fields = client.to_fields()
    assert fields["stage"] == Stage.CLOSED
    assert not fields["held"]
    assert not fields["mask-secret"]
    with pytest.raises(OrderError):
        client.attest(SurvivorRequest(b"\xff", ()))


def split_tags(proof):
    return tuple(proof[at : at + 16] for at in range(0, len(proof), 16))


@pytest.mark.parametrize("seen", [1, 2, 100])
def test_a_session_number_is_used_once(federation, seen):
    with pytest.raises(ReplayError):
        federation(number=1).open(0, last_number=seen)


def test_the_devices_floor_of_survivors_holds_against_the_server(federation):
    fed = federation(clients=6, min_survivors=4)
    request = fed.server.request_keys()
    args = (request, fed.identities[0], fed.roster)
    with pytest.raises(FloorError, match="at least 5"):
        ClientSession.open(*args, ClientFloors(min_survivors=5), 0)
    with pytest.raises(FloorError, match="coordinates"):
        ClientSession.open(*args, ClientFloors(max_dimension=10), 0)


def listed(roster, place, record):
    """The roster with another record of a neighbour, named as such in the list."""
    records, digests = list(roster.records), columns(roster.digests)
    former = records[place].digest()
    records[place] = record
    digests[digests.index(former)] = record.digest()
    return dataclasses.replace(roster, records=tuple(records), digests=b"".join(digests))


def columns(joined):
    return [joined[at : at + 32] for at in range(0, len(joined), 32)]


class TestKeyRecords:
    def test_one_by_an_outsider_is_refused(self, federation):
        fed = federation()
        roster = fed.keys(fed.everyone())[0]
        outsider = Authority.create("other").issue("device")
        request = fed.server.request_keys()
        _, forged = ClientSession.open(request, outsider, fed.roster, ClientFloors(), 0)
        client = fed.clients[0]
        refuses(client, KeyRecordError, client.share, listed(roster, 2, forged))

    @pytest.mark.parametrize("name", ["share_public", "mask_public", "nonce", "signature"])
    @pytest.mark.parametrize("place", range(5))
    def test_one_altered_in_any_field_is_refused(self, federation, name, place):
        fed = federation()
        roster = fed.keys(fed.everyone())[0]
        value = getattr(roster.records[place], name)
        changed = dataclasses.replace(
            roster.records[place], **{name: bytes([value[0] ^ 1]) + value[1:]}
        )
        client = fed.clients[0]
        refuses(client, KeyRecordError, client.share, listed(roster, place, changed))

    def test_one_that_is_not_the_listed_one_is_refused(self, federation):
        fed = federation()
        roster = fed.keys(fed.everyone())[0]
        # A second set of keys of the same member, well signed.
        signer = next(
            i for i in range(6) if fed.identities[i].certificate == roster.records[0].credential
        )
        _, second = fed.open(signer)
        records = (second, *roster.records[1:])
        client = fed.clients[0]
        refuses(client, KeyRecordError, client.share, dataclasses.replace(roster, records=records))

    def test_two_neighbours_that_are_swapped_are_refused(self, federation):
        fed = federation()
        roster = fed.keys(fed.everyone())[0]
        first, second, *rest = roster.records
        digests = columns(roster.digests)
        a, b = (digests.index(record.digest()) for record in (first, second))
        digests[a], digests[b] = digests[b], digests[a]
        swapped = dataclasses.replace(
            roster, records=(second, first, *rest), digests=b"".join(digests)
        )
        client = fed.clients[0]
        with pytest.raises(KeyRecordError, match="another member"):
            client.share(swapped)

    def test_two_neighbours_with_one_key_are_refused(self, federation):
        # A corrupt member may sign another's public keys as its own.
        for name in ("share_public", "mask_public"):
            fed = federation()
            roster = fed.keys(fed.everyone())[0]
            record = dataclasses.replace(
                roster.records[1], **{name: getattr(roster.records[0], name)}
            )
            signer = next(i for i in fed.identities if i.certificate == record.credential)
            signed = keys_digest(
                fed.config, CONTENT, record.mask_public, record.share_public, record.nonce
            )
            record = dataclasses.replace(record, signature=signer.sign(signed))
            client = fed.clients[0]
            refuses(client, KeyRecordError, client.share, listed(roster, 1, record))

    def test_one_of_an_earlier_session_is_refused(self, federation):
        earlier = federation(number=1)
        old = earlier.keys(earlier.everyone())[0]
        fed = federation(number=2)
        roster = fed.keys(fed.everyone())[0]
        client = fed.clients[0]
        refuses(client, KeyRecordError, client.share, listed(roster, 3, old.records[3]))

    def test_a_member_is_listed_once(self, federation):
        fed = federation()
        roster = fed.keys(fed.everyone())[0]
        members, digests = columns(roster.members), columns(roster.digests)
        at = next(i for i in range(5) if fed.server._index[0] not in (i, i + 1))
        for other in (digests[at], digests[at + 1]):
            members[at + 1], digests[at + 1] = members[at], other
            doubled = dataclasses.replace(
                roster, members=b"".join(members), digests=b"".join(digests)
            )
            fed = federation()
            fed.clients[0], _ = fed.open(0)
            refuses(fed.clients[0], KeyRecordError, fed.clients[0].share, doubled)

    def test_another_order_is_refused(self, federation):
        fed = federation()
        roster = fed.keys(fed.everyone())[0]
        backwards = dataclasses.replace(
            roster,
            members=b"".join(columns(roster.members)[::-1]),
            digests=b"".join(columns(roster.digests)[::-1]),
            records=roster.records[::-1],
        )
        refuses(fed.clients[0], KeyRecordError, fed.clients[0].share, backwards)

    def test_a_roster_without_this_client_is_refused(self, federation):
        fed = federation()
        fed.keys(fed.everyone())
        roster = federation().keys(range(1, 6))[1]
        refuses(fed.clients[0], KeyRecordError, fed.clients[0].share, roster)

    def test_a_missing_or_a_superfluous_record_is_refused(self, federation):
        for change in (lambda records: records[1:], lambda records: (*records, records[0])):
            fed = federation()
            roster = fed.keys(fed.everyone())[0]
            changed = dataclasses.replace(roster, records=change(roster.records))
            refuses(fed.clients[0], MessageError, fed.clients[0].share, changed)

    def test_too_few_or_too_many_are_refused(self, federation):
        fed = federation(clients=6, min_survivors=5)
        rosters = fed.keys(fed.everyone())
        few = dataclasses.replace(rosters[0], members=rosters[0].members[: 4 * 32])
        refuses(fed.clients[0], ThresholdError, fed.clients[0].share, few)
        many = dataclasses.replace(rosters[1], members=rosters[1].members * 2)
        refuses(fed.clients[1], ThresholdError, fed.clients[1].share, many)

    def test_a_certificate_that_has_expired_is_refused(self, federation, identities, authority):
        fed = federation()
        roster = Roster.of_authority(authority.certificate_pem)

        class Later:
            def verify(self, credential, message, signature):
                from cryptography import x509

                end = x509.load_der_x509_certificate(credential).not_valid_after_utc
                return roster.verify(credential, message, signature, now=end + timedelta(seconds=1))

        client, _ = ClientSession.open(
            fed.server.request_keys(), identities[0], Later(), ClientFloors(), 0
        )
        refuses(client, KeyRecordError, client.share, fed.keys(fed.everyone())[0])

    def test_a_revoked_device_is_refused_although_the_server_lets_it_in(
        self, federation, identities, authority
    ):
        serial = parse_der(identities[3].certificate).serial_number
        gone = [Revoked(serial, datetime.now(UTC))]
        fed = federation()  # its server has no list
        fed.roster = Roster.of_authority(
            authority.certificate_pem, authority.sign_revocations(1, gone)
        )
        rosters = fed.keys(fed.everyone())
        refuses(fed.clients[0], KeyRecordError, fed.clients[0].share, rosters[0])
        fed = federation()
        fed.roster = Roster.of_authority(authority.certificate_pem, authority.sign_revocations(2))
        rosters = fed.keys(fed.everyone())
        assert fed.clients[0].share(rosters[0])


class TestWork:
    def test_another_model_is_refused(self, federation):
        fed = federation()
        requests = fed.until_work()
        client = fed.clients[0]
        refuses(client, ModelMismatchError, client.start, requests[0], bytes(32))

    def test_a_share_with_any_bit_flipped_is_refused(self, federation):
        for position in (0, 12, 50, 93):
            fed = federation()
            request = fed.until_work()[0]
            sealed = bytearray(request.ciphertexts[1])
            sealed[position] ^= 1
            ciphertexts = (request.ciphertexts[0], bytes(sealed), *request.ciphertexts[2:])
            refuses(
                fed.clients[0],
                ShareError,
                fed.clients[0].start,
                dataclasses.replace(request, ciphertexts=ciphertexts),
                CONTENT,
            )

    def test_another_clients_shares_are_refused(self, federation):
        fed = federation()
        requests = fed.until_work()
        refuses(fed.clients[0], ShareError, fed.clients[0].start, requests[1], CONTENT)

    def test_shares_for_others_than_the_participants_are_refused(self, federation):
        fed = federation()
        request = fed.until_work()[0]
        fewer = dataclasses.replace(request, ciphertexts=request.ciphertexts[1:])
        refuses(fed.clients[0], MessageError, fed.clients[0].start, fewer, CONTENT)

    @pytest.mark.parametrize("bitmap", [b"", b"\xff\xff", b"\xff"])
    def test_an_impossible_list_is_refused(self, federation, bitmap):
        fed = federation()
        request = dataclasses.replace(fed.until_work()[0], participants=bitmap)
        refuses(fed.clients[0], SurvivorError, fed.clients[0].start, request, CONTENT)

    @pytest.mark.parametrize("vector", [np.zeros(3, np.uint32), np.zeros(52, np.int64)])
    def test_a_vector_of_another_kind_is_refused(self, federation, vector):
        fed = federation()
        requests = fed.until_work()
        fed.clients[0].start(requests[0], CONTENT)
        refuses(fed.clients[0], VectorError, fed.clients[0].mask, vector)

    def test_one_session_masks_one_vector(self, federation):
        fed = federation()
        fed.until_attest()
        vector = np.zeros(fed.config.layout.dimension, np.uint32)
        refuses(fed.clients[0], OrderError, fed.clients[0].mask, vector)


class TestSurvivors:
    def test_a_list_without_this_client_is_refused(self, federation):
        fed = federation()
        fed.until_attest()
        client = fed.clients[0]
        others = [i for i in range(6) if i != client.state.index]
        refuses(client, SurvivorError, client.attest, fed.survivors(0, others))

    def test_a_list_with_one_that_never_started_is_refused(self, federation):
        fed = federation()
        roster = fed.keys(range(6))
        requests = fed.shares(roster, range(5))
        fed.work(requests, range(5))
        refuses(fed.clients[0], SurvivorError, fed.clients[0].attest, fed.survivors(0, range(6)))

    def test_a_list_below_the_threshold_is_refused(self, federation):
        fed = federation(clients=9)
        fed.until_attest()
        client = fed.clients[0]
        few = [client.state.index, *(i for i in range(9) if i != client.state.index)][:6]
        refuses(client, ThresholdError, client.attest, fed.survivors(0, few))

    def test_a_list_below_the_sessions_floor_is_refused(self, federation):
        # Eight would do for the threshold of nine clients, seven.
        fed = federation(clients=9, min_survivors=9)
        request = fed.until_work()[0]
        client = fed.clients[0]
        few = [client.state.index, *(i for i in range(9) if i != client.state.index)][:8]
        fewer = WorkRequest(to_bitmap(few, 9), request.ciphertexts[:7])
        refuses(client, ThresholdError, client.start, fewer, CONTENT)
        fed = federation(clients=9, min_survivors=9)
        fed.until_attest()
        client = fed.clients[0]
        few = [client.state.index, *(i for i in range(9) if i != client.state.index)][:8]
        refuses(client, ThresholdError, client.attest, fed.survivors(0, few))

    def test_a_second_list_is_never_signed(self, federation):
        fed = federation()
        request = fed.until_attest()[0]
        fed.clients[0].attest(request)
        refuses(fed.clients[0], OrderError, fed.clients[0].attest, request)

    def test_two_halves_told_different_lists_reveal_nothing(self, federation):
        # The server tells half of the clients that client A dropped out and the rest that it did
        # not: with both kinds of shares it could unmask A alone.
        fed = federation(clients=9)
        fed.until_attest()
        by_index = {client.state.index: client for client in fed.clients.values()}
        lists = {i: range(9) if i < 5 else range(1, 9) for i in range(9)}
        tags = {}
        for i in range(9):
            others = [j for j in lists[i] if j != i]
            node = fed.server._order[i]
            answer = by_index[i].attest(fed.survivors(node, lists[i])) if i else None
            tags[i] = dict(zip(others, split_tags(answer.proof), strict=True)) if answer else {}
        for i in range(1, 9):
            senders = [j for j in range(1, 9) if j != i]
            request = RevealRequest(tuple(senders), tuple(tags[j][i] for j in senders))
            refuses(by_index[i], AttestationError, by_index[i].reveal, request)


class TestReveal:
    def cut(self, request, most):
        return RevealRequest(request.senders[:most], request.proofs[:most])

    def test_too_few_tags_are_refused(self, federation):
        # The threshold of six is five, the client itself among them.
        for most in (0, 3):
            fed = federation()
            request = self.cut(fed.until_reveal()[0], most)
            refuses(fed.clients[0], AttestationError, fed.clients[0].reveal, request)
        fed = federation()
        request = self.cut(fed.until_reveal()[0], 4)
        assert fed.clients[0].reveal(request).shares

    def test_one_sender_counts_once(self, federation):
        fed = federation()
        request = fed.until_reveal()[0]
        repeated = RevealRequest((request.senders[0],) * 5, (request.proofs[0],) * 5)
        refuses(fed.clients[0], AttestationError, fed.clients[0].reveal, repeated)

    def test_tags_of_others_do_not_count(self, federation):
        fed = federation()
        requests = fed.until_reveal()
        swapped = RevealRequest(requests[0].senders, requests[0].proofs[::-1])
        refuses(fed.clients[0], AttestationError, fed.clients[0].reveal, swapped)

    def test_tags_to_others_do_not_count(self, federation):
        fed = federation()
        requests = fed.until_reveal()
        client, other = fed.clients[0].state.index, fed.clients[1].state.index
        of = dict(zip(requests[1].senders, requests[1].proofs, strict=True))
        senders = tuple(i for i in range(6) if i not in (client, other))
        request = RevealRequest(senders, tuple(of[i] for i in senders))
        refuses(fed.clients[0], AttestationError, fed.clients[0].reveal, request)

    def test_its_own_tags_do_not_count_as_the_others(self, federation):
        # Both ends of a channel hold its keys: a tag that came back must not pass for an answer.
        fed = federation()
        request = fed.until_attest()[0]
        client = fed.clients[0]
        tags = split_tags(client.attest(request).proof)
        senders = tuple(i for i in range(6) if i != client.state.index)
        refuses(client, AttestationError, client.reveal, RevealRequest(senders, tags))

    def test_a_wrong_tag_costs_that_tag_only(self, federation):
        fed = federation()
        request = fed.until_reveal()[0]
        tags = (bytes(16), *request.proofs[1:])
        assert fed.clients[0].reveal(RevealRequest(request.senders, tags)).shares

    def test_nothing_is_revealed_twice(self, federation):
        fed = federation()
        request = fed.until_reveal()[0]
        fed.clients[0].reveal(request)
        refuses(fed.clients[0], OrderError, fed.clients[0].reveal, request)

    def test_for_each_participant_exactly_one_share_is_given(self, federation):
        fed = federation(clients=6)
        roster = fed.keys(range(6))
        requests = fed.shares(roster, range(6))
        survivors = fed.work(requests, range(1, 6))
        signatures = fed.attest(survivors, range(1, 6))
        client = fed.clients[1]
        held = dict(client.state.secrets.held)
        shares = client.reveal(signatures[1]).shares
        gone = fed.clients[0].state.index
        for i, share in zip(range(6), shares, strict=True):
            seed_share, key_share = held[i]
            assert share == (key_share if i == gone else seed_share)


def test_steps_out_of_order_end_the_session(federation):
    fed = federation()
    client, _ = fed.open(0)
    refuses(client, OrderError, client.start, WorkRequest(b"\x3f", ()), CONTENT)
