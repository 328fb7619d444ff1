import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_flwr.crypto import body as bodies
from lepton_flwr.crypto import passphrase as passphrases
from lepton_flwr.crypto.envelope import rewrap, seal, unseal
from lepton_flwr.crypto.errors import (
    EnvelopeError,
    NotAnEnvelopeError,
    OversizedFieldError,
    PurposeError,
    RecipientError,
    SourceChangedError,
    TamperedChunkError,
    TamperedHeaderError,
    TrailingBytesError,
    TruncatedError,
    WrongKeyError,
)
from lepton_flwr.crypto.header import Body, Header
from lepton_flwr.crypto.passphrase import Passphrase
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.errors import ConfigError

KEYS = [DecryptionKey.generate() for _ in range(3)]
PURPOSE = "test"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(bodies, "CHUNK_BITS", 10)
    for name, value in (("MEMORY_KIB", 64), ("PASSES", 1), ("LANES", 1)):
        monkeypatch.setattr(passphrases, name, value)


def header_bytes(envelope):
    return len(Header.read(io.BytesIO(envelope)).encoded)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 5000), st.binary(min_size=1, max_size=8))
def test_what_was_sealed_opens_for_each_recipient(length, piece):
    plaintext = (piece * length)[:length]
    envelope = seal(plaintext, [key.recipient for key in KEYS[:2]], purpose=PURPOSE)
    for key in KEYS[:2]:
        assert unseal(envelope, key, purpose=PURPOSE) == plaintext
    with pytest.raises(WrongKeyError):
        unseal(envelope, KEYS[2], purpose=PURPOSE)
    assert len(envelope) == header_bytes(envelope) + length + 16 * max(1, -(-length // 1024))


def test_a_passphrase_is_a_recipient_and_a_key():
    envelope = seal(b"rows", [KEYS[0].recipient, Passphrase("correct horse")], purpose=PURPOSE)
    assert unseal(envelope, Passphrase("correct horse"), purpose=PURPOSE) == b"rows"
    assert unseal(envelope, KEYS[0], purpose=PURPOSE) == b"rows"


def test_equal_plaintexts_have_nothing_in_common_when_sealed():
    one, other = (seal(bytes(4096), [KEYS[0].recipient], purpose=PURPOSE) for _ in range(2))
    chunks = [
        text[start : start + 1040]
        for text in (one, other)
        for start in range(header_bytes(text), len(text), 1040)
    ]
    assert len(set(chunks)) == 8
    assert bytes(16) not in one


def test_an_envelope_opens_for_its_purpose_only():
    envelope = seal(b"rows", [KEYS[0].recipient], purpose="lepton/model/v1")
    for other in ("lepton/model/v2", "lepton/model/v", "", "lepton/file/v1"):
        with pytest.raises(PurposeError, match="lepton/model/v1"):
            unseal(envelope, KEYS[0], purpose=other)
    # Said in the header only: the purpose is bound to the keys as well.
    changed = envelope.replace(b"lepton/model/v1", b"lepton/model/v2")
    with pytest.raises(TamperedHeaderError):
        unseal(changed, KEYS[0], purpose="lepton/model/v2")


@pytest.mark.parametrize("purpose", ["", "x" * 65, "ö" * 33, "\ud800"])
def test_an_impossible_purpose_is_refused(purpose):
    with pytest.raises(ConfigError, match="1 to 64"):
        seal(b"rows", [KEYS[0].recipient], purpose=purpose)


def test_the_longest_purpose_is_64_bytes():
    envelope = seal(b"rows", [KEYS[0].recipient], purpose="ö" * 32)
    assert unseal(envelope, KEYS[0], purpose="ö" * 32) == b"rows"


def test_recipients_are_one_to_sixty_four_different_ones():
    one = KEYS[0].recipient
    two_passphrases = [Passphrase("correct horse"), Passphrase("another horse")]
    many = [DecryptionKey.generate().recipient for _ in range(65)]
    for wrong in ([], [one, KEYS[1].recipient, one], two_passphrases, many, one):
        with pytest.raises(RecipientError):
            seal(b"rows", wrong, purpose=PURPOSE)
        with pytest.raises(RecipientError):
            rewrap(seal(b"rows", [one], purpose=PURPOSE), KEYS[0], wrong)
    assert seal(b"rows", many[:64], purpose=PURPOSE)


def test_rewrapping_keeps_the_body_and_changes_who_can_open():
    envelope = seal(bytes(3000), [key.recipient for key in KEYS[:2]], purpose=PURPOSE)
    new = rewrap(envelope, KEYS[0], [KEYS[2].recipient])
    assert new[header_bytes(new) :] == envelope[header_bytes(envelope) :]
    assert unseal(new, KEYS[2], purpose=PURPOSE) == bytes(3000)
    for former in KEYS[:2]:
        with pytest.raises(WrongKeyError):
            unseal(new, former, purpose=PURPOSE)
    # As the documentation says: by the former header, a former recipient still can.
    kept = envelope[: header_bytes(envelope)] + new[header_bytes(new) :]
    assert unseal(kept, KEYS[1], purpose=PURPOSE) == bytes(3000)


def test_a_former_recipients_entry_put_back_is_a_tampered_header():
    envelope = seal(bytes(30), [KEYS[0].recipient], purpose=PURPOSE)
    new = rewrap(envelope, KEYS[0], [KEYS[1].recipient])
    at = slice(24 + len(PURPOSE) + 1, 24 + len(PURPOSE) + 1 + 35 + 80)
    spliced = new[: at.start] + envelope[at] + new[at.stop :]
    with pytest.raises(TamperedHeaderError):
        unseal(spliced, KEYS[0], purpose=PURPOSE)


def test_who_cannot_open_cannot_rewrap():
    envelope = seal(b"rows", [KEYS[0].recipient], purpose=PURPOSE)
    with pytest.raises(WrongKeyError):
        rewrap(envelope, KEYS[1], [KEYS[1].recipient])
    with pytest.raises(TruncatedError):
        rewrap(envelope[:-1], KEYS[0], [KEYS[1].recipient])
    with pytest.raises(TrailingBytesError):
        rewrap(envelope + b"x", KEYS[0], [KEYS[1].recipient])


def test_every_single_bit_is_authenticated():
    envelope = seal(b"rows", [KEYS[0].recipient], purpose=PURPOSE)
    for at in range(8 * len(envelope)):
        changed = bytearray(envelope)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(EnvelopeError):
            unseal(bytes(changed), KEYS[0], purpose=PURPOSE)


def test_every_length_but_the_right_one_is_refused():
    envelope = seal(b"rows" * 300, [KEYS[0].recipient], purpose=PURPOSE)
    for length in range(len(envelope)):
        wanted = TruncatedError if length else NotAnEnvelopeError
        with pytest.raises(wanted):
            unseal(envelope[:length], KEYS[0], purpose=PURPOSE)
    with pytest.raises(TrailingBytesError):
        unseal(envelope + bytes(1), KEYS[0], purpose=PURPOSE)


def test_the_last_chunk_is_marked_even_if_the_header_is_forged_by_a_recipient():
    # A recipient knows the data key, and may shorten the data; then the body's key is another.
    envelope = seal(bytes(2048), [KEYS[0].recipient], purpose=PURPOSE)
    header = Header.read(io.BytesIO(envelope))
    data_key = header.open(KEYS[0], PURPOSE)
    shorter = Header.create(Body(10, 1024, PURPOSE), data_key, [KEYS[1].recipient])
    forged = shorter.encoded + envelope[header_bytes(envelope) :][:1040]
    with pytest.raises(TamperedChunkError):
        unseal(forged, KEYS[1], purpose=PURPOSE)


@pytest.mark.parametrize(("mark", "opens"), [(b"\1", True), (b"\0", False)])
def test_a_chunk_is_the_last_only_if_it_is_marked_so(mark, opens):
    envelope = seal(bytes(1024), [KEYS[0].recipient], purpose=PURPOSE)
    header = Header.read(io.BytesIO(envelope))
    cipher, nonces = bodies._cipher(header.body, header.open(KEYS[0], PURPOSE))
    nonce = nonces(0)
    assert (nonce[7:], nonces(1)) == (b"\0\0\0\0\1", nonce[:7] + b"\0\0\0\1\0")
    forged = header.encoded + cipher.encrypt(nonce[:-1] + mark, bytes(1024), None)
    if opens:
        assert unseal(forged, KEYS[0], purpose=PURPOSE) == bytes(1024)
    else:
        with pytest.raises(TamperedChunkError):
            unseal(forged, KEYS[0], purpose=PURPOSE)


@pytest.mark.parametrize("text", [b"", b"x", b"\x89PNG\r\n\x1a\n" + bytes(100), b"PK\3\4" * 20])
def test_other_bytes_are_no_envelope(text):
    with pytest.raises(NotAnEnvelopeError):
        unseal(text, KEYS[0], purpose=PURPOSE)


def test_sizes_that_would_exhaust_memory_are_refused():
    for body in (Body(21, 1, PURPOSE), Body(9, 1, PURPOSE), Body(10, (1 << 42) + 1, PURPOSE)):
        with pytest.raises(OversizedFieldError):
            Header.create(body, bytes(32), [KEYS[0].recipient])
    assert Body(10, 1 << 42, PURPOSE).encode()


def test_a_huge_header_costs_no_memory():
    class Endless(io.BytesIO):
        taken = 0

        def read(self, length=-1):
            part = super().read(length)
            self.taken += len(part)
            return part

    source = Endless(b"\x89lepton\n\0\1\0\1\xff\xff" + bytes(1 << 20))
    with pytest.raises(EnvelopeError):
        Header.read(source)
    assert source.taken <= 14 + (1 << 17)


@pytest.mark.parametrize(("said", "real"), [(10, 9), (10, 11), (0, 1), (1024, 1023), (1024, 1025)])
def test_a_source_of_another_length_is_refused(said, real):
    with pytest.raises(SourceChangedError):
        bodies.encrypt(
            io.BytesIO(bytes(real)), io.BytesIO(), Body(10, said, PURPOSE), bytes(32), len
        )


def test_errors_are_one_line_without_a_byte_of_the_data():
    envelope = seal(b"secret rows", [KEYS[0].recipient], purpose=PURPOSE)
    altered = envelope[:-1] + bytes([envelope[-1] ^ 1])
    for changed in (altered, envelope[:50], envelope + b"x", b"secret rows"):
        with pytest.raises(EnvelopeError) as caught:
            unseal(changed, KEYS[0], purpose=PURPOSE)
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)
