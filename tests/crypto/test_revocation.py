from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lepton_flwr.crypto.authority import (
    Authority,
    certificate_builder,
    common_name,
    key_usage,
)
from lepton_flwr.crypto.identity import CertificateError, Roster
from lepton_flwr.crypto.revocation import (
    LIST_LIFETIME,
    SEEN_FILE,
    RevocationError,
    Revoked,
    RevokedError,
    read_lists,
    remember,
)

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
AUTHORITY = Authority.create("authority", NOW)
DEVICE, OTHER = (AUTHORITY.issue(name, NOW) for name in ("device", "other"))


def serial(identity):
    return x509.load_der_x509_certificate(identity.certificate).serial_number


def signed(*identities, number=1, authority=AUTHORITY, now=NOW):
    return authority.sign_revocations(number, [Revoked(serial(i), NOW) for i in identities], now)


def accepts(roster, identity, now=NOW):
    message = b"message"
    name = roster.verify(identity.certificate, message, identity.sign(message), now)
    assert name == identity.public_key


def hand_made(*extensions, key=None, entries=(), issuer="authority"):
    """A list with chosen extensions of it and of its entries."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(common_name(issuer))
        .last_update(NOW)
        .next_update(NOW + timedelta(days=1))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    for entry in entries:
        builder = builder.add_revoked_certificate(entry)
    signer = AUTHORITY._key if key is None else key
    return builder.sign(signer, None).public_bytes(serialization.Encoding.PEM)


def test_a_revoked_device_is_refused_and_the_others_are_not():
    roster = Roster.of_authority(AUTHORITY.certificate_pem, signed(DEVICE))
    accepts(roster, OTHER)
    with pytest.raises(RevokedError, match="revoked"):
        accepts(roster, DEVICE)
    with pytest.raises(RevokedError):
        roster.check(DEVICE.certificate, NOW)


def test_a_device_is_refused_although_an_earlier_roster_remembered_its_certificate():
    before = Roster.of_authority(AUTHORITY.certificate_pem, signed())
    accepts(before, DEVICE)
    with pytest.raises(RevokedError):
        accepts(Roster.of_authority(AUTHORITY.certificate_pem, signed(DEVICE, number=2)), DEVICE)


def test_an_expired_list_is_refused_unless_that_is_allowed():
    pem, late = signed(OTHER), NOW + LIST_LIFETIME + timedelta(seconds=1)
    roster = Roster.of_authority(AUTHORITY.certificate_pem, pem)
    accepts(roster, DEVICE, late - timedelta(seconds=2))
    with pytest.raises(CertificateError, match="revocation list has expired"):
        accepts(roster, DEVICE, late)
    lenient = Roster.of_authority(AUTHORITY.certificate_pem, pem, allow_expired=True)
    accepts(lenient, DEVICE, late)
    with pytest.raises(RevokedError):
        accepts(lenient, OTHER, late)


def test_a_list_of_the_future_is_refused():
    roster = Roster.of_authority(
        AUTHORITY.certificate_pem, signed(now=NOW + timedelta(days=2)), allow_expired=True
    )
    with pytest.raises(CertificateError, match="clock"):
        accepts(roster, DEVICE)


def test_a_list_that_another_authority_of_the_same_name_signed_is_refused():
    stranger = Authority.create("authority", NOW)
    with pytest.raises(RevocationError, match="none that the roster's authority signed"):
        Roster.of_authority(AUTHORITY.certificate_pem, signed(authority=stranger))


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_no_change_of_a_single_bit_of_a_list_is_accepted():
    der = x509.load_pem_x509_crl(signed(DEVICE)).public_bytes(serialization.Encoding.DER)
    good = Roster.of_authority(AUTHORITY.certificate_pem, signed(DEVICE)).lists
    import base64

    for bit in range(8 * len(der)):
        changed = bytearray(der)
        changed[bit // 8] ^= 1 << (bit % 8)
        text = base64.encodebytes(bytes(changed))
        pem = b"-----BEGIN X509 CRL-----\n" + text + b"-----END X509 CRL-----\n"
        try:
            found = read_lists(pem, [AUTHORITY.certificate])
        except RevocationError:
            continue
        # Only the encoding may differ (the count of unused bits of the signature), never the list.
        assert (found[0].serials, found[0].number) == (good[0].serials, good[0].number)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"no list",
        signed()[:-30],
        b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
        AUTHORITY.certificate_pem,
    ],
)
def test_what_is_no_list_is_refused(pem):
    with pytest.raises(RevocationError):
        read_lists(pem, [AUTHORITY.certificate])


def test_a_list_of_part_of_the_certificates_is_refused():
    number = (x509.CRLNumber(2), False)
    delta = (x509.DeltaCRLIndicator(1), True)
    indirect = (
        x509.RevokedCertificateBuilder()
        .serial_number(5)
        .revocation_date(NOW)
        .add_extension(x509.CertificateIssuer([x509.DNSName("other")]), critical=True)
        .build()
    )
    for pem in (hand_made(number, delta), hand_made(number, entries=[indirect])):
        with pytest.raises(RevocationError, match="critical extension"):
            read_lists(pem, [AUTHORITY.certificate])


def test_a_list_without_a_number_is_refused():
    with pytest.raises(RevocationError, match="number"):
        read_lists(hand_made(), [AUTHORITY.certificate])


def test_an_authority_that_may_not_revoke_cannot():
    key = Ed25519PrivateKey.generate()
    name = common_name("authority")
    certificate = (
        certificate_builder(name, name, key.public_key(), NOW)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(key_cert_sign=True), critical=True)
        .sign(key, None)
    )
    with pytest.raises(RevocationError, match="CRL signing"):
        read_lists(hand_made((x509.CRLNumber(1), False), key=key), [certificate])


def test_the_newest_of_several_lists_counts():
    pem = signed(DEVICE, number=2) + signed(number=1)
    (found,) = read_lists(pem, [AUTHORITY.certificate])
    assert (found.number, found.serials) == (2, {serial(DEVICE)})


def test_of_two_trusted_authorities_both_need_a_list():
    new = Authority.create("authority", NOW)
    both = AUTHORITY.certificate_pem + new.certificate_pem
    late = new.issue("late", NOW)
    with pytest.raises(RevocationError):
        Roster.of_authority(both, signed())
    roster = Roster.of_authority(both, signed(OTHER) + signed(authority=new))
    accepts(roster, DEVICE)
    accepts(roster, late)
    with pytest.raises(RevokedError):
        accepts(roster, OTHER)
    # A serial number counts for its own authority alone.
    roster = Roster.of_authority(both, signed() + signed(DEVICE, authority=new))
    accepts(roster, DEVICE)


def lists(number, *revoked):
    return read_lists(signed(*revoked, number=number), [AUTHORITY.certificate])


def test_an_older_list_than_one_seen_is_refused(tmp_path):
    remember(tmp_path, lists(7, DEVICE))
    remember(tmp_path, lists(7, DEVICE))
    with pytest.raises(RevocationError, match="older than list 7"):
        remember(tmp_path, lists(6))
    remember(tmp_path, lists(8))
    with pytest.raises(RevocationError, match="older than list 8"):
        remember(tmp_path, lists(7, DEVICE))


def test_a_second_list_of_the_same_number_is_refused(tmp_path):
    remember(tmp_path, lists(7, DEVICE))
    with pytest.raises(RevocationError, match="another one of this number"):
        remember(tmp_path, lists(7))


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 3}', b'{"a": ["x", "y"]}', b"\xff"])
def test_a_damaged_memory_of_lists_is_refused(tmp_path, content):
    (tmp_path / SEEN_FILE).write_bytes(content)
    with pytest.raises(RevocationError, match="damaged"):
        remember(tmp_path, lists(7))


def test_the_memory_of_lists_is_private(tmp_path):
    remember(tmp_path, lists(7))
    assert (tmp_path / SEEN_FILE).stat().st_mode & 0o777 == 0o600
