"""X.509 certificates: reading them, and what every check of one has in common."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from lepton_flwr.errors import PrivacyError
from lepton_flwr.failures import Failure


class CertificateError(PrivacyError):
    """The certificate is malformed, out of its time, of another authority or another kind."""

    failure = Failure.IDENTITY


def parse_pem(pem: bytes) -> x509.Certificate:
    """Parse one PEM certificate.

    Raises:
        CertificateError: it is malformed.
    """
    try:
        return x509.load_pem_x509_certificate(pem)
    except (ValueError, x509.InvalidVersion):
        raise CertificateError("certificate: expected an X.509 certificate in PEM") from None


def parse_der(der: bytes) -> x509.Certificate:
    """Parse one DER certificate.

    Raises:
        CertificateError: it is malformed.
    """
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion):
        raise CertificateError("certificate: expected an X.509 certificate in DER") from None


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


def parse_authorities(pem: bytes) -> tuple[x509.Certificate, ...]:
    """Parse the certificates of one or more authorities, PEM after PEM.

    Raises:
        CertificateError: one is malformed or not an Ed25519 authority's, or there is none.
    """
    try:
        certificates = tuple(x509.load_pem_x509_certificates(pem))
    except (ValueError, x509.InvalidVersion):
        raise CertificateError("roster: expected X.509 certificates in PEM") from None
    for certificate in certificates:
        constraints, usage = read_constraints(certificate)
        if constraints is None or not constraints.ca or usage is None or not usage.key_cert_sign:
            raise CertificateError(
                "roster certificate: expected an authority's (basic constraints CA, key usage "
                "certificate signing)"
            )
        certified_key(certificate)
    return certificates


def certified_key(certificate: x509.Certificate) -> Ed25519PublicKey:
    """The Ed25519 key that a certificate is of.

    Raises:
        CertificateError: it is of another kind of key.
    """
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateError("certificate of another kind of key: expected an Ed25519 key")
    return key


def read_constraints(
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


def issuer_among(
    certificate: x509.Certificate, authorities: Sequence[x509.Certificate]
) -> x509.Certificate:
    """The authority that issued the certificate.

    Raises:
        CertificateError: none of them did.
    """
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        return authority
    raise CertificateError("certificate of another authority: expected one of the roster's")


def check_time(what: str, start: datetime, end: datetime, now: datetime) -> None:
    """Refuse what is out of its time.

    Raises:
        CertificateError: `now` is before `start` or after `end`.
    """
    if now < start:
        raise CertificateError(f"{what} is not yet valid: check this device's clock")
    if now > end:
        raise CertificateError(f"{what} has expired: ask the authority for a new one")


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate's DER, 64 hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()
