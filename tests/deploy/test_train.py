"""What `lepton server train` hands to a server, which may see the server's folder alone."""

import io
from pathlib import Path

import pytest

from lepton_flwr.crypto.address import Address
from lepton_flwr.deploy import train
from lepton_flwr.deploy.folders import create
from lepton_flwr.deploy.status import RUNNING, StatusFile
from lepton_flwr.deploy.supervisor import only_one
from lepton_flwr.errors import FederationError
from lepton_flwr.runs.folder import RunFolder
from lepton_flwr.runs.settings import resolve


@pytest.fixture
def server(tmp_path):
    create(tmp_path / "fed", 3, Address("localhost", 8000))
    folder = tmp_path / "fed" / "server"
    StatusFile(folder).enter(RUNNING)
    with only_one(folder):
        yield folder


@pytest.fixture
def handed(monkeypatch):
    """The values that the app is started with."""
    calls = []
    monkeypatch.setattr(
        train, "run_app", lambda folder, values, logs, console: calls.append(values)
    )
    return calls


def test_all_that_the_server_reads_and_writes_is_in_its_own_folder(server, handed):
    run = train.train(server, resolve("smoke"), console=io.StringIO())
    (values,) = handed
    paths = {key: Path(str(value)) for key, value in values.items() if key != "simulated"}
    assert set(paths) == {"roster", "config-file", "out", "ledger"}
    assert all(path.is_relative_to(server.resolve()) for path in paths.values())
    assert paths["out"] == run


def test_the_configuration_is_read_from_the_runs_folder_and_then_replaced_there(server, handed):
    wanted = resolve("smoke", rounds=7, seed=5)
    run = train.train(server, wanted, console=io.StringIO())
    read = resolve(config=Path(str(handed[0]["config-file"])))
    assert read == wanted
    RunFolder(read, save_model=lambda weights, path: None, folder=run)
    assert resolve(config=run / "config.toml") == wanted


def test_a_server_that_was_killed_is_not_taken_for_running(tmp_path, handed):
    create(tmp_path / "fed", 3, Address("localhost", 8000))
    folder = tmp_path / "fed" / "server"
    with only_one(folder):
        StatusFile(folder).enter(RUNNING)
    with pytest.raises(FederationError, match="gone without a word"):
        train.train(folder, resolve("smoke"), console=io.StringIO())
    assert handed == []
    assert not (folder / "runs").exists()
