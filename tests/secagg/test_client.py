"""What an honest client refuses, whoever sends it."""

import dataclasses
from datetime import timedelta

import numpy as np
import pytest

from lepton_flwr.crypto.authority import Authority
from lepton_flwr.crypto.identity import Roster
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
from lepton_flwr.secagg.messages import (
    KeyRoster,
    RevealRequest,
    SurvivorRequest,
    WorkRequest,
)
from lepton_flwr.secagg.parameters import ClientFloors
from lepton_flwr.secagg.transcript import to_bitmap

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
        client.attest(SurvivorRequest(b"\xff"))


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


class TestKeyRecords:
    def test_one_by_an_outsider_is_refused(self, federation):
        fed = federation()
        records = list(fed.keys(fed.everyone()).records)
        outsider = Authority.create("other").issue("device")
        _, forged = ClientSession.open(
            fed.server.request_keys(), outsider, fed.roster, ClientFloors(), 0
        )
        place = next(i for i, r in enumerate(records) if r.digest() != fed.clients[0]._record)
        records[place] = forged
        refuses(fed.clients[0], KeyRecordError, fed.clients[0].share, KeyRoster(tuple(records)))

    @pytest.mark.parametrize("name", ["share_public", "mask_public", "nonce", "signature"])
    def test_one_altered_in_any_field_is_refused(self, federation, name):
        fed = federation()
        records = list(fed.keys(fed.everyone()).records)
        for place, record in enumerate(records):
            value = getattr(record, name)
            changed = list(records)
            changed[place] = dataclasses.replace(
                record, **{name: bytes([value[0] ^ 1]) + value[1:]}
            )
            fed = federation()
            client, _ = fed.open(0)
            refuses(client, KeyRecordError, client.share, KeyRoster(tuple(changed)))

    def test_one_of_an_earlier_session_is_refused(self, federation):
        earlier = federation(number=1)
        old = earlier.keys(earlier.everyone())
        fed = federation(number=2)
        fed.keys(fed.everyone())
        refuses(fed.clients[0], KeyRecordError, fed.clients[0].share, old)

    def test_a_member_counts_once(self, federation):
        fed = federation()
        records = fed.keys(fed.everyone()).records
        doubled = KeyRoster((records[0], *records[:-1]))
        refuses(fed.clients[0], KeyRecordError, fed.clients[0].share, doubled)

    def test_a_member_with_two_sets_of_keys_counts_once(self, federation):
        fed = federation(clients=6)
        records = list(fed.keys(range(5)).records)
        _, second = fed.open(1)
        place = next(i for i, r in enumerate(records) if r.credential == second.credential)
        doubled = KeyRoster((*records[: place + 1], second, *records[place + 1 :]))
        refuses(fed.clients[0], KeyRecordError, fed.clients[0].share, doubled)

    def test_another_order_is_refused(self, federation):
        fed = federation()
        records = fed.keys(fed.everyone()).records
        refuses(fed.clients[0], KeyRecordError, fed.clients[0].share, KeyRoster(records[::-1]))

    def test_a_roster_without_this_client_is_refused(self, federation):
        fed = federation()
        fed.keys(fed.everyone())
        roster = federation().keys(range(1, 6))
        refuses(fed.clients[0], KeyRecordError, fed.clients[0].share, roster)

    def test_too_few_or_too_many_are_refused(self, federation):
        fed = federation(clients=6, min_survivors=5)
        records = fed.keys(fed.everyone()).records
        refuses(fed.clients[0], ThresholdError, fed.clients[0].share, KeyRoster(records[:4]))
        refuses(fed.clients[1], ThresholdError, fed.clients[1].share, KeyRoster(records + records))

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
        refuses(client, KeyRecordError, client.share, fed.keys(fed.everyone()))


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
    def survivors(self, fed, indices):
        return SurvivorRequest(to_bitmap(indices, len(fed.identities)))

    def test_a_list_without_this_client_is_refused(self, federation):
        fed = federation()
        fed.until_attest()
        client = fed.clients[0]
        others = [i for i in range(6) if i != client._index]
        refuses(client, SurvivorError, client.attest, self.survivors(fed, others))

    def test_a_list_with_one_that_never_started_is_refused(self, federation):
        fed = federation()
        roster = fed.keys(range(6))
        requests = fed.shares(roster, range(5))
        fed.work(requests, range(5))
        refuses(fed.clients[0], SurvivorError, fed.clients[0].attest, self.survivors(fed, range(6)))

    def test_a_list_below_the_threshold_is_refused(self, federation):
        fed = federation(clients=9)
        fed.until_attest()
        client = fed.clients[0]
        few = [client._index, *(i for i in range(9) if i != client._index)][:6]
        refuses(client, ThresholdError, client.attest, self.survivors(fed, few))

    def test_a_list_below_the_sessions_floor_is_refused(self, federation):
        # Eight would do for the threshold of nine clients, seven.
        fed = federation(clients=9, min_survivors=9)
        request = fed.until_work()[0]
        client = fed.clients[0]
        few = [client._index, *(i for i in range(9) if i != client._index)][:8]
        fewer = WorkRequest(to_bitmap(few, 9), request.ciphertexts[:7])
        refuses(client, ThresholdError, client.start, fewer, CONTENT)
        fed = federation(clients=9, min_survivors=9)
        fed.until_attest()
        client = fed.clients[0]
        few = [client._index, *(i for i in range(9) if i != client._index)][:8]
        refuses(client, ThresholdError, client.attest, self.survivors(fed, few))

    def test_a_second_list_is_never_signed(self, federation):
        fed = federation()
        request = fed.until_attest()
        fed.clients[0].attest(request)
        refuses(fed.clients[0], OrderError, fed.clients[0].attest, request)

    def test_two_halves_told_different_lists_reveal_nothing(self, federation):
        # The server tells half of the clients that client A dropped out and the rest that it did
        # not: with both kinds of shares it could unmask A alone.
        fed = federation(clients=9)
        fed.until_attest()
        by_index = {client._index: client for client in fed.clients.values()}
        lists = {i: range(9) if i < 5 else range(1, 9) for i in range(9)}
        signatures = {
            i: by_index[i].attest(self.survivors(fed, lists[i])).signature for i in range(9)
        }
        request = RevealRequest(tuple(range(1, 9)), tuple(signatures[i] for i in range(1, 9)))
        for client in by_index.values():
            refuses(client, AttestationError, client.reveal, request)


class TestReveal:
    def test_too_few_signatures_are_refused(self, federation):
        fed = federation()
        request = fed.until_reveal()[0]
        fewer = RevealRequest(request.signers[:4], request.signatures[:4])
        refuses(fed.clients[0], AttestationError, fed.clients[0].reveal, fewer)

    def test_one_signer_counts_once(self, federation):
        fed = federation()
        request = fed.until_reveal()[0]
        repeated = RevealRequest((request.signers[0],) * 6, (request.signatures[0],) * 6)
        refuses(fed.clients[0], AttestationError, fed.clients[0].reveal, repeated)

    def test_another_clients_signature_is_refused(self, federation):
        fed = federation()
        request = fed.until_reveal()[0]
        swapped = RevealRequest(request.signers, request.signatures[::-1])
        refuses(fed.clients[0], AttestationError, fed.clients[0].reveal, swapped)

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
        held = dict(zip(client._participants, client._secrets.held, strict=True))
        shares = client.reveal(signatures[1]).shares
        gone = fed.clients[0]._index
        for i, share in zip(range(6), shares, strict=True):
            seed_share, key_share = held[i]
            assert share == (key_share if i == gone else seed_share)


def test_steps_out_of_order_end_the_session(federation):
    fed = federation()
    client, _ = fed.open(0)
    refuses(client, OrderError, client.start, WorkRequest(b"\x3f", ()), CONTENT)
