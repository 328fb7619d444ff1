import ssl

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lepton_flwr.crypto.files import KeyFileError
from lepton_flwr.crypto.tls import LOOPBACK, create_node_key, create_server_credentials


def handshake(server, authority, name):
    """A TLS handshake in memory, with the checks of Python's newest defaults."""
    here = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    here.load_cert_chain(server.certificate, server.key)
    there = ssl.create_default_context(cafile=authority)
    there.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = there.wrap_bio(to_client, to_server, server_hostname=name)
    server_side = here.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (client_side, server_side):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client_side.version()


@pytest.mark.parametrize("name", LOOPBACK)
def test_a_client_that_trusts_the_authority_connects_by_every_name(tmp_path, name):
    server = create_server_credentials(tmp_path)
    assert handshake(server, server.authority, name) == "TLSv1.3"


def test_another_name_is_refused(tmp_path):
    server = create_server_credentials(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(server, server.authority, "example.org")


def test_another_authority_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    server = create_server_credentials(tmp_path / "a")
    other = create_server_credentials(tmp_path / "b")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, other.authority, "localhost")


def test_private_keys_are_private_and_never_replaced(tmp_path):
    server = create_server_credentials(tmp_path)
    create_node_key(tmp_path / "node")
    for path in (server.key, tmp_path / "node"):
        assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(KeyFileError):
        create_server_credentials(tmp_path)
    with pytest.raises(KeyFileError):
        create_node_key(tmp_path / "node")


def test_a_node_key_is_an_openssh_pair_on_p384(tmp_path):
    public = create_node_key(tmp_path / "node")
    assert public == tmp_path / "node.pub"
    key = serialization.load_ssh_private_key((tmp_path / "node").read_bytes(), None)
    assert isinstance(key.curve, ec.SECP384R1)
    assert serialization.load_ssh_public_key(public.read_bytes()) == key.public_key()
    assert public.read_text().startswith("ecdsa-sha2-nistp384 ")
