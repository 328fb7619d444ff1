"""Whole runs of the real apps: Keras clients, budgets, the run folder; no processes."""

import csv
import json
import logging
import re
import threading

import numpy as np
import pytest

from clients.client_app import app as client_app
from lepton_flwr.config import RunConfig
from lepton_flwr.data import scenarios
from lepton_flwr.privacy.accounting import BudgetError
from lepton_flwr.runs.settings import scenario_defaults
from strategies.exchange import RunInterruptedError
from strategies.server_app import LEDGERS, observers, serve, with_data

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept:DeprecationWarning"
)
RUN_ID = 2**63 + 11


@pytest.fixture(autouse=True)
def private_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    logging.getLogger("flwr").setLevel(logging.CRITICAL)


@pytest.fixture
def federation(grid, tmp_path):
    """Runs a configuration and returns the grid, the folder's rows and its summary."""

    def run(clients=5, gone=None, lost=None, stop_after=None, ledgers=None, **tables):
        base = {"scenario": "smoke", "clients": clients, "rounds": 2, "data": {"min_rows": 10}}
        config = RunConfig.build(scenario_defaults("smoke"), base, tables)
        data = scenarios.get("smoke").load(config)
        config = with_data(config, data)
        direct = grid(clients=clients, app=lambda partition, mods: client_app)
        direct.apps = dict.fromkeys(range(clients), client_app)
        direct.gone = gone or {}
        if lost:
            direct.lost_sessions = lost
        folder, observer = observers(config, out=tmp_path / "runs")
        stop = threading.Event()
        if stop_after is not None:
            finished = folder.round_finished

            def round_finished(record, weights):
                finished(record, weights)
                if record.round == stop_after:
                    stop.set()

            folder.round_finished = round_finished
        try:
            where = ledgers or folder.path / LEDGERS
            serve(direct, RUN_ID, config, data, observer, where, stop)
        finally:
            direct.folder = folder.path
        return direct, *read(folder.path)

    return run


def read(path):
    with (path / "metrics.csv").open() as file:
        return list(csv.DictReader(file)), json.loads((path / "summary.json").read_text())


def weights_of(path):
    import keras

    return keras.saving.load_model(path / "model.keras").get_weights()


def test_a_run_learns_within_its_epsilon_and_leaves_its_folder(federation):
    direct, rows, summary = federation(rounds=3)
    assert summary["status"] == "finished"
    assert 0.7 < summary["auc"] <= 1
    assert 0 < summary["epsilon_record"] <= 3
    assert [float(row["epsilon_record"]) for row in rows] == sorted(
        float(row["epsilon_record"]) for row in rows
    )
    assert all(row["saturated"] == "0" for row in rows)
    expected = {"config.toml", "metrics.csv", "summary.json", "report.html", "model.keras"}
    assert expected <= {entry.name for entry in direct.folder.iterdir()}


@pytest.mark.slow
def test_without_noise_the_same_seed_gives_the_same_model_bit_for_bit(federation):
    off = {"record": {"enabled": False}}
    one, _, _ = federation(dp=off, seed=3)
    two, _, _ = federation(dp=off, seed=3)
    other, _, _ = federation(dp=off, seed=4)
    for a, b in zip(weights_of(one.folder), weights_of(two.folder), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(
        (a != b).any()
        for a, b in zip(weights_of(one.folder), weights_of(other.folder), strict=True)
    )


@pytest.mark.slow
def test_with_noise_the_same_seed_gives_another_model(federation):
    one, _, _ = federation(seed=3, rounds=1)
    two, _, _ = federation(seed=3, rounds=1)
    pairs = zip(weights_of(one.folder), weights_of(two.folder), strict=True)
    # A single bias may be the same by chance, once in ten million runs.
    assert all((a != b).any() for a, b in pairs if a.size > 1)


def test_a_round_with_too_few_survivors_is_in_the_metrics_with_its_reason(federation):
    lost = {"gone": {0: 2, 1: 3}, "lost": lambda number: number == 1}
    _, rows, summary = federation(secagg={"timeout": 0.3}, **lost)
    assert rows[0]["status"] == "skipped"
    assert "expected at least 4" in rows[0]["reason"]
    assert rows[0]["survivors"] == "0"
    assert rows[1]["status"] == "ok"
    assert summary["rounds_skipped"] == [1]
    # Clients trained and sent: the round is charged all the same.
    assert float(rows[1]["epsilon_record"]) > float(rows[0]["epsilon_record"]) > 0


@pytest.mark.slow
def test_a_run_stops_before_the_round_that_would_exceed_its_epsilon(federation, tmp_path):
    # The noise is calibrated for 2 rounds; a run of 5 with it may train 2.
    _, _, summary = federation(rounds=2)
    noise = {"record": {"noise_multiplier": summary["noise_multiplier_record"], "epsilon": 3.0}}
    with pytest.raises(BudgetError, match="round 3 would bring epsilon"):
        federation(rounds=5, dp=noise)
    (path,) = (
        p for p in (tmp_path / "runs").iterdir() if "budget" in (p / "summary.json").read_text()
    )
    rows, summary = read(path)
    assert len(rows) == 2
    assert summary["status"] == "budget"
    (stated,) = re.findall(r"is \((\S+), ", " ".join(summary["guarantee"]))
    assert 0 <= float(stated) - summary["epsilon_record"] < 0.01
    assert (path / "model.keras").exists()


def test_a_stopped_run_keeps_its_finished_rounds(federation, tmp_path):
    with pytest.raises(RunInterruptedError):
        federation(rounds=50, stop_after=3)
    (path,) = (tmp_path / "runs").iterdir()
    rows, summary = read(path)
    assert len(rows) == 3
    assert summary["status"] == "interrupted"
    assert (path / "report.html").exists()


@pytest.mark.slow
def test_client_level_privacy_is_accounted_and_stated(federation):
    client = {"client": {"enabled": True, "epsilon": 8.0}, "record": {"enabled": False}}
    _, rows, summary = federation(dp=client)
    assert 0 < summary["epsilon_client"] <= 8
    assert summary["epsilon_record"] is None
    assert any("one client's records" in sentence for sentence in summary["guarantee"])
    assert float(rows[0]["epsilon_client"]) < float(rows[1]["epsilon_client"])


@pytest.mark.slow
def test_simulated_devices_are_gone_after_the_run(federation, tmp_path):
    federation(rounds=1)
    left = list(tmp_path.glob("lepton-*/run-*"))
    assert left == []


def test_nothing_of_one_client_is_in_the_messages_or_the_folder(federation):
    direct, _, _ = federation(rounds=1)
    data = [
        len(d.y_train)
        for d in scenarios.get("smoke")
        .load(RunConfig.build(scenario_defaults("smoke"), {"clients": 5, "data": {"min_rows": 10}}))
        .clients
    ]
    for reply in direct.replies:
        assert not reply.has_error()
        assert not reply.content.metric_records
        for record in reply.content.array_records.values():
            assert all(a.dtype == np.uint32 for a in record.to_numpy_ndarrays())
    text = "".join(
        path.read_text() for path in direct.folder.iterdir() if path.suffix in (".csv", ".json")
    )
    text = re.sub(r'"num_parameters": \d+,', "", text)  # as many as one client has rows
    assert not any(f": {count}," in text or f",{count}," in text for count in data)


POLICIES = [  # of devices 1 to 4, and what they answer
    ("min_survivors = 8\n", "FloorError: min_survivors"),
    ("min_survivors = 2\nmin_record_noise_multiplier = 50.0\n", "PolicyError: noise"),
    ("min_survivors = 2\nactions = ['train']\n", "PolicyError: action 'evaluate'"),
    ("nonsense", "PolicyError: policy.toml"),
]


def test_a_devices_policy_holds_against_the_server(federation, monkeypatch):
    import lepton_flwr.provision as module

    provision = module.provision

    def strict(*args, **kwargs):
        folders = provision(*args, **kwargs)
        for device, (policy, _) in enumerate(POLICIES, start=1):
            (folders[device] / "policy.toml").write_text(policy)
        return folders

    monkeypatch.setattr("strategies.server_app.provision", strict)
    direct, _, _ = federation(rounds=1, clients=8)
    errors = [reply for reply in direct.replies if reply.has_error()]
    assert {reply.metadata.src_node_id for reply in errors} == {1, 2, 3, 4}
    for device, (_, reason) in enumerate(POLICIES, start=1):
        given = [e.error.reason for e in errors if e.metadata.src_node_id == device]
        assert all(text.startswith(reason) for text in given)
