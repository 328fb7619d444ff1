"""The format of encrypted data written a second time, from docs/encryption.md.

Nothing below `reference` comes from `lepton_flwr`, which is imported only to be compared: hashlib,
hmac, Python's integers, and of the cryptography package X25519, ML-KEM-768, Argon2id and AES-GCM,
but not its HPKE. The reference is held to the vectors of RFC 9180, and the library to the
reference, both ways. The vectors of the format under `vectors/` were computed by the reference.
"""

import functools
import hashlib
import hmac
import io
import json
from pathlib import Path

import pytest
from cryptography.hazmat.bindings._rust import openssl as rust_openssl
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

VECTORS = Path(__file__).parent / "vectors"

# --- reference -------------------------------------------------------------------------------

MAGIC = b"\x89lepton\n"
CODES = {"x25519": 1, "x25519-mlkem768": 2, "rsa-3072": 3, "argon2id": 4}


def labelled(label, *fields):
    parts = (label.encode(), *fields)
    return hashlib.sha256(b"".join(len(p).to_bytes(8, "big") + p for p in parts)).digest()


def extract(salt, secret):
    return hmac.new(salt or bytes(32), secret, hashlib.sha256).digest()


def expand(key, info, length):
    text, block = b"", b""
    for number in range(1, length // 32 + 2):
        block = hmac.new(key, block + info + bytes([number]), hashlib.sha256).digest()
        text += block
    return text[:length]


def labeled_extract(suite_id, salt, label, secret):
    """RFC 9180, section 4."""
    return extract(salt, b"HPKE-v1" + suite_id + label + secret)


def labeled_expand(suite_id, key, label, info, length):
    return expand(key, length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + info, length)


def dhkem_x25519(shared, enc, public):
    """ExtractAndExpand of DHKEM(X25519, HKDF-SHA256): section 4.1."""
    suite_id = b"KEM\x00\x20"
    key = labeled_extract(suite_id, b"", b"eae_prk", shared)
    return labeled_expand(suite_id, key, b"shared_secret", enc + public, 32)


def schedule(kem_id, aead_id, shared, info):
    """Key and first nonce in base mode: section 5.1."""
    suite_id = b"HPKE" + b"".join(n.to_bytes(2, "big") for n in (kem_id, 1, aead_id))
    context = b"\0" + b"".join(
        labeled_extract(suite_id, b"", label, text)
        for label, text in ((b"psk_id_hash", b""), (b"info_hash", info))
    )
    secret = labeled_extract(suite_id, shared, b"secret", b"")
    return (
        labeled_expand(suite_id, secret, b"key", context, 32),
        labeled_expand(suite_id, secret, b"base_nonce", context, 12),
    )


def x25519(private, public):
    key = X25519PrivateKey.from_private_bytes(private)
    return key.exchange(X25519PublicKey.from_public_bytes(public))


def x25519_public(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def decapsulate_x25519(private, enc):
    return dhkem_x25519(x25519(private, enc), enc, x25519_public(private))


def decapsulate_hybrid(private, enc):
    """X-Wing: draft-connolly-cfrg-xwing-kem, section 5.3."""
    seed, low = private[:64], private[64:]
    one = MLKEM768PrivateKey.from_seed_bytes(seed).decapsulate(enc[:1088])
    two = x25519(low, enc[1088:])
    return hashlib.sha3_256(one + two + enc[1088:] + x25519_public(low) + rb"\.//^\ "[:-1]).digest()


def mgf1(seed, length):
    blocks = range(-(-length // 32))
    parts = (hashlib.sha256(seed + number.to_bytes(4, "big")).digest() for number in blocks)
    return b"".join(parts)[:length]


def xor(one, other):
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def oaep_encrypt(numbers, message, label, seed):
    """RFC 8017, section 7.1.1."""
    data = hashlib.sha256(label).digest() + bytes(384 - len(message) - 66) + b"\1" + message
    masked = xor(data, mgf1(seed, 351))
    block = b"\0" + xor(seed, mgf1(masked, 32)) + masked
    return pow(int.from_bytes(block, "big"), numbers.e, numbers.n).to_bytes(384, "big")


def oaep_decrypt(private, sealed, label):
    """Section 7.1.2."""
    sealed = int.from_bytes(sealed, "big")
    one, two = pow(sealed, private.dmp1, private.p), pow(sealed, private.dmq1, private.q)
    number = two + (one - two) * private.iqmp % private.p * private.q
    block = number.to_bytes(384, "big")
    seed = xor(block[1:33], mgf1(block[33:], 32))
    data = xor(block[33:], mgf1(seed, 351))
    padded, message = data[32:].split(b"\1", 1)
    assert (block[0], data[:32]) == (0, hashlib.sha256(label).digest())
    assert not any(padded)
    return message


@functools.cache
def rsa_numbers(private):
    return serialization.load_der_private_key(private, None).private_numbers()


def argon2id(passphrase, salt, costs):
    memory = int.from_bytes(costs[:4], "big")
    kdf = Argon2id(salt=salt, length=32, iterations=costs[4], lanes=costs[5], memory_cost=memory)
    return kdf.derive(passphrase)


def fingerprint(suite, public):
    return labelled("lepton/recipient/v1", suite.encode(), public)


def bound(suite, name, part):
    return labelled("lepton/envelope/stanza/v1", suite.encode(), name, part)


def public_bytes(suite, private):
    if suite == "x25519":
        return x25519_public(private)
    if suite == "x25519-mlkem768":
        key = MLKEM768PrivateKey.from_seed_bytes(private[:64])
        return key.public_key().public_bytes_raw() + x25519_public(private[64:])
    return (
        rsa_numbers(private)
        .public_numbers.public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def unwrap(suite, secret, name, wrapped, part):
    context = bound(suite, name, part)
    if suite == "argon2id":
        return AESGCM(argon2id(secret, name, wrapped[:6])).decrypt(bytes(12), wrapped[6:], context)
    if suite == "rsa-3072":
        return oaep_decrypt(rsa_numbers(secret), wrapped, context)
    enc, sealed = wrapped[:-48], wrapped[-48:]
    if suite == "x25519":
        key, nonce = schedule(0x20, 2, decapsulate_x25519(secret, enc), context)
    else:
        key, nonce = schedule(0x647A, 2, decapsulate_hybrid(secret, enc), context)
    return AESGCM(key).decrypt(nonce, sealed, None)


def wrap(suite, secret, data_key, part, random):
    """A stanza, from 32 fixed bytes in place of random ones; none of the hybrid suite."""
    if suite == "argon2id":
        costs = (64).to_bytes(4, "big") + b"\1\2"
        context = bound(suite, random, part)
        sealed = AESGCM(argon2id(secret, random, costs)).encrypt(bytes(12), data_key, context)
        return stanza(suite, random, costs + sealed)
    public = public_bytes(suite, secret)
    name = fingerprint(suite, public)
    context = bound(suite, name, part)
    if suite == "rsa-3072":
        numbers = rsa_numbers(secret).public_numbers
        return stanza(suite, name, oaep_encrypt(numbers, data_key, context, random))
    enc = x25519_public(random)
    key, nonce = schedule(0x20, 2, dhkem_x25519(x25519(random, public), enc, public), context)
    return stanza(suite, name, enc + AESGCM(key).encrypt(nonce, data_key, None))


def stanza(suite, name, wrapped):
    return bytes([CODES[suite]]) + name + len(wrapped).to_bytes(2, "big") + wrapped


def body_part(chunk_bits, length, purpose):
    name = purpose.encode()
    return bytes([chunk_bits]) + length.to_bytes(8, "big") + bytes([len(name)]) + name


def derived(data_key, label, part, length):
    return expand(extract(b"", data_key), labelled(label, part), length)


def assemble(data_key, part, stanzas):
    text = part + bytes([len(stanzas)]) + b"".join(stanzas)
    text = MAGIC + b"\0\1" + (len(text) + 32).to_bytes(4, "big") + text
    key = derived(data_key, "lepton/envelope/header-key/v1", part, 32)
    return text + hmac.new(key, text, hashlib.sha256).digest()


def chunks(data_key, part, text):
    """Each chunk's cipher, nonce and text; of plaintext."""
    keys = derived(data_key, "lepton/envelope/body-key/v1", part, 39)
    size = 1 << part[0]
    parts = [text[start : start + size] for start in range(0, len(text), size)] or [b""]
    for number, piece in enumerate(parts):
        last = bytes([number == len(parts) - 1])
        yield AESGCM(keys[:32]), keys[32:] + number.to_bytes(4, "big") + last, piece


def encrypt_body(data_key, part, plaintext):
    return b"".join(c.encrypt(n, piece, None) for c, n, piece in chunks(data_key, part, plaintext))


def take_apart(envelope):
    """Part about the body, stanzas, tag, header and body of an envelope."""
    assert envelope[:10] == MAGIC + b"\0\1"
    end = 14 + int.from_bytes(envelope[10:14], "big")
    at = 24 + envelope[23]
    part, stanzas = envelope[14:at], []
    count, at = envelope[at], at + 1
    for _ in range(count):
        length = int.from_bytes(envelope[at + 33 : at + 35], "big")
        wrapped = envelope[at + 35 : at + 35 + length]
        stanzas.append((envelope[at], envelope[at + 1 : at + 33], wrapped))
        at += 35 + length
    assert at + 32 == end
    return part, stanzas, envelope[at:end], envelope[:end], envelope[end:]


def open_envelope(envelope, suite, secret):
    """Data key and plaintext."""
    part, stanzas, tag, header, body = take_apart(envelope)
    mine = [one for one in stanzas if one[0] == CODES[suite]]
    if suite != "argon2id":
        mine = [one for one in mine if one[1] == fingerprint(suite, public_bytes(suite, secret))]
    ((_, name, wrapped),) = mine
    data_key = unwrap(suite, secret, name, wrapped, part)
    key = derived(data_key, "lepton/envelope/header-key/v1", part, 32)
    assert tag == hmac.new(key, header[:-32], hashlib.sha256).digest()
    keys = derived(data_key, "lepton/envelope/body-key/v1", part, 39)
    length, size = int.from_bytes(part[1:9], "big"), (1 << part[0]) + 16
    sealed = [body[start : start + size] for start in range(0, len(body), size)]
    plaintext = b""
    for number, piece in enumerate(sealed):
        nonce = keys[32:] + number.to_bytes(4, "big") + bytes([number == len(sealed) - 1])
        plaintext += AESGCM(keys[:32]).decrypt(nonce, piece, None)
    assert len(plaintext) == length
    return data_key, plaintext


# --- comparison ------------------------------------------------------------------------------

from lepton_flwr.crypto import body as bodies  # noqa: E402
from lepton_flwr.crypto import errors  # noqa: E402
from lepton_flwr.crypto.encrypted_file import decrypt_file, encrypt_file  # noqa: E402
from lepton_flwr.crypto.envelope import rewrap, seal, unseal  # noqa: E402
from lepton_flwr.crypto.header import Header  # noqa: E402
from lepton_flwr.crypto.passphrase import Passphrase  # noqa: E402
from lepton_flwr.crypto.recipients import SUITES, DecryptionKey, Recipient  # noqa: E402

PASSPHRASE = "correct horse"  # noqa: S105


@functools.cache
def vectors(name):
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


@functools.cache
def key(suite):
    return DecryptionKey(suite, bytes.fromhex(vectors("envelope.json")["keys"][suite]))


def opener(suite):
    return Passphrase(PASSPHRASE) if suite == "argon2id" else key(suite)


def secret(suite):
    return PASSPHRASE.encode() if suite == "argon2id" else key(suite).private


def sealer(suite):
    return Passphrase(PASSPHRASE) if suite == "argon2id" else key(suite).recipient


def bytes_of(fields, *names):
    return tuple(bytes.fromhex(fields[name]) for name in names)


def test_the_reference_and_the_library_decrypt_rfc_9180s_vector():
    vector = vectors("hpke.json")["x25519"]
    private, enc, info, aad, text, plain = bytes_of(
        vector, "skRm", "enc", "info", "aad", "ct", "pt"
    )
    shared = decapsulate_x25519(private, enc)
    cipher_key, nonce = schedule(0x20, 2, shared, info)
    assert (shared, cipher_key, nonce) == bytes_of(vector, "shared_secret", "key", "base_nonce")
    assert AESGCM(cipher_key).decrypt(nonce, text, aad) == plain
    # Without associated data in its public function, so by the one that the package tests itself.
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    loaded = X25519PrivateKey.from_private_bytes(private)
    decrypt = rust_openssl.hpke._decrypt_with_aad
    assert decrypt(suite, enc + text, loaded, info, aad) == plain


LENGTHS = (0, 1, 1023, 1024, 1025, 5000)


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch):
    for name, value in (("MEMORY_KIB", 64), ("PASSES", 1), ("LANES", 2)):
        monkeypatch.setattr(f"lepton_flwr.crypto.passphrase.{name}", value)


@pytest.mark.parametrize(
    ("suite", "length"),
    [*(("x25519", length) for length in LENGTHS), *((suite, 1025) for suite in list(CODES)[1:])],
)
def test_the_reference_opens_what_the_library_seals(suite, length, monkeypatch):
    monkeypatch.setattr(bodies, "CHUNK_BITS", 10)
    plaintext = bytes(range(250)) * 20
    envelope = seal(plaintext[:length], [sealer(suite)], purpose="test")
    assert open_envelope(envelope, suite, secret(suite))[1] == plaintext[:length]


@pytest.mark.parametrize(
    ("suite", "length"),
    [*(("x25519", length) for length in LENGTHS), ("rsa-3072", 1025), ("argon2id", 1025)],
)
def test_the_library_opens_what_the_reference_seals(suite, length):
    plaintext, data_key = (bytes(range(250)) * 20)[:length], bytes(range(32))
    part = body_part(10, length, "test")
    stanzas = [wrap(suite, secret(suite), data_key, part, bytes(range(50, 82)))]
    envelope = assemble(data_key, part, stanzas) + encrypt_body(data_key, part, plaintext)
    assert unseal(envelope, opener(suite), purpose="test") == plaintext


@pytest.mark.parametrize(
    "stanzas",
    [
        [("x25519", 1), ("x25519", 2)],
        [("argon2id", 1), ("x25519", 1), ("argon2id", 2)],
        [],
    ],
)
def test_a_header_that_names_one_twice_or_nobody_is_refused(stanzas):
    data_key, part = bytes(range(32)), body_part(10, 0, "test")
    made = [wrap(s, secret(s), data_key, part, bytes([r]) * 32) for s, r in stanzas]
    envelope = assemble(data_key, part, made) + encrypt_body(data_key, part, b"")
    expected = "twice" if stanzas else "not encrypted for key"
    with pytest.raises(errors.EnvelopeError, match=expected):
        unseal(envelope, opener("x25519"), purpose="test")


def test_the_reference_opens_the_librarys_files_and_the_other_way_round(tmp_path):
    plaintext = bytes(1 << 19) + b"the second chunk"
    (tmp_path / "plain").write_bytes(plaintext)
    encrypt_file(
        tmp_path / "plain", tmp_path / "sealed", [key(suite).recipient for suite in SUITES]
    )
    envelope = (tmp_path / "sealed").read_bytes()
    for suite in SUITES:
        data_key, found = open_envelope(envelope, suite, secret(suite))
        assert found == plaintext
    part = body_part(16, len(plaintext), "lepton/file/v1")
    stanzas = [wrap("x25519", secret("x25519"), data_key, part, bytes(range(32)))]
    sealed = assemble(data_key, part, stanzas) + encrypt_body(data_key, part, plaintext)
    (tmp_path / "other").write_bytes(sealed)
    decrypt_file(tmp_path / "other", tmp_path / "found", key("x25519"))
    assert (tmp_path / "found").read_bytes() == plaintext


def test_the_reference_opens_what_the_library_has_rewrapped():
    envelope = seal(b"something", [key("x25519").recipient], purpose="test")
    for suite in CODES:
        new = rewrap(envelope, key("x25519"), [sealer(suite)])
        assert open_envelope(new, suite, secret(suite)) == open_envelope(
            envelope, "x25519", secret("x25519")
        )


def sealed_vectors():
    return vectors("envelope.json")["sealed"]


@pytest.mark.parametrize(
    "name", ["empty", "one-chunk", "three-chunks", "whole-chunks", "all-suites"]
)
def test_the_reference_gives_the_vectors(name):
    vector = sealed_vectors()[name]
    envelope, plaintext, data_key = bytes_of(vector, "envelope", "plaintext", "data_key")
    part = body_part(vector["chunk_bits"], len(plaintext), vector["purpose"])
    _, stanzas, _, header, body = take_apart(envelope)
    again = []
    for number, (suite, found) in enumerate(zip(vector["suites"], stanzas, strict=True)):
        if suite == "x25519-mlkem768":  # its encapsulation cannot be given its randomness
            again.append(stanza(suite, *found[1:]))
        else:
            random = hashlib.sha256(bytes([number])).digest()
            again.append(wrap(suite, secret(suite), data_key, part, random))
    assert assemble(data_key, part, again) == header
    assert encrypt_body(data_key, part, plaintext) == body
    for suite in vector["suites"]:
        assert open_envelope(envelope, suite, secret(suite)) == (data_key, plaintext)


@pytest.mark.parametrize(
    "name", ["empty", "one-chunk", "three-chunks", "whole-chunks", "all-suites"]
)
def test_the_library_opens_the_vectors(name):
    vector = sealed_vectors()[name]
    envelope, plaintext, data_key = bytes_of(vector, "envelope", "plaintext", "data_key")
    for suite in vector["suites"]:
        assert unseal(envelope, opener(suite), purpose=vector["purpose"]) == plaintext
        header = Header.read(io.BytesIO(envelope))
        assert header.open(opener(suite), vector["purpose"]) == data_key


@pytest.mark.parametrize("number", range(30))
def test_the_library_refuses_the_vectors_of_failures_by_their_names(number):
    failures = vectors("envelope.json")["failures"]
    assert len(failures) == 30
    failure = failures[number]
    vector = sealed_vectors()[failure["of"]]
    envelope = bytearray.fromhex(vector["envelope"])
    for at, until, text in failure["changes"]:
        envelope[at : len(envelope) if until is None else until] = bytes.fromhex(text)
    with pytest.raises(getattr(errors, failure["error"])) as caught:
        unseal(bytes(envelope), opener(failure["suite"]), purpose=failure["purpose"])
    assert type(caught.value).__name__ == failure["error"]


def test_recipients_are_named_as_in_the_vectors():
    names = vectors("envelope.json")["recipients"]
    for suite in SUITES:
        recipient = Recipient.from_text(names[suite])
        assert recipient == key(suite).recipient
        assert recipient.to_text() == names[suite]
        assert recipient.fingerprint == fingerprint(suite, public_bytes(suite, secret(suite))).hex()
