import pytest

from lepton_flwr.crypto.address import Address
from lepton_flwr.crypto.keyring import Keyring
from lepton_flwr.crypto.revocation import RevokedError
from lepton_flwr.deploy import device as module
from lepton_flwr.deploy.folders import create
from lepton_flwr.errors import DataError, FederationError

JOINED = "INFO :      SuperNode ID: 42\n"
# Of a process within the SuperNode, not of the way to the server.
NOISE = "WARNING :   Connection attempt failed, retrying in 0.79 seconds\n"


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A SuperNode's component, and whether the server answers."""
    create(tmp_path / "fed", 2, Address("localhost", 8000))
    folder = tmp_path / "fed" / "devices" / "device-001"
    (folder / "data.npz").write_bytes(b"rows")
    server = {"answers": True, "asked": 0}

    def try_server(address, authority):
        assert (address, authority) == (Address("localhost", 8000), folder / "ca.crt")
        server["asked"] += 1
        if not server["answers"]:
            raise FederationError("no server")

    monkeypatch.setattr(module, "try_server", try_server)
    return module._SuperNode(folder, Address("localhost", 8000)), server, folder


def test_a_node_is_up_once_it_has_joined_and_as_long_as_its_server_answers(node, monkeypatch):
    node, server, _ = node
    node.prepare()
    assert not node.look("INFO : starting\n", False)
    assert node.look(NOISE + JOINED + NOISE, False)
    assert node.look(NOISE, True)
    assert server["asked"] == 1  # before the start alone
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.0)
    assert node.look(JOINED, True)
    server["answers"] = False
    assert not node.look("", True)
    assert not node.look("", False)
    server["answers"] = True
    assert node.look("", False)
    node.prepare()  # ended and to be started again: not up before it has joined again
    assert not node.look("", False)


def test_the_command_names_the_folder_its_key_and_whose_apps_may_run(node):
    node, _, folder = node
    command, variables = node.prepare()
    assert command[0] == "flower-supernode"
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--node-config"] == f'lepton-device="{folder}"'
    assert options["--auth-supernode-private-key"] == str(folder / "node.key")
    assert options["--root-certificates"] == str(folder / "ca.crt")
    assert options["--superlink"] == "localhost:8000"
    assert options["--host"] == "127.0.0.1"
    assert "--insecure" not in command
    assert "--trusted-entities" not in options
    assert variables == {"FLWR_HOME": str(folder / "flower")}
    (folder / "trusted.yaml").write_text("{}")
    command, _ = node.prepare()
    assert command[-2:] == ["--trusted-entities", str(folder / "trusted.yaml")]


def test_what_an_earlier_start_unpacked_perhaps_halfway_is_unpacked_again(node):
    node, _, folder = node
    half = folder / "flower" / "apps" / "lepton-flwr.lepton-flwr.1.0.0.01234567"
    half.mkdir(parents=True)
    (folder / "flower" / "config.toml").write_text("")
    node.prepare()
    assert [path.name for path in (folder / "flower").iterdir()] == ["config.toml"]
    node.prepare()


def test_a_node_is_not_started_without_rows_a_server_or_a_valid_certificate(node):
    node, server, folder = node
    server["answers"] = False
    with pytest.raises(FederationError):
        node.prepare()
    server["answers"] = True
    (folder / "data.npz").unlink()
    with pytest.raises(DataError):
        node.prepare()
    (folder / "data.npz").write_bytes(b"rows")
    Keyring(folder.parents[1]).revoke(["device-001"])
    newer = folder.with_name("device-002") / "revoked.crl"
    (folder / "revoked.crl").write_bytes(newer.read_bytes())
    with pytest.raises(RevokedError):
        node.prepare()
