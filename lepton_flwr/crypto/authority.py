"""The authority of a federation: it certifies the devices that may take part."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPrivateKeyTypes,
    CertificatePublicKeyTypes,
)
from cryptography.x509.oid import NameOID

from lepton_flwr.crypto.certificates import CertificateError, load_certificate
from lepton_flwr.crypto.files import write_private
from lepton_flwr.crypto.identity import Identity, load_signing_key
from lepton_flwr.crypto.private_keys import private_pem
from lepton_flwr.crypto.revocation import LIST_LIFETIME, Revoked, sign_list

KEY_FILE = "authority.pem"
CERTIFICATE_FILE = "authority.crt"
LIFETIME = timedelta(days=397)
CLOCK_SKEW = timedelta(hours=1)


class Authority:
    """An Ed25519 certificate authority for devices only.

    Whoever holds its key can add devices to every roster that trusts it, so it stays off the
    server: a server that could invent devices could unmask the others' sum.

    Args:
        key: its private key.
        certificate: its self-signed certificate.

    Raises:
        CertificateError: the certificate is of another key.
    """

    def __init__(self, key: Ed25519PrivateKey, certificate: x509.Certificate) -> None:
        if certificate.public_key() != key.public_key():
            raise CertificateError("certificate of another key: expected the authority's own")
        self._key = key
        self.certificate = certificate

    @property
    def certificate_pem(self) -> bytes:
        """Its certificate in PEM: what `Roster.of_authority` takes."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def create(cls, name: str, now: datetime | None = None, lifetime: timedelta = LIFETIME) -> Self:
        """Make an authority with a fresh key.

        Args:
            name: its common name, 1 to 64 characters.
            now: the time, with a time zone; None takes the clock's.
            lifetime: how long its certificate is valid.
        """
        key = Ed25519PrivateKey.generate()
        purposes = key_usage(key_cert_sign=True, crl_sign=True)
        return cls(key, self_signed(key, None, name, purposes, now=now, lifetime=lifetime))

    def issue(
        self, name: str, now: datetime | None = None, lifetime: timedelta = LIFETIME
    ) -> Identity:
        """Make a device's identity: a fresh key and a certificate of it.

        Args:
            name: the device's common name, 1 to 64 characters; others see it.
            now: the time, with a time zone; None takes the clock's.
            lifetime: how long the certificate is valid.
        """
        key = Ed25519PrivateKey.generate()
        return Identity(key, self.certify(name, key.public_key(), now, lifetime))

    def certify(
        self,
        name: str,
        key: Ed25519PublicKey,
        now: datetime | None = None,
        lifetime: timedelta = LIFETIME,
    ) -> x509.Certificate:
        """Certify a device's public key; the rest is as in `issue`."""
        return (
            certificate_builder(common_name(name), self.certificate.subject, key, now, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(digital_signature=True), critical=True)
            .sign(self._key, None)
        )

    def sign_revocations(
        self,
        number: int,
        revoked: Sequence[Revoked] = (),
        now: datetime | None = None,
        lifetime: timedelta = LIST_LIFETIME,
    ) -> bytes:
        """Sign the list of what is revoked; see `sign_list`.

        Returns:
            The list in PEM.
        """
        now = datetime.now(UTC) if now is None else now
        return sign_list(self._key, self.certificate, number, revoked, now, lifetime=lifetime)

    def save(self, folder: Path, passphrase: str | None = None) -> None:
        """Write `authority.pem` (PKCS #8, mode 0600) and `authority.crt` (PEM) into `folder`.

        Raises:
            KeyFileError: one of them exists or cannot be created.
            PassphraseError: the passphrase is too short.
        """
        write_private(folder / KEY_FILE, private_pem(self._key, passphrase))
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


def certificate_builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: CertificatePublicKeyTypes,
    now: datetime | None = None,
    lifetime: timedelta = LIFETIME,
) -> x509.CertificateBuilder:
    """A certificate with everything but its extensions, valid from `now` for `lifetime`."""
    now = datetime.now(UTC) if now is None else now
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
    )


def self_signed(
    key: CertificateIssuerPrivateKeyTypes,
    algorithm: hashes.SHA256 | None,
    name: str,
    purposes: x509.KeyUsage,
    *,
    now: datetime | None = None,
    lifetime: timedelta = LIFETIME,
) -> x509.Certificate:
    """An authority's certificate of its own key; it may certify no further authority.

    Args:
        key: its private key.
        algorithm: the signature's hash; None for Ed25519.
        name: its common name, 1 to 64 characters.
        purposes: of the key.
        now: the time, with a time zone; None takes the clock's.
        lifetime: how long it is valid.
    """
    public, subject = key.public_key(), common_name(name)
    return (
        certificate_builder(subject, subject, public, now, lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(purposes, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, algorithm)
    )


def key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    """The key usage extension with these purposes and no other."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def common_name(text: str) -> x509.Name:
    """The name that consists of a common name, 1 to 64 characters."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
