"""What tests of the gate share."""

import pytest

from lepton_flwr.crypto.address import Address
from lepton_flwr.crypto.keyring import Keyring


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """The certificate of a federation's TLS authority."""
    folder = tmp_path_factory.mktemp("gate") / "fed"
    Keyring.create(folder, 1, Address("localhost", 8000))
    return folder / "server" / "ca.crt"
