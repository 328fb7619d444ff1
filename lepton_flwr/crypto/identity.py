"""Who a client is, and which clients may take part.

An `Identity` is a device's long-term Ed25519 key and the X.509 certificate that its authority
issued for it. A `Roster` is a device's own list of whom it accepts: it is local configuration
and never comes from the server.
"""

import functools
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from lepton_flwr.crypto.certificates import (
    CertificateError,
    certified_key,
    check_time,
    issuer_among,
    load_certificate,
    parse_authorities,
    parse_der,
    read_constraints,
)
from lepton_flwr.crypto.digest import digest
from lepton_flwr.crypto.files import KeyFileError, write_private
from lepton_flwr.crypto.private_keys import load_private_pem, private_pem
from lepton_flwr.crypto.revocation import RevocationList, read_lists
from lepton_flwr.errors import PrivacyError
from lepton_flwr.failures import Failure

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
KEY_FILE = "identity.pem"
CERTIFICATE_FILE = "identity.crt"
ROSTER_FILE = "roster.pem"
_CACHE_LABEL = "lepton/roster-entry/v1"
# DER: BIT STRING of 65 bytes, none of whose bits are unused.
_SIGNATURE_HEADER = b"\x03\x41\x00"


class NotOnRosterError(PrivacyError):
    """The key is not one that this device accepts."""

    failure = Failure.IDENTITY


class SignatureError(PrivacyError):
    """The signature is not the key's over the message."""

    failure = Failure.IDENTITY


def verify(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Check an Ed25519 signature (RFC 8032).

    Args:
        public_key: 32 bytes.
        message: what was signed.
        signature: 64 bytes.

    Raises:
        SignatureError: it is not the key's signature of the message, or one has a wrong length.
    """
    _verify(_public_key(public_key), message, signature)


class Identity:
    """A client's long-term signing key and its certificate.

    Args:
        key: the private key.
        certificate: an X.509 certificate of its public key.

    Raises:
        CertificateError: the certificate is of another key.
    """

    def __init__(self, key: Ed25519PrivateKey, certificate: x509.Certificate) -> None:
        self.public_key = key.public_key().public_bytes_raw()
        if certified_key(certificate).public_bytes_raw() != self.public_key:
            raise CertificateError("certificate of another key: expected that of the identity")
        self.certificate = certificate.public_bytes(serialization.Encoding.DER)
        self._key = key

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `message`."""
        return self._key.sign(message)

    @property
    def key_pem(self) -> bytes:
        """The private key in PKCS #8 PEM, without protection."""
        return private_pem(self._key)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate in PEM."""
        return parse_der(self.certificate).public_bytes(serialization.Encoding.PEM)

    def save(self, folder: Path) -> None:
        """Write `identity.pem` (PKCS #8, mode 0600) and `identity.crt` (PEM) into `folder`.

        Raises:
            KeyFileError: one of them exists or cannot be created.
        """
        write_private(folder / KEY_FILE, self.key_pem)
        write_private(folder / CERTIFICATE_FILE, self.certificate_pem)

    @classmethod
    def load(cls, folder: Path, passphrase: str | None = None) -> Self:
        """Read what `save` wrote.

        Args:
            folder: where it is.
            passphrase: of a protected key; None takes `LEPTON_PASSPHRASE` from the environment.

        Raises:
            PassphraseError: the key is protected and the passphrase is missing or wrong.
            KeyFileError: the key cannot be read, is no Ed25519 key, or is open to other users.
            CertificateError: the certificate is malformed or of another key.
        """
        key = load_signing_key(folder / KEY_FILE, passphrase)
        return cls(key, load_certificate(folder / CERTIFICATE_FILE))


class _Member(NamedTuple):
    key: Ed25519PublicKey
    serial: int
    not_before: datetime
    not_after: datetime
    issuer: int | None  # place among the roster's authorities


class Roster:
    """Whom a device accepts: the keys of a list, or every device that its authorities certified.

    Verified certificates are remembered by their digest; their time, and whether they are revoked,
    is checked on every use.

    Args:
        keys: 32-byte Ed25519 public keys.
        authorities: certificates of authorities; two while one takes over from the other.
        lists: a revocation list of each authority in the same order; none if nothing is revoked.
        allow_expired: go on with a revocation list after the time when a newer one was due.

    Guarantee: `verify` returns a key only if the roster holds it (or one of its authorities issued
    the certificate, which is within its time, not on that authority's revocation list and not
    itself an authority's) and the key signed the message.
    """

    def __init__(
        self,
        keys: frozenset[bytes] = frozenset(),
        authorities: Sequence[x509.Certificate] = (),
        lists: Sequence[RevocationList] = (),
        *,
        allow_expired: bool = False,
    ) -> None:
        if lists and len(lists) != len(authorities):
            raise CertificateError(
                f"{len(lists)} revocation lists: expected {len(authorities)}, one of each authority"
            )
        self.lists = tuple(lists)
        self._keys = keys
        self._authorities = tuple(authorities)
        self._allow_expired = allow_expired
        self._known: dict[bytes, _Member] = {}

    @classmethod
    def of_keys(cls, keys: Iterable[bytes]) -> Self:
        """The roster of a list of 32-byte Ed25519 public keys.

        Raises:
            CertificateError: one is not 32 bytes.
        """
        members = frozenset(keys)
        for key in members:
            if len(key) != PUBLIC_KEY_BYTES:
                raise CertificateError(
                    f"roster key of {len(key)} bytes: expected {PUBLIC_KEY_BYTES}"
                )
        return cls(members)

    @classmethod
    @functools.lru_cache(maxsize=8)  # simulated devices of one process share verified certificates
    def of_authority(
        cls, certificate_pem: bytes, lists_pem: bytes | None = None, *, allow_expired: bool = False
    ) -> Self:
        """The roster of all devices that one authority, or each of several, certified.

        Args:
            certificate_pem: the authority's certificate, PEM; several, PEM after PEM.
            lists_pem: a revocation list of each authority, PEM after PEM; None revokes nothing.
            allow_expired: go on with a list after the time when a newer one was due.

        Raises:
            CertificateError: a certificate is malformed or not an authority's.
            RevocationError: a list is malformed, or an authority signed none of them.
        """
        authorities = parse_authorities(certificate_pem)
        lists = () if lists_pem is None else read_lists(lists_pem, authorities)
        return cls(frozenset(), authorities, lists, allow_expired=allow_expired)

    def verify(
        self,
        certificate_or_key: bytes,
        message: bytes,
        signature: bytes,
        now: datetime | None = None,
    ) -> bytes:
        """Check that a member signed the message.

        Args:
            certificate_or_key: the signer's certificate (DER) or, for a roster of keys, its
                32-byte public key.
            message: what was signed.
            signature: 64 bytes.
            now: the time, with a time zone; None takes the clock's.

        Returns:
            The member's 32-byte public key: the one name of a member, since one device may have
            several certificates.

        Raises:
            NotOnRosterError: the key is not on the list, or a bare key came where the roster
                wants a certificate.
            CertificateError: the certificate is malformed, out of its time, revoked, an
                authority's, of another authority, or not of an Ed25519 key; or its authority's
                revocation list has expired.
            SignatureError: the signature is not the member's.
        """
        now = datetime.now(UTC) if now is None else now
        if len(certificate_or_key) == PUBLIC_KEY_BYTES:
            if certificate_or_key not in self._keys:
                raise NotOnRosterError(
                    "bare key: expected one of the roster's keys, or a certificate of the "
                    "roster's authority"
                )
            verify(certificate_or_key, message, signature)
            return certificate_or_key
        member = self._current(certificate_or_key, now)
        _verify(member.key, message, signature)
        return member.key.public_bytes_raw()

    def check(self, certificate: bytes, now: datetime | None = None) -> None:
        """Check that a certificate (DER) is a member's, without a signature by its key.

        Raises:
            NotOnRosterError: the key is not on the list.
            CertificateError: as in `verify`.
        """
        self._current(certificate, datetime.now(UTC) if now is None else now)

    def _current(self, certificate: bytes, now: datetime) -> _Member:
        name = digest(_CACHE_LABEL, certificate)
        member = self._known.get(name)
        if member is None:
            member = self._member(certificate)
        check_time("device certificate", member.not_before, member.not_after, now)
        if member.issuer is not None:
            authority = self._authorities[member.issuer]
            check_time(
                "authority's certificate",
                authority.not_valid_before_utc,
                authority.not_valid_after_utc,
                now,
            )
            if self.lists:
                self.lists[member.issuer].check(
                    member.serial, now, allow_expired=self._allow_expired
                )
        self._known[name] = member
        return member

    def _member(self, der: bytes) -> _Member:
        certificate = parse_der(der)
        key = certified_key(certificate)
        # The parser ignores the count of unused bits before the signature: one encoding only.
        if not der.endswith(_SIGNATURE_HEADER + certificate.signature):
            raise CertificateError("certificate: expected DER, whose signature has no unused bits")
        constraints, usage = read_constraints(certificate)
        if (constraints is not None and constraints.ca) or (usage and usage.key_cert_sign):
            raise CertificateError("certificate of an authority: expected a device's")
        if usage is None or not usage.digital_signature:
            raise CertificateError("certificate without key usage digital signature")
        issuer = None
        if self._authorities:
            issuer = self._authorities.index(issuer_among(certificate, self._authorities))
        elif key.public_bytes_raw() not in self._keys:
            raise NotOnRosterError("certificate of a key that is not on the roster")
        return _Member(
            key,
            certificate.serial_number,
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
            issuer,
        )


def load_signing_key(path: Path, passphrase: str | None = None) -> Ed25519PrivateKey:
    """Read an Ed25519 key that only its owner can open; see `load_private_pem`.

    Raises:
        KeyFileError: it is anything else.
    """
    key = load_private_pem(path, passphrase)
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path.name}: expected an Ed25519 key in PKCS #8 PEM")
    return key


def _public_key(raw: bytes) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        raise SignatureError(
            f"public key of {len(raw)} bytes: expected an Ed25519 key of {PUBLIC_KEY_BYTES}"
        ) from None


def _verify(key: Ed25519PublicKey, message: bytes, signature: bytes) -> None:
    try:
        key.verify(signature, message)
    except (InvalidSignature, ValueError):
        raise SignatureError("signature: expected the sender's over exactly this message") from None
