"""TLS credentials and node-authentication keys of a SuperLink on this machine."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from lepton_flwr.crypto.authority import certificate_builder, common_name, key_usage
from lepton_flwr.crypto.files import write_private

LOOPBACK = ("localhost", "127.0.0.1", "::1")


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


def create_server_credentials(folder: Path, names: tuple[str, ...] = LOOPBACK) -> ServerCredentials:
    """Make a TLS server's key, its certificate, and the authority that issued it.

    ECDSA on P-256: TLS stacks of gRPC and browsers know no Ed25519 certificates. The authority's
    key is forgotten at once.

    Args:
        folder: an existing folder.
        names: the server's host names and addresses.

    Raises:
        KeyFileError: one of the files exists or cannot be created.
    """
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = common_name("lepton TLS authority")
    root = (
        certificate_builder(issuer, issuer, root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(key_cert_sign=True), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False
        )
        .sign(root_key, hashes.SHA256())
    )
    certificate = (
        certificate_builder(common_name(names[0]), issuer, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(n) for n in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
            critical=False,
        )
        .sign(root_key, hashes.SHA256())
    )
    files = ServerCredentials(folder / "ca.crt", folder / "server.pem", folder / "server.key")
    write_private(files.authority, root.public_bytes(serialization.Encoding.PEM))
    write_private(files.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    write_private(
        files.key,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    return files


def create_node_key(path: Path) -> Path:
    """Make the key pair with which a SuperNode authenticates itself to a SuperLink.

    ECDSA on P-384, the private key in OpenSSH's format at `path` (mode 0600).

    Returns:
        The path of the public key, one OpenSSH line: `path` with `.pub` appended.

    Raises:
        KeyFileError: one of the files exists or cannot be created.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    write_private(
        path,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        ),
    )
    public = path.with_name(f"{path.name}.pub")
    write_private(
        public,
        key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        ),
    )
    return public


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
