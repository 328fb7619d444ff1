"""Revoked certificates: X.509 revocation lists (RFC 5280, 5) that an authority signs.

A list is public and signed, so that any way of delivery will do: a copied file, or a server. Who
delivers it can hold a newer list back until the device's own expires, but cannot change one, and
cannot put an older one back: a device remembers the number of the newest that it has seen.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lepton_flwr._files import write_atomic
from lepton_flwr.crypto.certificates import (
    CertificateError,
    certified_key,
    check_time,
    fingerprint,
    read_constraints,
)
from lepton_flwr.crypto.digest import digest

LIST_FILE = "revoked.crl"
SEEN_FILE = "revoked.seen"
LIST_LIFETIME = timedelta(days=90)
CLOCK_SKEW = timedelta(hours=1)
_DIGEST_LABEL = "lepton/revocation-list/v1"
_BEGIN, _END = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"


class RevocationError(CertificateError):
    """A revocation list is missing, malformed, of another authority, too old, or rolled back."""


class RevokedError(CertificateError):
    """The authority has revoked the certificate."""


class Revoked(NamedTuple):
    """A revoked certificate.

    Attributes:
        serial: its serial number.
        at: when it was revoked, with a time zone.
    """

    serial: int
    at: datetime


@dataclass(frozen=True)
class RevocationList:
    """What one authority has revoked.

    Attributes:
        authority: SHA-256 of the authority's certificate, 64 hexadecimal digits.
        number: grows with every list of the authority.
        serials: serial numbers of the revoked certificates.
        not_before: when it was signed, less an hour for clocks that differ.
        not_after: when a newer one is due.
        content: 32-byte digest of the whole list.
    """

    authority: str
    number: int
    serials: frozenset[int]
    not_before: datetime
    not_after: datetime
    content: bytes

    def check(self, serial: int, now: datetime, *, allow_expired: bool = False) -> None:
        """Refuse a certificate of this authority that is revoked.

        Raises:
            RevokedError: the list holds it.
            CertificateError: the list is not yet valid or, unless that is allowed, has expired.
        """
        end = datetime.max.replace(tzinfo=UTC) if allow_expired else self.not_after
        check_time("revocation list", self.not_before, end, now)
        if serial in self.serials:
            raise RevokedError("certificate: its authority has revoked it")


def sign_list(
    key: Ed25519PrivateKey,
    authority: x509.Certificate,
    number: int,
    revoked: Sequence[Revoked],
    now: datetime,
    *,
    lifetime: timedelta = LIST_LIFETIME,
) -> bytes:
    """Sign a revocation list.

    Args:
        key: the authority's.
        authority: its certificate.
        number: larger than that of every list that it has signed.
        revoked: what it has revoked.
        now: the time, with a time zone.
        lifetime: how long devices take it for recent.

    Returns:
        The list in PEM.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now)
        .next_update(now + lifetime)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
    )
    for serial, at in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(key, None).public_bytes(serialization.Encoding.PEM)


def read_lists(pem: bytes, authorities: Sequence[x509.Certificate]) -> tuple[RevocationList, ...]:
    """Read the newest list of each authority.

    Args:
        pem: lists, PEM after PEM; those that none of the authorities signed are passed over.
        authorities: certificates of the authorities that a roster trusts.

    Raises:
        RevocationError: a list is malformed or has a critical extension, or an authority signed
            none of them.
    """
    lists = [_parse(part) for part in _split(pem)]
    return tuple(_newest(lists, authority) for authority in authorities)


def remember(folder: Path, lists: Sequence[RevocationList]) -> None:
    """Refuse lists older than those that this folder has seen; remember newer ones.

    Args:
        folder: a device's; `revoked.seen` in it holds the number and digest of the newest list of
            each authority. Processes that do this at the same time wait for each other.
        lists: those in force.

    Raises:
        RevocationError: a list has a smaller number than one seen before, or the same number and
            another content, or the file of numbers is damaged.
        OutputError: the numbers cannot be written.
    """
    if _unseen(_read_seen(folder), lists):
        with locked(folder):
            seen = _read_seen(folder)
            if unseen := _unseen(seen, lists):
                seen.update(unseen)
                text = json.dumps(seen, indent=1, sort_keys=True)
                write_atomic(folder / SEEN_FILE, f"{text}\n".encode(), mode=0o600)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for the same out of a folder.

    Raises:
        RevocationError: the folder cannot be opened.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise RevocationError(f"{folder.name}: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _unseen(
    seen: dict[str, tuple[int, str]], lists: Sequence[RevocationList]
) -> dict[str, tuple[int, str]]:
    found = {}
    for one in lists:
        number, content = seen.get(one.authority, (-1, ""))
        if one.number < number:
            raise RevocationError(
                f"revocation list {one.number}: older than list {number}, which this device has "
                f"seen; put the newest {LIST_FILE} back"
            )
        if one.number == number and one.content.hex() != content:
            raise RevocationError(
                f"revocation list {number}: another one of this number was seen before; ask the "
                "authority for a new list"
            )
        if one.number > number:
            found[one.authority] = (one.number, one.content.hex())
    return found


def _read_seen(folder: Path) -> dict[str, tuple[int, str]]:
    try:
        table = json.loads((folder / SEEN_FILE).read_bytes())
        return {str(name): (int(number), str(text)) for name, (number, text) in table.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError):
        raise RevocationError(
            f"{SEEN_FILE} is damaged: expected the numbers of the revocation lists seen; remove it "
            f"only after checking that {LIST_FILE} is the authority's newest"
        ) from None


def _split(pem: bytes) -> Iterator[bytes]:
    for part in pem.split(_BEGIN)[1:]:
        body, end, _ = part.partition(_END)
        if not end:
            raise RevocationError("revocation list: cut off: expected X.509 in PEM")
        yield _BEGIN + body + _END + b"\n"


def _parse(pem: bytes) -> x509.CertificateRevocationList:
    try:
        found = x509.load_pem_x509_crl(pem)
        extensions = list(found.extensions)
        entries = [extension for entry in found for extension in entry.extensions]
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension):
        raise RevocationError("revocation list: expected X.509 in PEM") from None
    for extension in (*extensions, *entries):
        if extension.critical:  # RFC 5280, 5.2: a list of part of the certificates, say
            raise RevocationError(
                f"revocation list with critical extension {extension.oid.dotted_string}: expected "
                "a complete list without any"
            )
    return found


def _newest(
    lists: Sequence[x509.CertificateRevocationList], authority: x509.Certificate
) -> RevocationList:
    usage = read_constraints(authority)[1]
    if usage is None or not usage.crl_sign:
        raise RevocationError("authority without key usage CRL signing: it cannot revoke")
    own = [one for one in lists if _is_signed(one, authority)]
    if not own:
        raise RevocationError(
            "revocation list: none that the roster's authority signed; expected one of each"
        )
    return max((_checked(one, authority) for one in own), key=lambda one: one.number)


def _is_signed(one: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        return one.issuer == authority.subject and one.is_signature_valid(certified_key(authority))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def _checked(one: x509.CertificateRevocationList, authority: x509.Certificate) -> RevocationList:
    try:
        number = one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        serials = frozenset(entry.serial_number for entry in one)
    except (ValueError, x509.ExtensionNotFound):
        raise RevocationError("revocation list without a number: expected a CRL number") from None
    if one.next_update_utc is None:
        raise RevocationError("revocation list without the time when the next one is due")
    return RevocationList(
        fingerprint(authority),
        number,
        serials,
        one.last_update_utc - CLOCK_SKEW,
        one.next_update_utc,
        digest(_DIGEST_LABEL, one.public_bytes(serialization.Encoding.DER)),
    )
