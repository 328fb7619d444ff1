"""Messages survive the wire, and nothing else does."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_flwr.errors import LeptonError
from lepton_flwr.secagg import messages
from lepton_flwr.secagg.errors import MessageError

KINDS = [
    messages.KeyRequest,
    messages.KeyRecord,
    messages.KeyRoster,
    messages.ShareBundle,
    messages.WorkRequest,
    messages.Participation,
    messages.SurvivorRequest,
    messages.Attestation,
    messages.RevealRequest,
    messages.Reveal,
]


@pytest.fixture
def samples(federation):
    fed = federation(clients=4)
    roster = fed.keys(range(4))
    requests = fed.shares(roster, range(4))
    survivors = fed.work(requests, range(4))
    signatures = fed.attest(survivors, range(4))
    fed.reveal(signatures, range(4))
    made = [fed.server.request_keys(), roster[0], requests[0], survivors[0], signatures[0]]
    made += fed.seen
    return {type(message): message for message in made}


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_comes_back_as_it_was_sent(samples, kind):
    assert kind.from_fields(samples[kind].to_fields()) == samples[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_an_unknown_or_a_retyped_field_is_refused(samples, kind):
    fields = samples[kind].to_fields()
    with pytest.raises(MessageError, match="unknown"):
        kind.from_fields({**fields, "extra": 1})
    for name in fields:
        with pytest.raises(MessageError, match=name):
            kind.from_fields({key: value for key, value in fields.items() if key != name})
        for other in (None, 1.5, "x", [None], [b"x"] * 200, True):
            if type(other) is type(fields[name]) and not isinstance(other, list):
                continue
            with pytest.raises(LeptonError):
                kind.from_fields({**fields, name: other})


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_comes_is_a_message_or_a_named_error(samples, kind, data):
    fields = dict(samples[kind].to_fields())
    name = data.draw(st.sampled_from(sorted(fields)))
    scalars = st.one_of(
        st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=100), st.none()
    )
    fields[name] = data.draw(st.one_of(scalars, st.lists(scalars, max_size=5)))
    try:
        message = kind.from_fields(fields)
    except LeptonError:
        return
    assert kind.from_fields(message.to_fields()) == message


def test_a_text_without_an_encoding_is_refused(samples):
    fields = samples[messages.KeyRequest].to_fields()
    with pytest.raises(MessageError, match="UTF-8"):
        messages.KeyRequest.from_fields({**fields, "run-id": "\ud800"})


@pytest.mark.parametrize(
    ("kind", "changes", "text"),
    [
        (messages.KeyRequest, {"kinds": ["median"]}, "kinds"),
        (messages.KeyRequest, {"bounds": []}, "one length"),
        (messages.KeyRequest, {"cipher": "rot13"}, "cipher"),
        (messages.KeyRequest, {"num-clients": 0}, "layout: "),
        (messages.KeyRequest, {"num-clients": "5"}, "num-clients"),
        (messages.KeyRoster, {"members": bytes(33), "digests": bytes(33)}, "multiple of 32"),
        (messages.KeyRoster, {"nonces": []}, "one length"),
        (messages.RevealRequest, {"proofs": []}, "one length"),
    ],
)
def test_fields_that_do_not_fit_each_other_are_refused(samples, kind, changes, text):
    with pytest.raises(MessageError, match=text):
        kind.from_fields({**samples[kind].to_fields(), **changes})
