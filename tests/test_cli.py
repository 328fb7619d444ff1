import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

import simulations
from lepton_flwr import cli
from lepton_flwr.errors import DataError, FederationError, OutputError, PrivacyError
from lepton_flwr.runs import settings

SUMMARY = {
    "scenario": "smoke", "clients": 5, "rounds": 2, "rounds_planned": 2, "rounds_skipped": [],
    "status": "finished", "accuracy": 0.91, "auc": 0.97, "loss": 0.2, "epsilon_record": 2.9,
    "epsilon_client": None, "delta": 1e-5, "survivors_min": 5, "bytes_up_per_client": 1000,
    "bytes_down_per_client": 2000, "seconds": 3.0,
}  # fmt: skip


@pytest.fixture
def lepton(monkeypatch, capsys):
    """Run the command; returns exit code, standard output, standard error."""
    monkeypatch.setattr(settings, "scenario_defaults", lambda name: {"rounds": 2})

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lepton", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run


@pytest.fixture
def runner(monkeypatch, tmp_path):
    """A runner that notes its calls, and raises `error` if that is set."""
    fake = types.ModuleType("simulations.runner")
    fake.calls, fake.error = [], None

    def simulate(config, out, debug, ledgers):
        fake.ledgers = ledgers
        fake.calls.append((config, out, debug))
        if fake.error is not None:
            raise fake.error
        (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
        return tmp_path

    fake.simulate = simulate

    def up(config, nodes, out, debug, *, ledgers):
        fake.ledgers = ledgers
        fake.calls.append((config, nodes, out, debug))
        return tmp_path

    fake.up = up
    for name in ("runner", "federation"):
        monkeypatch.setitem(sys.modules, f"simulations.{name}", fake)
        monkeypatch.setattr(simulations, name, fake, raising=False)
    return fake


def test_simulate_passes_the_layered_settings_on_and_prints_the_summary(lepton, runner, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("seed = 5\nclients = 4\n")
    code, out, err = lepton(
        "simulate", "smoke", "--config", str(file), "--clients", "6", "--epsilon", "2",
        "--client-epsilon", "7", "--set", "train.local_steps=9", "--set", "data.alpha=2",
        "--out", "somewhere", "--ledger", "kept", "--debug",
    )  # fmt: skip
    ((config, where, debug),) = runner.calls
    assert (config.scenario, config.seed, config.clients) == ("smoke", 5, 6)
    assert (config.dp.record.epsilon, config.dp.client.epsilon) == (2.0, 7.0)
    assert config.dp.client.enabled
    assert (config.train.local_steps, config.data.alpha) == (9, 2.0)
    assert (where, debug, runner.ledgers) == (Path("somewhere"), True, Path("kept"))
    assert (code, err) == (0, "")
    assert "0.970" in out
    assert str(tmp_path / "report.html") in out


def test_federation_up_passes_nodes_on_as_clients(lepton, runner, tmp_path):
    code, printed, err = lepton("federation", "up", "--nodes", "3", "smoke", "--rounds", "4")
    ((config, nodes, out, debug),) = runner.calls
    assert (code, err) == (0, "")
    assert (config.clients, config.rounds, nodes) == (3, 4, 3)
    assert (out, debug) == (None, False)
    assert printed == f"folder: {tmp_path}\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [(DataError, 2), (PrivacyError, 3), (OutputError, 4), (FederationError, 5)],
)
def test_our_errors_are_one_line_with_their_code(lepton, runner, error, code):
    runner.error = error("too\nbad")
    got, out, err = lepton("simulate")
    assert (got, out, err) == (code, "", "error: too bad\n")


def test_unexpected_errors_are_one_line_with_a_hint(lepton, runner):
    runner.error = RuntimeError("first\nsecond")
    code, _, err = lepton("simulate")
    assert code == 1
    assert err == "error: unexpected RuntimeError: first second (--debug shows where)\n"


def test_debug_shows_the_traceback(lepton, runner):
    runner.error = DataError("bad rows")
    code, _, err = lepton("simulate", "--debug")
    assert code == 2
    assert err.startswith("Traceback")
    assert err.endswith("error: bad rows\n")


def test_an_interrupt_names_the_folder_with_the_finished_rounds(lepton, runner):
    from lepton_flwr.runs.folder import RunInterrupted

    runner.error = RunInterrupted(Path("runs/x"))
    code, _, err = lepton("simulate")
    assert (code, err) == (130, "interrupted; the finished rounds are in runs/x\n")
    runner.error = KeyboardInterrupt()
    assert lepton("simulate")[::2] == (130, "interrupted\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["simulate", "--bogus"],
        ["simulate", "--rounds", "many"],
        ["simulate", "--rounds", "0"],
        ["simulate", "--epsilon", "0"],
        ["simulate", "--epsilon", "-1"],
        ["simulate", "--epsilon", "nan"],
        ["simulate", "--clients", "1"],
        ["simulate", "--no-dp", "--epsilon", "3"],
        ["simulate", "--no-dp", "--client-epsilon", "3"],
        ["simulate", "--set", "rounds"],
        ["simulate", "--set", "rouns=3"],
        ["simulate", "--set", "dp.record.epsilon=much"],
        ["simulate", "--config", "absent.toml"],
        ["simulate", "smoke", "health"],
        ["federation", "up"],
        ["federation", "up", "--nodes", "1"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_understood_is_one_line_and_code_2(lepton, runner, arguments):
    code, out, err = lepton(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not runner.calls


def test_an_unknown_scenario_is_one_line_and_code_2(capsys, monkeypatch, runner):
    monkeypatch.setattr(sys, "argv", ["lepton", "simulate", "trnsport"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert "trnsport" in err
    assert err.count("\n") == 1


def test_scenarios_are_listed_with_their_titles(lepton, monkeypatch):
    from lepton_flwr.data.scenarios import SCENARIOS

    monkeypatch.setenv("COLUMNS", "300")
    code, out, _ = lepton("scenarios")
    assert code == 0
    assert "transport" in SCENARIOS
    for name, scenario in SCENARIOS.items():
        assert any(name in line and scenario.title in line for line in out.splitlines())


def test_the_version_is_the_packages(lepton):
    from lepton_flwr import __version__

    assert lepton("--version") == (0, f"lepton-flwr {__version__}\n", "")


@pytest.mark.parametrize("command", [[], ["simulate"], ["scenarios"], ["federation"],
                                     ["federation", "up"], ["budget"], ["budget", "plan"],
                                     ["budget", "show"], ["budget", "export"], ["app"],
                                     ["app", "digest"], ["app", "sign"], ["encrypt"], ["decrypt"],
                                     ["rewrap"], ["inspect"], ["encryption-key"],
                                     ["encryption-key", "new"], ["encryption-key", "show"]],
                         ids=" ".join)  # fmt: skip
def test_every_command_has_help_with_an_example(lepton, command):
    code, out, _ = lepton(*command, "--help")
    assert code == 0
    assert " ".join(["Example: lepton", *command]) in " ".join(out.split())


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from lepton_flwr import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'keras', 'flwr', 'ray', 'pandas', 'matplotlib', 'numpy'}\n"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
