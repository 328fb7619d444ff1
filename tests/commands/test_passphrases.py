"""Keys of files, with a passphrase or without."""

import io
import sys

import pytest

from lepton_flwr.commands.passphrases import decryption_key
from lepton_flwr.crypto.errors import PassphraseError, WrongPassphraseError
from lepton_flwr.crypto.recipients import DecryptionKey

PASSPHRASE = "correct horse"  # noqa: S105


@pytest.fixture(autouse=True)
def scene(monkeypatch):
    for name, value in (("MEMORY_KIB", 64), ("PASSES", 1), ("LANES", 1)):
        monkeypatch.setattr(f"lepton_flwr.crypto.passphrase.{name}", value)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.delenv("LEPTON_PASSPHRASE", raising=False)


def test_a_key_without_a_passphrase_is_read_and_nothing_is_asked(tmp_path):
    key = DecryptionKey.generate()
    key.save(tmp_path / "key")
    assert decryption_key(tmp_path / "key").private == key.private


def test_a_key_with_a_passphrase_needs_it(tmp_path, monkeypatch):
    key = DecryptionKey.generate()
    key.save(tmp_path / "key", PASSPHRASE)
    with pytest.raises(PassphraseError):
        decryption_key(tmp_path / "key")
    monkeypatch.setenv("LEPTON_PASSPHRASE", "another horse")
    with pytest.raises(WrongPassphraseError):
        decryption_key(tmp_path / "key")
    monkeypatch.setenv("LEPTON_PASSPHRASE", PASSPHRASE)
    assert decryption_key(tmp_path / "key").private == key.private
