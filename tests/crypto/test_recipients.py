import os
import re
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from lepton_flwr.crypto import passphrase as passphrases
from lepton_flwr.crypto.envelope import seal, unseal
from lepton_flwr.crypto.errors import (
    EnvelopeError,
    PassphraseError,
    RecipientError,
    TamperedHeaderError,
    TruncatedError,
    WrongKeyError,
    WrongPassphraseError,
)
from lepton_flwr.crypto.files import KeyFileError
from lepton_flwr.crypto.passphrase import Passphrase
from lepton_flwr.crypto.recipients import SUITES, DecryptionKey, Recipient
from lepton_flwr.errors import ConfigError

PURPOSE = "test"


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch):
    for name, value in (("MEMORY_KIB", 64), ("PASSES", 1), ("LANES", 1)):
        monkeypatch.setattr(passphrases, name, value)


@pytest.fixture(scope="module")
def keys():
    return {suite: DecryptionKey.generate(suite) for suite in SUITES}


def spki(key):
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def modulus(bits, exponent=65537):
    """A public key of this size; a public key does not tell whether its modulus is of primes."""
    return rsa.RSAPublicNumbers(exponent, 2**bits - 1).public_key()


def test_the_default_suite_is_x25519():
    assert DecryptionKey.generate().suite == SUITES[0] == "x25519"


@pytest.mark.parametrize("suite", SUITES)
def test_a_key_opens_what_was_sealed_for_its_recipient_and_nothing_else(keys, suite):
    envelope = seal(b"rows", [keys[suite].recipient], purpose=PURPOSE)
    assert unseal(envelope, keys[suite], purpose=PURPOSE) == b"rows"
    others = [DecryptionKey.generate(), *(key for name, key in keys.items() if name != suite)]
    for other in others:
        with pytest.raises(WrongKeyError, match=other.recipient.fingerprint[:16]):
            unseal(envelope, other, purpose=PURPOSE)


@pytest.mark.parametrize("suite", SUITES)
def test_a_stanza_under_a_recipients_name_that_is_not_its_own_is_a_tampered_header(keys, suite):
    key, other = keys[suite], DecryptionKey.generate(suite)
    stanza = other.recipient.wrap(bytes(32), b"part")
    renamed = stanza._replace(recipient=bytes.fromhex(key.recipient.fingerprint))
    with pytest.raises(TamperedHeaderError):
        key.unwrap([renamed], b"part")
    own = key.recipient.wrap(bytes(32), b"part")
    assert key.unwrap([renamed._replace(suite="argon2id"), own], b"part") == bytes(32)
    with pytest.raises(TamperedHeaderError):
        key.unwrap([own], b"another part")


@pytest.mark.parametrize("suite", SUITES)
def test_a_recipient_is_one_line_of_text_and_comes_back(keys, suite, tmp_path):
    recipient = keys[suite].recipient
    text = recipient.to_text()
    assert text.count("\n") == 1
    assert text.split()[-1] == recipient.fingerprint
    assert re.fullmatch("[0-9a-f]{64}", recipient.fingerprint)
    assert Recipient.from_text(text) == recipient
    recipient.save(tmp_path / "key.pub")
    recipient.save(tmp_path / "key.pub")
    assert Recipient.load(tmp_path / "key.pub") == recipient


def test_fingerprints_tell_keys_and_suites_apart(keys):
    assert len({key.recipient.fingerprint for key in keys.values()}) == len(SUITES)
    assert DecryptionKey.generate().recipient.fingerprint != keys["x25519"].recipient.fingerprint


def damaged(text):
    word, suite, key, fingerprint = text.split()
    yield ""
    yield f"{suite} {key} {fingerprint}"
    yield f"other-recipient {suite} {key} {fingerprint}"
    yield f"{word} x448 {key} {fingerprint}"
    yield f"{word} {suite} {key} {fingerprint} more"
    yield f"{word} {suite} {key[:-4]} {fingerprint}"
    yield f"{word} {suite} {key}* {fingerprint}"
    yield f"{word} {suite} {key} {fingerprint[::-1]}"
    yield f"{word} {suite} {key} {fingerprint[:16]}"
    yield text * 2


@pytest.mark.parametrize("number", range(10))
def test_a_damaged_recipient_is_refused(keys, number, tmp_path):
    (tmp_path / "key.pub").write_text(list(damaged(keys["x25519"].recipient.to_text()))[number])
    with pytest.raises(RecipientError) as caught:
        Recipient.load(tmp_path / "key.pub")
    assert "\n" not in str(caught.value)


def test_a_recipients_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(RecipientError, match="absent: No such file"):
        Recipient.load(tmp_path / "absent")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipientError, match="text"):
        Recipient.load(tmp_path / "binary")


@pytest.mark.parametrize(
    ("suite", "public"),
    [
        ("x25519", b""),
        ("x25519", bytes(31)),
        ("x25519", bytes(32)),  # of order 1: everybody would know the shared secret
        ("x25519", b"\1" + bytes(31)),
        ("x25519-mlkem768", bytes(1216)),
        ("x25519-mlkem768", b"\xff" * 1184 + b"\x09" + bytes(31)),  # coefficients beyond q
        ("x25519-mlkem768", bytes(1215)),
        ("rsa-3072", b""),
        ("rsa-3072", spki(modulus(2048))),
        ("rsa-3072", spki(modulus(3072, exponent=3))),
        ("rsa-3072", bytes.fromhex("300c 3005 06032a0304 0303 000000")),  # unknown algorithm
        ("rsa-3072", spki(ec.generate_private_key(ec.SECP256R1()).public_key())),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_an_unfit_public_key_is_refused(suite, public):
    with pytest.raises(RecipientError, match=suite):
        Recipient(suite, public)


def test_a_hybrid_key_of_a_low_order_point_is_refused(keys):
    public = keys["x25519-mlkem768"].recipient.public
    with pytest.raises(RecipientError):
        Recipient("x25519-mlkem768", public[:-32] + bytes(32))


def test_another_suite_is_refused():
    for make in (
        DecryptionKey.generate,
        lambda s: Recipient(s, b""),
        lambda s: DecryptionKey(s, b""),
    ):
        with pytest.raises(ConfigError, match="expected one of x25519, x25519-mlkem768, rsa-3072"):
            make("rsa-2048")


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_a_key_is_saved_for_its_owner_only_and_comes_back(keys, suite, passphrase, tmp_path):
    path = tmp_path / "key"
    keys[suite].save(path, passphrase)
    assert path.stat().st_mode & 0o777 == 0o600
    assert DecryptionKey.load(path, passphrase) == keys[suite]
    assert DecryptionKey.needs_passphrase(path) == (passphrase is not None)
    before = path.read_bytes()
    with pytest.raises(KeyFileError):
        keys[suite].save(path, passphrase)
    assert path.read_bytes() == before


def test_a_key_with_a_passphrase_stands_nowhere_in_its_file(keys, tmp_path):
    key = keys["x25519"]
    key.save(tmp_path / "plain")
    key.save(tmp_path / "sealed", "correct horse")
    word = (tmp_path / "plain").read_bytes().split()[2]
    sealed = (tmp_path / "sealed").read_bytes()
    assert word not in sealed
    assert key.private not in sealed


def test_a_key_with_a_passphrase_opens_by_it_only(keys, tmp_path):
    path = tmp_path / "key"
    keys["x25519"].save(path, "correct horse")
    with pytest.raises(KeyFileError, match="passphrase"):
        DecryptionKey.load(path)
    with pytest.raises(WrongPassphraseError):
        DecryptionKey.load(path, "wrong horse")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TruncatedError):
        DecryptionKey.load(path, "correct horse")


def test_an_envelope_of_something_else_is_no_key_even_with_its_passphrase(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(seal(b"rows", [Passphrase("correct horse")], purpose="lepton/file/v1"))
    path.chmod(0o600)
    with pytest.raises(EnvelopeError, match="purpose"):
        DecryptionKey.load(path, "correct horse")


def test_a_short_passphrase_leaves_no_file(keys, tmp_path):
    with pytest.raises(PassphraseError):
        keys["x25519"].save(tmp_path / "key", "short")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(keys, mode, tmp_path):
    path = tmp_path / "key"
    keys["x25519"].save(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        DecryptionKey.load(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xff",
        b"lepton-decryption-key x25519",
        b"lepton-decryption-key x25519 AAAA",
        b"lepton-decryption-key x448 AAAA",
        b"lepton-decryption-key x25519 A*AA",
        b"lepton-decryption-key rsa-3072 AAAA",
        b"lepton-decryption-key x25519-mlkem768 AAAA",
        b"lepton-recipient x25519 " + b"A" * 43 + b"=",
    ],
)
def test_what_is_no_key_is_refused(content, tmp_path):
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(KeyFileError) as caught:
        DecryptionKey.load(path)
    assert "\n" not in str(caught.value)


def test_rsa_keys_of_other_sizes_are_refused(keys):
    small = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    fit = serialization.load_der_private_key(keys["rsa-3072"].private, None)
    sealed = fit.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
    unknown = bytes.fromhex("300f 020100 3005 06032a0304 0403 040100")
    for private in (small, sealed, unknown, b"", os.urandom(100)):
        with pytest.raises(KeyFileError, match="rsa-3072"):
            DecryptionKey("rsa-3072", private)


def test_a_key_does_not_show_itself(keys):
    key = keys["x25519"]
    for text in (repr(key), str(key)):
        assert key.private.hex() not in text
        assert repr(key.private) not in text
        assert "private" not in text


def test_keys_and_recipients_do_not_change(keys):
    with pytest.raises(AttributeError):
        keys["x25519"].suite = "rsa-3072"
    with pytest.raises(RecipientError):
        replace(keys["x25519"].recipient, public=bytes(32))
