import sys

import pytest

from lepton_flwr import cli
from lepton_flwr.config import RunConfig
from lepton_flwr.runs.journal import Journal
from lepton_flwr.runs.observer import RoundRecord, RunEnd, RunStart


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "20260101-120000-smoke"
    folder.mkdir(parents=True)
    log = Journal(folder)
    config = RunConfig(scenario="smoke", rounds=2)
    log.run_started(RunStart(config, "tumours", 5, 100, (), 1.0, None))
    log.round_finished(
        RoundRecord(1, "ok", "", 5, 4, 0.9, 0.95, 0.3, 1.5, None, 1, 1, 0,
                    failures={"left": 1}), [],
    )  # fmt: skip
    return folder, log


def lepton(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["lepton", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code, *capsys.readouterr()


def test_once_prints_the_state_of_a_run_that_goes_on(run, monkeypatch, capsys):
    folder, _ = run
    code, out, _ = lepton(monkeypatch, capsys, "watch", str(folder), "--once")
    assert code == 0
    assert "20260101-120000-smoke: 1 of 2 rounds, running" in out
    assert "1.5 of 3" in out
    assert "1 left or restarted" in out


def test_without_a_folder_the_newest_run_is_shown(run, tmp_path, monkeypatch, capsys):
    _, log = run
    log.run_ended(RunEnd("interrupted", None, 1e-5, "PLD"))
    monkeypatch.chdir(tmp_path)
    code, out, _ = lepton(monkeypatch, capsys, "watch")
    assert code == 0
    assert "interrupted" in out


def test_no_log_is_one_line_and_a_code(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments in (("watch",), ("watch", "nowhere", "--once")):
        code, out, err = lepton(monkeypatch, capsys, *arguments)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1
