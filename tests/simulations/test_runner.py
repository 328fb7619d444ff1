"""`lepton simulate` on the real engine, as a user starts it."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lepton_flwr.config import RunConfig
from lepton_flwr.data.preprocessing import Preprocessor
from lepton_flwr.privacy.accounting import SampledGaussian, epsilon_of
from lepton_flwr.runs.settings import resolve, scenario_defaults

pytestmark = pytest.mark.slow
ENVIRONMENT = {
    **os.environ,
    "TF_NUM_INTRAOP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
}


def start(folder, *arguments):
    """The command in a session of its own, so that its processes can be told from others'."""
    command = [sys.executable, "-m", "lepton_flwr.cli", "simulate", *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**ENVIRONMENT, "LEPTON_TEST_MARK": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def strays(folder):
    """Processes that carry this test's mark in their environment."""
    mark = f"LEPTON_TEST_MARK={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    for process in strays(tmp_path):
        os.kill(process, signal.SIGKILL)


def gone(folder, seconds=120):
    deadline = time.monotonic() + seconds
    while strays(folder) and time.monotonic() < deadline:
        time.sleep(0.5)
    return not strays(folder)


def test_a_newcomers_run_ends_well_and_leaves_nothing_running(folder):
    process = start(folder, "smoke", "--rounds", 2)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    (run,) = (folder / "runs").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["rounds"], summary["survivors_min"]) == ("finished", 2, 5)
    assert summary["epsilon_record"] <= 3
    assert "report.html" in out
    assert "round 2/2: AUC" in err
    assert "Traceback" not in err
    assert gone(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_in_round_3_keeps_the_rounds_before(folder, number):
    process = start(folder, "smoke", "--rounds", 500)
    seen = ""
    while "round 3/500" not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    last = err.strip().splitlines()[-1]
    assert last.startswith("interrupted; the finished rounds are in ")
    assert "Traceback" not in err
    run = folder / last.rpartition(" ")[2]
    with (run / "metrics.csv").open() as file:
        assert len(list(csv.DictReader(file))) >= 3
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"
    assert (run / "report.html").exists()
    assert gone(folder)


def test_a_killed_run_goes_on_within_its_budget(folder):
    rounds = 9  # after the second the run goes on for longer than it takes to find its processes
    process = start(folder, "smoke", "--rounds", rounds)
    seen = ""
    while f"round 2/{rounds}" not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    for pid in strays(folder):  # kill -9 of everything at once: no clean-up runs
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=300)
    (run,) = (folder / "runs").iterdir()
    assert not (run / "summary.json").exists()
    process = start(folder, "--resume", run)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "goes on after round " in err
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["round"] for row in rows] == [str(number) for number in range(1, rounds + 1)]
    assert {row["reason"] for row in rows} <= {"", "the server ended during this round"}
    assert [row["status"] for row in rows].count("ok") >= rounds - 1
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["rounds"]) == ("finished", rounds)
    assert 0.7 < summary["auc"] <= 1
    defaults = RunConfig.build(scenario_defaults("smoke"))
    noise, train = summary["noise_multiplier_record"], defaults.train
    mechanism = SampledGaussian(noise, train.sampling_probability, 1)
    whole = epsilon_of(mechanism, defaults.dp.delta, rounds * train.local_steps)
    assert summary["epsilon_record"] == pytest.approx(whole)
    assert gone(folder)


def test_a_budget_that_runs_out_ends_the_run_with_code_3(folder):
    process = start(
        folder, "smoke", "--rounds", 10, "--set", "dp.record.noise_multiplier=0.9",
        "--set", "dp.record.epsilon=5",
    )  # fmt: skip
    _, err = process.communicate(timeout=300)
    assert process.returncode == 3, err
    assert err.strip().splitlines()[-1].startswith("error: round ")
    (run,) = (folder / "runs").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "budget"
    assert 1 <= summary["rounds"] < 10
    assert summary["epsilon_record"] <= 5
    assert gone(folder)


def test_a_budget_for_7_of_10_rounds_stays_spent_for_the_data_and_not_for_other_data(folder):
    defaults = RunConfig.build(scenario_defaults("smoke"))
    train, delta = defaults.train, defaults.dp.delta
    mechanism = SampledGaussian(0.9, train.sampling_probability, 1)
    limit = epsilon_of(mechanism, delta, 7 * train.local_steps)
    settings = (
        "--rounds", 10, "--ledger", "kept", "--set", "dp.record.noise_multiplier=0.9",
        "--set", f"dp.record.epsilon={limit!r}",
    )  # fmt: skip

    def run(*more):
        process = start(folder, "smoke", *settings, *more)
        _, err = process.communicate(timeout=300)
        return process.returncode, err

    code, err = run()
    assert code == 3, err
    assert err.strip().splitlines()[-1].startswith("error: round 8 would bring epsilon")
    (first,) = (folder / "runs").iterdir()
    summary = json.loads((first / "summary.json").read_text())
    assert (summary["status"], summary["rounds"]) == ("budget", 7)
    assert summary["epsilon_record"] == pytest.approx(limit)
    assert (first / "model.keras").exists()
    assert (first / "report.html").exists()

    code, err = run()
    assert code == 3, err
    assert "the ledger allows no round" in err
    assert "round 1/" not in err
    assert list((folder / "runs").iterdir()) == [first]
    # The devices' own ledgers say so too, to whatever server.
    (folder / "kept" / "server.db").unlink()
    (folder / "kept" / "server.head").unlink()
    code, err = run("--rounds", 1)
    assert code == 0, err
    last = max((folder / "runs").iterdir())
    assert json.loads((last / "summary.json").read_text())["rounds_skipped"] == [1]
    assert "budget spent" in (last / "metrics.csv").read_text()

    code, err = run("--rounds", 1, "--seed", 2)  # other training rows
    assert code == 0, err
    last = max((folder / "runs").iterdir())
    assert json.loads((last / "summary.json").read_text())["rounds_skipped"] == []
    assert gone(folder)


def test_a_users_own_csv_of_numbers_text_and_holes_by_a_column(folder):
    rows = [
        f"{i % 50 if i % 9 else ''},{'low' if i % 3 else 'high'},{i % 4},{int(i % 50 > 25)}"
        for i in range(3000)
    ]
    (folder / "mine.csv").write_text("\n".join(["age,dose,clinic,sick", *rows, *rows]) + "\n")
    process = start(
        folder, "--csv", "mine.csv", "--label", "sick", "--by", "clinic", "--rounds", 2,
        "--set", "data.drop_duplicates=false",
    )  # fmt: skip
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    (run,) = (folder / "runs").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["clients"], summary["statistics_releases"]) == (4, 3)
    assert summary["epsilon_record"] <= 3
    assert "3 Gaussian releases of statistics" in " ".join(summary["guarantee"])
    saved = Preprocessor.load(run / "preprocessor.json")
    assert saved.private
    (age,) = (column for column in saved.columns if column.name == "age")
    assert age.low < age.high
    # Noise alone widens bounds in one run of a hundred (`support.FAILURE`): then age tells little.
    if age.high - age.low < 100:
        assert summary["auc"] > 0.7
    assert {"age", "age missing"} <= set(saved.feature_names)
    repeated = resolve(config=run / "config.toml")
    assert repeated.data.path == str((folder / "mine.csv").resolve())
    assert repeated.dp.record.statistics_noise_multiplier > 0
