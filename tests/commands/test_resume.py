"""`lepton simulate --resume` and `lepton server resume`, up to what they start."""

import sys
import types
from pathlib import Path

import pytest
import tomli_w

import simulations
from lepton_flwr import cli
from lepton_flwr.config import RunConfig
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.runs.checkpoint import Checkpoint, Checkpoints, config_digest


@pytest.fixture
def lepton(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lepton", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def make(tmp_path):
    """Makes a run's folder with a checkpoint."""

    def make(recipient=None, **settings):
        folder = tmp_path / "run"
        folder.mkdir()
        to = [recipient] if recipient else []
        config = RunConfig.build(
            {"scenario": "smoke", "output": {"model_to": [r.to_text().strip() for r in to]}}
        )
        (folder / "config.toml").write_text(tomli_w.dumps(config.to_dict()))
        settings = {"ledger": "/kept", **settings}
        checkpoints = Checkpoints.new(folder, "smoke 1", settings, to)
        checkpoints.begin()
        digest = config_digest(config)
        checkpoints.save(Checkpoint(digest, [], {}, 0.0, (0, b"")))
        checkpoints.close()
        return folder

    return make


@pytest.fixture
def flower(monkeypatch, tmp_path):
    """A server that is said to run, and what would be run on it."""
    from lepton_flwr.deploy import train
    from simulations import app_bundle
    from simulations import flower as module

    fake = types.SimpleNamespace(calls=[], state=train.RUNNING)

    class Flower:
        def __init__(self, processes, home, connection):
            self.home = home

        def run(self, app, values, console):
            fake.calls.append((self.home, values))
            (Path(values["resume"]) / "summary.json").write_text("{}")

    monkeypatch.setattr(module, "Flower", Flower)
    monkeypatch.setattr(app_bundle, "assemble", lambda folder: folder / "app")
    monkeypatch.setattr(train.ServerSettings, "read", lambda folder: None)
    status = types.SimpleNamespace(state=fake.state)
    monkeypatch.setattr(train.Status, "read", lambda folder: status)
    monkeypatch.setattr(train, "is_run", lambda folder: True)
    monkeypatch.setattr("lepton_flwr.runs.progress.print_summary", lambda folder: None)
    fake.status = status
    return fake


def test_the_app_is_started_again_with_the_runs_folder(lepton, make, flower, tmp_path):
    folder = make(roster="/authority.crt")
    code, _, err = lepton("server", "resume", folder)
    assert (code, err) == (0, "")
    ((home, values),) = flower.calls
    server = folder.resolve().parent.parent
    assert home.parent == server
    assert values == {
        "simulated": False,
        "resume": str(folder.resolve()),
        "roster": str(server / "roster.pem"),
    }
    Checkpoints.reopen(folder).close()  # free for the server


def test_the_servers_folder_can_be_named(lepton, make, flower, tmp_path):
    assert lepton("server", "resume", make(roster="/x"), "--server", tmp_path / "s")[0] == 0
    assert flower.calls[0][0].parent == (tmp_path / "s").resolve()


def test_a_server_that_does_not_run_is_one_line_and_code_5(lepton, make, flower):
    flower.status.state = "stopped"
    code, _, err = lepton("server", "resume", make(roster="/x"))
    assert code == 5
    assert "the server is stopped: expected `lepton server run`" in err
    assert flower.calls == []


@pytest.mark.parametrize("damage", ["simulated", "missing", "damaged", "config"])
def test_what_cannot_go_on_is_one_line_and_starts_nothing(lepton, make, flower, tmp_path, damage):
    folder = tmp_path
    if damage != "missing":
        folder = make(**({} if damage == "simulated" else {"roster": "/x"}))
    if damage == "damaged":
        (folder / "checkpoint/state.npz").write_bytes(b"PK")
    if damage == "config":
        (folder / "config.toml").write_text('scenario = "smoke"\nrounds = 99\n')
    code, out, err = lepton("server", "resume", folder)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert flower.calls == []


def test_a_simulated_run_goes_on_with_its_own_settings_only(lepton, monkeypatch, tmp_path):
    fake = types.ModuleType("simulations.runner")
    calls = []

    def resume(path, debug, key):
        calls.append((path, debug, key))
        return tmp_path

    fake.resume = resume
    monkeypatch.setitem(sys.modules, "simulations.runner", fake)
    monkeypatch.setattr(simulations, "runner", fake, raising=False)
    monkeypatch.setattr("lepton_flwr.runs.progress.print_summary", lambda folder: None)
    assert lepton("simulate", "--resume", tmp_path)[0] == 0
    assert calls == [(tmp_path, False, None)]
    for more in (["smoke"], ["--rounds", 3], ["--no-dp"], ["--seed", 1], ["--ledger", "x"],
                 ["--set", "rounds=3"], ["--epsilon", 1], ["--csv", "x"]):  # fmt: skip
        code, _, err = lepton("simulate", "--resume", tmp_path, *more)
        assert code == 2
        assert "give no others" in err
    assert len(calls) == 1


def test_a_run_on_devices_does_not_go_on_with_simulated_ones(lepton, make, monkeypatch):
    from simulations import runner

    monkeypatch.setattr(runner, "in_engine", lambda *_, **__: pytest.fail("an engine was started"))
    code, out, err = lepton("simulate", "--resume", make(roster="/authority.crt"))
    assert (code, out) == (2, "")
    assert "a run on devices: go on with `lepton server resume`" in err
    assert len(err.splitlines()) == 1


def test_a_key_is_of_a_run_that_goes_on(lepton):
    code, _, err = lepton("simulate", "smoke", "--model-key", "alice.key")
    assert code == 2
    assert "--model-key: expected with --resume" in err


def test_the_server_is_told_where_the_key_of_an_encrypted_run_is(lepton, make, flower, tmp_path):
    key = DecryptionKey.generate()
    path = tmp_path / "alice.key"
    key.save(path)
    folder = make(roster="/x", recipient=key.recipient)
    code, _, err = lepton("server", "resume", folder)
    assert (code, flower.calls) == (2, [])
    assert "encrypted, as the run's model is: give the key" in err
    DecryptionKey.generate().save(tmp_path / "other.key")
    code, _, err = lepton("server", "resume", folder, "--model-key", tmp_path / "other.key")
    assert (len(err.splitlines()), flower.calls) == (1, [])
    code, _, err = lepton("server", "resume", folder, "--model-key", path)
    assert code == 0, err
    ((_, values),) = flower.calls
    assert values["model-key"] == str(path.resolve())
