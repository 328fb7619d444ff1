"""Servers that are ended at any point, and others that go on: no processes, no TensorFlow."""

import contextlib
import csv
import io
import json
import logging
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tomli_w
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from lepton_flwr.config import RunConfig
from lepton_flwr.crypto.envelope import unseal
from lepton_flwr.crypto.errors import WrongKeyError
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.errors import ConfigError, FederationError
from lepton_flwr.privacy.accounting import BudgetError, Unit, epsilon_of
from lepton_flwr.privacy.ledger import Ledger
from lepton_flwr.privacy.ledger_errors import LedgerMissingError, LedgerRolledBackError
from lepton_flwr.runs import events, plots
from lepton_flwr.runs.checkpoint import CheckpointDamagedError, CheckpointKeyError, Checkpoints
from lepton_flwr.runs.folder import RunFolder, new_folder
from lepton_flwr.runs.journal import Journal, read
from lepton_flwr.runs.progress import Observers
from lepton_flwr.runs.state import RunState
from lepton_flwr.secagg.wire import EXCHANGE, RECORD, Exchange
from lepton_flwr.training.models import ModelSpec
from strategies import federate as module
from strategies import nodes as node_module
from strategies.budgets import DEVICES_POPULATION, LEDGER_FILE
from strategies.calibration import with_floor, with_noise
from strategies.federate import Federation, Origin, federate
from strategies.nodes import await_nodes, fewest_nodes
from strategies.server_app import begin

CLIENTS = 4
slow = pytest.mark.slow
SHAPES = [(7, 4), (4,), (4, 1), (1,)]
NO_PRIVACY = {"dp": {"record": {"enabled": False}}}
PRIVACY = {"dp": {"record": {"epsilon": 3.0}}}


class KilledError(BaseException):
    """The server is gone; nothing of it runs any more."""


class Network:
    """What `build` returns: the server reads its weights only."""

    def get_weights(self):
        rng = np.random.default_rng(5)
        return [rng.normal(0, 0.5, shape).astype(np.float32) for shape in SHAPES]


def client(partition, mods):
    """Updates that depend on the client, the round and the model; counts as evaluation needs."""
    app = ClientApp(mods=mods)

    @app.train()
    def train(message, context):
        rounds = message.content["config"]["server-round"]
        rng = np.random.default_rng([partition, rounds])
        arrays = [
            (array * 0.9 + rng.normal(0, 0.1, array.shape)).astype(array.dtype)
            for array in message.content["arrays"].to_numpy_ndarrays()
        ]
        metrics = MetricRecord({"num-examples": 100 + 37 * partition})
        return Message(
            RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message
        )

    @app.evaluate()
    def evaluate(message, context):
        from lepton_flwr.training.scores import BINS

        metrics = MetricRecord(
            {"num-examples": 10, "examples": 10, "correct": 7, "loss-sum": 5.0,
             "scores": [0] * (2 * BINS)}
        )  # fmt: skip
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


@pytest.fixture(autouse=True)
def light(monkeypatch):
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    monkeypatch.setattr(module, "build", lambda model, seed: Network())
    monkeypatch.setattr(events, "write", lambda *_: None)
    monkeypatch.setattr(plots, "draw", lambda history: {})


class Run:
    """A run's folder, and servers for it; all of them talk to the same devices."""

    def __init__(self, folder, grid, members, **tables):
        base = {
            "scenario": "smoke", "clients": CLIENTS, "rounds": 5,
            "secagg": {"timeout": 0.3, "update_bound": 2.0, "max_examples": 1000},
        }  # fmt: skip
        self.config = with_noise(with_floor(RunConfig.build(base, tables)))
        self.folder, self.members = folder, members[1]
        self.grid = grid(clients=CLIENTS, app=client)
        self.ledgers = folder / "ledgers"
        self.numbers = []
        self.settings, self.origin, self.recipients = {}, None, ()
        folder.mkdir()

    def serve(self, die_at=None, resume=True, key=None):
        """A server, which dies at (number of its session, exchange), before anything is sent."""
        if resume and (self.folder / "checkpoint").exists():
            checkpoints = Checkpoints.reopen(self.folder, key)
        else:
            name = f"smoke {self.folder.name}"
            checkpoints = Checkpoints.new(self.folder, name, self.settings, self.recipients)
        config = checkpoints.config if checkpoints.latest else self.config
        kept = RunFolder(config, save_model=save, folder=self.folder, resumed=checkpoints.latest)
        answer, sessions, numbers = type(self.grid).answer, [], self.numbers

        def maybe(message):
            record = message.content.config_records[RECORD]
            exchange = Exchange(record[EXCHANGE])
            if exchange is Exchange.KEYS and message.metadata.dst_node_id == 100:
                sessions.append(record["number"])
                numbers.append(record["number"])
            if die_at and (len(sessions), exchange) == die_at:
                raise KilledError
            return answer(self.grid, message)

        self.grid.answer = maybe
        observer = Observers([kept, Journal(self.folder)])
        spec = ModelSpec("mlp", (2,), 2, ())
        federation = Federation(
            config,
            spec,
            self.members,
            "title",
            self.ledgers,
            origin=self.origin,
            checkpoints=checkpoints,
        )
        with contextlib.suppress(KilledError):
            federate(self.grid, federation, observer)
        return self

    @property
    def rows(self):
        with (self.folder / "metrics.csv").open() as file:
            return list(csv.DictReader(file))

    @property
    def weights(self):
        with np.load(self.folder / "model.keras", allow_pickle=False) as file:
            return [file[name] for name in file.files]

    @property
    def charged(self):
        with Ledger(self.ledgers / LEDGER_FILE) as ledger:
            return [int(entry.run.rpartition(" ")[2]) for entry in ledger.history()]

    @property
    def summary(self):
        return json.loads((self.folder / "summary.json").read_text())


def save(weights, path):
    with path.open("wb") as file:
        np.savez(file, *weights)


def accounts(ledgers):
    """The populations that a ledger has charged."""
    with Ledger(ledgers / LEDGER_FILE) as ledger:
        return {charge.dataset for entry in ledger.history() for charge in entry.charges}


@pytest.fixture
def run(tmp_path, grid, members):
    made = []

    def make(**tables):
        made.append(Run(tmp_path / f"run-{len(made)}", grid, members, **tables))
        return made[-1]

    return make


def train(round_number):
    """The session of a round's training; each round has one and one of evaluation."""
    return 2 * round_number - 1


@pytest.mark.parametrize(
    "strategy",
    [
        "fedadam",
        pytest.param("fedavgm", marks=slow),
        pytest.param("fedavg", marks=slow),
        pytest.param("fedyogi", marks=slow),
        pytest.param("fedadagrad", marks=slow),
    ],
)
def test_a_resumed_run_ends_with_the_model_of_an_uninterrupted_one_bit_for_bit(run, strategy):
    tables = {**NO_PRIVACY, "train": {"strategy": strategy, "server_learning_rate": 0.5}}
    whole = run(**tables).serve()
    broken = run(**tables)
    broken.serve(die_at=(train(3), Exchange.WORK)).serve(die_at=(train(2), Exchange.ATTEST)).serve()
    assert [row["round"] for row in broken.rows] == ["1", "2", "3", "4", "5"]
    for a, b in zip(whole.weights, broken.weights, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert broken.summary["status"] == "finished"


@pytest.mark.parametrize(
    ("purpose", "exchange"),
    [
        ("train", Exchange.REVEAL),
        pytest.param("train", Exchange.KEYS, marks=slow),
        pytest.param("train", Exchange.SHARES, marks=slow),
        pytest.param("train", Exchange.WORK, marks=slow),
        pytest.param("train", Exchange.ATTEST, marks=slow),
        pytest.param("evaluate", Exchange.WORK, marks=slow),
    ],
)
def test_a_server_that_dies_at_any_exchange_costs_one_round_and_no_epsilon(run, exchange, purpose):
    broken = run(**PRIVACY)
    broken.serve(die_at=(train(3) + (purpose == "evaluate"), exchange)).serve()
    assert broken.charged == [1, 2, 3, 4, 5]
    assert [row["status"] for row in broken.rows] == ["ok", "ok", "skipped", "ok", "ok"]
    assert broken.rows[2]["reason"] == "the server ended during this round"
    dp, train_config = broken.config.dp, broken.config.train
    with Ledger(broken.ledgers / LEDGER_FILE) as ledger:
        (charge,) = ledger.history()[0].charges
        spent = ledger.spent(Unit.RECORD, charge.dataset, dp.delta)
    planned = epsilon_of(charge.event, dp.delta, 5 * train_config.local_steps)
    assert float(broken.rows[-1]["epsilon_record"]) == spent == planned <= 3


@slow
def test_the_guarantee_of_a_resumed_run_is_that_of_an_uninterrupted_one(run):
    whole, broken = run(**PRIVACY).serve(), run(**PRIVACY)
    broken.serve(die_at=(train(3), Exchange.WORK)).serve()
    assert broken.summary["guarantee"] == whole.summary["guarantee"]
    assert "for 250 Gaussian releases" in broken.summary["guarantee"][1]
    assert broken.summary["epsilon_record"] == whole.summary["epsilon_record"]


def test_an_older_checkpoint_brings_an_older_model_back_and_no_budget(run):
    broken = run(**PRIVACY)
    broken.serve(die_at=(train(2), Exchange.KEYS))
    state = broken.folder / "checkpoint/state.npz"
    old = state.read_bytes()
    broken.serve(die_at=(train(3), Exchange.KEYS))
    assert broken.charged == [1, 2, 3, 4, 5]
    state.write_bytes(old)
    broken.serve()
    # All five rounds are spent: none is trained again.
    assert broken.charged == [1, 2, 3, 4, 5]
    assert [row["status"] for row in broken.rows] == ["ok", *["skipped"] * 4]


def test_session_numbers_never_repeat_and_devices_that_saw_them_go_on(run):
    broken = run(**NO_PRIVACY)
    broken.serve(die_at=(train(2), Exchange.KEYS))
    old = (broken.folder / "checkpoint/state.npz").read_bytes()
    broken.serve(die_at=(train(2), Exchange.REVEAL))
    (broken.folder / "checkpoint/state.npz").write_bytes(old)
    broken.serve()
    assert broken.numbers == sorted(set(broken.numbers))
    assert not any(reply.has_error() for reply in broken.grid.replies)
    assert [row["status"] for row in broken.rows] == ["ok"] * 5


@pytest.mark.parametrize("flowers", ["another run", "the same run"])
def test_numbers_of_a_restored_checkpoint_repeat_and_serve_in_another_run_of_flowers_only(
    run, tmp_path, flowers
):
    broken = run(**NO_PRIVACY, rounds=2).serve(die_at=(train(2), Exchange.KEYS))
    shutil.copytree(broken.folder / "checkpoint", tmp_path / "old")
    broken.serve(die_at=(train(1), Exchange.REVEAL))
    shutil.rmtree(broken.folder / "checkpoint")
    shutil.copytree(tmp_path / "old", broken.folder / "checkpoint")
    if flowers == "another run":  # as every resumption is
        broken.grid.contexts.clear()
    broken.serve()
    assert broken.numbers != sorted(set(broken.numbers))
    refused = any(reply.has_error() for reply in broken.grid.replies)
    assert refused == (flowers == "the same run")


@slow
def test_a_server_that_dies_before_its_first_round_ends_is_resumed_from_the_start(run):
    whole, broken = run(**NO_PRIVACY).serve(), run(**NO_PRIVACY)
    broken.serve(die_at=(train(1), Exchange.SHARES)).serve()
    for a, b in zip(whole.weights, broken.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@slow
def test_a_new_run_of_the_same_name_on_the_same_ledger_is_not_taken_for_the_former(run):
    first = run(dp={"record": {"epsilon": 3.0, "noise_multiplier": 9.0}}).serve()
    shutil.rmtree(first.folder / "checkpoint")
    first.grid.contexts.clear()  # as of another Flower run
    first.serve(resume=False)
    assert [row["status"] for row in first.rows] == ["ok"] * 5
    assert first.charged == [1, 2, 3, 4, 5] * 2


@slow
def test_a_finished_run_that_is_resumed_changes_nothing(run):
    done = run(**PRIVACY).serve()
    before = (done.rows, done.charged, [w.tobytes() for w in done.weights], list(done.numbers))
    done.serve()
    after = (done.rows, done.charged, [w.tobytes() for w in done.weights], list(done.numbers))
    assert before == after


@slow
def test_the_adapted_clip_norm_goes_on(run):
    client_dp = {
        "enabled": True, "epsilon": 50.0, "l2_norm_clip": 0.1, "adaptive_clip": True,
        "clip_learning_rate": 1.0, "clip_quantile": 0.93,  # which no share of the clients equals
    }  # fmt: skip
    tables = {"dp": {"record": {"enabled": False}, "client": client_dp}}
    broken = run(**tables).serve(die_at=(train(3), Exchange.KEYS))
    kept = Checkpoints.reopen(broken.folder)
    kept.close()
    clips = [float(row["l2_norm_clip"]) for row in broken.rows]
    assert clips[0] == 0.1
    assert kept.latest.l2_norm_clip not in clips
    broken.serve()
    assert float(broken.rows[3]["l2_norm_clip"]) == kept.latest.l2_norm_clip


class TestLedger:
    @pytest.fixture
    def broken(self, run):
        return run(**PRIVACY).serve(die_at=(train(3), Exchange.WORK))

    def test_without_the_ledger_nothing_goes_on(self, broken):
        shutil.rmtree(broken.ledgers)
        with pytest.raises(LedgerMissingError, match="restore it"):
            broken.serve()
        assert len(broken.rows) == 2

    def test_a_ledger_that_was_empty_at_the_checkpoint_and_charged_since_is_missed(self, run):
        broken = run(**PRIVACY).serve(die_at=(train(1), Exchange.WORK))
        with contextlib.closing(Checkpoints.reopen(broken.folder)) as kept:
            assert kept.latest.ledger[0] == 0
        assert broken.charged == [1]
        shutil.rmtree(broken.ledgers)
        with pytest.raises(LedgerMissingError, match="restore it"):
            broken.serve()
        broken.ledgers.mkdir()
        Ledger(broken.ledgers / LEDGER_FILE).close()  # another one, as empty as it was
        with pytest.raises(LedgerRolledBackError, match="another ledger or an"):
            broken.serve()

    @slow
    def test_without_the_ledgers_rows_nothing_goes_on(self, broken):
        (broken.ledgers / LEDGER_FILE).unlink()
        with pytest.raises(LedgerMissingError):
            broken.serve()

    @slow
    def test_with_another_ledger_nothing_goes_on(self, broken, run):
        other = run(**PRIVACY).serve()
        shutil.rmtree(broken.ledgers)
        shutil.copytree(other.ledgers, broken.ledgers)
        with pytest.raises(LedgerRolledBackError, match="another ledger or an"):
            broken.serve()

    def test_with_an_older_copy_of_the_ledger_and_its_head_nothing_goes_on(self, run, tmp_path):
        broken = run(**PRIVACY).serve(die_at=(train(2), Exchange.KEYS))
        shutil.copytree(broken.ledgers, tmp_path / "old")
        broken.serve(die_at=(train(2), Exchange.KEYS))
        shutil.rmtree(broken.ledgers)
        shutil.copytree(tmp_path / "old", broken.ledgers)
        with pytest.raises(LedgerRolledBackError):
            broken.serve()

    @slow
    def test_a_refused_resumption_leaves_the_run_free(self, broken):
        shutil.move(broken.ledgers, broken.folder / "away")
        for _ in range(2):
            with pytest.raises(LedgerMissingError):
                broken.serve()
        shutil.move(broken.folder / "away", broken.ledgers)
        assert broken.serve().summary["status"] == "finished"


def test_metrics_and_log_of_both_servers_are_one_story(run):
    broken = run(**PRIVACY).serve(die_at=(train(3), Exchange.WORK)).serve()
    found, _ = read(broken.folder / "events.jsonl")
    starts = [event for event in found if event["event"] == "run started"]
    assert [event["rounds_done"] for event in starts] == [0, 2]
    state = RunState()
    for event in found:
        state.apply(event)
    assert state.status == "finished"
    assert [record.round for record in state.records] == [1, 2, 3, 4, 5]
    assert [str(record.epsilon_record) for record in state.records] == [
        row["epsilon_record"] for row in broken.rows
    ]
    finished = [float(row["finished"]) for row in broken.rows]
    assert finished == sorted(finished)
    assert finished[0] > 0


@slow
def test_a_row_that_the_dead_server_wrote_after_its_checkpoint_is_not_there_twice(run):
    broken = run(**NO_PRIVACY).serve(die_at=(train(3), Exchange.KEYS))
    state = broken.folder / "checkpoint/state.npz"
    old = state.read_bytes()
    broken.serve(die_at=(train(2), Exchange.KEYS))
    state.write_bytes(old)  # as if it had died before its last checkpoint
    assert len(broken.rows) == 3
    broken.serve(die_at=(1, Exchange.KEYS))
    assert [row["round"] for row in broken.rows] == ["1", "2"]


@slow
def test_a_devices_failures_are_in_the_rows_by_class(run):
    lossy = run(**NO_PRIVACY)
    lossy.grid.gone = {100 + 2: 2}
    lossy.grid.lost_sessions = lambda number: number == 1
    lossy.serve()
    assert lossy.rows[0]["failed_timeout"] == "1"
    assert all(row["failed_timeout"] == "0" for row in lossy.rows[1:])
    assert lossy.summary["failures"] == {"timeout": 1}
    assert "failed_timeout" in (lossy.folder / "report.html").read_text()


class TestServerApp:
    """What `flwr run --run-config resume=...` does."""

    @pytest.fixture
    def app(self, monkeypatch, members):
        from strategies import server_app

        class Kept(Network):
            def set_weights(self, weights):
                self.weights = weights

            def save(self, path):
                save(self.weights, path)

        monkeypatch.setattr(server_app, "build", lambda model, seed: Kept())
        self.renewed = renewed = []
        files = SimpleNamespace(verify=members[1].verify, renew=lambda: renewed.append(1))
        monkeypatch.setattr(server_app, "_roster", lambda path: files)
        monkeypatch.setattr(server_app, "ProgressBar", lambda: Observers([]))
        return server_app

    def broken(self, run, **settings):
        """With a model's shape in its configuration, as a server without rows has it."""
        model = {"input_shape": [2], "num_classes": 2}
        tables = {**PRIVACY, "model": model, "observe": {"prometheus": "run.prom"}}
        broken = run(**tables)
        broken.settings, broken.origin = settings, Origin("title", DEVICES_POPULATION)
        return broken.serve(die_at=(train(3), Exchange.WORK))

    def test_it_goes_on_with_the_runs_own_settings(self, app, run, tmp_path):
        ledgers = tmp_path / "run-0" / "ledgers"
        broken = self.broken(run, ledger=str(ledgers), roster="/authority.crt")
        defaults = {"scenario": "smoke", "rounds": 99, "config-file": "", "out": "", "roster": ""}
        given = {**defaults, "ledger": "", "simulated": False, "resume": str(broken.folder)}
        app.main(broken.grid, SimpleNamespace(run_id=1, run_config=given))
        assert broken.charged == [1, 2, 3, 4, 5]
        assert len(accounts(ledgers)) == 1
        assert len(self.renewed) == 2 * 2  # before training and evaluation of two rounds
        assert broken.summary["rounds_skipped"] == [3]
        assert 'lepton_rounds_done{run="run-0"} 5' in (broken.folder / "run.prom").read_text()

    @pytest.mark.parametrize(
        "changes",
        [
            {"seed": 2},
            pytest.param({"clients": CLIENTS + 5}, marks=slow),
            pytest.param({"scenario": "health"}, marks=slow),
            pytest.param({"data": {"min_rows": 11}}, marks=slow),
        ],
        ids=str,
    )
    def test_no_setting_of_a_run_on_devices_opens_a_new_account(self, app, run, tmp_path, changes):
        base = {
            "scenario": "smoke", "clients": CLIENTS, "rounds": 1, "seed": 1,
            "model": {"input_shape": [2], "num_classes": 2}, **PRIVACY,
            "secagg": {"timeout": 0.3, "update_bound": 2.0, "max_examples": 1000},
        }  # fmt: skip
        grid, file = run().grid, tmp_path / "config.toml"
        given = {
            "config-file": str(file), "roster": "/authority.crt", "simulated": False,
            "ledger": str(tmp_path / "ledger"),
        }  # fmt: skip

        def start(**more):
            file.write_text(tomli_w.dumps(base | more))
            values = {**given, "out": str(new_folder(tmp_path / "runs", "smoke"))}
            app.main(grid, SimpleNamespace(run_id=1, run_config=values))

        start()
        with pytest.raises(BudgetError, match="the ledger allows no round"):
            start(**changes)
        assert len(accounts(tmp_path / "ledger")) == 1

    @slow
    def test_it_does_not_make_devices_for_a_run_that_goes_on(self, app, run):
        broken = self.broken(run)
        with pytest.raises(ConfigError, match="lepton simulate --resume"):
            app._resume(broken.grid, broken.folder, "", simulated=True)

    def test_it_does_not_go_on_with_a_run_of_simulated_devices(self, app, run):
        simulated = run(**NO_PRIVACY).serve(die_at=(train(1), Exchange.WORK))
        with pytest.raises(ConfigError, match="lepton simulate --resume"):
            app._resume(simulated.grid, simulated.folder, "/authority.crt", simulated=False)

    @slow
    def test_a_run_that_does_not_say_where_its_ledgers_are_does_not_go_on(self, app, run):
        broken = self.broken(run, roster="/authority.crt")
        for _ in range(2):  # and is left free
            with pytest.raises(CheckpointDamagedError, match="folder of the ledgers"):
                app._resume(broken.grid, broken.folder, "", simulated=False)


def test_the_optimizers_state_of_another_strategy_is_refused(run):
    from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM

    from strategies.optimizer_state import restore, state_of

    adam = FedAdam()
    adam.m_t = {"0": np.ones(2)}
    for other in (FedAvg(), FedAvgM()):
        with pytest.raises(ConfigError, match="expected that of the same strategy"):
            restore(other, state_of(adam))
    with pytest.raises(ConfigError):
        restore(FedAdam(), {"__class__/0": np.ones(1)})
    many = FedAvgM()
    many.momentum_vector = [np.full(1, i) for i in range(12)]
    again = FedAvgM()
    restore(again, dict(reversed(state_of(many).items())))
    assert [int(array[0]) for array in again.momentum_vector] == list(range(12))


def test_a_run_for_recipients_goes_on_with_their_key_and_leaves_no_model_in_clear(run):
    key = DecryptionKey.generate()
    to = {"output": {"model_to": [key.recipient.to_text().strip()]}, **NO_PRIVACY}
    whole, cut = run(**NO_PRIVACY).serve(), run(**to)
    cut.recipients = [key.recipient]
    cut.serve(die_at=(5, Exchange.KEYS))
    with pytest.raises(CheckpointKeyError, match="--model-key"):
        cut.serve()
    with pytest.raises(WrongKeyError):
        cut.serve(key=DecryptionKey.generate)
    with contextlib.closing(Checkpoints.reopen(cut.folder, lambda: key)) as checkpoints:
        done = checkpoints.rounds_done
        # One float alone is four bytes, which may stand in a ciphertext by chance.
        secrets = [array.tobytes() for array in checkpoints.latest.weights if array.size > 1]
    assert 0 < done < 5
    assert len(secrets) == len(SHAPES) - 1
    for path in cut.folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not any(secret in content for secret in secrets), path
    cut.serve(key=lambda: key)
    assert cut.summary["status"] == "finished"
    content = unseal(
        (cut.folder / "model.keras.lepton").read_bytes(), key, purpose="lepton/model/v1"
    )
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        found = [file[name] for name in file.files]
    for mine, theirs in zip(found, whole.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_checkpoints_are_for_those_for_whom_the_model_is(tmp_path):
    text = DecryptionKey.generate().recipient.to_text().strip()
    plain = RunConfig.build({"scenario": "smoke"})
    sealed = RunConfig.build({"scenario": "smoke", "output": {"model_to": [text]}})
    assert begin(tmp_path, plain, tmp_path, "run").recipients == []
    (recipient,) = begin(tmp_path, sealed, tmp_path, "run").recipients
    assert recipient.to_text().strip() == text


def test_a_run_goes_on_without_a_client_that_left_and_a_new_one_waits_for_all(run, monkeypatch):
    monkeypatch.setattr(node_module, "NODES_TIMEOUT", 0.2)
    going = run(rounds=3).serve(die_at=(train(2), Exchange.WORK))
    going.grid.apps.popitem()
    going.serve()
    assert [row["status"] for row in going.rows] == ["ok", "skipped", "ok"]
    assert going.rows[-1]["participants"] == str(CLIENTS - 1)
    new = run(rounds=3)
    new.grid.apps.popitem()
    with pytest.raises(FederationError, match=f"{CLIENTS - 1} of {CLIENTS} clients came"):
        new.serve()


def test_a_run_does_not_go_on_with_fewer_clients_than_a_sum_needs(run, monkeypatch):
    monkeypatch.setattr(node_module, "NODES_TIMEOUT", 0.2)
    going = run(rounds=3).serve(die_at=(train(2), Exchange.WORK))
    while len(going.grid.apps) >= going.config.secagg.min_survivors:
        going.grid.apps.popitem()
    with pytest.raises(FederationError, match="clients came"):
        going.serve()
    assert len(going.charged) == 2


@pytest.mark.parametrize(
    ("floor", "probability", "fewest"), [(5, 1.0, 5), (5, 0.5, 10), (3, 0.7, 5), (2, 1.0, 3)]
)
def test_a_run_does_not_go_on_with_fewer_clients_than_its_cohorts_need(
    monkeypatch, floor, probability, fewest
):
    monkeypatch.setattr(node_module, "NODES_TIMEOUT", 0.0)
    client = {"enabled": True, "epsilon": 50.0, "sampling_probability": probability}
    tables = {"dp": {"record": {"enabled": False}, "client": client}}
    config = RunConfig.build(
        {"scenario": "smoke", "clients": 20, "secagg": {"min_survivors": floor}}, tables
    )
    assert fewest_nodes(config) == fewest

    def nodes(count):
        return SimpleNamespace(get_node_ids=lambda: range(count))

    await_nodes(nodes(fewest), 20, fewest=fewest)
    with pytest.raises(FederationError, match=f"{fewest - 1} of 20 clients came"):
        await_nodes(nodes(fewest - 1), 20, fewest=fewest)


def test_a_run_of_sampled_clients_does_not_go_on_with_one_cohorts_floor(run, monkeypatch):
    monkeypatch.setattr(node_module, "NODES_TIMEOUT", 0.2)
    client = {"enabled": True, "epsilon": 50.0, "sampling_probability": 0.9}
    going = run(dp={"record": {"enabled": False}, "client": client}).serve(
        die_at=(train(2), Exchange.WORK)
    )
    assert going.config.secagg.min_survivors == CLIENTS - 1
    going.grid.apps.popitem()
    with pytest.raises(FederationError, match=f"{CLIENTS - 1} of {CLIENTS} clients came"):
        going.serve()
