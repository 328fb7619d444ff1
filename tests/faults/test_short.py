"""The short form of the fault suite: one device and the server are killed, and nothing is lost."""

import numpy as np
import pytest
from stage import SERVER, epsilon_of, summed


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_killed_device_costs_its_update_and_a_killed_server_its_round(make_stage):
    stage = make_stage(4)
    stage.start_server()
    stage.start_devices()
    victim, *others = stage.devices
    stage.hold(victim, "train:after")
    stage.hold(others[0], "train:after")
    process, run = stage.train({"secagg": {"straggler_grace": 10.0}}, rounds=3)

    stage.wait_held(others[0], process)
    stage.wait_held(victim, process)
    before = run.weights()  # as long as two are held, this round does not end
    # One that has worked in this round is to hold up the next, so that its beginning can be seen.
    stage.hold(others[0], "train")
    stage.kill(victim.name)
    row = run.wait_for("round", process, round=1)
    assert (row["status"], row["participants"], row["survivors"]) == ("ok", 4, 3)
    assert summed(stage, run.weights() - before, 3) == others
    assert set(run.lost(1).values()) <= {"left", "timeout"}
    counts = {device: len(stage.device_ledger(device)) for device in stage.devices}
    assert counts[victim] == counts[others[0]] == 1
    assert set(counts.values()) <= {1, 2}  # the second round has begun, where nobody is held

    run.wait_for("charged", process, round=2)
    kept = run.weights()
    stage.kill(SERVER)
    stage.start_server()
    stage.release(others[0])
    assert process.wait(300) != 0
    again = stage.resume(run)
    lost = run.wait_for("round", again, round=2)
    assert (lost["status"], lost["survivors"]) == ("skipped", 0)
    assert lost["reason"] == "the server ended during this round"
    assert np.array_equal(run.weights(), kept)
    assert lost["epsilon_record"] == pytest.approx(epsilon_of(run.folder / "config.toml", 2))
    charged = [entry.run.split(", ")[1] for entry in stage.server_ledger()]
    # Each round once; the third one has begun, or is about to.
    assert charged in (["round 1", "round 2"], ["round 1", "round 2", "round 3"])
