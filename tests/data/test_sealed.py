"""Rows as ciphertext, and devices that hold them."""

import base64
import hashlib
import stat
from dataclasses import replace

import numpy as np
import pytest

from lepton_flwr.crypto.envelope import rewrap
from lepton_flwr.crypto.errors import PurposeError, TamperedChunkError, WrongKeyError
from lepton_flwr.crypto.files import KeyFileError
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.data.federated import ClientData
from lepton_flwr.data.sealed import SealedClient, open_rows
from lepton_flwr.device import DATA_KEY_FILE, SEALED_FILE, Device
from lepton_flwr.errors import DataError
from lepton_flwr.privacy.policy import PrivacyPolicy
from lepton_flwr.provision import provision

KEY = DecryptionKey.generate()


@pytest.fixture
def rows():
    x = np.arange(12, dtype=np.float32).reshape(6, 2) + np.float32(0.123)
    y = np.array([0, 1, 0, 1, 0, 1], np.int32)
    return ClientData(x[:4], y[:4], x[4:], y[4:], records=bytes(range(32)))


def equal(left, right):
    names = ("x_train", "y_train", "x_test", "y_test")
    return all((getattr(left, name) == getattr(right, name)).all() for name in names)


def test_bytes_bring_back_the_rows_and_are_the_files(rows, tmp_path):
    rows.save(tmp_path / "data.npz")
    assert rows.to_bytes() == (tmp_path / "data.npz").read_bytes()
    assert equal(ClientData.from_bytes(rows.to_bytes()), rows)
    with pytest.raises(DataError, match="damaged"):
        ClientData.from_bytes(rows.to_bytes()[:-30])


def test_sealed_rows_open_with_their_key_alone(rows):
    sealed = SealedClient.seal(rows, KEY)
    assert equal(sealed.open(), rows)
    assert sealed.records == rows.records
    assert rows.x_train.tobytes() not in sealed.content
    assert "content" not in repr(sealed)
    with pytest.raises(WrongKeyError):
        open_rows(sealed.content, DecryptionKey.generate())
    with pytest.raises(TamperedChunkError):
        open_rows(sealed.content[:-1] + bytes([sealed.content[-1] ^ 1]), KEY)


def test_other_envelopes_are_no_rows(rows):
    from lepton_flwr.crypto.envelope import seal

    with pytest.raises(PurposeError):
        open_rows(seal(rows.to_bytes(), [KEY.recipient], purpose="lepton/model/v1"), KEY)
    with pytest.raises(DataError, match="damaged"):
        open_rows(seal(b"rows", [KEY.recipient], purpose="lepton/rows/v1"), KEY)


@pytest.fixture
def folder(rows, tmp_path):
    sealed = [SealedClient.seal(rows, KEY)] * 3
    ledgers = tmp_path / "ledgers"
    return provision(
        tmp_path / "devices", sealed, min_survivors=3, spending=PrivacyPolicy(), ledgers=ledgers
    )[0]


def test_a_device_reads_encrypted_rows_and_has_no_others_on_disk(folder, rows):
    device = Device.open(folder)
    assert equal(device.data(), rows)
    assert not (folder / "data.npz").exists()
    plain = rows.x_train.tobytes()
    assert not any(plain in path.read_bytes() for path in folder.iterdir())
    for name in (SEALED_FILE, DATA_KEY_FILE):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_encrypted_rows_keep_their_name_in_the_ledger_when_sealed_anew(folder, rows, tmp_path):
    again = provision(
        tmp_path / "again",
        [SealedClient.seal(rows, KEY)] * 3,
        min_survivors=3,
        spending=PrivacyPolicy(),
        ledgers=tmp_path / "ledgers",
    )[0]
    assert (again / SEALED_FILE).read_bytes() != (folder / SEALED_FILE).read_bytes()
    assert Device.open(folder).data_digest() == Device.open(again).data_digest() == rows.records
    policies = [Device.open(path).policy.spending.ledger for path in (folder, again)]
    assert policies[0] == policies[1]


def test_the_same_rows_pay_from_the_same_account_however_they_are_encrypted(rows, tmp_path):
    """Plain, encrypted, encrypted anew, rewrapped for a new key: no way to a fresh account."""
    rows = replace(rows, records=b"")
    one, other = SealedClient.seal(rows, KEY), SealedClient.seal(rows, KEY)
    new = DecryptionKey.generate("x25519-mlkem768")
    moved = SealedClient(rewrap(other.content, KEY, [new.recipient]), new)
    ways = [rows, one, other, moved]
    digests, ledgers = set(), set()
    for number, way in enumerate(ways):
        root = tmp_path / f"devices-{number}"
        (folder,) = provision(root, [way], min_survivors=2, ledgers=tmp_path / "kept")
        device = Device.open(folder)
        digests |= {device.data_digest(), way.digest}
        ledgers.add(device.policy.spending.ledger)
    rows.save(tmp_path / "data.npz")
    assert digests == {hashlib.sha256((tmp_path / "data.npz").read_bytes()).digest()}
    assert len(ledgers) == 1


def test_no_file_of_a_device_opens_the_participants_other_files(folder, rows):
    other = SealedClient.seal(rows, KEY)
    key = DecryptionKey.load(folder / DATA_KEY_FILE)
    with pytest.raises(WrongKeyError):
        open_rows(other.content, key)
    secret = base64.b64encode(KEY.private)
    assert not any(secret in path.read_bytes() for path in folder.iterdir())
    with pytest.raises(WrongKeyError):
        open_rows((folder / SEALED_FILE).read_bytes(), KEY)


def test_altered_rows_have_no_account(rows, tmp_path):
    sealed = SealedClient.seal(replace(rows, records=b""), KEY)
    (folder,) = provision(tmp_path / "devices", [sealed], min_survivors=2)
    content = (folder / SEALED_FILE).read_bytes()
    (folder / SEALED_FILE).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(TamperedChunkError):
        Device.open(folder).data_digest()


def test_a_device_refuses_altered_rows_and_open_keys(folder):
    sealed = folder / SEALED_FILE
    content = sealed.read_bytes()
    sealed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(TamperedChunkError):
        Device.open(folder).data()
    sealed.write_bytes(content)
    (folder / DATA_KEY_FILE).chmod(0o640)
    with pytest.raises(KeyFileError):
        Device.open(folder).data()
