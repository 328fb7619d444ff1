"""What an honest server refuses: one bad client costs it that client, not the session."""

import dataclasses

import numpy as np
import pytest

from lepton_flwr.crypto.authority import Authority
from lepton_flwr.crypto.stream import StreamCipher
from lepton_flwr.secagg import shamir
from lepton_flwr.secagg.client import ClientSession
from lepton_flwr.secagg.errors import (
    AttestationError,
    KeyRecordError,
    MessageError,
    OrderError,
    RevealError,
    VectorError,
)
from lepton_flwr.secagg.floors import ClientFloors
from lepton_flwr.secagg.messages import (
    Attestation,
    KeyRequest,
    Participation,
    Reveal,
    ShareBundle,
)
from lepton_flwr.secagg.transcript import keys_digest, session_id

CONTENT = bytes(range(32))


def test_a_record_of_an_outsider_or_a_second_of_a_member_is_refused(federation):
    fed = federation()
    outsider = Authority.create("other").issue("device")
    request = fed.server.request_keys()
    _, forged = ClientSession.open(request, outsider, fed.roster, ClientFloors(), 0)
    with pytest.raises(KeyRecordError):
        fed.server.receive_keys(0, forged)
    _, record = fed.open(1)
    fed.server.receive_keys(1, record)
    _, again = fed.open(1)
    with pytest.raises(KeyRecordError, match="has sent one"):
        fed.server.receive_keys(2, again)


def test_keys_made_for_another_model_are_refused_by_server_and_clients(federation):
    fed = federation()
    other = KeyRequest(fed.config, bytes(32))
    _, record = ClientSession.open(other, fed.identities[0], fed.roster, ClientFloors(), 0)
    with pytest.raises(KeyRecordError):
        fed.server.receive_keys(0, record)
    roster = fed.keys(fed.everyone())[1]
    mine = fed.clients[0].state.record
    swapped = dataclasses.replace(
        roster,
        records=tuple(record if r.digest() == mine else r for r in roster.records),
        digests=roster.digests.replace(mine, record.digest()),
    )
    with pytest.raises(KeyRecordError, match="signature"):
        fed.clients[1].share(swapped)


def test_signature_and_sid_bind_the_run_the_number_the_settings_and_the_model(federation):
    config = federation().config
    changed = [
        config,
        dataclasses.replace(config, run_id="8"),
        dataclasses.replace(config, number=2),
        dataclasses.replace(config, purpose="evaluate"),
        dataclasses.replace(config, min_survivors=3),
        dataclasses.replace(config, l2_norm_clip=0.5),
        dataclasses.replace(config, cipher=StreamCipher.CHACHA20),
        dataclasses.replace(config, layout=dataclasses.replace(config.layout, num_clients=7)),
        dataclasses.replace(config, layout=dataclasses.replace(config.layout, max_weight=2)),
    ]
    signed = [keys_digest(c, CONTENT, b"m", b"s", b"n") for c in changed]
    signed += [
        keys_digest(config, *rest)
        for rest in (
            (bytes(32), b"m", b"s", b"n"),
            (CONTENT, b"x", b"s", b"n"),
            (CONTENT, b"m", b"x", b"n"),
            (CONTENT, b"m", b"s", b"x"),
        )
    ]
    assert len(set(signed)) == len(signed)
    sids = [session_id(c, CONTENT, b"m", b"r") for c in changed]
    sids += [
        session_id(config, bytes(32), b"m", b"r"),
        session_id(config, CONTENT, b"q", b"r"),
        session_id(config, CONTENT, b"m", b"q"),
        session_id(config, CONTENT, b"mr", b""),
    ]
    assert len(set(sids)) == len(sids)


def test_a_masked_vector_counts_once_and_in_time(federation):
    fed = federation()
    roster = fed.keys(range(6))
    requests = fed.shares(roster, range(5))
    vector = np.zeros(fed.config.layout.dimension, np.uint32)
    tags = Participation((bytes(16),) * 4)
    with pytest.raises(OrderError):
        fed.server.receive_masked(5, vector, tags)
    for wrong in (vector[:-1], vector.astype(np.int64)):
        with pytest.raises(VectorError):
            fed.server.receive_masked(0, wrong, tags)
    with pytest.raises(MessageError, match="tags"):
        fed.server.receive_masked(0, vector, Participation(tags.tags[1:]))
    fed.work(requests, range(5))
    with pytest.raises(OrderError):
        fed.server.receive_masked(0, vector, tags)


def test_it_takes_one_tag_and_one_share_for_each_neighbour(federation):
    fed = federation()
    fed.until_attest()
    with pytest.raises(MessageError, match="16 bytes: expected 80"):
        fed.server.receive_attestation(0, Attestation(bytes(16)))
    with pytest.raises(MessageError):
        federation_with_keys(federation).receive_shares(0, ShareBundle((bytes(94),)))


def federation_with_keys(federation):
    fed = federation()
    fed.keys(fed.everyone())
    return fed.server


def test_a_revealed_mask_key_must_fit_its_public_key(federation):
    """Wrong shares of one dropped client's key: no sum is better than a wrong one."""
    fed = federation(clients=6)
    roster = fed.keys(range(6))
    requests = fed.shares(roster, range(6))
    survivors = fed.work(requests, range(1, 6))
    signatures = fed.attest(survivors, range(1, 6))
    gone = fed.clients[0].state.index
    # Shares of another secret, consistent among each other.
    wrong = shamir.split(b"\x07" * 32, fed.server.threshold, range(1, 7))
    for i in range(1, 6):
        client = fed.clients[i]
        shares = list(client.reveal(signatures[i]).shares)
        shares[gone] = wrong[client.state.index]
        fed.server.receive_reveal(i, Reveal(tuple(shares)))
    with pytest.raises(RevealError, match="does not fit"):
        fed.server.close_reveals()


def test_it_says_whom_it_asks_and_how_many_are_in_the_sum(federation):
    fed = federation(clients=9)
    requests = fed.shares(fed.keys(range(9)), range(9))
    survivors = fed.work(requests, range(1, 9))
    assert sorted(survivors) == list(range(1, 9))
    assert fed.server.num_survivors == 8
    assert sorted(fed.attest(survivors, range(1, 8))) == list(range(1, 8))


def test_replies_out_of_turn_are_refused(federation):
    fed = federation()
    fed.keys(fed.everyone())
    _, record = fed.open(0)
    with pytest.raises(OrderError):
        fed.server.receive_keys(0, record)
    with pytest.raises(OrderError):
        fed.server.close_masked()
    with pytest.raises(OrderError):
        fed.server.receive_reveal(0, Reveal(()))


def test_those_who_left_earlier_have_no_say_later(federation):
    fed = federation(clients=6)
    roster = fed.keys(range(6))
    requests = fed.shares(roster, range(6))
    survivors = fed.work(requests, range(5))
    attestation = fed.clients[0].attest(survivors[0])
    with pytest.raises(AttestationError, match="not among the survivors"):
        fed.server.receive_attestation(5, attestation)
    with pytest.raises(OrderError, match="sent no keys"):
        fed.server.receive_attestation(99, attestation)
    fed.server.receive_attestation(0, attestation)
    with pytest.raises(OrderError, match="second reply"):
        fed.server.receive_attestation(0, attestation)
    signatures = fed.attest(survivors, range(1, 5))
    with pytest.raises(OrderError, match="did not attest"):
        fed.server.receive_reveal(5, Reveal(()))
    reveal = fed.clients[1].reveal(signatures[1])
    with pytest.raises(MessageError, match="shares"):
        fed.server.receive_reveal(1, Reveal(reveal.shares[1:]))
    fed.server.receive_reveal(1, reveal)
