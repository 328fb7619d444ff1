"""A run's state, and the two views of it: Prometheus' file and the terminal."""

import io
import re

import pytest
from rich.console import Console

from lepton_flwr.failures import Failure
from lepton_flwr.runs.journal import Journal, JournalError
from lepton_flwr.runs.live import view
from lepton_flwr.runs.prometheus import PrometheusFile, text
from lepton_flwr.runs.state import RunState

SAMPLE = re.compile(r'^(lepton_[a-z_]+)\{((?:[a-z]+="(?:[^"\\\n]|\\.)*",?)+)\} (\S+)$')


@pytest.fixture
def state(tmp_path, runs):
    """In the second of three rounds, with one client lost in each."""
    found = RunState()
    log = Journal(tmp_path, [found.apply])
    log.run_started(runs.start(3))
    log.noted(1, "round started", {})
    log.noted(1, "charged", {"epsilon_record": 1.0, "epsilon_client": None, "ledger_rows": 1})
    log.noted(1, "failure", {"phase": "train", "node": "9", "class": "timeout"})
    log.round_finished(runs.record(1, 3, failures={"timeout": 1}, epsilon_record=1.0), runs.weights)
    log.noted(2, "round started", {})
    log.noted(2, "charged", {"epsilon_record": 2.0, "epsilon_client": None, "ledger_rows": 3})
    log.noted(2, "failure", {"phase": "keys", "node": "8", "class": "memory"})
    log.waiting(2, "train", 24, 29, ["4711", "4712", "4713", "4714"])
    return found


def shown(state, now=None):
    console = Console(file=io.StringIO(), width=80)
    console.print(view(state, "20260101-120000-smoke", state.updated + 2 if now is None else now))
    return console.file.getvalue()


def test_the_state_is_where_the_run_is(state):
    assert (state.status, state.round, state.rounds) == ("running", 2, 3)
    assert (state.phase, state.done, state.total) == ("train", 24, 29)
    assert state.epsilon == {"record": 2.0, "client": None}
    assert state.failures == {"memory": 1}
    assert state.all_failures == {"memory": 1, "timeout": 1}


def test_the_view_says_what_an_operator_asks(state):
    page = shown(state)
    assert "1 of 3 rounds, running" in page
    assert "2 of 3 (delta 1e-05)" in page
    assert "round 2, train: 24 of 29 clients" in page
    assert "5: 4711, 4712, 4713, +2" in page
    assert "1 out of memory" in page
    assert "1 timed out" in page
    assert "2.0 s ago" in page
    for figure in ("0.703", "0.633", "0.667", "28 of 29", "keys 0.1 s, train 2.0 s"):
        assert figure in page
    assert "…" not in page  # it fits eighty columns


def test_the_view_of_a_run_that_ended_waits_for_nobody(state):
    state.apply({"time": state.updated, "event": "run ended", "reason": "budget"})
    page = shown(state)
    assert "budget" in page
    assert "waiting for" not in page


def test_foreign_text_neither_drives_the_terminal_nor_is_markup(state, runs):
    state.nodes = [runs.hostile] * 5
    state.start["title"] = runs.hostile
    page = shown(state)
    assert "\x1b" not in page
    assert "[red]" in page


def test_an_event_without_what_its_kind_has_is_told(state):
    for event in (
        {"event": "waiting", "time": 1},
        {"event": "round", "time": 1, "round": 1},
        {"event": "run ended"},
        {"event": "charged", "time": "x"},
    ):
        with pytest.raises(JournalError, match="expected one that this version wrote"):
            state.apply(event)
    state.apply({"event": "of a later version", "time": 1})


def samples(content):
    found = {}
    for line in content.splitlines():
        if line.startswith("#"):
            continue
        match = SAMPLE.match(line)
        assert match, line
        key = match[1], match[2]
        assert key not in found
        found[key] = float(match[3])
    return found


def test_the_metrics_are_prometheus_text(state):
    content = text(state, 'a "run"\\ of\nmine')
    found = samples(content)
    run = r'run="a \"run\"\\ of mine"'
    assert found["lepton_epsilon", f'{run},unit="record"'] == 2.0
    assert found["lepton_epsilon_limit", f'{run},unit="record"'] == 3.0
    assert found["lepton_running", run] == 1
    assert found["lepton_rounds_done", run] == 1
    assert found["lepton_survivors", run] == 28
    assert found["lepton_phase_seconds", f'{run},phase="train"'] == 2.0
    for failure in Failure:
        count = int(failure in (Failure.TIMEOUT, Failure.MEMORY))
        assert found["lepton_client_failures", f'{run},class="{failure}"'] == count
    for name in {key[0] for key in found}:
        assert content.count(f"# TYPE {name} gauge\n") == content.count(f"# HELP {name} ") == 1
    assert content.endswith("\n")


def test_what_is_not_known_is_no_metric(state, runs, tmp_path):
    record = runs.record(2, auc=None, accuracy=float("nan"), loss=None, failures={})
    state.apply({**record.to_plain(), "event": "round", "time": 5})
    names = {name for name, _ in samples(text(state, "r"))}
    assert not names & {"lepton_auc", "lepton_accuracy", "lepton_loss"}
    assert not any("client" in labels for name, labels in samples(text(state, "r"))
                   if name == "lepton_epsilon")  # fmt: skip


def test_the_file_is_replaced_as_a_whole_and_no_second_one_ends_in_prom(
    tmp_path, runs, monkeypatch
):
    import lepton_flwr._files as files

    target = tmp_path / "collector" / "lepton.prom"
    target.parent.mkdir()
    seen = []
    real = files.os.replace

    def watched(old, new):
        seen.append([path.name for path in target.parent.iterdir() if path.suffix == ".prom"])
        real(old, new)

    monkeypatch.setattr(files.os, "replace", watched)
    log = Journal(tmp_path, [PrometheusFile(target, "run")])
    log.run_started(runs.start(3))
    log.waiting(1, "keys", 0, 29, [])
    log.round_finished(runs.record(1, 3), runs.weights)
    log.run_ended(runs.end())
    assert seen == [[], ["lepton.prom"], ["lepton.prom"]]
    assert samples(target.read_text())["lepton_running", 'run="run"'] == 0
