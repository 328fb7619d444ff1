"""kill -9 of the server, whole and in parts, at every exchange; then `lepton server resume`."""

import shutil
from collections import Counter

import numpy as np
import pytest
from stage import PATIENT, SERVER, epsilon_of, summed

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3000)]
EXCHANGES = ("keys", "shares", "train", "attest", "reveal")
# What is killed: everything that belongs to `lepton server run`, or one program of it.
WHOLE, SUPERVISOR = "", "lepton_flwr.cli server run"
PARTS = ("flower-superlink", "flwr-serverapp", SUPERVISOR)
LOST = "the server ended during this round"


def kill_in(stage, run, process, number, exchange, program=WHOLE):
    """Kill the server when round `number` is in an exchange, and wait for the end of its run."""
    held = stage.devices[0]
    stage.wait_held(held, process)
    assert run.events("charged", round=number)
    stage.kill(SERVER, program)
    if program != WHOLE:
        stage.await_end(process)
        if program == SUPERVISOR:
            stage.running[SERVER].wait(300)
    else:
        process.wait(300)
    assert process.returncode != 0
    stage.release(held)


def test_a_server_killed_in_an_exchange_goes_on_with_the_next_round(make_stage):
    stage = make_stage(4)
    stage.start_server()
    stage.start_devices()
    kills = [("train", part) for part in PARTS] + [(exchange, WHOLE) for exchange in EXCHANGES]
    stage.hold(stage.devices[0], kills[0][0])
    process, run = stage.train(PATIENT, rounds=100)
    kept = None
    for number, (exchange, program) in enumerate(kills, 1):
        kill_in(stage, run, process, number, exchange, program)
        kept = run.weights() if kept is None else kept
        assert np.array_equal(run.weights(), kept)  # none of these rounds counts
        if program in (WHOLE, SUPERVISOR):
            stage.start_server()
        stage.wait_for_state(stage.server, stage.running[SERVER])
        if number == 2:
            shutil.copytree(run.folder / "checkpoint", stage.root / "old")
        process = stage.resume(run)
        row = run.wait_for("round", process, round=number)
        assert (row["status"], row["reason"]) == ("skipped", LOST), (exchange, program)
        assert row["epsilon_record"] == pytest.approx(
            epsilon_of(run.folder / "config.toml", number)
        )
        if number < len(kills):
            stage.hold(stage.devices[0], kills[number][0])

    number = len(kills) + 1
    row = run.wait_for("round", process, round=number)
    assert row["status"] == "ok"
    assert len(summed(stage, run.weights() - kept, row["survivors"])) >= 3
    assert row["epsilon_record"] == pytest.approx(epsilon_of(run.folder / "config.toml", number))
    charged = [entry.run.rsplit(" ", 1)[1] for entry in stage.server_ledger()]
    assert Counter(charged)[str(number)] == 1
    assert [int(round) for round in charged][:number] == list(range(1, number + 1))

    # Rolling back a checkpoint does not roll back the budget.
    stage.stop(process)
    rounds = len(stage.server_ledger())
    shutil.rmtree(run.folder / "checkpoint")
    shutil.move(stage.root / "old", run.folder / "checkpoint")
    process = stage.resume(run)
    run.wait_for("charged", process, round=rounds + 1)
    row = run.events("round", round=rounds)[-1]
    assert (row["status"], row["reason"]) == ("skipped", LOST)
    assert row["epsilon_record"] == pytest.approx(epsilon_of(run.folder / "config.toml", rounds))
    assert len(stage.server_ledger()) == rounds + 1
