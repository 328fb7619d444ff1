"""One device at fault, the others not: what a round makes of it. One federation for all tests."""

import time

import numpy as np
import pytest
from stage import WIDTH, stages, summed

from lepton_flwr.data.federated import ClientData
from lepton_flwr.privacy.events import Unit

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def federation():
    with stages() as make:
        stage = make(4)
        stage.start_server()
        stage.start_devices()
        yield stage


@pytest.fixture
def train(federation):
    """Starts a run, which the end of the test stops."""
    started = []

    def train(**options):
        process, run = federation.train(rounds=100, **options)
        started.append(process)
        return process, run

    yield train
    for process in started:
        if process.poll() is None:
            stop_between_messages(federation, process)


def stop_between_messages(stage, process):
    """End a run while no device fetches a message.

    Flower has no answer for one that a run's end finds half fetched: its late reply takes the place
    of that to the next run's first message, which then comes too late.
    """
    held = stage.devices[0]
    stage.hold(held, "shares")
    stage.wait_held(held, process)
    time.sleep(3)  # the others have theirs, and the exchange waits for the one
    stage.stop(process)
    stage.release(held)


def round_of(run, process, number, before):
    """A round that ended, its number of survivors, and whose updates are in its sum."""
    row = run.wait_for("round", process, round=number)
    after = run.weights()
    return row, after - before, after


def test_a_supernode_killed_in_a_round_loses_that_round_only(federation, train):
    stage, victim = federation, federation.devices[1]
    stage.hold(victim, "shares")
    process, run = train()
    stage.wait_held(victim, process)
    before = run.weights()
    spent = len(stage.device_ledger(victim))
    stage.kill(victim.name, "flower-supernode")  # its supervisor stays, and starts it anew
    stage.release(victim)
    row, step, _ = round_of(run, process, 1, before)
    assert victim not in summed(stage, step, row["survivors"])
    assert row["survivors"] == 3
    assert len(stage.device_ledger(victim)) == spent
    number = 1
    while row["survivors"] < 4:
        number += 1
        assert number < 10, "the device did not come back"
        row = run.wait_for("round", process, round=number)
    assert stage.running[victim.name].poll() is None
    assert len(stage.device_ledger(victim)) > spent


@pytest.mark.parametrize("exchange", ["shares", "train", "attest", "reveal"])
def test_a_session_that_was_damaged_on_a_device_is_refused_there(federation, train, exchange):
    stage, victim = federation, federation.devices[2]
    victim.joinpath("corrupt").write_text(exchange)
    process, run = train()
    run.wait_for("charged", process, round=1)
    before = run.weights()
    row, step, after = round_of(run, process, 1, before)
    assert (row["status"], sum(row["failures"].values())) == ("ok", 1)
    assert {phase for phase, _ in run.lost(1)} == {exchange}
    inside = summed(stage, step, row["survivors"])
    assert (victim in inside) == (exchange in ("attest", "reveal"))
    assert not victim.joinpath("corrupt").exists()
    row, step, _ = round_of(run, process, 2, after)
    assert summed(stage, step, row["survivors"]) == stage.devices


def test_a_ledgers_memory_that_was_damaged_stops_the_device_before_it_works(federation, train):
    stage, victim = federation, federation.devices[2]
    process, run = train()
    run.wait_for("charged", process, round=1)
    before = run.weights()
    row, step, after = round_of(run, process, 1, before)
    assert len(summed(stage, step, row["survivors"])) == 4
    spent = len(stage.device_ledger(victim))
    victim.joinpath("corrupt").write_text("ledger")
    row, step, after = round_of(run, process, 2, after)
    assert victim not in summed(stage, step, row["survivors"])
    assert len(stage.device_ledger(victim)) == spent


def test_data_that_changed_has_an_account_of_its_own_and_the_device_one_for_all(federation, train):
    stage, device = federation, federation.devices[0]
    process, run = train()
    stage.hold(device, "attest")
    stage.wait_held(device, process)
    before = len(stage.device_ledger(device))
    former = ClientData.load(device / "data.npz")
    x = np.full((4, WIDTH), 0.5, np.float32)
    x[0], x[3] = 0.75, 0.25  # other rows with the same mean, and so the same update
    ClientData(x, former.y_train, x, former.y_train).save(device / "data.npz")
    stage.release(device)
    row = run.wait_for("round", process, round=1)
    weights = run.weights()
    row, step, _ = round_of(run, process, 2, weights)
    assert row["status"] == "ok"
    assert summed(stage, step, row["survivors"]) == stage.devices
    first, second = stage.device_ledger(device)[before - 1 : before + 1]
    accounts = [
        {charge.unit: charge.dataset for charge in entry.charges} for entry in (first, second)
    ]
    assert accounts[0][Unit.RECORD] != accounts[1][Unit.RECORD]
    assert accounts[0][Unit.CLIENT] == accounts[1][Unit.CLIENT]
    former.save(device / "data.npz")
