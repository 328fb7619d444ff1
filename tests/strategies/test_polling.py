"""A poll from what is asked on disk to the answers: real ClientApps, training replaced."""

import threading
import types

import numpy as np
import pytest

import strategies.polling
from lepton_flwr.config import RunConfig
from lepton_flwr.data import scenarios
from lepton_flwr.device import Device
from lepton_flwr.errors import DataError, FederationError
from lepton_flwr.inference.folder import PollFolder
from lepton_flwr.inference.request import Request
from lepton_flwr.privacy.accounting import BudgetError
from lepton_flwr.privacy.events import SampledGaussian, Unit
from lepton_flwr.privacy.ledger import Ledger
from lepton_flwr.privacy.votes import GNMax
from lepton_flwr.secagg.errors import ThresholdError
from lepton_flwr.training.models import ModelSpec
from simulations import polls
from strategies.budgets import LEDGER_FILE
from strategies.polling import Asker, as_poll, ask

RUN_ID = 2**63 + 11
POPULATION = bytes(range(32))
QUERIES = np.arange(8, dtype=np.float32).reshape(4, 2)
# All six agree on the first two rows, and half of them on the last two.
VOTES = np.array([[0, 2, 1, 2]] * 3 + [[0, 2, 0, 1]] * 3)
VOTING = 'min_survivors = 3\nactions = ["evaluate.vote"]\n'
LIMITED = VOTING + "[privacy]\n"


@pytest.fixture
def devices(voting_devices):
    return voting_devices(VOTES, 3)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "poll").mkdir()
    return PollFolder(tmp_path / "poll")


@pytest.fixture
def polled(devices, folder, tmp_path, monkeypatch):
    weights = [np.zeros((2, 3), np.float32), np.zeros(3, np.float32)]
    monkeypatch.setattr(
        strategies.polling,
        "build",
        lambda model, seed: types.SimpleNamespace(get_weights=lambda: weights),
    )
    monkeypatch.setattr("strategies.nodes.NODES_TIMEOUT", 0.2)
    config = as_poll(
        RunConfig.build(
            {
                "scenario": "smoke",
                "clients": len(VOTES),
                "secagg": {"min_survivors": 3, "timeout": 0.2},
                "dp": {"record": {"noise_multiplier": 1.5}},
                "rounds": 4,
                "train": {"local_steps": 5},
            }
        )
    )

    def run(request, *, clients=0, renew=None):
        folder.ask(config, request, QUERIES)
        devices.grid.contexts.clear()  # every poll is a run of its own
        wanted = RunConfig.build(config.to_dict(), {"clients": clients or len(VOTES)})
        model = ModelSpec("mlp", (2,), 3, ())
        asker = Asker(wanted, model, devices.roster, tmp_path / "ledger", POPULATION, renew)
        ask(devices.grid, asker, folder)
        return folder.answers()

    return run


def history(tmp_path):
    with Ledger(tmp_path / "ledger" / LEDGER_FILE) as ledger:
        return ledger.dataset(POPULATION), ledger.history()


def test_answers_are_charged_to_the_server_and_to_every_device(polled, devices, tmp_path):
    answers = polled(Request(40.0))
    assert answers.labels[:2].tolist() == [0, 2]
    assert answers.participants == 6
    assert 39 < answers.cost <= 40
    assert answers.epsilon == answers.cost
    assert (answers.margins >= 0).all()
    event = GNMax.calibrated(40.0, 1e-5, 4).event(4)
    dataset, (entry,) = history(tmp_path)
    assert entry.committed
    assert {(c.unit, c.dataset, c.event) for c in entry.charges} == {
        (Unit.RECORD, dataset, event), (Unit.CLIENT, dataset, event),
    }  # fmt: skip
    for device in devices.folders:
        with Device.open(device).ledger() as ledger:
            (entry,) = ledger.history()
        assert {(c.unit, c.event) for c in entry.charges} == {
            (Unit.RECORD, SampledGaussian(1.5, 0.02, 20)), (Unit.CLIENT, event),
        }  # fmt: skip


def test_rows_without_agreement_stay_unanswered(polled):
    answers = polled(Request(400.0, threshold=4.5))
    assert answers.labels.tolist() == [0, 2, -1, -1]
    assert np.isnan(answers.margins).tolist() == [False, False, True, True]
    assert answers.margins[:2] == pytest.approx([6, 6], abs=2)


def test_averages_are_of_all_devices(polled):
    answers = polled(Request(400.0, probabilities=True))
    assert answers.probabilities.shape == (4, 3)
    assert answers.probabilities.argmax(axis=1)[:2].tolist() == [0, 2]


def test_exact_answers_are_charged_as_unbounded(polled, tmp_path):
    answers = polled(Request(None))
    assert answers.margins.tolist() == [6, 6, 0, 0]
    assert answers.cost == np.inf
    with pytest.raises(BudgetError):
        polled(Request(1000.0))


def test_polls_on_one_ledger_add_up_to_its_limit(polled, devices, folder):
    first = polled(Request(4.0))
    again = polled(Request(4.0, limit=7.0))  # Gaussian releases: 6.0 together, and 7.6 of three
    assert first.epsilon < again.epsilon <= 7
    assert again.cost == first.cost
    devices.grid.requests.clear()
    with pytest.raises(BudgetError):
        polled(Request(4.0, limit=7.0))
    assert devices.grid.requests == []
    assert "BudgetError: the budget per record" in str(folder.failed())


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("min_survivors = 3\n", "6 refused by its policy"),
        (LIMITED + "max_client_epsilon = 1.0\n", "6 budget spent"),
        (LIMITED + "max_record_epsilon = 0.01\n", "6 budget spent"),
        (VOTING + "min_record_noise_multiplier = 2.0\n", "6 refused by its policy"),
        ('min_survivors = 7\nactions = ["evaluate.vote"]\n', "6 refused by its policy"),
    ],
)  # fmt: skip
def test_what_devices_refuse_is_not_answered(polled, devices, folder, tmp_path, policy, reason):
    devices.allow(policy)
    with pytest.raises(ThresholdError, match=reason):
        polled(Request(4.0))
    assert devices.trained == []
    assert reason in str(folder.failed())
    with pytest.raises(DataError):
        folder.answers()
    _, (entry,) = history(tmp_path)
    assert not entry.committed  # what was charged stays charged


def test_nobody_is_asked_before_enough_have_come(polled, devices, tmp_path, folder):
    with pytest.raises(FederationError, match="6 of 7"):
        polled(Request(4.0), clients=7)
    assert devices.grid.requests == []
    assert not (tmp_path / "ledger").exists()
    assert "FederationError" in str(folder.failed())


def test_members_are_those_of_now(polled, devices):
    def renew():
        raise DataError("revoked.crl: gone")

    with pytest.raises(DataError, match="gone"):
        polled(Request(4.0), renew=renew)
    assert devices.grid.requests == []


def test_a_local_model_takes_all_steps_of_a_run_at_once():
    run = RunConfig.build(
        {
            "scenario": "smoke",
            "rounds": 3,
            "train": {"local_steps": 7},
            "dp": {"client": {"enabled": True}},
        }
    )
    poll = as_poll(run)
    assert (poll.rounds, poll.train.local_steps) == (1, 21)
    assert not poll.dp.client.enabled
    assert poll.dp.record.noise_multiplier > 0
    assert as_poll(poll) == poll


def test_simulated_devices_have_policies_and_ledgers_that_a_poll_is_charged_to(
    grid, device_app, keras_task, tmp_path, monkeypatch
):
    weights = [np.zeros((30, 1), np.float32), np.zeros(1, np.float32)]
    network = types.SimpleNamespace(get_weights=lambda: weights)
    monkeypatch.setattr(strategies.polling, "build", lambda model, seed: network)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    keras_task.train = lambda task, weights, data, server_round: weights
    keras_task.probabilities = lambda task, weights, rows: np.eye(2)[np.ones(len(rows), int)]

    def in_engine(work, clients, debug):
        direct = grid(clients=clients)
        direct.apps = dict.fromkeys(range(clients), device_app)
        work(direct, RUN_ID, threading.Event())

    monkeypatch.setattr(polls, "in_engine", in_engine)
    config = as_poll(RunConfig.build(scenarios.get("smoke").defaults, {"scenario": "smoke"}))
    queries = np.zeros((3, 30), np.float32)
    answers = polls.poll(config, Request(400.0), queries, out=tmp_path / "polls")
    assert answers.labels.tolist() == [1, 1, 1]
    assert answers.participants == 5
    (folder,) = (tmp_path / "polls").iterdir()
    ledgers = [folder / "ledgers" / LEDGER_FILE, *(folder / "ledgers" / "devices").glob("*.db")]
    assert len(ledgers) == 6
    for path in ledgers:
        with Ledger(path) as ledger:
            (entry,) = ledger.history()
        assert entry.committed
        assert {charge.unit for charge in entry.charges} == {Unit.RECORD, Unit.CLIENT}
