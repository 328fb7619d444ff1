"""A full disk, at a device and at the server: small ones, which are filled and freed."""

import os
import subprocess

import pytest
from stage import PATIENT, epsilon_of, summed

pytestmark = [
    pytest.mark.faults,
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root"),
]
SIZE = 8 << 20


@pytest.fixture
def disk(tmp_path):
    """A small disk; to be named before `make_stage`, whose end frees it for its own."""
    folder = tmp_path / "disk"
    folder.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", folder]
    if subprocess.run(command, check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(folder):
    """Leave not a byte."""
    with (folder / "ballast").open("ab", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def test_a_device_whose_ledger_cannot_be_written_does_not_work(disk, make_stage):
    stage = make_stage(4)
    victim, *others = stage.devices
    policy = (victim / "policy.toml").read_text()
    ledger = disk / "ledger.db"
    (victim / "policy.toml").write_text(
        policy.replace("[privacy]\n", f"[privacy]\nledger = '{ledger}'\n", 1)
    )
    stage.start_server()
    stage.start_devices()
    fill(disk)
    process, run = stage.train(PATIENT, rounds=100)
    run.wait_for("charged", process, round=1)
    before = run.weights()
    row = run.wait_for("round", process, round=1)
    after = run.weights()
    assert row["status"] == "ok"
    assert summed(stage, after - before, row["survivors"]) == others
    assert {phase for phase, _ in run.lost(1)} == {"train"}
    assert str(disk) not in stage.output(process)  # nor any other word of the device's files
    (disk / "ballast").unlink()
    # The second round may have begun before the disk was freed.
    row = run.wait_for("round", process, round=2)
    before = run.weights()
    row = run.wait_for("round", process, round=3)
    assert summed(stage, run.weights() - before, row["survivors"]) == stage.devices
    stage.stop(process)


def test_a_server_whose_disk_is_full_ends_with_all_it_had_and_goes_on_later(disk, make_stage):
    stage = make_stage(3)
    stage.start_server()
    stage.start_devices()
    out, held = disk / "runs", stage.devices[0]
    process, run = stage.train(PATIENT, arguments=["--out", out], out=out, rounds=3)
    run.wait_for("round", process, round=1)
    stage.hold(held, "attest")
    stage.wait_held(held, process)
    kept = run.weights()
    fill(disk)
    stage.release(held)
    stage.await_end(process)
    assert process.returncode == 5, stage.output(process)
    assert "No space left on device" in stage.output(process)
    assert (run.weights() == kept).all()
    assert [row["round"] for row in run.rounds()] == ["1"]
    assert not list(run.folder.rglob(".partial-*"))
    (disk / "ballast").unlink()
    process = stage.resume(run)
    row = run.wait_for("round", process, round=2)
    assert row["reason"] == "the server ended during this round"
    row = run.wait_for("round", process, round=3)
    assert row["status"] == "ok"
    assert len(summed(stage, run.weights() - kept, row["survivors"])) == 3
    assert row["epsilon_record"] == pytest.approx(epsilon_of(run.folder / "config.toml", 3))
    stage.stop(process)
