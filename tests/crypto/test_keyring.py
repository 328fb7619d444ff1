import json
import os
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lepton_flwr.crypto import keyring as module
from lepton_flwr.crypto import private_keys
from lepton_flwr.crypto.address import Address
from lepton_flwr.crypto.authority import LIFETIME
from lepton_flwr.crypto.errors import PassphraseError
from lepton_flwr.crypto.files import KeyFileError
from lepton_flwr.crypto.identity import CertificateError, Identity, Roster
from lepton_flwr.crypto.inventory import inventory
from lepton_flwr.crypto.keyring import AUTHORITY_LIFETIME, Keyring
from lepton_flwr.crypto.private_keys import ENVIRONMENT_VARIABLE
from lepton_flwr.crypto.register import RegisterError
from lepton_flwr.crypto.revocation import RevokedError, read_lists
from lepton_flwr.errors import ConfigError, OutputError

ADDRESS = Address("fl.example.org", 8000)
SECRET = "a lock of words"  # noqa: S105
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No passphrase in the environment, and cheap ones where their cost is not the question."""
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(private_keys, "SCRYPT_N", 2)


@pytest.fixture
def ring(tmp_path):
    return Keyring.create(tmp_path / "fed", 3, ADDRESS)


def device(ring, name):
    return ring.folder / "devices" / name


def roster(folder):
    return Roster.of_authority(
        (folder / "roster.pem").read_bytes(), (folder / "revoked.crl").read_bytes()
    )


def accepts(ring, receiver, sender, now=None):
    """Whether a device's roster, as in its folder, takes a device's identity, as in its own."""
    identity = Identity.load(device(ring, sender))
    found = roster(device(ring, receiver)).verify(
        identity.certificate, b"m", identity.sign(b"m"), now
    )
    assert found == identity.public_key


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_all_devices_of_a_federation_accept_each_other_and_the_server_accepts_them(ring):
    for receiver in ("device-001", "device-003"):
        for sender in ("device-001", "device-002", "device-003"):
            accepts(ring, receiver, sender)
    identity = Identity.load(device(ring, "device-002"))
    roster(ring.folder / "server").check(identity.certificate)


def test_every_file_is_private_and_the_authoritys_keys_are_its_own(ring):
    for path in (ring.folder, *ring.folder.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    names = {"identity.pem", "identity.crt", "node.key", "ca.crt", "roster.pem", "revoked.crl"}
    assert {path.name for path in device(ring, "device-001").iterdir()} == names
    secret = {"ca-1/authority.pem", "ca.key"}
    assert secret < set(content(ring.folder / "authority"))
    outside = [
        *content(ring.folder / "server").values(),
        *content(ring.folder / "devices").values(),
    ]
    for name in secret:
        assert (ring.folder / "authority" / name).read_bytes() not in outside


def test_the_servers_certificate_holds_for_its_address_and_this_machine(ring):
    server = ring.folder / "server"
    certificate = x509.load_pem_x509_certificate((server / "server.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fl.example.org", "localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
        server / "server.pem", server / "server.key"
    )
    authority = x509.load_pem_x509_certificate((device(ring, "device-001") / "ca.crt").read_bytes())
    certificate.verify_directly_issued_by(authority)


def test_a_node_key_is_p384_and_the_server_holds_its_public_half(ring):
    for name in ("device-001", "device-003"):
        private = serialization.load_ssh_private_key(
            (device(ring, name) / "node.key").read_bytes(), None
        )
        assert isinstance(private.curve, ec.SECP384R1)
        public = (ring.folder / "server" / "nodes" / f"{name}.pub").read_bytes()
        assert serialization.load_ssh_public_key(public) == private.public_key()


def test_an_existing_folder_is_not_touched(ring):
    before = content(ring.folder)
    with pytest.raises(OutputError, match="exists"):
        Keyring.create(ring.folder, 2, ADDRESS)
    assert content(ring.folder) == before


def test_a_failure_leaves_no_folder(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "create_server_credentials", fail)
    with pytest.raises(OutputError, match="No space"):
        Keyring.create(tmp_path / "fed", 2, ADDRESS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("nodes", [0, -1, 10_001, True, 2.0])
def test_a_number_of_devices_out_of_range_is_refused(tmp_path, nodes):
    with pytest.raises(ConfigError, match="nodes"):
        Keyring.create(tmp_path / "fed", nodes, ADDRESS)


@pytest.mark.parametrize("name", ["", " ", "a/b", "x" * 65, "a\nb"])
def test_a_name_that_fits_no_certificate_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="name"):
        Keyring.create(tmp_path / "fed", 1, ADDRESS, name=name)


def test_a_new_device_is_accepted_and_its_name_taken_once(ring):
    assert ring.issue("clinic-4") == device(ring, "clinic-4")
    accepts(ring, "device-001", "clinic-4")
    accepts(ring, "clinic-4", "device-001")
    assert (ring.folder / "server" / "nodes" / "clinic-4.pub").exists()
    with pytest.raises(ConfigError, match="has a certificate"):
        ring.issue("clinic-4")


@pytest.mark.parametrize("name", ["", "A", "../x", "a/b", ".a", "x" * 64, "a b", "a\n"])
def test_a_name_that_is_no_folder_is_refused(ring, name):
    before = content(ring.folder)
    with pytest.raises(ConfigError, match="expected 1 to 63"):
        ring.issue(name)
    assert content(ring.folder) == before


def test_a_revoked_device_is_refused_by_all_and_cannot_join(ring):
    ring.revoke(["device-002"])
    with pytest.raises(RevokedError):
        accepts(ring, "device-001", "device-002")
    accepts(ring, "device-001", "device-003")
    names = {path.name for path in (ring.folder / "server" / "nodes").iterdir()}
    assert names == {"device-001.pub", "device-003.pub"}
    with pytest.raises(ConfigError, match="device-001, device-003"):
        ring.revoke(["device-002"])


def test_every_list_has_a_larger_number_than_the_last_even_of_a_register_put_back(ring):
    path = ring.folder / "authority" / "register.json"
    old = path.read_bytes()
    clock = datetime.now(UTC) + timedelta(minutes=1)
    numbers = []
    for renew in range(3):
        if renew == 2:
            path.write_bytes(old)
            clock += timedelta(minutes=1)
        Keyring(ring.folder, now=lambda clock=clock: clock).revoke()
        pem = (ring.folder / "authority" / "ca-1" / "authority.crt").read_bytes()
        crl = (device(ring, "device-001") / "revoked.crl").read_bytes()
        (found,) = read_lists(crl, [x509.load_pem_x509_certificate(pem)])
        numbers.append(found.number)
    assert numbers == sorted(set(numbers))


def test_a_renewed_list_lasts_longer(ring):
    late = NOW + timedelta(days=100)
    with pytest.raises(CertificateError, match="revocation list has expired"):
        accepts(ring, "device-001", "device-002", late)
    Keyring(ring.folder, now=lambda: late).revoke()
    accepts(ring, "device-001", "device-002", late)


def test_a_certificate_ends_and_rotation_mends_it(ring):
    late = NOW + LIFETIME + timedelta(days=1)
    later = Keyring(ring.folder, now=lambda: late)
    later.revoke()
    with pytest.raises(CertificateError, match="device certificate has expired"):
        accepts(ring, "device-001", "device-002", late)
    later.rotate_device("device-002")
    accepts(ring, "device-001", "device-002", late)


def test_a_rotated_device_has_new_keys_and_its_former_ones_are_refused(ring):
    former = Identity.load(device(ring, "device-002"))
    node = (device(ring, "device-002") / "node.key").read_bytes()
    public = ring.folder / "server" / "nodes" / "device-002.pub"
    before = public.read_bytes()
    ring.rotate_device("device-002")
    accepts(ring, "device-001", "device-002")
    assert Identity.load(device(ring, "device-002")).public_key != former.public_key
    assert (device(ring, "device-002") / "node.key").read_bytes() != node
    assert public.read_bytes() != before
    with pytest.raises(RevokedError):
        roster(device(ring, "device-001")).check(former.certificate)
    with pytest.raises(ConfigError, match="no device"):
        ring.rotate_device("device-9")


def test_a_folder_that_was_moved_to_its_device_comes_back_with_what_to_deliver(ring, tmp_path):
    device(ring, "device-002").rename(tmp_path / "moved")
    ring.revoke(["device-003"])
    assert not device(ring, "device-002").exists()
    ring.rotate_device("device-002")
    names = {path.name for path in device(ring, "device-002").iterdir()}
    assert names == {"identity.pem", "identity.crt", "node.key", "roster.pem", "revoked.crl"}
    accepts(ring, "device-001", "device-002")


def test_two_authorities_are_trusted_until_the_former_is_dropped(ring):
    ring.revoke(["device-003"])
    old = Identity.load(device(ring, "device-002"))
    gone = Identity.load(device(ring, "device-003"))
    ring.rotate_authority()
    accepts(ring, "device-001", "device-002")
    new = Identity.load(device(ring, "device-002"))
    assert new.public_key == old.public_key
    assert new.certificate != old.certificate
    both = roster(device(ring, "device-001"))
    both.check(old.certificate)
    with pytest.raises(RevokedError):
        both.check(gone.certificate)
    with pytest.raises(ConfigError, match="finish"):
        ring.rotate_authority()
    ring.revoke(["device-002"])  # under both
    for certificate in (old.certificate, new.certificate):
        with pytest.raises(RevokedError):
            roster(device(ring, "device-001")).check(certificate)
    ring.drop_authority()
    one = Identity.load(device(ring, "device-001"))
    alone = roster(device(ring, "device-001"))
    alone.check(one.certificate)
    with pytest.raises(CertificateError, match="another authority"):
        alone.check(old.certificate)
    assert not (ring.folder / "authority" / "ca-1").exists()
    with pytest.raises(ConfigError, match="no former"):
        ring.drop_authority()
    accepts(ring, "device-001", ring.issue("late").name)


def test_a_new_server_certificate_is_of_the_same_authority(ring):
    before = content(ring.folder / "server")
    devices = content(ring.folder / "devices")
    ring.rotate_server()
    after = content(ring.folder / "server")
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"server.key", "server.pem"}
    assert content(ring.folder / "devices") == devices
    authority = x509.load_pem_x509_certificate(after["ca.crt"])
    x509.load_pem_x509_certificate(after["server.pem"]).verify_directly_issued_by(authority)


def test_an_authority_behind_a_passphrase_does_nothing_without_it(tmp_path, monkeypatch):
    Keyring.create(tmp_path / "fed", 1, ADDRESS, passphrase=SECRET)
    before = content(tmp_path / "fed")
    for wrong in (None, "not the passphrase"):
        ring = Keyring(tmp_path / "fed", wrong)
        for act, *names in (
            (ring.revoke,), (ring.rotate_server,), (ring.rotate_authority,),
            (ring.issue, "late"), (ring.rotate_device, "device-001"),
        ):  # fmt: skip
            with pytest.raises(PassphraseError):
                act(*names)
    assert content(tmp_path / "fed") == before
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, SECRET)
    ring = Keyring(tmp_path / "fed")
    ring.rotate_authority()
    ring.drop_authority()
    assert b"ENCRYPTED" in ring.key_file.read_bytes()
    with pytest.raises(PassphraseError):
        Keyring(tmp_path / "fed", "not the passphrase").revoke()


def test_a_short_passphrase_makes_nothing(tmp_path):
    with pytest.raises(PassphraseError, match="at least 8"):
        Keyring.create(tmp_path / "fed", 1, ADDRESS, passphrase="short")  # noqa: S106
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda table: table.pop("issued"),
        lambda table: table.update(format=1),
        lambda table: table["issued"][0].update(certificate="x"),
        lambda table: table["issued"][0].update(revoked="yesterday"),
        lambda table: table["issued"][0].update(revoked="2030-01-01T00:00:00"),
        lambda table: table.update(address="nowhere"),
    ],
)
def test_a_damaged_register_is_refused(ring, damage):
    path = ring.folder / "authority" / "register.json"
    table = json.loads(path.read_text())
    damage(table)
    path.write_text(json.dumps(table))
    with pytest.raises(RegisterError, match="expected"):
        Keyring(ring.folder)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(RegisterError, match="lepton keys init"):
        Keyring(tmp_path)
    with pytest.raises(CertificateError, match="no certificates"):
        inventory(tmp_path)


def test_keys_that_others_can_open_are_refused(ring):
    ring.key_file.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        Keyring(ring.folder).revoke()


def test_a_change_that_was_cut_off_is_finished_by_the_next(ring, monkeypatch):
    replaced = os.replace

    def fail(source, target, *rest):
        if str(target).endswith("roster.pem"):
            raise OSError(28, "No space left on device")
        replaced(source, target, *rest)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError):
        ring.revoke(["device-002"])
    monkeypatch.undo()
    Keyring(ring.folder).revoke()
    for name in ("device-001", "device-003"):
        with pytest.raises(RevokedError):
            accepts(ring, name, "device-002")


def test_the_inventory_names_all_and_says_what_has_ended(ring):
    ring.revoke(["device-002"])
    found = {entry.name: entry for entry in inventory(ring.folder)}
    assert set(found) == {
        "federation", "server", "revoked.crl", "device-001", "device-002", "device-003",
    }  # fmt: skip
    assert found["device-001"].state == "valid"
    assert found["device-001"].days_left in (396, 397)
    assert found["device-002"].state.startswith("revoked 20")
    assert found["revoked.crl"].kind == "1 revoked"
    late = NOW + LIFETIME + timedelta(days=2)
    states = {entry.name: entry.state for entry in inventory(ring.folder, late)}
    assert (states["device-001"], states["server"], states["federation"]) == (
        "expired", "expired", "valid",
    )  # fmt: skip
    assert (
        inventory(ring.folder, NOW + AUTHORITY_LIFETIME + timedelta(days=1))[0].state == "expired"
    )
    (own, *_) = inventory(device(ring, "device-003"))
    assert (own.name, own.state) == ("device-003", "valid")
