"""The key store: for its owner alone."""

import stat

import pytest

from lepton_flwr.crypto.files import KeyFileError
from lepton_flwr.errors import OutputError
from lepton_flwr.sdk.keystore import KeyStore


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_folder_and_keys_are_their_owners(tmp_path):
    store = KeyStore(tmp_path / "a" / "keys", "x25519")
    store.models()
    store.participant(0)
    assert mode(store.folder) == 0o700
    assert {path.name: mode(path) for path in store.folder.iterdir()} == {
        "models.key": 0o600,
        "participant-0.key": 0o600,
    }


def test_a_key_stays_the_same_and_is_no_others(tmp_path):
    store = KeyStore(tmp_path / "keys", "x25519")
    assert store.models() == KeyStore(tmp_path / "keys", "rsa-3072").models()
    assert len({store.models(), store.participant(0), store.participant(1)}) == 3


def test_a_folder_that_others_can_open_is_refused(tmp_path):
    (tmp_path / "keys").mkdir(mode=0o755)
    with pytest.raises(KeyFileError, match="chmod 700"):
        KeyStore(tmp_path / "keys", "x25519")


def test_a_key_that_others_can_read_is_refused(tmp_path):
    store = KeyStore(tmp_path / "keys", "x25519")
    store.models()
    (store.folder / "models.key").chmod(0o644)
    with pytest.raises(KeyFileError, match="0644"):
        store.models()


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "keys").write_text("")
    with pytest.raises(OutputError, match="expected a folder for keys"):
        KeyStore(tmp_path / "keys", "x25519")
