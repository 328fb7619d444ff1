"""`lepton simulate --resume` and `lepton server resume`, up to what they start."""

import sys
import tomllib
import types
from pathlib import Path

import pytest

import simulations
from lepton_flwr import cli
from lepton_flwr.config import RunConfig
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

    def make(**settings):
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "config.toml").write_text('scenario = "smoke"\n')
        checkpoints = Checkpoints.new(folder, "smoke 1", {"ledger": "/kept", **settings})
        checkpoints.begin()
        digest = config_digest(RunConfig(scenario="smoke"))
        checkpoints.save(Checkpoint(digest, [], {}, 0.0, (0, b"")))
        checkpoints.close()
        return folder

    return make


@pytest.fixture
def flwr(monkeypatch):
    """Notes what would be run, with the content of its run config."""
    from simulations import resume

    fake = types.SimpleNamespace(calls=[], code=0)

    def run(command, env, check):
        values = tomllib.loads(Path(command[-1]).read_text())
        fake.calls.append((command, values))
        return types.SimpleNamespace(returncode=fake.code)

    monkeypatch.setattr(resume.subprocess, "run", run)
    monkeypatch.setattr(resume, "assemble", lambda folder: folder / "app")
    return fake


def test_the_app_is_started_again_with_the_runs_folder(lepton, make, flwr):
    folder = make(roster="/authority.crt")
    code, _, err = lepton("server", "resume", folder, "--connection", "clinics")
    assert (code, err) == (0, "")
    ((command, values),) = flwr.calls
    assert command[:2] == ["flwr", "run"]
    assert "clinics" in command
    assert values == {"simulated": False, "resume": str(folder.resolve())}
    Checkpoints.reopen(folder).close()  # free for the server


def test_a_roster_that_has_moved_is_named_anew(lepton, make, flwr, tmp_path):
    lepton("server", "resume", make(roster="/old"), "--roster", tmp_path / "new.crt")
    ((command, values),) = flwr.calls
    assert values["roster"] == str(tmp_path / "new.crt")
    assert len(command) == 6


def test_a_flower_that_fails_is_one_line_and_code_5(lepton, make, flwr):
    flwr.code = 1
    code, _, err = lepton("server", "resume", make(roster="/x"))
    assert code == 5
    assert err.startswith("error: flwr run ended with code 1")


@pytest.mark.parametrize("damage", ["simulated", "missing", "damaged", "config"])
def test_what_cannot_go_on_is_one_line_and_starts_nothing(lepton, make, flwr, tmp_path, damage):
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
    assert flwr.calls == []


def test_a_simulated_run_goes_on_with_its_own_settings_only(lepton, monkeypatch, tmp_path):
    fake = types.ModuleType("simulations.runner")
    calls = []

    def resume(path, debug):
        calls.append((path, debug))
        return tmp_path

    fake.resume = resume
    monkeypatch.setitem(sys.modules, "simulations.runner", fake)
    monkeypatch.setattr(simulations, "runner", fake, raising=False)
    monkeypatch.setattr("lepton_flwr.runs.progress.print_summary", lambda folder: None)
    assert lepton("simulate", "--resume", tmp_path)[0] == 0
    assert calls == [(tmp_path, False)]
    for more in (["smoke"], ["--rounds", 3], ["--no-dp"], ["--seed", 1], ["--ledger", "x"],
                 ["--set", "rounds=3"], ["--epsilon", 1], ["--csv", "x"]):  # fmt: skip
        code, _, err = lepton("simulate", "--resume", tmp_path, *more)
        assert code == 2
        assert "give no others" in err
    assert len(calls) == 1
