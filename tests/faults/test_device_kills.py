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
    spent = 0
    for (place, counts, charged), victim in zip(PLACES, stage.devices, strict=False):
        stage.wait_held(victim, process)
        number = run.events("charged")[-1]["round"]
        before = run.weights()
        stage.kill(victim.name)
        stage.release(victim)
        row = run.wait_for("round", process, round=number)
        after = run.weights()
        following = stage.devices[stage.devices.index(victim) + 1]
        before_next = len(stage.device_ledger(following))
        if place != PLACES[-1][0]:
            stage.hold(following, PLACES[stage.devices.index(following)][0])
        assert row["status"] == "ok", (place, row)
        assert set(run.lost(number).values()) <= {"left", "timeout"}
        assert (victim in summed(stage, after - before, row["survivors"])) == counts, place
        assert len(stage.device_ledger(victim)) == spent + charged, place
        stage.restart_device(victim)
        spent = before_next

    # Everybody comes back and takes part again.
    last = row["round"]
    while row["survivors"] < len(stage.devices):
        assert row["round"] < last + 15, "the devices did not come back"
        row = run.wait_for("round", process, round=row["round"] + 1)
    stage.stop(process)
    for device in stage.devices:
        assert stage.device_ledger(device)
