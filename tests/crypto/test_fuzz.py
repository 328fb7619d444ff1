"""The fuzz target of encrypted data on inputs of hypothesis, the same ones every time."""

import os

import encrypted_data as target
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lepton_flwr.crypto import body, header


def numbers(*values):
    return b"".join(value.to_bytes(2, "big") for value in values)


# Who opens, how, tampered with or hostile, and then changes with what each needs.
inputs = st.builds(
    lambda who, how, made, rest: numbers(who, how, made, *rest),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 1),
    st.lists(st.integers(0, 400), min_size=1, max_size=10),
)


@given(st.one_of(inputs, st.binary(max_size=60)))
@example(b"")
@settings(max_examples=400, deadline=None, derandomize=True, database=None)
def test_tampered_or_hostile_data_ends_in_a_named_error_or_opens_as_what_was_encrypted(data):
    target.run(data)


def tampered(*choices, who=0, how=0):
    return numbers(who, how, 0, *choices)


def change(function, *choices, **by):
    """The input that changes the honest data once."""
    return tampered(target.CHANGES.index(function), *choices, **by)


def field(name, number, **by):
    """The input that sets a field of the header."""
    target.run(b"")
    names = list(target.scene().fields)
    return change(target.set_field, names.index(name), target.NUMBERS.index(number), **by)


KEY, PASSPHRASE, STRANGER, WRONG = range(4)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (field("magic", 0), "NotAnEnvelopeError"),
        (field("version", 2), "UnsupportedVersionError"),
        (field("version", 0), "UnsupportedVersionError"),
        (field("length", (1 << 17) + 1), "OversizedFieldError"),
        (field("length", 1 << 17), "TruncatedError"),
        (field("length", 0), "TamperedHeaderError"),
        (field("length", 127), "TamperedHeaderError"),
        (field("chunk-bits", 9), "OversizedFieldError"),
        (field("chunk-bits", 21), "OversizedFieldError"),
        (field("plaintext-bytes", (1 << 42) + 1), "OversizedFieldError"),
        (field("plaintext-bytes", 1 << 18), "TruncatedError"),
        (field("plaintext-bytes", 0), "TrailingBytesError"),
        (field("purpose-bytes", 65), "OversizedFieldError"),
        (field("purpose-bytes", 0), "TamperedHeaderError"),
        (field("purpose", (1 << 64) - 1), "TamperedHeaderError"),
        (field("count", 65), "OversizedFieldError"),
        (field("count", 1), "TamperedHeaderError"),
        (field("count", 0), "TamperedHeaderError"),
        (field("suite", 9), "UnsupportedVersionError"),
        (field("suite", 2), "TamperedHeaderError"),
        (field("recipient", 0), "WrongKeyError"),
        (field("recipient", 0, who=PASSPHRASE), "TamperedHeaderError"),
        (field("wrapped-bytes", 255), "TamperedHeaderError"),
        (field("wrapped", 0), "TamperedHeaderError"),
        (field("wrapped", 0, who=PASSPHRASE), "TamperedHeaderError"),
        (field("salt", 0, who=PASSPHRASE), "WrongPassphraseError"),
        (field("salt", 0), "TamperedHeaderError"),
        (field("memory", 65, who=PASSPHRASE), "OversizedFieldError"),
        (field("memory", 1, who=PASSPHRASE), "TamperedHeaderError"),
        (field("memory", 10, who=PASSPHRASE), "WrongPassphraseError"),
        (field("passes", 9, who=PASSPHRASE), "OversizedFieldError"),
        (field("passes", 0, who=PASSPHRASE), "TamperedHeaderError"),
        (field("lanes", 9, who=PASSPHRASE), "OversizedFieldError"),
        (field("lanes", 0, who=PASSPHRASE), "TamperedHeaderError"),
        (field("wrapped-second", 0, who=PASSPHRASE), "WrongPassphraseError"),
        (field("tag", 0), "TamperedHeaderError"),
        (field("tag", 0, who=PASSPHRASE), "TamperedHeaderError"),
        (change(target.truncate, 0), "NotAnEnvelopeError"),
        (change(target.truncate, 5), "TruncatedError"),
        (change(target.truncate, 13), "TruncatedError"),
        (change(target.truncate, 200), "TruncatedError"),
        (change(target.truncate, 1000), "TruncatedError"),
        (change(target.append, 0, 7), "TrailingBytesError"),
        (change(target.swap_chunks, 0, 1), "TamperedChunkError"),
        (change(target.copy_chunk, 1, 0), "TamperedChunkError"),
        (change(target.copy_chunk, 2, 1), "TamperedChunkError"),
        (change(target.foreign_chunk, 1), "TamperedChunkError"),
        (change(target.foreign_header), "TamperedChunkError"),
        (tampered(who=STRANGER), "WrongKeyError"),
        (tampered(who=WRONG), "WrongPassphraseError"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", range(len(target.OPENINGS)))
def test_the_inputs_reach_every_check(data, error, how):
    assert target.run(data[:2] + numbers(how) + data[4:]) == error


@pytest.mark.parametrize("who", [KEY, PASSPHRASE])
@pytest.mark.parametrize("how", range(len(target.OPENINGS)))
def test_what_was_not_changed_opens(who, how):
    assert target.run(tampered(who=who, how=how)) == "opened"
    twice = tampered(*(2 * (target.CHANGES.index(target.swap_chunks), 0, 1)), who=who, how=how)
    assert target.run(twice) == "opened"


@pytest.mark.parametrize(
    ("how", "error"),
    [
        (0, "PurposeError"),
        (1, "PurposeError"),
        (2, "TamperedHeaderError"),
        (3, "TamperedHeaderError"),
    ],
)
def test_another_purpose_is_noticed_even_by_who_expects_none(how, error):
    assert target.run(field("purpose", 0, how=how)) == error


@pytest.mark.parametrize("how", range(len(target.OPENINGS)))
@pytest.mark.parametrize(
    ("bits", "length", "real_bits", "real_length", "result"),
    [
        (0, 1 << 10, None, None, "opened"),
        (10, 1 << 17, None, None, "opened"),
        (0, 1 << 10, 0, 1024, "opened"),
        (0, 1 << 10, 1, 1024, "TamperedChunkError"),
        (0, 1 << 10, 0, 1023, "TruncatedError"),
        (0, 0, 0, 1, "TrailingBytesError"),
        (11, 0, None, None, "NotAnEnvelopeError"),
    ],
)
def test_a_hostile_senders_data_opens_if_it_is_what_its_header_says(
    how, bits, length, real_bits, real_length, result
):
    honest = real_bits is None
    said = (bits, target.NUMBERS.index(length))
    real = (0, 0) if honest else (real_bits, real_length)
    assert target.run(numbers(0, how, 1, *said, *real, honest)) == result


# So that the target's own checks are known to bite.


def test_a_change_that_goes_unnoticed_is_a_finding(monkeypatch):
    monkeypatch.setattr(header, "_tag", lambda *_: bytes(32))
    monkeypatch.setattr(header.hmac, "compare_digest", lambda *_: True)
    with pytest.raises(RuntimeError, match="went unnoticed"):
        target.run(field("tag", 1))


def test_another_plaintext_is_a_finding(monkeypatch):
    class Unauthenticated:
        def __init__(self, key):
            self.cipher = AESGCM(key)

        def decrypt_into(self, nonce, data, associated_data, out):
            out[:] = self.cipher.encrypt(nonce, bytes(data[:-16]), associated_data)[:-16]

    monkeypatch.setattr(body, "AESGCM", Unauthenticated)
    with pytest.raises(RuntimeError, match="another plaintext"):
        target.run(change(target.flip, 300, 0))


def test_a_plaintext_left_by_a_failure_is_a_finding(monkeypatch):
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match="a file was left"):
        target.run(change(target.flip, 300, 0, how=1))
    for left in target.scene().folder.glob(".partial-*"):
        os.remove(left)
