"""kill -9 of a device, as a loss of power: at every exchange, and what comes of it."""

import pytest
from stage import summed

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3000)]
# Where a device is killed, whether its update is in the sum, and whether its ledger counts it.
PLACES = [
    ("keys", False, False),
    ("shares", False, False),
    ("train", False, False),
    ("train:after", False, True),
    ("attest", True, True),
    ("reveal", True, True),
]


def test_a_device_killed_in_an_exchange_costs_no_more_than_its_update(make_stage):
    stage = make_stage(8, init=["--min-survivors", 3])
    stage.start_server()
    stage.start_devices()
    stage.hold(stage.devices[0], PLACES[0][0])
    process, run = stage.train({"secagg": {"min_survivors": 3}}, rounds=100)
    last, before, spent = len(PLACES), None, 0
    for number, (place, counts, charged) in enumerate(PLACES, 1):
        victim = stage.devices[number - 1]
        stage.wait_held(victim, process)
        before = run.weights() if before is None else before
        stage.kill(victim.name)
        stage.release(victim)
        row = run.wait_for("round", process, round=number)
        if number < last:
            stage.hold(stage.devices[number], PLACES[number][0])
        assert row["status"] == "ok", (place, row)
        assert set(run.lost(number).values()) <= {"left", "timeout"}
        after = run.weights()
        inside = summed(stage, after - before, row["survivors"])
        assert (victim in inside) == counts, place
        spent = len(stage.device_ledger(victim))
        # Until it is killed it has taken part in every round.
        assert spent == number - (not charged), place
        stage.restart_device(victim)
        before = after

    # Everybody comes back and takes part again.
    while row["survivors"] < len(stage.devices):
        assert row["round"] < last + 12, "the devices did not come back"
        row = run.wait_for("round", process, round=row["round"] + 1)
    stage.stop(process)
    for device in stage.devices[last:]:  # which nobody killed
        assert len(stage.device_ledger(device)) >= row["round"]
