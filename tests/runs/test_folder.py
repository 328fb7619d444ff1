import csv
import errno
import json
import os
import tomllib
from pathlib import Path

import pytest

from lepton_flwr import _files as files
from lepton_flwr.config import RunConfig
from lepton_flwr.errors import OutputError
from lepton_flwr.runs import events
from lepton_flwr.runs.folder import RunFolder

resource = pytest.importorskip("resource")


@pytest.fixture(autouse=True)
def _no_tensorflow(monkeypatch, request):
    if "slow" not in request.keywords:
        monkeypatch.setattr(events, "write", lambda *_: None)


def save(weights, path: Path) -> None:
    assert path.suffix == ".keras"
    path.write_bytes(b"model" + weights[0].tobytes())


def make(out: Path, runs, rounds: int = 3) -> RunFolder:
    folder = RunFolder(runs.start(rounds).config, save_model=save, out=out)
    folder.run_started(runs.start(rounds))
    return folder


def table(folder: RunFolder) -> list[dict[str, str]]:
    with (folder.path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_finished_run_leaves_everything(tmp_path, runs):
    folder = make(tmp_path, runs)
    for i in (1, 2, 3):
        folder.round_finished(runs.record(i, 3), runs.weights)
    folder.run_ended(runs.end())
    left = {str(p.relative_to(folder.path)) for p in folder.path.rglob("*") if p.is_file()}
    names = ("metric", "epsilon", "loss", "bytes", "seconds", "roc", "overview")
    plots = {f"plots/{name}.png" for name in names}
    assert left == plots | {
        "config.toml",
        "metrics.csv",
        "model.keras",
        "summary.json",
        "report.html",
    }


def test_the_configuration_builds_the_same_run_again(tmp_path, runs):
    folder = make(tmp_path, runs)
    read = tomllib.loads((folder.path / "config.toml").read_text())
    assert RunConfig.build(read) == runs.start(3).config


def test_metrics_have_a_row_per_round_and_a_column_per_phase(tmp_path, runs):
    folder = make(tmp_path, runs)
    skipped = {"status": "skipped", "reason": runs.hostile, "auc": None, "seconds": {"keys": 0.2}}
    folder.round_finished(runs.record(1), runs.weights)
    assert len(table(folder)) == 1
    folder.round_finished(runs.record(2, **skipped), runs.weights)
    first, second = table(folder)
    assert (first["seconds_train"], second["seconds_train"]) == ("2.0", "")
    assert (second["reason"], second["auc"]) == (runs.hostile, "")
    assert float(first["auc"]) == runs.record(1).auc


def test_the_summary_is_strict_json_with_the_promised_keys(tmp_path, runs):
    folder = make(tmp_path, runs)
    folder.round_finished(runs.record(1, 3, survivors=27), runs.weights)
    folder.round_finished(
        runs.record(2, 3, status="skipped", survivors=4, auc=float("nan"), loss=None), runs.weights
    )
    folder.run_ended(runs.end("interrupted"))

    def refuse(text):
        raise AssertionError(text)

    summary = json.loads((folder.path / "summary.json").read_text(), parse_constant=refuse)
    wanted = {
        "scenario", "clients", "rounds", "accuracy", "auc", "loss", "epsilon_record",
        "epsilon_client", "delta", "accountant", "seconds", "bytes_up_per_client",
        "bytes_down_per_client", "survivors_min",
    }  # fmt: skip
    assert wanted <= set(summary)
    assert summary["auc"] == runs.record(1, 3).auc
    assert summary["loss"] == runs.record(1, 3).loss
    assert summary["epsilon_record"] == runs.record(2, 3).epsilon_record
    assert summary["survivors_min"] == 27
    assert summary["rounds_skipped"] == [2]
    assert summary["bytes_up_per_client"] == 11_001 + 11_002
    assert (summary["rounds"], summary["status"]) == (2, "interrupted")


def test_a_killed_run_keeps_its_finished_rounds(tmp_path, runs):
    folder = make(tmp_path, runs)
    folder.round_finished(runs.record(1), runs.weights)
    folder.round_finished(runs.record(2), [weights + 1 for weights in runs.weights])
    assert [row["round"] for row in table(folder)] == ["1", "2"]
    model = (folder.path / "model.keras").read_bytes()
    assert model == b"model" + (runs.weights[0] + 1).tobytes()


def test_a_run_without_a_round_still_says_how_it_ended(tmp_path, runs):
    folder = make(tmp_path, runs)
    folder.run_ended(runs.end("interrupted", roc=False))
    summary = json.loads((folder.path / "summary.json").read_text())
    assert (summary["rounds"], summary["survivors_min"]) == (0, None)
    assert "No round was finished" in (folder.path / "report.html").read_text()


def test_a_run_that_never_started_leaves_nothing_but_what_others_wrote(tmp_path, runs):
    config = runs.start().config
    folder = RunFolder(config, save_model=save, out=tmp_path)
    folder.run_ended(runs.end("failed"))
    assert not list(tmp_path.iterdir())
    folder = RunFolder(config, save_model=save, out=tmp_path)
    (folder.path / "ledger.sqlite").touch()
    folder.run_ended(runs.end("failed"))
    assert [p.name for p in folder.path.iterdir()] == ["ledger.sqlite"]


def test_runs_of_the_same_second_do_not_share_a_folder(tmp_path, runs):
    config = runs.start().config
    paths = {RunFolder(config, save_model=save, out=tmp_path).path for _ in range(5)}
    assert len(paths) == 5


def test_a_scenario_name_cannot_leave_the_folder(tmp_path):
    config = RunConfig(scenario="../../else where")
    assert RunFolder(config, save_model=save, out=tmp_path).path.parent == tmp_path


def test_an_unusable_out_is_one_line(tmp_path, runs):
    (tmp_path / "file").touch()
    (tmp_path / "dead").symlink_to(tmp_path / "absent" / "absent")
    for out in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "dead"):
        with pytest.raises(OutputError, match="cannot write") as caught:
            RunFolder(runs.start().config, save_model=save, out=out)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_line(tmp_path, runs):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission"):
        RunFolder(runs.start().config, save_model=save, out=tmp_path)
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_disk_full_at_the_start_leaves_no_folder(tmp_path, runs, monkeypatch, call):
    monkeypatch.setattr(files.os, call, full)
    with pytest.raises(OutputError, match="No space"):
        RunFolder(runs.start().config, save_model=save, out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_disk_that_fills_keeps_the_former_rounds(tmp_path, runs, monkeypatch, call):
    folder = make(tmp_path, runs)
    folder.round_finished(runs.record(1), runs.weights)
    before = {p: p.read_bytes() for p in folder.path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(files.os, call, full)
        with pytest.raises(OutputError, match="No space"):
            folder.round_finished(runs.record(2), runs.weights)
        with pytest.raises(OutputError, match="No space"):
            folder.run_ended(runs.end("failed"))
    assert {p: p.read_bytes() for p in folder.path.iterdir()} == before
    folder.run_ended(runs.end("failed"))
    assert json.loads((folder.path / "summary.json").read_text())["rounds"] == 1


def test_a_file_that_reaches_the_systems_limit_keeps_the_former_one(tmp_path, runs):
    folder = make(tmp_path, runs)
    folder.round_finished(runs.record(1), runs.weights)
    before = (folder.path / "metrics.csv").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 8, hard))
        with pytest.raises(OutputError, match="too large"):
            folder.round_finished(runs.record(2), runs.weights)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (folder.path / "metrics.csv").read_bytes() == before
    assert not [p for p in folder.path.iterdir() if p.name.startswith(".")]


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(files.os, "write", lambda fd, data: real(fd, data[:3]))
    files.write_atomic(tmp_path / "x", b"0123456789")
    assert (tmp_path / "x").read_bytes() == b"0123456789"


def test_a_skipped_round_does_not_touch_the_model(tmp_path, runs):
    folder = make(tmp_path, runs)
    folder.round_finished(runs.record(1), runs.weights)
    before = (folder.path / "model.keras").stat().st_mtime_ns
    folder.round_finished(runs.record(2, status="skipped"), runs.weights)
    assert (folder.path / "model.keras").stat().st_mtime_ns == before


@pytest.mark.slow
def test_events_hold_every_known_value_at_its_round(tmp_path, runs):
    import tensorflow as tf

    folder = make(tmp_path, runs)
    folder.round_finished(runs.record(1), runs.weights)
    folder.round_finished(runs.record(2, auc=None), runs.weights)
    folder.run_ended(runs.end())
    (path,) = (folder.path / "events").iterdir()
    assert "tfevents" in path.name
    values = {}
    for item in tf.data.TFRecordDataset(str(path)):
        event = tf.compat.v1.Event.FromString(item.numpy())
        values |= {(event.step, v.tag): v.simple_value for v in event.summary.value}
    assert values[1, "evaluation/auc"] == pytest.approx(runs.record(1).auc)
    assert (2, "evaluation/auc") not in values
    assert values[2, "seconds/train"] == 2.0
    assert values[2, "epsilon/record"] == pytest.approx(runs.record(2).epsilon_record)


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
