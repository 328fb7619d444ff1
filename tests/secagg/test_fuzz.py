"""The fuzz target on inputs of hypothesis, the same ones every time."""

import pytest
import secagg_client as target
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lepton_flwr.secagg.transcript import to_bitmap


def number(value):
    return value.to_bytes(2, "big")


# Three bytes and more: which exchange, which field, which change, and what the change needs.
inputs = st.builds(
    lambda exchange, rest: number(exchange) + b"".join(map(number, rest)),
    st.integers(0, 8),
    st.lists(st.integers(0, 300), min_size=2, max_size=12),
)


@given(st.one_of(inputs, st.binary(max_size=60)))
@example(b"")
@settings(max_examples=600, deadline=None, derandomize=True, database=None)
def test_a_changed_message_ends_in_a_named_error_or_is_as_good_as_the_honest_one(data):
    target.run(data)


def change(exchange, field, *choices):
    """The input that changes `field` of an exchange's message, once; from 5 on, on a ring."""
    size = target.CLIENTS[exchange > 4]
    fields = sorted(target.rehearsal(size).honest[exchange - 4 * (exchange > 4)])
    return b"".join(map(number, (exchange, fields.index(field), *choices)))


FLIP_FIRST_ITEM = (7, 0, 0, 3, 3)
ONE = (3, 0, 0, 256)
NOBODY = (3, 4, 1, 0)


@pytest.mark.parametrize(
    ("exchange", "field", "choices", "error"),
    [
        (0, "cipher", (0,), "MessageError"),
        (0, "number", ONE, "ReplayError"),
        (0, "min-survivors", ONE, "FloorError"),
        (1, "signatures", FLIP_FIRST_ITEM, "KeyRecordError"),
        (2, "ciphertexts", FLIP_FIRST_ITEM, "ShareError"),
        (3, "survivors", NOBODY, "SurvivorError"),
        (3, "tags", FLIP_FIRST_ITEM, "SurvivorError"),
        (4, "proofs", (*FLIP_FIRST_ITEM, 0, 7, 1, 0, 3, 3), "AttestationError"),
        (5, "signatures", FLIP_FIRST_ITEM, "KeyRecordError"),
        (6, "ciphertexts", FLIP_FIRST_ITEM, "ShareError"),
        (7, "tags", FLIP_FIRST_ITEM, "SurvivorError"),
        (8, "proofs", FLIP_FIRST_ITEM, "AttestationError"),
        (8, "credentials", FLIP_FIRST_ITEM, "AttestationError"),
        (8, "senders", (5, 0), "MessageError"),
    ],
)
def test_the_inputs_reach_what_the_client_checks(exchange, field, choices, error):
    assert target.run(change(exchange, field, *choices)) == error


@pytest.mark.parametrize("exchange", range(9))
def test_the_honest_message_is_answered(exchange):
    assert target.run(number(exchange)) == "answered"


def test_an_answer_that_is_too_good_is_a_finding(monkeypatch):
    # So that the target's own checks are known to bite: a client that takes any share.
    client = target.ClientSession
    monkeypatch.setattr(client, "_open", lambda self, sender, sealed: (b"", b""))
    with pytest.raises(RuntimeError, match="another share was accepted"):
        target.run(change(2, "ciphertexts", *FLIP_FIRST_ITEM))


def test_a_gap_that_was_accepted_is_a_finding():
    scene = target.rehearsal(129)
    client = scene.restore(3)
    place = scene.graph._ring.index(client.state.index)
    gone = {scene.graph._ring[(place + step) % 129] for step in range(40, 53)}
    left = set(range(129)) - gone
    assert len(left) >= scene.floor
    with pytest.raises(RuntimeError, match="a gap was accepted"):
        scene.listed(client, to_bitmap(left, 129))
