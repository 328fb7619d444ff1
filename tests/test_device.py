import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from lepton_flwr.crypto.address import Address
from lepton_flwr.crypto.errors import PassphraseError
from lepton_flwr.crypto.files import KeyFileError, write_private
from lepton_flwr.crypto.identity import CertificateError
from lepton_flwr.crypto.keyring import Keyring
from lepton_flwr.crypto.private_keys import ENVIRONMENT_VARIABLE, protect
from lepton_flwr.crypto.revocation import LIST_FILE, RevocationError, RevokedError
from lepton_flwr.data.federated import ClientData
from lepton_flwr.device import (
    Device,
    Policy,
    node_folder,
    simulated_root,
)
from lepton_flwr.errors import ConfigError, DataError, OutputError, PolicyError
from lepton_flwr.provision import provision


class Rows:
    records = b""

    def save(self, path):
        path.write_bytes(b"rows")


@pytest.fixture
def folders(tmp_path):
    return provision(tmp_path / "devices", [Rows()] * 3, min_survivors=2)


def test_provisioned_devices_accept_each_other_and_nobody_else(tmp_path, folders):
    assert [folder.name for folder in folders] == ["node-0000", "node-0001", "node-0002"]
    devices = [Device.open(folder) for folder in folders]
    assert len({device.identity.public_key for device in devices}) == 3
    for sender in devices:
        for receiver in devices:
            name = receiver.roster.verify(
                sender.identity.certificate, b"m", sender.identity.sign(b"m")
            )
            assert name == sender.identity.public_key
    (stranger,) = provision(tmp_path / "others", [Rows()], min_survivors=2)
    identity = Device.open(stranger).identity
    with pytest.raises(CertificateError):
        devices[0].roster.verify(identity.certificate, b"m", identity.sign(b"m"))


@pytest.fixture
def federation(tmp_path):
    """Two devices of an authority that can still revoke, with the least that a device needs."""
    ring = Keyring.create(tmp_path / "fed", 2, Address("localhost", 8000))
    for number in (1, 2):
        folder = tmp_path / "fed" / "devices" / f"device-{number:03d}"
        (folder / "policy.toml").write_text("min_survivors = 2\n")
        (folder / "policy.toml").chmod(0o600)
    return ring, folder


def test_a_device_refuses_those_that_its_own_list_revokes_and_notices_its_own_end(federation):
    ring, folder = federation
    other = Device.open(folder.with_name("device-001")).identity
    Device.open(folder).roster.check(other.certificate)
    ring.revoke(["device-001"])
    with pytest.raises(RevokedError):
        Device.open(folder).roster.check(other.certificate)
    (folder.with_name("device-001") / LIST_FILE).write_bytes((folder / LIST_FILE).read_bytes())
    with pytest.raises(RevokedError):
        Device.open(folder.with_name("device-001"))


def test_an_older_list_is_not_taken_back(federation):
    ring, folder = federation
    old = (folder / LIST_FILE).read_bytes()
    Device.open(folder)
    ring.revoke(["device-001"])
    Device.open(folder)
    new = (folder / LIST_FILE).read_bytes()
    (folder / LIST_FILE).write_bytes(old)
    with pytest.raises(RevocationError, match="older"):
        Device.open(folder)
    (folder / LIST_FILE).write_bytes(new)
    assert Device.open(folder)


def test_a_list_is_missing_tampered_with_or_anothers(federation, tmp_path):
    _, folder = federation
    path = folder / LIST_FILE
    own = path.read_bytes()
    other = Keyring.create(tmp_path / "other", 1, Address("localhost", 8000))
    for content in (
        (other.folder / "server" / LIST_FILE).read_bytes(),
        own.replace(own[60:64], own[61:65]),
        b"",
    ):
        path.write_bytes(content)
        with pytest.raises(RevocationError):
            Device.open(folder)
    path.unlink()
    with pytest.raises(PolicyError, match=r"revoked\.crl"):
        Device.open(folder)
    path.write_bytes(own)
    path.chmod(0o622)
    with pytest.raises(PolicyError, match="chmod"):
        Device.open(folder)


def test_a_policy_says_whether_a_missing_or_an_expired_list_will_do(tmp_path):
    long_ago = datetime.now(UTC) - timedelta(days=100)
    ring = Keyring.create(tmp_path / "fed", 1, Address("localhost", 8000), now=lambda: long_ago)
    folder = ring.folder / "devices" / "device-001"
    policy = folder / "policy.toml"
    write_private(policy, b"min_survivors = 2\n")
    with pytest.raises(CertificateError, match="revocation list has expired"):
        Device.open(folder)
    policy.write_text("min_survivors = 2\n[revocation]\nallow_expired = true\n")
    assert Device.open(folder)
    (folder / LIST_FILE).unlink()
    with pytest.raises(PolicyError):
        Device.open(folder)
    policy.write_text("min_survivors = 2\n[revocation]\nrequired = false\n")
    assert Device.open(folder)
    for wrong in ("required = 1", "other = true", 'required = "no"'):
        policy.write_text(f"min_survivors = 2\n[revocation]\n{wrong}\n")
        with pytest.raises(PolicyError, match="revocation"):
            Device.open(folder)


def test_a_device_whose_key_is_protected_needs_the_passphrase_in_its_environment(
    federation, monkeypatch
):
    _, folder = federation
    secret = "a lock of words"  # noqa: S105
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    protect(folder / "identity.pem", None, secret)
    with pytest.raises(PassphraseError, match=ENVIRONMENT_VARIABLE):
        Device.open(folder)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "not the lock")
    with pytest.raises(PassphraseError, match="wrong"):
        Device.open(folder)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, secret)
    assert Device.open(folder).identity.sign(b"m")


def test_a_devices_data_is_what_it_was_provisioned_with(tmp_path):
    x, y = np.arange(6, dtype=np.float32).reshape(3, 2), np.array([0, 1, 0], np.int32)
    rows = ClientData(x[:2], y[:2], x[2:], y[2:])
    (folder,) = provision(tmp_path / "devices", [rows], min_survivors=2)
    found = Device.open(folder).data()
    for name in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(found, name), getattr(rows, name))


def test_a_device_without_data_says_so(folders):
    with pytest.raises(DataError, match=r"data\.npz"):
        Device.open(folders[0]).data()


def test_provisioned_folders_are_private_and_hold_the_policy(folders):
    for path in (folders[0].parent, *folders):
        assert path.stat().st_mode & 0o777 == 0o700
    assert Device.open(folders[0]).policy == Policy(min_survivors=2)
    assert not list(folders[0].parent.glob("*authority*"))


def test_an_existing_folder_that_is_not_empty_is_refused(tmp_path, folders):
    with pytest.raises(PolicyError, match="not empty"):
        provision(tmp_path / "devices", [Rows()], min_survivors=2)
    assert Device.open(folders[0])


def test_a_folder_that_others_could_swap_is_refused(tmp_path):
    parent = tmp_path / "open"
    parent.mkdir()
    parent.chmod(0o777)
    with pytest.raises(PolicyError, match="chmod"):
        provision(parent / "devices", [Rows()], min_survivors=2)
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(PolicyError, match="0700"):
        provision(tmp_path / "link", [Rows()], min_survivors=2)
    assert not list((tmp_path / "real").iterdir())


def test_a_floor_below_two_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match="min_survivors=1"):
        provision(tmp_path / "devices", [Rows()], min_survivors=1)
    assert not (tmp_path / "devices").exists()


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("min_survivors = 3", Policy(3, 0.0, ("train", "evaluate", "query.statistics"))),
        (
            "min_survivors = 5\nmin_record_noise_multiplier = 1\nactions = ['train']",
            Policy(5, 1.0, ["train"]),
        ),
    ],
)
def test_a_policy_is_what_its_file_says(tmp_path, text, policy):
    (tmp_path / "policy.toml").write_text(text)
    assert Policy.read(tmp_path / "policy.toml") == policy


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected min_survivors"),
        ("actions = []", "expected min_survivors"),
        ("min_survivors = 3\nmin_survivor = 3", "min_survivor, min_survivors: expected"),
        ("min_survivors = 1", "min_survivors=1: expected a whole number >= 2"),
        ("min_survivors = true", "min_survivors=True"),
        ("min_survivors = 2.0", "min_survivors=2.0"),
        ("min_survivors = '3'", "min_survivors='3'"),
        ("min_survivors = 3\nmin_record_noise_multiplier = -1", "expected a finite number >= 0"),
        ("min_survivors = 3\nmin_record_noise_multiplier = nan", "min_record_noise_multiplier=nan"),
        ("min_survivors = 3\nmin_record_noise_multiplier = inf", "min_record_noise_multiplier=inf"),
        ("min_survivors = 3\nactions = ['query']", "expected a list out of"),
        ("min_survivors = 3\nactions = 'train'", "expected a list out of"),
        ("min_survivors = 3\nsecure_aggregation = false", "in no other way"),
        ("min_survivors = 3\napps = ['1234']", "64 hexadecimal digits"),
        ("min_survivors = 3\napp_signers = [7]", "expected a list of texts"),
        ("min_survivors = 3\n[privacy]\nmax_epsilon = 1", "privacy.max_epsilon: expected one of"),
        ("min_survivors = 3\n[privacy]\nmax_record_epsilon = 0", "expected a finite number > 0"),
        ("min_survivors = 3\n[privacy]\ndelta = nan", "delta=nan"),
        ("min_survivors = 3\n[privacy]\nperiod_days = 3", "expected with a maximum per period"),
        ("min_survivors = 3\n[privacy]\nledger = 'here.db'", "expected an absolute path"),
        ("min_survivors = ", "not TOML"),
        ("[policy]\nmin_survivors = 3", "policy: expected min_survivors"),
    ],
)
def test_a_policy_that_is_not_understood_whole_is_refused(folders, text, reason):
    (folders[0] / "policy.toml").write_text(text)
    with pytest.raises(PolicyError, match=reason) as caught:
        Device.open(folders[0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["policy.toml", "roster.pem", "identity.pem", "identity.crt"])
def test_a_device_without_one_of_its_files_does_not_open(folders, name):
    (folders[0] / name).unlink()
    with pytest.raises((PolicyError, KeyFileError, CertificateError), match=name):
        Device.open(folders[0])


@pytest.mark.parametrize("name", [".", "policy.toml", "roster.pem"])
def test_a_device_whose_trust_others_could_change_does_not_open(folders, name):
    (folders[0] / name).chmod(0o722)
    with pytest.raises(PolicyError, match="chmod go-w"):
        Device.open(folders[0])


def test_a_device_whose_key_others_could_read_does_not_open(folders):
    (folders[0] / "identity.pem").chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        Device.open(folders[0])


def test_a_named_folder_is_opened(folders):
    device = Device.from_node_config({"lepton-device": str(folders[1]), "partition-id": 0}, 7)
    assert device.folder == folders[1]


def test_a_relative_folder_is_refused(folders, monkeypatch):
    monkeypatch.chdir(folders[0].parent)
    with pytest.raises(PolicyError, match="absolute"):
        Device.from_node_config({"lepton-device": "node-0000"}, 7)


@pytest.fixture
def simulated(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    provision(simulated_root(7), [Rows()] * 2, min_survivors=2)
    return simulated_root(7)


def test_a_simulated_device_is_found_by_its_run_and_partition(simulated):
    device = Device.from_node_config({"partition-id": 1, "num-partitions": 2}, 7)
    assert device.folder == node_folder(simulated, 1)


@pytest.mark.parametrize(
    ("node_config", "run_id"),
    [({}, 7), ({"partition-id": 1}, 8), ({"partition-id": 2}, 7), ({"partition-id": "1"}, 7)],
)
def test_a_node_without_a_folder_is_refused(simulated, node_config, run_id):
    with pytest.raises(PolicyError):
        Device.from_node_config(node_config, run_id)


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_simulated_folder_that_others_can_open_is_refused(simulated, depth, mode):
    path = [simulated.parent, simulated, node_folder(simulated, 1)][depth]
    path.chmod(mode)
    with pytest.raises(PolicyError, match="0700"):
        Device.from_node_config({"partition-id": 1}, 7)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_simulated_folder_behind_a_link_is_refused(simulated, tmp_path, depth):
    path = [simulated.parent, simulated, node_folder(simulated, 1)][depth]
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    with pytest.raises(PolicyError, match="0700"):
        Device.from_node_config({"partition-id": 1}, 7)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give folders away")
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_simulated_folder_of_another_user_is_refused(simulated, depth):
    path = [simulated.parent, simulated, node_folder(simulated, 1)][depth]
    os.chown(path, 12345, -1)
    with pytest.raises(PolicyError, match="owner 12345"):
        Device.from_node_config({"partition-id": 1}, 7)


def test_an_unwritable_place_is_one_readable_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the device folders"):
        provision(tmp_path / "file" / "devices", [Rows()], min_survivors=2)


def test_opening_a_device_loads_no_framework(folders):
    code = (
        "import sys, pathlib\n"
        "from lepton_flwr.device import Device\n"
        "Device.open(pathlib.Path(sys.argv[1]))\n"
        "loaded = {'tensorflow', 'keras', 'pandas', 'sklearn', 'flwr', 'ray'} & set(sys.modules)\n"
        "sys.exit(f'loaded {loaded}' if loaded else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folders[0])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_records_that_statistics_went_over_are_named_by_their_own_digest(tmp_path):
    """Not by the features, which the noise of the statistics makes new every time."""
    x, y = np.zeros((3, 2), np.float32), np.zeros(3, np.int32)
    digest = bytes(range(32))
    rows = [ClientData(x + i, y, x[:0], y[:0], records=digest) for i in range(2)]
    one, two = provision(tmp_path / "devices", rows, min_survivors=2, ledgers=tmp_path / "kept")
    for folder in (one, two):
        assert Device.open(folder).data_digest() == digest
    # Two devices with the same records are still two.
    ledgers = [Path(Device.open(folder).policy.spending.ledger) for folder in (one, two)]
    assert [ledger.parent for ledger in ledgers] == [tmp_path / "kept"] * 2
    assert ledgers[1].name == f"{ledgers[0].stem}-2.db"


@pytest.mark.parametrize("content", ["", "00", "zz" * 32])
def test_a_damaged_digest_of_the_records_is_refused(tmp_path, content):
    x, y = np.zeros((3, 2), np.float32), np.zeros(3, np.int32)
    rows = ClientData(x, y, x[:0], y[:0], records=bytes(32))
    (folder,) = provision(tmp_path / "devices", [rows], min_survivors=2)
    (folder / "records.sha256").write_text(content)
    with pytest.raises(DataError, match=r"records\.sha256: expected 64 hexadecimal digits"):
        Device.open(folder).data_digest()
