"""Who a client is, and which clients may take part.

An `Identity` is a device's long-term Ed25519 key and the X.509 certificate that its authority
issued for it. A `Roster` is a device's own list of whom it accepts: it is local configuration
and never comes from the server.
"""

import functools
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from lepton_flwr.crypto.digest import digest
from lepton_flwr.crypto.files import KeyFileError, read_private, write_private
from lepton_flwr.errors import PrivacyError
from lepton_flwr.failures import Failure

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
KEY_FILE = "identity.pem"
CERTIFICATE_FILE = "identity.crt"
_CACHE_LABEL = "lepton/roster-entry/v1"
# DER: BIT STRING of 65 bytes, none of whose bits are unused.
_SIGNATURE_HEADER = b"\x03\x41\x00"


class NotOnRosterError(PrivacyError):
    """The key is not one that this device accepts."""

    failure = Failure.IDENTITY


class CertificateError(PrivacyError):
    """The certificate is malformed, out of its time, of another authority or another kind."""

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
        if _certified_key(certificate).public_bytes_raw() != self.public_key:
            raise CertificateError("certificate of another key: expected that of the identity")
        self.certificate = certificate.public_bytes(serialization.Encoding.DER)
        self._key = key

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `message`."""
        return self._key.sign(message)

    def save(self, folder: Path) -> None:
        """Write `identity.pem` (PKCS #8, mode 0600) and `identity.crt` (PEM) into `folder`.

        Raises:
            KeyFileError: one of them exists or cannot be created.
        """
        write_private(folder / KEY_FILE, private_pem(self._key))
        certificate = x509.load_der_x509_certificate(self.certificate)
        write_private(
            folder / CERTIFICATE_FILE, certificate.public_bytes(serialization.Encoding.PEM)
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            KeyFileError: the key cannot be read, is no unencrypted Ed25519 key, or is open to
                other users.
            CertificateError: the certificate is malformed or of another key.
        """
        return cls(load_private_pem(folder / KEY_FILE), load_certificate(folder / CERTIFICATE_FILE))


class _Member(NamedTuple):
    key: Ed25519PublicKey
    not_before: datetime
    not_after: datetime


class Roster:
    """Whom a device accepts: the keys of a list, or every device that one authority certified.

    Verified certificates are remembered by their digest; their time is checked on every use.

    Guarantee: `verify` returns a key only if the roster holds it (or its authority issued the
    certificate, which is within its time and not itself an authority's) and the key signed the
    message.
    """

    def __init__(self, keys: frozenset[bytes], authority: x509.Certificate | None) -> None:
        self._keys = keys
        self._authority = authority
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
        return cls(members, None)

    @classmethod
    @functools.lru_cache(maxsize=8)  # simulated devices of one process share verified certificates
    def of_authority(cls, certificate_pem: bytes) -> Self:
        """The roster of all devices that one authority certified.

        Args:
            certificate_pem: the authority's certificate, PEM.

        Raises:
            CertificateError: it is malformed or not an authority's.
        """
        certificate = parse_pem(certificate_pem)
        constraints, usage = _constraints(certificate)
        if constraints is None or not constraints.ca or usage is None or not usage.key_cert_sign:
            raise CertificateError(
                "roster certificate: expected an authority's (basic constraints CA, key usage "
                "certificate signing)"
            )
        return cls(frozenset(), certificate)

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
            CertificateError: the certificate is malformed, out of its time, an authority's, of
                another authority, or not of an Ed25519 key.
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
        name = digest(_CACHE_LABEL, certificate_or_key)
        member = self._known.get(name)
        if member is None:
            member = self._member(certificate_or_key)
        _check_time("device certificate", member.not_before, member.not_after, now)
        if self._authority is not None:
            _check_time(
                "authority's certificate",
                self._authority.not_valid_before_utc,
                self._authority.not_valid_after_utc,
                now,
            )
        self._known[name] = member
        _verify(member.key, message, signature)
        return member.key.public_bytes_raw()

    def _member(self, der: bytes) -> _Member:
        try:
            certificate = x509.load_der_x509_certificate(der)
        except (ValueError, x509.InvalidVersion):
            raise CertificateError("certificate: expected an X.509 certificate in DER") from None
        key = _certified_key(certificate)
        # The parser ignores the count of unused bits before the signature: one encoding only.
        if not der.endswith(_SIGNATURE_HEADER + certificate.signature):
            raise CertificateError("certificate: expected DER, whose signature has no unused bits")
        constraints, usage = _constraints(certificate)
        if (constraints is not None and constraints.ca) or (usage and usage.key_cert_sign):
            raise CertificateError("certificate of an authority: expected a device's")
        if usage is None or not usage.digital_signature:
            raise CertificateError("certificate without key usage digital signature")
        if self._authority is not None:
            try:
                certificate.verify_directly_issued_by(self._authority)
            except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
                raise CertificateError(
                    "certificate of another authority: expected one of the roster's"
                ) from None
        elif key.public_bytes_raw() not in self._keys:
            raise NotOnRosterError("certificate of a key that is not on the roster")
        return _Member(key, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def parse_pem(pem: bytes) -> x509.Certificate:
    """Parse one PEM certificate.

    Raises:
        CertificateError: it is malformed.
    """
    try:
        return x509.load_pem_x509_certificate(pem)
    except (ValueError, x509.InvalidVersion):
        raise CertificateError("certificate: expected an X.509 certificate in PEM") from None


def load_certificate(path: Path) -> x509.Certificate:
    """Read one PEM certificate.

    Raises:
        CertificateError: it cannot be read or is malformed.
    """
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path.name}: {error.strerror}") from None
    return parse_pem(pem)


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """The key as unencrypted PKCS #8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def load_private_pem(path: Path) -> Ed25519PrivateKey:
    """Read an unencrypted PKCS #8 Ed25519 key that only its owner can open.

    Raises:
        KeyFileError: it is anything else.
    """
    try:
        key = serialization.load_pem_private_key(read_private(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path.name}: expected an unencrypted Ed25519 key in PKCS #8 PEM")
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


def _certified_key(certificate: x509.Certificate) -> Ed25519PublicKey:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateError("certificate of another kind of key: expected an Ed25519 key")
    return key


def _constraints(
    certificate: x509.Certificate,
) -> tuple[x509.BasicConstraints | None, x509.KeyUsage | None]:
    """Basic constraints and key usage.

    Raises:
        CertificateError: an extension is malformed or repeated, or critical and not understood.
    """
    constraints, usage = None, None
    try:
        for extension in certificate.extensions:
            if isinstance(extension.value, x509.BasicConstraints):
                constraints = extension.value
            elif isinstance(extension.value, x509.KeyUsage):
                usage = extension.value
            elif extension.critical:  # RFC 5280, 4.2: not understood, so refused
                raise CertificateError(
                    f"certificate with critical extension {extension.oid.dotted_string}: expected "
                    f"none but basic constraints and key usage"
                )
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise CertificateError("certificate with malformed extensions") from None
    return constraints, usage


def _check_time(what: str, start: datetime, end: datetime, now: datetime) -> None:
    if now < start:
        raise CertificateError(f"{what} is not yet valid: check this device's clock")
    if now > end:
        raise CertificateError(f"{what} has expired: ask the authority for a new one")
