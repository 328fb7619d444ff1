"""What a crash at any write of a change leaves behind."""

import itertools
import os
import shutil

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_ssh_private_key,
    load_ssh_public_key,
)

from lepton_flwr.crypto.address import Address
from lepton_flwr.crypto.certificates import CertificateError
from lepton_flwr.crypto.files import KeyFileError
from lepton_flwr.crypto.identity import Identity, Roster
from lepton_flwr.crypto.keyring import Keyring
from lepton_flwr.crypto.revocation import RevokedError
from lepton_flwr.errors import ConfigError, OutputError

WRITES = ("replace", "rename", "link", "mkdir", "unlink", "rmdir")
HERE, AWAY = "device-001", "device-002"  # the folder of the latter was moved to the device


def issue(ring):
    ring.issue("late", lambda folder: (folder / "device.toml").write_text("more"))


def rotate(ring):
    ring.rotate_device(HERE)


def rotate_a_moved_one(ring):
    ring.rotate_device(AWAY)


def revoke(ring):
    ring.revoke([HERE])


CHANGES = {  # what takes part afterwards, and whose former keys do not
    issue: ([HERE, AWAY, "late"], []),
    rotate: ([HERE, AWAY], [HERE]),
    rotate_a_moved_one: ([HERE, AWAY], [AWAY]),
    revoke: ([AWAY], [HERE]),
    Keyring.rotate_authority: ([HERE, AWAY], []),
    Keyring.drop_authority: ([HERE, AWAY], []),
}


class Disk:
    """Fails at the n-th write and at all later ones, as if the process had been killed."""

    def __init__(self, patch, fails_at):
        self.writes = 0
        for name in WRITES:
            patch.setattr(os, name, self._wrap(getattr(os, name)))
        self._fails_at = fails_at

    def _wrap(self, real):
        def write(*args, **options):
            self.writes += 1
            if self.writes >= self._fails_at:
                raise OSError(28, "No space left on device")
            return real(*args, **options)

        return write


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The machine itself goes on."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keyring")
    Keyring.create(folder / "fed", 2, Address("fl.example.org", 8000))
    (folder / "fed" / "devices" / AWAY).rename(folder / "moved")
    return folder


def crashes(template, folder, change):
    """Copies of the template in which the change failed at its first write, its second, ..."""
    for number in itertools.count(1):
        copy = folder / str(number)
        shutil.copytree(template, copy)
        ring = Keyring(copy / "fed")
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, number)
            try:
                change(ring)
            except (OutputError, KeyFileError):
                failed = True
            else:
                failed = False
        if disk.writes < number:
            assert number > 5
            return
        if failed:  # what is only tidied up may stay
            yield copy
        shutil.rmtree(copy)


def certificates(folder):
    """All certificates of devices in any file but the register, half-written ones as well."""
    for path in folder.rglob("*"):
        if (
            path.suffix != ".json"
            and path.is_file()
            and b"BEGIN CERTIFICATE" in (pem := path.read_bytes())
        ):
            for one in x509.load_pem_x509_certificates(pem):
                usage = one.extensions.get_extension_for_class(x509.BasicConstraints).value
                if not usage.ca and isinstance(one.public_key(), Ed25519PublicKey):
                    yield one


def rosters(folder):
    """Of the server and of the devices that take part and whose folders are there."""
    names = Keyring(folder).register.names()
    present = [path for name in names if (path := folder / "devices" / name).is_dir()]
    for member in (folder / "server", *present):
        yield Roster.of_authority(
            (member / "roster.pem").read_bytes(), (member / "revoked.crl").read_bytes()
        )


def nodes(folder):
    return {
        path.name: load_ssh_public_key(path.read_bytes())
        for path in (folder / "server" / "nodes").iterdir()
    }


def assert_no_former_key(folder, before, ends):
    """A key whose certificate is revoked does not stay with the server."""
    register = Keyring(folder).register
    for name in ends:
        if before[name] not in register.issued:
            former = load_ssh_public_key(before[name].node.encode())
            assert nodes(folder).get(f"{name}.pub") != former


def assert_all_can_be_revoked(folder):
    """By any other command, since the register knows all that there is."""
    found = list(certificates(folder))
    ring = Keyring(folder)
    assert {one.serial_number for one in found} <= {
        one.certificate.serial_number for one in ring.register.issued
    }
    ring.revoke()
    names = ring.register.names()
    assert set(nodes(folder)) == {f"{name}.pub" for name in names}
    ring.revoke(names)
    assert nodes(folder) == {}
    for roster in rosters(folder):
        for one in found:
            with pytest.raises(CertificateError):
                roster.check(one.public_bytes(Encoding.DER))


def assert_complete(copy, expected):
    """All who take part have keys that fit, and everybody accepts them."""
    folder = copy / "fed"
    register = Keyring(folder).register
    assert (register.unfinished, register.names()) == ((), expected)
    vaults = {path.name for path in (folder / "authority").glob("ca-*") if path.is_dir()}
    assert vaults == {f"ca-{number}" for number in register.generations}
    assert set(nodes(folder)) == {f"{name}.pub" for name in expected}
    for name in expected:
        own, moved = folder / "devices" / name, copy / "moved"
        held = own if (own / "node.key").exists() else moved
        private = load_ssh_private_key((held / "node.key").read_bytes(), None)
        assert nodes(folder)[f"{name}.pub"] == private.public_key()
        if held is moved and (own / "identity.crt").exists():  # as it is to be delivered
            shutil.copy(own / "identity.crt", moved)
        identity = Identity.load(held)
        assert identity.certificate == register.newest()[name].certificate.public_bytes(
            Encoding.DER
        )
        for roster in rosters(folder):
            roster.check(identity.certificate)


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_crash_at_any_write_leaves_nothing_that_cannot_be_revoked_or_completed(
    template, tmp_path, change
):
    expected, ends = CHANGES[change]
    if change is Keyring.drop_authority:
        Keyring(shutil.copytree(template, tmp_path / "two") / "fed").rotate_authority()
        template = tmp_path / "two"
    initial = Keyring(template / "fed").register
    before = initial.newest()
    for copy in crashes(template, tmp_path, change):
        shutil.copytree(copy / "fed", copy / "other")
        assert_all_can_be_revoked(copy / "other")
        assert_no_former_key(copy / "other", before, ends)
        register = Keyring(copy / "fed").register
        if register.unfinished or register == initial:  # else the last write did all but return
            change(Keyring(copy / "fed"))
        assert_complete(copy, expected)
        assert_no_former_key(copy / "fed", before, ends)
        for name in ends:
            der = before[name].certificate.public_bytes(Encoding.DER)
            for roster in rosters(copy / "fed"):
                with pytest.raises(RevokedError):
                    roster.check(der)


def test_a_device_whose_folder_never_appeared_is_issued_anew_and_the_lost_key_revoked(
    template, tmp_path
):
    folder = shutil.copytree(template, tmp_path / "copy") / "fed"

    def fail(_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space"):
        Keyring(folder).issue("late", fail)
    (lost,) = Keyring(folder).register.current("late")
    with pytest.raises(ConfigError, match="no device with a valid certificate"):
        Keyring(folder).rotate_device("late")
    assert Keyring(folder).register.current("late") == ()
    issue(Keyring(folder))
    (new,) = Keyring(folder).register.current("late")
    assert new.certificate != lost.certificate
    for roster in rosters(folder):
        roster.check(new.certificate.public_bytes(Encoding.DER))
        with pytest.raises(RevokedError):
            roster.check(lost.certificate.public_bytes(Encoding.DER))
