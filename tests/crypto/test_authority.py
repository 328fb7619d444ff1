import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from lepton_flwr.crypto.authority import Authority
from lepton_flwr.crypto.files import KeyFileError
from lepton_flwr.crypto.identity import CertificateError, Roster


def test_an_authoritys_certificate_is_a_ca_with_certificate_signing_only():
    certificate = x509.load_pem_x509_certificate(Authority.create("name").certificate_pem)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.digital_signature) == (True, False)
    certificate.verify_directly_issued_by(certificate)


def test_every_issued_identity_has_its_own_key_and_the_given_name():
    authority = Authority.create("name")
    devices = [authority.issue("node") for _ in range(3)]
    assert len({device.public_key for device in devices}) == 3
    certificate = x509.load_der_x509_certificate(devices[0].certificate)
    assert certificate.subject.rfc4514_string() == "CN=node"
    assert isinstance(certificate.public_key(), Ed25519PublicKey)


def test_an_authority_survives_a_file_and_its_key_is_private(tmp_path):
    authority = Authority.create("name")
    authority.save(tmp_path)
    assert (tmp_path / "authority.pem").stat().st_mode & 0o777 == 0o600
    loaded = Authority.load(tmp_path)
    assert loaded.certificate_pem == authority.certificate_pem
    device = loaded.issue("late")
    roster = Roster.of_authority(authority.certificate_pem)
    assert roster.verify(device.certificate, b"m", device.sign(b"m")) == device.public_key
    with pytest.raises(KeyFileError):
        authority.save(tmp_path)


def test_a_missing_or_mixed_up_authority_is_refused(tmp_path):
    with pytest.raises(KeyFileError):
        Authority.load(tmp_path)
    Authority.create("a").save(tmp_path)
    (tmp_path / "authority.crt").write_bytes(Authority.create("b").certificate_pem)
    with pytest.raises(CertificateError, match="another key"):
        Authority.load(tmp_path)
    (tmp_path / "authority.crt").unlink()
    with pytest.raises(CertificateError):
        Authority.load(tmp_path)
