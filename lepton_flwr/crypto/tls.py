"""TLS credentials and node-authentication keys of a SuperLink and its SuperNodes."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from lepton_flwr.crypto.authority import (
    LIFETIME,
    certificate_builder,
    common_name,
    key_usage,
    self_signed,
)
from lepton_flwr.crypto.certificates import CertificateError, load_certificate
from lepton_flwr.crypto.files import KeyFileError, write_private
from lepton_flwr.crypto.private_keys import load_private_pem, private_pem

LOOPBACK = ("localhost", "127.0.0.1", "::1")
AUTHORITY_FILE = "ca.crt"
SERVER_CERTIFICATE_FILE = "server.pem"
SERVER_KEY_FILE = "server.key"
AUTHORITY_KEY_FILE = "ca.key"


@dataclass(frozen=True)
class ServerCredentials:
    """Files of a TLS server.

    Attributes:
        authority: the certificate that clients trust (PEM).
        certificate: the server's certificate (PEM).
        key: the server's private key (PKCS #8 PEM, mode 0600).
    """

    authority: Path
    certificate: Path
    key: Path

    @classmethod
    def within(cls, folder: Path) -> Self:
        """The files of a folder, which need not exist."""
        return cls(
            folder / AUTHORITY_FILE, folder / SERVER_CERTIFICATE_FILE, folder / SERVER_KEY_FILE
        )


class TlsAuthority:
    """The authority that certifies a federation's TLS server, and no device.

    ECDSA on P-256: TLS stacks of gRPC and browsers know no Ed25519 certificates.

    Args:
        key: its private key.
        certificate: its self-signed certificate.

    Raises:
        CertificateError: the certificate is of another key.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        if certificate.public_key() != key.public_key():
            raise CertificateError("certificate of another key: expected the TLS authority's own")
        self._key = key
        self.certificate = certificate

    @property
    def certificate_pem(self) -> bytes:
        """What clients trust, in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def create(cls, now: datetime | None = None, lifetime: timedelta = LIFETIME) -> Self:
        """Make an authority with a fresh key."""
        key = ec.generate_private_key(ec.SECP256R1())
        name, purposes = "lepton TLS authority", key_usage(key_cert_sign=True)
        made = self_signed(key, hashes.SHA256(), name, purposes, now=now, lifetime=lifetime)
        return cls(key, made)

    def issue(
        self, names: Sequence[str], now: datetime | None = None, lifetime: timedelta = LIFETIME
    ) -> tuple[bytes, bytes]:
        """Make a server's key and certificate.

        Args:
            names: the server's DNS names and IP addresses.
            now: the time, with a time zone; None takes the clock's.
            lifetime: how long the certificate is valid.

        Returns:
            The private key (PKCS #8) and the certificate, both PEM.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        server = key.public_key()
        issuer = self.certificate.subject
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        alternatives = x509.SubjectAlternativeName([_general(name) for name in names])
        own = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            # A common name has 64 characters at most, and nobody looks at a TLS server's.
            certificate_builder(common_name(names[0][:64]), issuer, server, now, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(digital_signature=True), critical=True)
            .add_extension(purpose, critical=False)
            .add_extension(alternatives, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(server), critical=False)
            .add_extension(own, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return private_pem(key), certificate.public_bytes(serialization.Encoding.PEM)

    def save(self, folder: Path, passphrase: str | None = None) -> None:
        """Write `ca.key` (PKCS #8, mode 0600) and `ca.crt` (PEM) into `folder`.

        Raises:
            KeyFileError: one of them exists or cannot be created.
            PassphraseError: the passphrase is too short.
        """
        write_private(folder / AUTHORITY_KEY_FILE, private_pem(self._key, passphrase))
        write_private(folder / AUTHORITY_FILE, self.certificate_pem)

    @classmethod
    def load(cls, folder: Path, passphrase: str | None = None) -> Self:
        """Read what `save` wrote.

        Raises:
            PassphraseError: the key is protected and the passphrase is missing or wrong.
            KeyFileError: the key cannot be read, is of another kind, or is open to other users.
            CertificateError: the certificate is malformed or of another key.
        """
        key = load_private_pem(folder / AUTHORITY_KEY_FILE, passphrase)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise KeyFileError(f"{AUTHORITY_KEY_FILE}: expected an elliptic curve key in PKCS #8")
        return cls(key, load_certificate(folder / AUTHORITY_FILE))


def create_server_credentials(
    folder: Path, names: Sequence[str] = LOOPBACK, authority: TlsAuthority | None = None
) -> ServerCredentials:
    """Make a TLS server's key and its certificate.

    Args:
        folder: an existing folder.
        names: the server's DNS names and IP addresses.
        authority: who issues the certificate; None makes one whose key is forgotten at once.

    Raises:
        KeyFileError: one of the files exists or cannot be created.
    """
    authority = TlsAuthority.create() if authority is None else authority
    key, certificate = authority.issue(names)
    files = ServerCredentials.within(folder)
    write_private(files.authority, authority.certificate_pem)
    write_private(files.certificate, certificate)
    write_private(files.key, key)
    return files


def create_node_key(path: Path) -> Path:
    """Make the key pair with which a SuperNode authenticates itself to a SuperLink.

    Returns:
        The path of the public key, one OpenSSH line: `path` with `.pub` appended.

    Raises:
        KeyFileError: one of the files exists or cannot be created.
    """
    private, public = node_key()
    write_private(path, private)
    beside = path.with_name(f"{path.name}.pub")
    write_private(beside, public)
    return beside


def node_key() -> tuple[bytes, bytes]:
    """A fresh node-authentication key: ECDSA on P-384, private and public in OpenSSH's formats.

    The private key has no passphrase: Flower could not read it.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return private, public + b"\n"


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
