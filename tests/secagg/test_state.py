"""A session at rest: read back as it was, or refused."""

import pytest

from lepton_flwr.errors import LeptonError
from lepton_flwr.secagg.errors import MessageError
from lepton_flwr.secagg.state import SessionState


@pytest.fixture
def sessions(federation):
    """One client's fields before each exchange, and after the last."""
    fed = federation(clients=5)
    kept = []

    def keep():
        kept.append(fed.clients[0].to_fields())

    rosters = fed.keys(range(5))
    keep()
    requests = fed.shares(rosters, range(5))
    keep()
    survivors = fed.work(requests, range(5))
    keep()
    tags = fed.attest(survivors, range(5))
    keep()
    fed.reveal(tags, range(5))
    keep()
    return kept


def test_it_comes_back_as_it_was(sessions):
    for fields in sessions:
        assert SessionState.from_fields(fields).to_fields() == fields


def test_every_secret_is_kept_no_longer_than_it_is_needed(sessions):
    keys, shared, masked, attested, closed = sessions
    names = ("mask-secret", "share-secret", "self-seed", "channels", "held")

    def present(fields):
        return {name for name in names if fields[name]}

    assert present(keys) == {"mask-secret", "share-secret"}
    assert present(shared) == {"mask-secret", "self-seed", "channels", "held"}
    assert present(masked) == {"channels", "held"}
    assert present(attested) == {"channels", "held"}
    assert present(closed) == set()
    # The key of the shares that went out is gone at once.
    assert {len(channel) for channel in shared["channels"]} == {3 * 32}


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": "begun"},
        {"count": -1},
        {"count": 10_001},
        {"participants": b"\xff\xff"},
        {"survivors": b"\xff"},
        {"near": [1]},
        {"near": [1, 1, 2, 3]},
        {"held": []},
        {"sid": bytes(33)},
        {"request.cipher": "rot13"},
        {"more": 1},
    ],
)
def test_anything_else_is_refused(sessions, changes):
    with pytest.raises(MessageError):
        SessionState.from_fields({**sessions[1], **changes})


def test_a_missing_field_is_refused(sessions):
    for name in sessions[1]:
        fields = {key: value for key, value in sessions[1].items() if key != name}
        with pytest.raises(LeptonError):
            SessionState.from_fields(fields)
