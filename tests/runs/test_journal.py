import json
import math

import pytest

from lepton_flwr.errors import OutputError
from lepton_flwr.runs.journal import Journal, JournalError, read
from lepton_flwr.runs.state import RunState


def journal(tmp_path, runs, rounds=3, done=0, **more):
    made = Journal(tmp_path, **more)
    start = runs.start(rounds)
    made.run_started(type(start)(**{**vars(start), "rounds_done": done}))
    return made


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]


def test_every_event_is_a_line_of_strict_json_with_a_time(tmp_path, runs):
    log = journal(tmp_path, runs)
    log.noted(1, "failure", {"phase": "train", "node": "17", "class": "left"})
    log.round_finished(runs.record(1, auc=math.nan, loss=math.inf), runs.weights)
    log.run_ended(runs.end())
    found = lines(tmp_path)
    assert [event["event"] for event in found] == ["run started", "failure", "round", "run ended"]
    times = [event["time"] for event in found]
    assert times == sorted(times)
    assert found[2]["auc"] is found[2]["loss"] is None
    assert "NaN" not in (tmp_path / "events.jsonl").read_text()


def test_hostile_text_stays_within_its_line(tmp_path, runs):
    log = journal(tmp_path, runs)
    log.round_finished(runs.record(1, status="skipped", reason=runs.hostile), runs.weights)
    assert len(lines(tmp_path)) == 2
    assert lines(tmp_path)[1]["reason"] == runs.hostile


def test_who_is_waited_for_is_written_once_a_second_at_most(tmp_path, runs, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("lepton_flwr.runs.journal.time.monotonic", lambda: now[0])
    log = journal(tmp_path, runs)
    for step in range(100):
        now[0] = step / 20
        log.waiting(1, "train", step, 100, ["1", "2"])
    waits = [event for event in lines(tmp_path) if event["event"] == "waiting"]
    assert len(waits) == 5
    assert waits[0] == {**waits[0], "done": 0, "total": 100, "nodes": ["1", "2"]}


def test_a_run_that_goes_on_continues_the_log_after_half_a_line(tmp_path, runs):
    first = journal(tmp_path, runs)
    first.round_finished(runs.record(1), runs.weights)
    first.round_finished(runs.record(2), runs.weights)
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"time": 17, "event": "rou')
    events, offset = read(tmp_path / "events.jsonl")
    assert len(events) == 3
    second = journal(tmp_path, runs, done=1)
    second.round_finished(runs.record(2, auc=0.9), runs.weights)
    later, _ = read(tmp_path / "events.jsonl", offset)
    assert [event["event"] for event in later] == ["run started", "round"]
    state = RunState()
    for event in [*events, *later]:
        state.apply(event)
    assert [(record.round, record.auc) for record in state.records] == [
        (1, runs.record(1).auc), (2, 0.9),
    ]  # fmt: skip


def test_what_listens_hears_what_is_written(tmp_path, runs):
    heard = []
    log = journal(tmp_path, runs, listeners=[heard.append])
    log.noted(1, "charged", {"epsilon_record": 0.5, "epsilon_client": None, "ledger_rows": 3})
    assert heard == lines(tmp_path)


def test_a_log_that_cannot_be_written_ends_the_run(tmp_path, runs):
    (tmp_path / "events.jsonl").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        journal(tmp_path, runs)


def test_a_disk_that_fills_leaves_whole_lines(tmp_path, runs):
    resource = pytest.importorskip("resource")
    log = journal(tmp_path, runs)
    size = (tmp_path / "events.jsonl").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))
        with pytest.raises(OutputError, match="cannot write"):
            log.noted(1, "charged", {"epsilon_record": 0.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.run_ended(runs.end("failed"))
    assert [event["event"] for event in lines(tmp_path)] == ["run started", "run ended"]


@pytest.mark.parametrize("line", [b"nonsense", b"[]", b"{}", b'{"event": 1}', b"\xff"])
def test_a_damaged_line_is_told(tmp_path, line):
    (tmp_path / "events.jsonl").write_bytes(b'{"event": "x", "time": 1}\n' + line + b"\n")
    with pytest.raises(JournalError, match="damaged or edited"):
        read(tmp_path / "events.jsonl")


def test_a_missing_log_is_told(tmp_path):
    with pytest.raises(JournalError, match="expected the event log"):
        read(tmp_path / "events.jsonl")
