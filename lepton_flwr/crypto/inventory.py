"""What keys and certificates a folder holds, how long they last, and what was revoked."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from lepton_flwr.crypto import authority as authorities
from lepton_flwr.crypto import identity, tls
from lepton_flwr.crypto.certificates import (
    CertificateError,
    fingerprint,
    load_certificate,
    parse_authorities,
)
from lepton_flwr.crypto.keyring import AUTHORITY, REGISTER_FILE
from lepton_flwr.crypto.members import SERVER
from lepton_flwr.crypto.register import Register
from lepton_flwr.crypto.revocation import LIST_FILE, RevocationList, read_lists

VALID, EXPIRED, REVOKED, FUTURE = "valid", "expired", "revoked", "not yet valid"


@dataclass(frozen=True)
class Entry:
    """A certificate or a revocation list.

    Attributes:
        name: whose it is.
        kind: what it is for.
        serial: of a certificate in hexadecimal digits, of a list its number.
        sha256: fingerprint, 64 hexadecimal digits; empty for a list.
        not_after: when it ends, with a time zone.
        days_left: whole days until then, negative afterwards.
        state: `valid`, `expired`, `not yet valid`, or `revoked` and when.
    """

    name: str
    kind: str
    serial: str
    sha256: str
    not_after: datetime
    days_left: int
    state: str


def inventory(folder: Path, now: datetime | None = None) -> list[Entry]:
    """What a folder of `Keyring`, or that of a device or a server, holds.

    Args:
        folder: the folder.
        now: the time, with a time zone; None takes the clock's.

    Raises:
        RegisterError: the register is damaged.
        CertificateError: a certificate or list is malformed, or there is none.
    """
    now = datetime.now(UTC) if now is None else now
    if (folder / AUTHORITY / REGISTER_FILE).exists():
        return list(_of_keyring(folder, now))
    found = list(_of_member(folder, now))
    if not found:
        raise CertificateError(
            f"{folder}: no certificates: expected the folder of a federation, a device or a server"
        )
    return found


def _of_keyring(folder: Path, now: datetime) -> Iterator[Entry]:
    vault = folder / AUTHORITY
    register = Register.read(vault / REGISTER_FILE)
    for number in register.generations:
        own = load_certificate(vault / f"ca-{number}" / authorities.CERTIFICATE_FILE)
        yield _entry(register.name, f"CA {number}", own, now)
    yield _entry(register.name, "TLS CA", load_certificate(vault / tls.AUTHORITY_FILE), now)
    yield from _of_member(folder / SERVER, now)
    for one in sorted(register.issued, key=lambda one: (one.name, one.generation)):
        kind = f"device (CA {one.generation})"
        yield _entry(one.name, kind, one.certificate, now, one.revoked)


def _of_member(folder: Path, now: datetime) -> Iterator[Entry]:
    lists: tuple[RevocationList, ...] = ()
    trusted: tuple[x509.Certificate, ...] = ()
    if (folder / identity.ROSTER_FILE).exists():
        trusted = parse_authorities((folder / identity.ROSTER_FILE).read_bytes())
    if trusted and (folder / LIST_FILE).exists():
        lists = read_lists((folder / LIST_FILE).read_bytes(), trusted)
    if (folder / tls.SERVER_CERTIFICATE_FILE).exists():
        own = load_certificate(folder / tls.SERVER_CERTIFICATE_FILE)
        yield _entry(folder.name, "TLS server", own, now)
    if (folder / identity.CERTIFICATE_FILE).exists():
        own = load_certificate(folder / identity.CERTIFICATE_FILE)
        names = own.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        entry = _entry(str(names[0].value) if names else folder.name, "device", own, now)
        if any(own.serial_number in one.serials for one in lists):
            entry = Entry(**{**vars(entry), "state": REVOKED})
        yield entry
    for number, one in enumerate(lists, 1):
        place = f" ({number} of {len(lists)})" if len(lists) > 1 else ""
        yield Entry(
            f"{LIST_FILE}{place}",
            f"{len(one.serials)} revoked",
            str(one.number),
            "",
            one.not_after,
            (one.not_after - now).days,
            _state(one.not_before, one.not_after, now),
        )


def _entry(
    name: str,
    kind: str,
    certificate: x509.Certificate,
    now: datetime,
    revoked: datetime | None = None,
) -> Entry:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    state = f"{REVOKED} {revoked:%Y-%m-%d}" if revoked is not None else _state(start, end, now)
    return Entry(
        name,
        kind,
        f"{certificate.serial_number:x}",
        fingerprint(certificate),
        end,
        (end - now).days,
        state,
    )


def _state(start: datetime, end: datetime, now: datetime) -> str:
    if now < start:
        return FUTURE
    return EXPIRED if now > end else VALID
