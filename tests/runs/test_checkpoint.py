import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_flwr import _files as files
from lepton_flwr.config import RunConfig
from lepton_flwr.crypto.errors import EnvelopeError
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.errors import OutputError
from lepton_flwr.runs.checkpoint import (
    VERSION,
    Checkpoint,
    CheckpointBusyError,
    CheckpointConfigError,
    CheckpointDamagedError,
    CheckpointError,
    CheckpointKeyError,
    CheckpointMissingError,
    CheckpointRunError,
    Checkpoints,
    CheckpointVersionError,
    config_digest,
)

CONFIG = 'scenario = "smoke"\nrounds = 3\n'
STATE = "checkpoint/state.npz"


def make(runs, **changes):
    values = {
        "config_digest": config_digest(RunConfig(scenario="smoke", rounds=3)),
        "weights": [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(-0.5, np.float64)],
        "optimizer": {"m_t/0": np.ones((2, 3)), "v_t/0": np.full((2, 3), 1e-300)},
        "l2_norm_clip": 0.1 + 0.2,
        "ledger": (3, b"h" * 32),
        "records": [runs.record(1, failures={"left": 2}, auc=None), runs.record(2)],
        "roc": [(0.0, 0.25), (1.0, 1.0)],
        "seconds": 12.5,
    }
    return Checkpoint(**{**values, **changes})


@pytest.fixture
def run(tmp_path, runs):
    """A folder with one checkpoint; nobody has it open."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.toml").write_text(CONFIG)
    checkpoints = Checkpoints.new(folder, "smoke", {"ledger": "/kept"})
    checkpoints.begin()
    checkpoints.save(make(runs))
    checkpoints.close()
    return folder


def reopened(folder):
    checkpoints = Checkpoints.reopen(folder)
    checkpoints.close()
    return checkpoints


def same(one, two):
    assert one.to_plain() == two.to_plain()
    assert list(one.arrays) == list(two.arrays)
    for a, b in zip(one.arrays.values(), two.arrays.values(), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_what_is_read_is_what_was_written_bit_for_bit(run, runs):
    checkpoints = reopened(run)
    same(checkpoints.latest, make(runs))
    assert checkpoints.latest.records == list(make(runs).records)
    assert checkpoints.settings == {"ledger": "/kept"}
    assert checkpoints.rounds_done == 2
    assert checkpoints.config == RunConfig(scenario="smoke", rounds=3)


def test_no_file_is_a_pickle(run):
    with zipfile.ZipFile(run / STATE) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as member:
                    np.lib.format.read_array(member, allow_pickle=False)
            else:
                json.loads(archive.read(name))


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_damage_anywhere_is_told_or_does_no_harm(run, runs, data):
    if not (run / ".kept").exists():
        (run / ".kept").write_bytes((run / STATE).read_bytes())
    whole = (run / ".kept").read_bytes()
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "swap"]))
    at = data.draw(st.integers(0, len(whole) - 1))
    if kind == "flip":
        damaged = bytearray(whole)
        damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        damaged = whole[:at]
    elif kind == "insert":
        damaged = whole[:at] + data.draw(st.binary(min_size=1, max_size=40)) + whole[at:]
    else:
        damaged = whole[at:] + whole[:at]
    (run / STATE).write_bytes(bytes(damaged))
    try:
        found = reopened(run).latest
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017 - damage that does no harm raises nothing
    else:
        same(found, make(runs))


def test_an_array_that_was_changed_with_its_checksum_is_told(run):
    with zipfile.ZipFile(run / STATE) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    changed = bytearray(members["weights/0.npy"])
    changed[-1] ^= 1
    with zipfile.ZipFile(run / STATE, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, bytes(changed) if name == "weights/0.npy" else content)
    with pytest.raises(CheckpointDamagedError, match="damaged"):
        reopened(run)


def test_a_run_without_a_checkpoint_says_so(tmp_path, run):
    with pytest.raises(CheckpointMissingError, match="expected the folder of a run"):
        reopened(tmp_path)
    (run / STATE).unlink()
    with pytest.raises(CheckpointMissingError, match="before its first checkpoint"):
        reopened(run)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 2}', b"\xff\xfe"]
)
def test_a_damaged_run_file_is_told(run, content):
    (run / "checkpoint/run.json").write_bytes(content)
    with pytest.raises(CheckpointError):
        reopened(run)


@pytest.mark.parametrize("content", [None, b"", b"-1", b"1.5", b"9" * 40, b"x"])
def test_a_damaged_session_number_is_told_for_none_may_repeat(run, content):
    path = run / "checkpoint/session"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointDamagedError, match="must not repeat"):
        reopened(run)


def test_another_runs_checkpoint_is_refused(run, runs, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    checkpoints = Checkpoints.new(other, "other", {})
    checkpoints.begin()
    checkpoints.save(make(runs))
    checkpoints.close()
    (run / STATE).write_bytes((other / STATE).read_bytes())
    with pytest.raises(CheckpointRunError, match="expected that of"):
        reopened(run)


def test_another_configuration_is_refused_and_where_it_is_watched_may_change(run):
    (run / "config.toml").write_text(CONFIG + "[observe]\nprometheus = 'x.prom'\n")
    reopened(run)
    (run / "config.toml").write_text(CONFIG.replace("3", "4"))
    with pytest.raises(CheckpointConfigError, match="restore it"):
        reopened(run)


def test_another_format_is_refused(run, runs, monkeypatch):
    about = json.loads((run / "checkpoint/run.json").read_text())
    (run / "checkpoint/run.json").write_text(json.dumps({**about, "version": VERSION + 1}))
    with pytest.raises(CheckpointVersionError, match=f"expected {VERSION}:"):
        reopened(run)


def test_a_run_that_goes_on_cannot_be_resumed_by_another_process(run):
    checkpoints = Checkpoints.reopen(run)
    code = f"from pathlib import Path; from {Checkpoints.__module__} import *\n"
    code += f"Checkpoints.reopen(Path({str(run)!r}))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def other():
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True,
            check=False,
        ).stderr  # fmt: skip

    assert CheckpointBusyError.__name__ in other()
    checkpoints.close()
    assert other() == ""


def test_a_refused_reopening_leaves_the_run_free(run):
    whole = (run / STATE).read_bytes()
    (run / STATE).write_bytes(whole[:99])
    for _ in range(2):
        with pytest.raises(CheckpointDamagedError):
            reopened(run)
    (run / STATE).write_bytes(whole)
    reopened(run)


def test_numbers_never_repeat_whichever_checkpoint_is_put_back(run, runs):
    old = (run / STATE).read_bytes()
    seen = []
    for _ in range(3):
        checkpoints = Checkpoints.reopen(run)
        seen += [checkpoints.next_number() for _ in range(4)]
        checkpoints.save(make(runs, seconds=13.0))
        checkpoints.close()
        (run / STATE).write_bytes(old)
    assert seen == list(range(1, 13))


def test_a_number_that_could_not_be_kept_is_not_given_out(run, monkeypatch):
    checkpoints = Checkpoints.reopen(run)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", full)
        with pytest.raises(OutputError, match="No space"):
            checkpoints.next_number()
    assert checkpoints.next_number() == 1
    checkpoints.close()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_former(run, runs, monkeypatch, call):
    checkpoints = Checkpoints.reopen(run)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, call, full)
        with pytest.raises(OutputError, match="No space"):
            checkpoints.save(make(runs, seconds=99.0))
    checkpoints.close()
    same(reopened(run).latest, make(runs))
    assert not [path for path in (run / "checkpoint").iterdir() if path.name.startswith(".")]


def test_a_record_survives_as_plain_values(runs):
    record = runs.record(3, seconds={"keys": 0.1}, failures={"data": 1}, retries=2, finished=1.5)
    assert type(record).from_plain(json.loads(json.dumps(record.to_plain()))) == record
    assert {f.name for f in dataclasses.fields(record)} == set(record.to_plain())


@pytest.fixture(scope="module")
def alice():
    return DecryptionKey.generate()


@pytest.fixture
def sealed(tmp_path, runs, alice):
    """As `run`, for a recipient."""
    folder = tmp_path / "sealed"
    folder.mkdir()
    text = alice.recipient.to_text().strip()
    (folder / "config.toml").write_text(f'{CONFIG}[output]\nmodel_to = ["{text}"]\n')
    checkpoints = Checkpoints.new(folder, "smoke", {"ledger": "/kept"}, [alice.recipient])
    checkpoints.begin()
    digest = config_digest(checkpoints.config)
    checkpoints.save(make(runs, config_digest=digest))
    checkpoints.close()
    return folder


def test_an_encrypted_checkpoint_is_what_was_written_and_in_clear_nowhere(sealed, runs, alice):
    with contextlib.closing(Checkpoints.reopen(sealed, lambda: alice)) as checkpoints:
        same(checkpoints.latest, make(runs, config_digest=checkpoints.latest.config_digest))
        assert checkpoints.recipients == [alice.recipient]
        checkpoints.save(make(runs, config_digest=checkpoints.latest.config_digest))
    names = {path.name for path in (sealed / "checkpoint").iterdir()}
    assert names == {"run.json", "session", "lock", "state.npz.lepton"}
    secret = make(runs).weights[0].tobytes()
    for path in sealed.rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes()


def test_without_the_right_key_an_encrypted_run_does_not_go_on_and_stays_free(sealed, alice):
    with pytest.raises(CheckpointKeyError, match="--model-key"):
        Checkpoints.reopen(sealed)
    with pytest.raises(EnvelopeError):
        Checkpoints.reopen(sealed, DecryptionKey.generate)
    Checkpoints.reopen(sealed, lambda: alice).close()


@pytest.mark.parametrize("place", [0, 40, -40, -1])
def test_an_altered_encrypted_checkpoint_is_refused(sealed, alice, place):
    path = sealed / "checkpoint" / "state.npz.lepton"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(EnvelopeError):
        Checkpoints.reopen(sealed, lambda: alice)
    path.write_bytes(content[:-1])
    with pytest.raises(EnvelopeError):
        Checkpoints.reopen(sealed, lambda: alice)


def test_a_checkpoint_in_clear_does_not_stand_for_an_encrypted_one(sealed, run, alice):
    (sealed / "checkpoint" / "state.npz.lepton").unlink()
    (sealed / STATE).write_bytes((run / STATE).read_bytes())
    with pytest.raises(CheckpointMissingError):
        Checkpoints.reopen(sealed, lambda: alice)


def test_an_encrypted_run_does_not_go_on_in_clear(sealed, run, alice):
    (sealed / "config.toml").write_text(CONFIG)
    with pytest.raises(CheckpointMissingError):
        Checkpoints.reopen(sealed, lambda: alice)
