import subprocess
from shutil import which

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lepton_flwr.crypto import private_keys
from lepton_flwr.crypto.files import KeyFileError, write_private
from lepton_flwr.crypto.identity import load_signing_key
from lepton_flwr.crypto.private_keys import (
    ENVIRONMENT_VARIABLE,
    PassphraseError,
    is_protected,
    load_private_pem,
    private_pem,
    protect,
)
from lepton_flwr.errors import OutputError

KEY = Ed25519PrivateKey.generate()
SECRET = "a lock of words, with ümlauts"  # noqa: S105


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No passphrase in the environment, and cheap ones where their cost is not the question."""
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(private_keys, "SCRYPT_N", 2)


@pytest.fixture
def protected(tmp_path):
    path = tmp_path / "key.pem"
    write_private(path, private_pem(KEY, SECRET))
    return path


def test_a_protected_key_is_standard_and_opens_with_its_passphrase_only(protected, monkeypatch):
    # The reader is not the writer: the encoding is ours, the decoder that of `cryptography`.
    found = serialization.load_pem_private_key(protected.read_bytes(), SECRET.encode())
    assert found.private_bytes_raw() == KEY.private_bytes_raw()
    assert load_signing_key(protected, SECRET).private_bytes_raw() == KEY.private_bytes_raw()
    with pytest.raises(PassphraseError, match="wrong passphrase"):
        load_private_pem(protected, SECRET + "x")
    with pytest.raises(PassphraseError, match=ENVIRONMENT_VARIABLE):
        load_private_pem(protected)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, SECRET)
    assert load_signing_key(protected).private_bytes_raw() == KEY.private_bytes_raw()


@pytest.mark.skipif(which("openssl") is None, reason="needs the openssl command")
def test_openssl_opens_a_protected_key_of_full_cost(tmp_path, monkeypatch):
    monkeypatch.undo()
    protected = tmp_path / "key.pem"
    write_private(protected, private_pem(KEY, SECRET))
    command = ["openssl", "pkey", "-in", str(protected), "-passin", f"pass:{SECRET}"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == private_pem(KEY)
    found = subprocess.run(
        ["openssl", "asn1parse", "-in", protected], capture_output=True, check=True
    )
    assert b":4000" in found.stdout  # N = 2^14, r = 8, p = 5


def test_a_protected_key_does_not_contain_the_key(protected):
    raw = serialization.load_pem_private_key(protected.read_bytes(), SECRET.encode())
    import base64

    body = b"".join(protected.read_bytes().splitlines()[1:-1])
    assert raw.private_bytes_raw() not in base64.b64decode(body)
    assert private_pem(KEY, SECRET) != private_pem(KEY, SECRET)  # fresh salts


@pytest.mark.parametrize("key", [KEY, ec.generate_private_key(ec.SECP256R1())])
def test_any_kind_of_key_can_be_protected(tmp_path, key):
    write_private(tmp_path / "key", private_pem(key, SECRET))
    assert private_pem(load_private_pem(tmp_path / "key", SECRET)) == private_pem(key)


def test_a_short_passphrase_is_refused():
    with pytest.raises(PassphraseError, match="at least 8"):
        private_pem(KEY, "1234567")


def test_a_key_without_protection_needs_no_passphrase(tmp_path):
    write_private(tmp_path / "key", private_pem(KEY))
    assert not is_protected(tmp_path / "key")
    assert load_private_pem(tmp_path / "key", "whatever it is")


def test_a_damaged_protected_key_is_refused(protected):
    lines = protected.read_bytes().splitlines()
    lines[2] = lines[2][::-1]
    protected.write_bytes(b"\n".join(lines))
    with pytest.raises(KeyFileError):
        load_private_pem(protected, SECRET)


def test_a_passphrase_is_changed_and_taken_off_in_one_step(protected):
    with pytest.raises(PassphraseError):
        protect(protected, "not the one", "a new passphrase")
    with pytest.raises(PassphraseError, match="at least 8"):
        protect(protected, SECRET, "short")
    assert load_private_pem(protected, SECRET)
    protect(protected, SECRET, "a new passphrase")
    assert protected.stat().st_mode & 0o777 == 0o600
    with pytest.raises(PassphraseError):
        load_private_pem(protected, SECRET)
    protect(protected, "a new passphrase", None)
    assert not is_protected(protected)
    assert load_signing_key(protected).private_bytes_raw() == KEY.private_bytes_raw()


def test_a_failed_change_of_passphrase_leaves_the_former_key(protected, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(OutputError, match="No space"):
        protect(protected, SECRET, "a new passphrase")
    assert load_private_pem(protected, SECRET)
    assert [path.name for path in protected.parent.iterdir()] == ["key.pem"]


def test_another_kind_of_key_does_not_sign(tmp_path):
    write_private(tmp_path / "key", private_pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(KeyFileError, match="Ed25519"):
        load_signing_key(tmp_path / "key")
