from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from lepton_flwr.crypto import identity
from lepton_flwr.crypto.authority import (
    CLOCK_SKEW,
    LIFETIME,
    Authority,
    certificate_builder,
    common_name,
    key_usage,
)
from lepton_flwr.crypto.certificates import parse_der
from lepton_flwr.crypto.files import KeyFileError
from lepton_flwr.crypto.identity import (
    CertificateError,
    Identity,
    NotOnRosterError,
    Roster,
    SignatureError,
    verify,
)
from lepton_flwr.errors import PrivacyError

MESSAGE = b"message"
AUTHORITY = Authority.create("authority")
DEVICE = AUTHORITY.issue("device")
ROSTER = Roster.of_authority(AUTHORITY.certificate_pem)
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def certified(key=None, *, issuer=AUTHORITY, extensions=None, algorithm=None, name="authority"):
    """The DER of a certificate with chosen parts, signed by `issuer`."""
    key = Ed25519PrivateKey.generate() if key is None else key
    if extensions is None:
        extensions = [(key_usage(digital_signature=True), True)]
    builder = certificate_builder(common_name("device"), common_name(name), key.public_key())
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    certificate = builder.sign(issuer._key, algorithm)
    return key, certificate.public_bytes(serialization.Encoding.DER)


def test_a_member_of_either_roster_is_accepted_and_named_by_its_key():
    signature = DEVICE.sign(MESSAGE)
    assert ROSTER.verify(DEVICE.certificate, MESSAGE, signature) == DEVICE.public_key
    keys = Roster.of_keys([DEVICE.public_key])
    assert keys.verify(DEVICE.public_key, MESSAGE, signature) == DEVICE.public_key
    assert keys.verify(DEVICE.certificate, MESSAGE, signature) == DEVICE.public_key


@given(st.binary(max_size=40), st.integers(0, 63), st.integers(1, 255))
def test_a_changed_signature_is_refused(message, place, change):
    signature = bytearray(DEVICE.sign(message))
    verify(DEVICE.public_key, message, bytes(signature))
    signature[place] ^= change
    with pytest.raises(SignatureError):
        verify(DEVICE.public_key, message, bytes(signature))


@pytest.mark.parametrize("signature", [b"", b"x" * 63, b"x" * 65])
def test_a_signature_of_the_wrong_length_is_refused(signature):
    with pytest.raises(SignatureError):
        verify(DEVICE.public_key, MESSAGE, signature)
    with pytest.raises(SignatureError):
        ROSTER.verify(DEVICE.certificate, MESSAGE, signature)


def test_a_key_of_the_wrong_length_is_refused():
    with pytest.raises(SignatureError, match="31 bytes"):
        verify(b"k" * 31, MESSAGE, DEVICE.sign(MESSAGE))
    with pytest.raises(CertificateError, match="31 bytes"):
        Roster.of_keys([b"k" * 31])


def test_another_devices_signature_is_refused():
    other = AUTHORITY.issue("other")
    with pytest.raises(SignatureError):
        ROSTER.verify(DEVICE.certificate, MESSAGE, other.sign(MESSAGE))


def test_a_key_that_is_not_listed_is_refused():
    other = AUTHORITY.issue("other")
    keys = Roster.of_keys([DEVICE.public_key])
    for name in (other.public_key, other.certificate):
        with pytest.raises(NotOnRosterError):
            keys.verify(name, MESSAGE, other.sign(MESSAGE))


def test_a_bare_key_does_not_pass_for_a_certificate():
    with pytest.raises(NotOnRosterError):
        ROSTER.verify(DEVICE.public_key, MESSAGE, DEVICE.sign(MESSAGE))


def test_an_empty_roster_accepts_nobody():
    with pytest.raises(NotOnRosterError):
        Roster.of_keys([]).verify(DEVICE.public_key, MESSAGE, DEVICE.sign(MESSAGE))


def test_a_device_of_another_authority_of_the_same_name_is_refused():
    stranger = Authority.create("authority").issue("device")
    with pytest.raises(CertificateError, match="another authority"):
        ROSTER.verify(stranger.certificate, MESSAGE, stranger.sign(MESSAGE))


def test_an_issuer_of_another_name_is_refused():
    key, der = certified(name="somebody")
    with pytest.raises(CertificateError, match="another authority"):
        ROSTER.verify(der, MESSAGE, key.sign(MESSAGE))


def test_a_self_signed_certificate_is_refused():
    key = Ed25519PrivateKey.generate()
    stranger = Authority(key, x509.load_pem_x509_certificate(_self_signed(key)))
    _, der = certified(key, issuer=stranger)
    with pytest.raises(CertificateError, match="another authority"):
        ROSTER.verify(der, MESSAGE, key.sign(MESSAGE))


def _self_signed(key):
    name = common_name("authority")
    certificate = certificate_builder(name, name, key.public_key()).sign(key, None)
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    "extensions",
    [
        [(x509.BasicConstraints(True, None), True), (key_usage(digital_signature=True), True)],
        [(key_usage(digital_signature=True, key_cert_sign=True), True)],
    ],
)
def test_a_certificate_that_could_certify_others_is_refused(extensions):
    key, der = certified(extensions=extensions)
    with pytest.raises(CertificateError, match="of an authority"):
        ROSTER.verify(der, MESSAGE, key.sign(MESSAGE))


def test_the_authority_itself_is_no_device():
    der = AUTHORITY.certificate.public_bytes(serialization.Encoding.DER)
    with pytest.raises(CertificateError, match="of an authority"):
        ROSTER.verify(der, MESSAGE, AUTHORITY._key.sign(MESSAGE))


@pytest.mark.parametrize(
    ("extensions", "reason"),
    [
        ([], "without key usage"),
        ([(key_usage(), True)], "without key usage"),
        (
            [
                (key_usage(digital_signature=True), True),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), True),
            ],
            "critical extension",
        ),
    ],
)
def test_a_certificate_for_another_purpose_is_refused(extensions, reason):
    key, der = certified(extensions=extensions)
    with pytest.raises(CertificateError, match=reason):
        ROSTER.verify(der, MESSAGE, key.sign(MESSAGE))


def test_a_certificate_of_another_kind_of_key_is_refused():
    key, der = certified(ec.generate_private_key(ec.SECP256R1()))
    signature = key.sign(MESSAGE, ec.ECDSA(hashes.SHA256()))
    with pytest.raises(CertificateError, match="Ed25519"):
        ROSTER.verify(der, MESSAGE, signature)


@given(st.binary(max_size=64).filter(lambda text: len(text) != 32))
def test_bytes_that_are_no_certificate_are_refused(text):
    with pytest.raises(CertificateError):
        ROSTER.verify(text, MESSAGE, DEVICE.sign(MESSAGE))


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # a warning, then refused
def test_every_one_bit_change_of_a_certificate_is_refused():
    signature = DEVICE.sign(MESSAGE)
    for bit in range(8 * len(DEVICE.certificate)):
        der = bytearray(DEVICE.certificate)
        der[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(CertificateError):
            ROSTER.verify(bytes(der), MESSAGE, signature)


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        (NOW - CLOCK_SKEW - timedelta(seconds=1), "not yet valid"),
        (NOW + LIFETIME + timedelta(seconds=1), "expired"),
    ],
)
def test_a_certificate_out_of_its_time_is_refused_even_when_remembered(moment, reason):
    authority = Authority.create("long", NOW)
    device = authority.issue("device", NOW)
    roster = Roster.of_authority(authority.certificate_pem)
    signature = device.sign(MESSAGE)
    with pytest.raises(CertificateError, match=reason):
        roster.verify(device.certificate, MESSAGE, signature, moment)
    roster.verify(device.certificate, MESSAGE, signature, NOW)
    with pytest.raises(CertificateError, match=reason):
        roster.verify(device.certificate, MESSAGE, signature, moment)


def test_an_expired_authority_certifies_nobody():
    authority = Authority.create("old", NOW)
    device = authority.issue("device", NOW + LIFETIME)
    roster = Roster.of_authority(authority.certificate_pem)
    with pytest.raises(CertificateError, match="authority's certificate has expired"):
        roster.verify(
            device.certificate, MESSAGE, device.sign(MESSAGE), NOW + LIFETIME + timedelta(1)
        )


@pytest.mark.parametrize("pem", [b"", b"no certificate"])
def test_a_roster_of_no_certificate_is_refused(pem):
    with pytest.raises(CertificateError, match="PEM"):
        Roster.of_authority(pem)


def test_a_devices_certificate_is_no_roster():
    pem = x509.load_der_x509_certificate(DEVICE.certificate).public_bytes(
        serialization.Encoding.PEM
    )
    with pytest.raises(CertificateError, match="authority"):
        Roster.of_authority(pem)


def test_an_identity_survives_a_file_and_its_key_is_private(tmp_path):
    DEVICE.save(tmp_path)
    assert (tmp_path / "identity.pem").stat().st_mode & 0o777 == 0o600
    loaded = Identity.load(tmp_path)
    assert (loaded.public_key, loaded.certificate) == (DEVICE.public_key, DEVICE.certificate)
    assert ROSTER.verify(loaded.certificate, MESSAGE, loaded.sign(MESSAGE)) == DEVICE.public_key


def test_a_key_is_never_replaced(tmp_path):
    DEVICE.save(tmp_path)
    with pytest.raises(KeyFileError, match="exists"):
        AUTHORITY.issue("other").save(tmp_path)
    assert Identity.load(tmp_path).public_key == DEVICE.public_key


def test_a_key_is_not_written_through_a_symbolic_link(tmp_path):
    (tmp_path / "identity.pem").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError):
        DEVICE.save(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_can_open_is_refused(tmp_path, mode):
    DEVICE.save(tmp_path)
    (tmp_path / "identity.pem").chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        Identity.load(tmp_path)


def test_a_missing_or_malformed_key_or_certificate_is_refused(tmp_path):
    with pytest.raises(KeyFileError):
        Identity.load(tmp_path)
    DEVICE.save(tmp_path)
    (tmp_path / "identity.crt").write_bytes(b"x")
    with pytest.raises(CertificateError):
        Identity.load(tmp_path)
    (tmp_path / "identity.crt").unlink()
    with pytest.raises(CertificateError):
        Identity.load(tmp_path)
    (tmp_path / "identity.pem").write_bytes(b"x")
    with pytest.raises(KeyFileError, match="PKCS #8"):
        Identity.load(tmp_path)


def test_a_certificate_of_another_key_makes_no_identity(tmp_path):
    DEVICE.save(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    AUTHORITY.issue("other").save(other)
    (other / "identity.crt").replace(tmp_path / "identity.crt")
    with pytest.raises(CertificateError, match="another key"):
        Identity.load(tmp_path)


def test_all_refusals_are_privacy_errors():
    for error in (NotOnRosterError, CertificateError, SignatureError, KeyFileError):
        assert issubclass(error, PrivacyError)


def test_a_remembered_members_certificate_is_not_checked_anew(monkeypatch):
    """A hundred signatures take 0.017 s, and a hundred certificates many times that."""
    devices = [AUTHORITY.issue(f"device-{i}") for i in range(100)]
    read = []

    def counted(der):
        read.append(der)
        return parse_der(der)

    monkeypatch.setattr(identity, "parse_der", counted)
    for _ in range(3):
        for device in devices:
            ROSTER.verify(device.certificate, MESSAGE, device.sign(MESSAGE))
    assert read == [device.certificate for device in devices]
