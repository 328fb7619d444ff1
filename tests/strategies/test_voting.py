"""Polls of devices: the real ClientApp behind a direct grid; training itself is replaced."""

import dataclasses

import numpy as np
import pytest

from lepton_flwr.crypto.identity import Roster
from lepton_flwr.data.federated import ClientData
from lepton_flwr.device import Device, simulated_root
from lepton_flwr.errors import DataError
from lepton_flwr.inference.ballot import Question
from lepton_flwr.inference.poll import Poll
from lepton_flwr.privacy.accounting import BudgetError
from lepton_flwr.privacy.events import SampledGaussian, Unit
from lepton_flwr.privacy.ledger import Ledger, Limit
from lepton_flwr.privacy.votes import ConfidentGNMax, GNMax, MeanProbabilities, Plurality
from lepton_flwr.provision import provision
from lepton_flwr.secagg.encoding import Kind
from lepton_flwr.secagg.errors import ThresholdError
from lepton_flwr.secagg.wire import MASKED
from lepton_flwr.training.models import ModelSpec
from strategies.voting import FlowerVoters

RUN_ID = 2**63 + 11
CLIENTS = 5
WEIGHTS = [np.zeros((2, 3), np.float32), np.zeros(3, np.float32)]
QUERIES = np.arange(12, dtype=np.float32).reshape(6, 2)
# Of the five devices, each query's answer; the third is a tie of three classes.
VOTES = np.array([[0, 1, 2, 2, 1, 0]] * 3 + [[0, 1, 1, 1, 1, 2], [0, 2, 0, 2, 1, 1]])
POLICY = 'min_survivors = 3\nactions = ["train", "evaluate", "evaluate.vote"]\n'


@pytest.fixture
def devices(voting_devices):
    return voting_devices(VOTES, 3)


@pytest.fixture
def folders(devices):
    return devices.folders


@pytest.fixture
def voters(devices, task):
    task = dataclasses.replace(task, model=ModelSpec("mlp", (2,), 3, ()))
    made = FlowerVoters(devices.grid, devices.roster, task, WEIGHTS, min_survivors=3, timeout=0.2)
    made.direct = devices.grid
    return made


@pytest.fixture
def poll(voters, tmp_path):
    with Ledger(tmp_path / "server.db") as ledger:
        yield Poll(voters, 3, ledger=ledger, dataset="rows", limits={})


def counts() -> np.ndarray:
    return (VOTES[:, :, None] == np.arange(3)).sum(axis=0)


def test_the_tally_is_that_of_all_devices(voters):
    tally = voters(QUERIES, Question.of(Plurality(), 3))
    assert tally.sums.tolist() == counts().tolist()
    assert (tally.scale, tally.participants) == (1.0, CLIENTS)
    again = voters(QUERIES, Question.of(MeanProbabilities(), 3))
    assert again.sums / again.scale == pytest.approx(counts(), abs=1e-6)


def test_devices_answer_and_charge_training_and_votes(poll, folders):
    answers = poll.labels(QUERIES, GNMax(0.3))
    most = counts().max(axis=1) > 3
    assert answers.labels[most].tolist() == counts()[most].argmax(axis=1).tolist()
    for folder in folders:
        with Device.open(folder).ledger() as ledger:
            (entry,) = ledger.history()
        assert entry.committed
        charged = {(charge.unit, charge.event) for charge in entry.charges}
        assert charged == {
            (Unit.RECORD, SampledGaussian(1.5, 0.1, 5)),
            (Unit.CLIENT, GNMax(0.3).event(len(QUERIES))),
        }


def test_a_check_is_charged_to_devices_beside_all_answers(poll, folders):
    mechanism = ConfidentGNMax(4.0, 0.2, GNMax(0.3))
    poll.labels(QUERIES, mechanism)
    with Device.open(folders[0]).ledger() as ledger:
        (entry,) = ledger.history()
    events = [charge.event for charge in entry.charges if charge.unit is Unit.CLIENT]
    assert events == [mechanism.event(len(QUERIES)), mechanism.answer.event(len(QUERIES))]


def test_what_leaves_a_device_is_masked(voters):
    voters(QUERIES, Question.of(Plurality(), 3))
    vectors = [
        reply.content.array_records[MASKED].to_numpy_ndarrays()[0]
        for reply in voters.direct.replies
        if MASKED in reply.content
    ]
    assert len(vectors) == CLIENTS
    # A ballot in clear is 0 or 1; a masked one is so small with a chance of 2^-31 in each place,
    # in two of a vector's with one of 1e-16.
    assert all((vector[:18] > 1).sum() >= 17 for vector in vectors)
    bare = [r for r in voters.direct.replies if r.content.metric_records]
    assert bare == []


def test_a_device_votes_only_if_its_policy_says_so(poll, devices):
    devices.allow("min_survivors = 3\n", devices=3)
    with pytest.raises(ThresholdError, match=r"2 clients.*3 refused by its policy"):
        poll.labels(QUERIES, GNMax(1.0))
    assert devices.trained == []


def test_votes_beyond_a_devices_budget_are_not_cast(poll, devices):
    devices.allow(f"{POLICY}[privacy]\nmax_client_epsilon = 1.0\n")
    with pytest.raises(ThresholdError, match="budget spent"):
        poll.labels(QUERIES, GNMax(1.0))
    assert devices.trained == []


def test_a_poll_beyond_the_servers_budget_sends_nothing(voters, tmp_path):
    limits = {Unit.CLIENT: (Limit(1.0, 1e-5),)}
    with Ledger(tmp_path / "server.db") as ledger:
        limited = Poll(voters, 3, ledger=ledger, dataset="rows", limits=limits)
        for mechanism in (Plurality(), GNMax(2.0)):
            with pytest.raises(BudgetError):
                limited.labels(QUERIES, mechanism)
    assert voters.direct.requests == []


def test_polls_follow_each_other_in_one_run(poll):
    assert poll.labels(QUERIES, GNMax(0.3)).participants == CLIENTS
    assert poll.labels(QUERIES[:2], GNMax(0.3)).participants == CLIENTS


def test_a_device_that_bounds_the_number_of_sessions_votes(poll, devices):
    devices.allow(f"{POLICY}[secagg]\nmax_number = 1\n")
    assert poll.labels(QUERIES, GNMax(0.3)).participants == CLIENTS
    with pytest.raises(ThresholdError, match="refused"):
        poll.labels(QUERIES, GNMax(0.3))


def test_rows_of_another_shape_are_refused(poll, voters):
    with pytest.raises(DataError, match=r"shape \(3,\): expected \(2,\)"):
        poll.labels(np.zeros((2, 3)), GNMax(1.0))
    assert voters.direct.requests == []


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"classes": "3"}, {"classes": 1}, {"kind": "mean"}, {"stddev": float("nan")},
        {"stddev": -1.0}, {"threshold-stddev": None}, {"classes": 2**20},
    ],
)  # fmt: skip
def test_a_question_that_is_none_is_refused_by_devices(fields):
    whole = Question(3, Kind.COUNT, 1.0).to_fields()
    with pytest.raises(ValueError, match="expected"):
        Question.from_fields({**whole, **fields} if fields else {})
    assert Question.from_fields(whole) == Question(3, Kind.COUNT, 1.0)


@pytest.mark.slow
def test_devices_train_on_their_own_rows_and_answer_rightly(
    grid, device_app, task, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rng = np.random.default_rng(7)
    rows = []
    for _ in range(CLIENTS):
        x = rng.normal(size=(300, 2)).astype(np.float32)
        y = (x[:, 0] + x[:, 1] > 0).astype(np.int32)
        rows.append(ClientData(x[:280], y[:280], x[280:], y[280:]))
    actions = ["train", "evaluate", "evaluate.vote"]
    folders = provision(simulated_root(RUN_ID), rows, min_survivors=3, actions=actions)
    task = dataclasses.replace(task, learning_rate=1.0, sampling_probability=0.5, local_steps=40)
    direct = grid(clients=CLIENTS)
    direct.apps = dict.fromkeys(range(CLIENTS), device_app)
    roster = Roster.of_authority((folders[0] / "roster.pem").read_bytes())
    weights = [np.zeros((2, 1), np.float32), np.zeros(1, np.float32)]
    voters = FlowerVoters(direct, roster, task, weights, min_survivors=3, timeout=60.0)
    queries = rng.normal(size=(200, 2)).astype(np.float32)
    tally = voters(queries, Question.of(Plurality(), 2))
    assert tally.participants == CLIENTS
    right = tally.sums.argmax(axis=1) == (queries.sum(axis=1) > 0)
    assert right.mean() > 0.9
