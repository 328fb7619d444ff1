"""Files of a roster that are replaced while a run goes on."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from lepton_flwr.crypto.authority import Authority
from lepton_flwr.crypto.identity import ROSTER_FILE, CertificateError
from lepton_flwr.crypto.revocation import (
    LIST_FILE,
    LIST_LIFETIME,
    RevocationError,
    Revoked,
    RevokedError,
)
from lepton_flwr.errors import ConfigError
from strategies import roster_files
from strategies.roster_files import RosterFiles

NOW = datetime.now(UTC)
EXPIRED = NOW - LIST_LIFETIME - timedelta(days=1)
AUTHORITY, NEXT = Authority.create("authority"), Authority.create("next")
DEVICE, OTHER = AUTHORITY.issue("device"), AUTHORITY.issue("other")


def signed(number, *identities, authority=AUTHORITY, now=NOW):
    serials = [x509.load_der_x509_certificate(i.certificate).serial_number for i in identities]
    return authority.sign_revocations(number, [Revoked(serial, now) for serial in serials], now)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / ROSTER_FILE).write_bytes(AUTHORITY.certificate_pem)
    (tmp_path / LIST_FILE).write_bytes(signed(5))
    return tmp_path


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(roster_files, "COPY_SECONDS", 0.0)


def verify(files, identity):
    return files.verify(identity.certificate, b"message", identity.sign(b"message"))


def test_a_device_is_revoked_while_a_run_goes_on(folder):
    files = RosterFiles(folder / ROSTER_FILE)
    assert verify(files, DEVICE) == DEVICE.public_key
    (folder / LIST_FILE).write_bytes(signed(6, DEVICE))
    files.renew()
    with pytest.raises(RevokedError):
        verify(files, DEVICE)
    assert verify(files, OTHER) == OTHER.public_key


def test_a_run_goes_on_with_the_list_after_one_that_expired(folder, at_once):
    (folder / LIST_FILE).write_bytes(signed(5, now=EXPIRED))
    files = RosterFiles(folder / ROSTER_FILE)
    with pytest.raises(CertificateError, match="expired"):
        verify(files, DEVICE)
    with pytest.raises(CertificateError, match="expired"):  # before a round is charged
        files.renew()
    (folder / LIST_FILE).write_bytes(signed(6))
    files.renew()
    assert verify(files, DEVICE) == DEVICE.public_key


def test_an_authority_takes_over_while_a_run_goes_on(folder):
    files = RosterFiles(folder / ROSTER_FILE)
    late = NEXT.issue("late")
    with pytest.raises(CertificateError):
        verify(files, late)
    (folder / ROSTER_FILE).write_bytes(AUTHORITY.certificate_pem + NEXT.certificate_pem)
    (folder / LIST_FILE).write_bytes(signed(5) + signed(1, authority=NEXT))
    files.renew()
    assert verify(files, late) == late.public_key
    (folder / ROSTER_FILE).write_bytes(NEXT.certificate_pem)
    (folder / LIST_FILE).write_bytes(signed(1, authority=NEXT))
    files.renew()
    with pytest.raises(CertificateError):
        verify(files, DEVICE)


@pytest.mark.parametrize("content", [None, b"", signed(6)[:200], signed(4), b"\xff"])
def test_a_list_that_is_no_newer_one_is_an_error_and_the_former_stays(folder, at_once, content):
    (folder / LIST_FILE).write_bytes(signed(5, DEVICE))
    files = RosterFiles(folder / ROSTER_FILE)
    (folder / LIST_FILE).unlink()
    if content is not None:
        (folder / LIST_FILE).write_bytes(content)
    with pytest.raises(RevocationError):
        files.renew()
    with pytest.raises(RevokedError):
        verify(files, DEVICE)


def test_a_file_that_is_being_copied_is_waited_for(folder, monkeypatch):
    files = RosterFiles(folder / ROSTER_FILE)
    whole, waits = signed(6, DEVICE), []
    (folder / LIST_FILE).write_bytes(whole[:200])

    def copy_on(seconds):
        waits.append(seconds)
        (folder / LIST_FILE).write_bytes(whole[: len(whole) * len(waits) // 3])

    monkeypatch.setattr(roster_files, "COPY_SECONDS", 600.0)  # for a machine that stands still
    monkeypatch.setattr(roster_files.time, "sleep", copy_on)
    files.renew()
    assert len(waits) == 3
    assert sum(waits) < 5
    with pytest.raises(RevokedError):
        verify(files, DEVICE)


def test_a_certificate_that_is_not_there_is_an_error(folder, at_once):
    files = RosterFiles(folder / ROSTER_FILE)
    (folder / ROSTER_FILE).unlink()
    with pytest.raises(ConfigError, match="No such file"):
        files.renew()
    with pytest.raises(ConfigError, match="No such file"):
        RosterFiles(folder / ROSTER_FILE)
