"""Statistics of raw tables that devices hold: the real ClientApp behind a direct grid."""

import contextlib
import csv
import io
import json
import logging
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict

from clients.client_app import app as client_app
from lepton_flwr.config import RunConfig
from lepton_flwr.crypto.encrypted_file import FILE_PURPOSE
from lepton_flwr.crypto.envelope import seal
from lepton_flwr.crypto.identity import Roster
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.data import wire
from lepton_flwr.data.federated import ClientData
from lepton_flwr.data.preprocessing import PREPROCESSOR_FILE, Preprocessor, fit_tables
from lepton_flwr.data.preprocessing.asked import QuestionError, from_json, to_json
from lepton_flwr.data.preprocessing.questions import (
    MAX_ROWS,
    Hashes,
    Moments,
    Question,
    Rows,
)
from lepton_flwr.data.scenarios import get
from lepton_flwr.data.table_spec import TableSpec
from lepton_flwr.device import Device, simulated_root
from lepton_flwr.errors import ConfigError, DataError
from lepton_flwr.inference import ballot
from lepton_flwr.privacy.accounting import BudgetError
from lepton_flwr.privacy.events import SampledGaussian, Unbounded, Unit
from lepton_flwr.privacy.ledger import Ledger
from lepton_flwr.privacy.policy import PrivacyPolicy
from lepton_flwr.privacy.votes import Plurality
from lepton_flwr.provision import provision
from lepton_flwr.secagg.wire import EXCHANGE, MASKED, RECORD, Exchange
from lepton_flwr.training.models import ModelSpec
from strategies.budgets import DEVICES_POPULATION
from strategies.device_statistics import StatisticsError, ask_devices, asked_before
from strategies.federate import table_fields
from strategies.voting import FlowerVoters

RUN_ID = 2**63 + 11
CLIENTS = 4
SPEC = TableSpec.from_plain(
    {
        "label": "ill",
        "classes": ["yes", "no"],
        "columns": {
            "age": {"kind": "number", "low": 0, "high": 120},
            "income": "number",
            "plan": "category",
            "town": {"kind": "category", "values": ["north", "south"]},
        },
    }
)
SCHEMA = """
label = "ill"
classes = ["no", "yes"]
[columns]
age = { kind = "number", low = 0, high = 120 }
income = "number"
plan = "category"
town = { kind = "category", values = ["north", "south"] }
"""
NOISE = {"noise_multiplier": 6.0, "statistics_noise_multiplier": 8.0}  # as calibration finds them
LOOSE = {"dp": {"record": {"noise_multiplier": 20.0, "statistics_noise_multiplier": 3.0}}}
RARE = "a-plan-that-one-device-alone-has"


def table(rows, seed):
    """A device's CSV: columns in another order, one that nobody asked for, missing values."""
    rng = np.random.default_rng(seed)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["plan", "ill", "age", "diary", "income", "town"])
    for row in range(rows):
        plan = RARE if seed == 0 and row < 5 else rng.choice(["007", "b", "", "c"])
        income = "" if rng.random() < 0.1 else f"{rng.lognormal(8, 1):.2f}"
        writer.writerow([plan, rng.choice(["yes", "no"]), rng.integers(18, 95), "dear diary",
                         income, rng.choice(["north", "south", "east"])])  # fmt: skip
    return out.getvalue()


def answer(message, context):
    """As Flower runs an app: what it raises becomes an error reply."""
    try:
        return client_app(message, context)
    except ValueError as error:
        return Message(Error(2, f"ValueError: {error}"), reply_to=message)


class Federation:
    def __init__(self, grid, folders, path):
        self.grid, self.folders, self.path = grid, folders, path
        self.roster = Roster.of_authority((folders[0] / "roster.pem").read_bytes())

    def ask(self, name="run", **tables):
        base = {"scenario": "csv", "clients": CLIENTS, "rounds": 2,
                "secagg": {"timeout": 0.2, "retries": 0, "min_survivors": 3},
                "dp": {"record": NOISE}}  # fmt: skip
        config = RunConfig.build(get("csv").defaults, base, tables)
        config = replace(config, table=SPEC.config)
        (self.path / name).mkdir(exist_ok=True)
        return ask_devices(
            self.grid, config, self.roster, folder=self.path / name, ledgers=self.path / "ledgers",
            run=f"csv {name}", population=DEVICES_POPULATION,
        )  # fmt: skip

    def device(self, number):
        return Device.open(self.folders[number])

    def charged(self, number):
        with self.device(number).ledger() as ledger:
            return [[(c.unit, c.event) for c in e.charges] for e in ledger.history()]

    def server_charged(self):
        with Ledger(self.path / "ledgers" / "server.db") as ledger:
            return [[c.event for c in entry.charges] for entry in ledger.history()]

    def reasons(self):
        return {r.error.reason for r in self.grid.replies if r.has_error()}


@pytest.fixture
def federation(grid, tmp_path, monkeypatch):
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    empty = ClientData(
        np.zeros((1, 1), np.float32), np.zeros(1, np.int32),
        np.zeros((0, 1), np.float32), np.zeros(0, np.int32),
    )  # fmt: skip
    folders = provision(
        simulated_root(RUN_ID), [empty] * CLIENTS, min_survivors=3,
        spending=PrivacyPolicy(max_record_epsilon=3.0),
    )  # fmt: skip
    for seed, folder in enumerate(folders):
        (folder / "data.npz").unlink()
        (folder / "data.csv").write_text(table(400 + 50 * seed, seed))
        (folder / "schema.toml").write_text(SCHEMA)
    direct = grid(clients=CLIENTS, app=lambda partition, mods: client_app)
    direct.apps = dict.fromkeys(range(CLIENTS), answer)
    return Federation(direct, folders, tmp_path)


def without_limits(federation):
    for folder in federation.folders:
        (folder / "policy.toml").write_text("min_survivors = 3\n")


OFF = {"dp": {"record": {"enabled": False}}}


def test_without_noise_the_statistics_are_those_of_one_process(federation):
    without_limits(federation)
    found = federation.ask(**OFF).preprocessor
    tables = [federation.device(number).table.train for number in range(CLIENTS)]
    wanted = fit_tables(tables, SPEC.schema)
    assert found.feature_names == wanted.feature_names
    assert any(RARE in name for name in found.feature_names)
    for one in tables:
        x, y = (p.transform(one, dtype=np.float64) for p in (found, wanted))
        np.testing.assert_allclose(x, y, atol=1e-6)


def test_every_device_is_charged_for_each_question_before_its_noise(federation, monkeypatch):
    own, answers = Question.answer, []

    def spy(self, of, noise=None):
        answers.append(None)
        assert sum(len(federation.charged(n)) for n in range(CLIENTS)) == len(answers)
        return own(self, of, noise)

    monkeypatch.setattr(Question, "answer", spy)
    asked = federation.ask()
    assert len(answers) == 3 * CLIENTS
    record = asked.config.dp.record
    event = SampledGaussian(record.statistics_noise_multiplier, 1.0, 1)
    assert record.statistics_releases == asked.preprocessor.releases == 3
    assert federation.server_charged() == [[event]] * 3
    for number in range(CLIENTS):
        assert (
            federation.charged(number) == [[(Unit.RECORD, event), (Unit.CLIENT, Unbounded())]] * 3
        )
    assert asked.config.model.classes == ("no", "yes")
    assert asked.config.model.input_shape == (len(asked.preprocessor.feature_names),)
    assert Preprocessor.load(federation.path / "run" / PREPROCESSOR_FILE) == asked.preprocessor


def test_nothing_of_one_device_leaves_in_clear(federation, monkeypatch):
    """What leaves is keys, sealed shares, signatures, and one vector that looks uniform."""
    from lepton_flwr.data.preprocessing.questions import Question as Asked

    answers = []
    own = Asked.answer

    def spy(self, of, noise=None):
        found = own(self, of, noise)
        answers.append(found)
        return found

    monkeypatch.setattr(Asked, "answer", spy)
    without_limits(federation)
    federation.ask(**OFF)
    sent = [reply for reply in federation.grid.replies if not reply.has_error()]
    masked = [
        reply.content.array_records[MASKED].to_numpy_ndarrays()[0]
        for reply in sent
        if MASKED in reply.content.array_records
    ]
    assert len(masked) == len(answers) > 10
    for reply in sent:
        assert set(reply.content) <= {RECORD, MASKED}
        text = repr({k: dict(r) for k, r in reply.content.config_records.items()}).encode()
        assert RARE.encode() not in text
    whole = np.concatenate(masked)
    # Uniform over 32 bits: each of 16 top bins has its share, within 6 deviations.
    counts = np.bincount(whole >> 28, minlength=16)
    share = len(whole) / 16
    assert (np.abs(counts - share) < 6 * np.sqrt(share)).all()


def test_less_noise_than_the_policy_asks_for_is_refused(federation):
    for folder in federation.folders:
        (folder / "policy.toml").write_text(
            "min_survivors = 3\nmin_record_noise_multiplier = 50.0\n"
        )
    with pytest.raises(StatisticsError, match=r"question 1 .* start the run anew"):
        federation.ask()
    assert any(
        reason.startswith("PolicyError: noise_multiplier") for reason in federation.reasons()
    )
    assert all(federation.charged(number) == [] for number in range(CLIENTS))
    assert not (federation.path / "run" / PREPROCESSOR_FILE).exists()


def test_exact_statistics_fit_no_limit(federation):
    with pytest.raises(StatisticsError, match="budget spent"):
        federation.ask(**OFF)


def test_a_policy_without_the_action_answers_no_question(federation):
    for folder in federation.folders:
        (folder / "policy.toml").write_text("min_survivors = 3\nactions = ['train', 'evaluate']\n")
    with pytest.raises(StatisticsError, match="refused by its policy"):
        federation.ask()
    assert all("query.statistics" in reason for reason in federation.reasons())


def test_questions_of_a_second_run_are_paid_for_again_until_they_are_refused(federation):
    federation.ask(**LOOSE)
    (federation.path / "ledgers" / "server.db").unlink()  # a server that forgot
    (federation.path / "ledgers" / "server.head").unlink()
    federation.grid.contexts.clear()
    with pytest.raises(StatisticsError, match="budget spent"):
        federation.ask("again", **LOOSE)
    assert any(reason.startswith("BudgetError") for reason in federation.reasons())


def test_the_servers_own_ledger_refuses_before_anybody_is_asked(federation):
    federation.ask(**LOOSE)
    federation.grid.requests.clear()
    with pytest.raises(BudgetError, match="the ledger allows no round"):
        federation.ask("again", **LOOSE)
    assert federation.grid.requests == []


def test_a_replayed_question_gets_no_second_answer(federation):
    federation.ask()
    work = [
        message for message in federation.grid.requests
        if message.content.config_records[RECORD][EXCHANGE] == Exchange.WORK
    ]  # fmt: skip
    before = federation.charged(0)
    for message in work:
        if message.metadata.dst_node_id == 0:
            reply = federation.grid.answer(message)
            assert reply.error.reason.startswith("SessionLostError")
    assert federation.charged(0) == before


def test_a_device_that_is_gone_costs_only_itself(federation):
    federation.grid.gone = {2: 2}
    asked = federation.ask()
    assert asked.preprocessor.releases == 3
    assert federation.charged(2) == []
    # It can train later: the work brings what the others have found.
    fields = {**wire.spec_fields(SPEC), wire.PREPROCESSOR: asked.preprocessor.to_json()}
    device = federation.device(2)
    device.spec.check_run(wire.spec_of(fields))
    rows = device.features(wire.preprocessor_of(fields))
    assert rows.x_train.shape[1:] == asked.config.model.input_shape
    assert rows.digest == device.data_digest()


def test_too_few_devices_are_a_named_error_and_leave_nothing(federation):
    federation.grid.gone = {0: 2, 1: 2}
    with pytest.raises(StatisticsError, match=r"question 1 to the devices' tables: .*lost: 2"):
        federation.ask()
    assert list((federation.path / "run").iterdir()) == []
    assert len(federation.server_charged()) == 1


def test_public_bounds_for_all_columns_ask_nothing(federation):
    federation.grid.requests.clear()
    spec = TableSpec.from_plain(
        {"label": "ill", "classes": ["no", "yes"],
         "columns": {"age": {"kind": "number", "low": 0, "high": 120}}}
    )  # fmt: skip
    config = RunConfig.build(
        get("csv").defaults,
        {"scenario": "csv", "clients": CLIENTS, "dp": {"client": {"enabled": True}}},
    )
    config = replace(config, table=spec.config)
    arguments = {"folder": federation.path, "ledgers": federation.path / "ledgers", "run": "r",
                 "population": DEVICES_POPULATION}  # fmt: skip
    asked = ask_devices(federation.grid, config, federation.roster, **arguments)
    assert asked.config.dp.record.statistics_releases == asked.sessions == 0
    assert federation.grid.requests == []
    device = federation.device(0)
    device.spec.check_run(spec)
    assert np.abs(device.features(asked.preprocessor).x_train).max() <= 1
    with pytest.raises(ConfigError, match="'income' has no public bounds"):
        ask_devices(
            federation.grid, replace(config, table=SPEC.config), federation.roster, **arguments
        )


def test_a_run_that_goes_on_asks_nobody_and_takes_no_other_statistics(federation):
    asked = federation.ask()
    folder = federation.path / "run"
    assert asked_before(folder, asked.settings) == asked.preprocessor
    replace(asked.preprocessor, salt=b"another salt 16b").save(folder / PREPROCESSOR_FILE)
    with pytest.raises(DataError, match=r"not the run's preprocessor\.json.* spend again"):
        asked_before(folder, asked.settings)
    (folder / PREPROCESSOR_FILE).unlink()
    with pytest.raises(DataError, match=r"no preprocessor\.json.* spend again"):
        asked_before(folder, asked.settings)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": "died"}, "the run's label"),
        ({"classes": ["no", "perhaps"]}, "the run's label and 2 classes"),
        ({"columns": {"plan": "number"}}, "column 'plan' of the run"),
        ({"columns": {"diary": "category"}}, "column 'diary' of the run"),
        ({"columns": {"age": {"kind": "number", "low": 0, "high": 9}}}, "column 'age' of the run"),
    ],
)
def test_a_run_for_other_tables_is_refused(federation, change, reason):
    with pytest.raises(DataError, match=reason):
        federation.device(0).spec.check_run(TableSpec.from_plain({**SPEC.to_plain(), **change}))


# The work


@pytest.fixture
def reached(monkeypatch):
    """Rows that training got; it is replaced, so that no TensorFlow is needed."""
    found = []
    fake = types.ModuleType("clients.keras_task")

    def train(task, weights, data, server_round):
        found.append(data)
        return [weight + np.float32(0.01) for weight in weights]

    fake.train = train
    monkeypatch.setitem(sys.modules, "clients.keras_task", fake)
    monkeypatch.setattr("clients.keras_task", fake, raising=False)
    return found


def rounds(federation, asked, initial, fields):
    from flwr.app import ArrayRecord, ConfigRecord
    from flwr.serverapp.strategy import FedAvg

    from lepton_flwr.training.models import ModelSpec
    from lepton_flwr.training.task import Task
    from strategies.secure_aggregation import SecureAggregation
    from strategies.secure_grid import SecureGrid, SecureSettings

    task = Task(
        model=ModelSpec("mlp", asked.config.model.input_shape, 2, ()), optimizer="sgd",
        learning_rate=0.1, local_steps=5, sampling_probability=0.1, noise_multiplier=6.0,
        l2_norm_clip=1.0, engine="vectorized", seed=1,
    )  # fmt: skip
    numbers = iter(range(asked.sessions + 1, 100))
    strategy = SecureAggregation(
        FedAvg(fraction_evaluate=0.0, min_available_nodes=CLIENTS, min_train_nodes=CLIENTS),
        lambda plain: SecureGrid(
            plain, federation.roster, SecureSettings(update_bound=1.0, timeout=0.2),
            numbers=numbers.__next__,
        ),
    )  # fmt: skip
    config = ConfigRecord({"task": task.to_json(), **fields})
    federation.grid.replies.clear()
    strategy.start(federation.grid, ArrayRecord([np.zeros((3, 1), np.float32)]), num_rounds=1,
                   train_config=config)  # fmt: skip
    return federation.reasons()


def test_devices_train_on_features_that_they_make_of_their_own_rows(federation, reached, initial):
    federation.grid.gone, federation.grid.lost_sessions = {3: 0}, lambda number: number <= 3
    asked = federation.ask()
    fields = {**wire.spec_fields(SPEC), wire.PREPROCESSOR: asked.preprocessor.to_json()}
    assert rounds(federation, asked, initial, fields) == set()
    assert len(reached) == CLIENTS  # also the one that missed the questions
    reached.sort(key=lambda data: len(data.y_train))  # as the devices' tables are
    for number, data in enumerate(reached):
        own = federation.device(number).table
        np.testing.assert_array_equal(data.x_train, asked.preprocessor.transform(own.train))
        np.testing.assert_array_equal(data.y_train, own.y_train)
    history = _history(federation, 0)
    assert len(history) == 4  # statistics and training, in one account
    assert len({c.dataset for e in history for c in e.charges if c.unit is Unit.RECORD}) == 1


def test_devices_vote_with_features_that_they_make_of_their_own_rows(
    federation, reached, task, monkeypatch
):
    asked = federation.ask()
    for folder in federation.folders:
        (folder / "policy.toml").write_text('min_survivors = 3\nactions = ["evaluate.vote"]\n')
    sys.modules["clients.keras_task"].probabilities = lambda task, weights, rows: np.eye(2)[
        np.ones(len(rows), int)
    ]
    (features,) = asked.config.model.input_shape
    task = replace(task, model=ModelSpec("mlp", (features,), 2, ()))
    weights = [np.zeros((features, 1), np.float32), np.zeros(1, np.float32)]
    voters = FlowerVoters(
        federation.grid, federation.roster, task, weights, min_survivors=3, timeout=0.2,
        fields=table_fields(asked.config, asked.preprocessor), sessions_before=asked.sessions,
    )  # fmt: skip
    tally = voters(np.zeros((2, features)), ballot.Question.of(Plurality(), 2))
    assert tally.sums.tolist() == [[0, CLIENTS]] * 2
    reached.sort(key=lambda data: len(data.y_train))
    for number, data in enumerate(reached):
        own = federation.device(number).table
        np.testing.assert_array_equal(data.x_train, asked.preprocessor.transform(own.train))


def _history(federation, number):
    with federation.device(number).ledger() as ledger:
        return ledger.history()


HOSTILE = [
    " ", "{", "null", "[1]", '{"format": "lepton-preprocessor", "version": 1}', "[" * 50_000,
    json.dumps({"format": "lepton-preprocessor", "version": 9}),
]  # fmt: skip


def test_hostile_statistics_train_nobody(federation, reached, initial):
    asked = federation.ask()
    good = json.loads(asked.preprocessor.to_json())
    endless, huge = json.loads(json.dumps(good)), json.loads(json.dumps(good))
    endless["columns"][1]["scale"] = 10**400
    huge["columns"][2]["others"] = 10**9
    other, number = json.loads(json.dumps(good)), json.loads(json.dumps(good))
    other["columns"][0]["name"] = "diary"
    number["columns"][2] = {**good["columns"][1], "name": good["columns"][2]["name"]}
    before = [_history(federation, device) for device in range(CLIENTS)]
    for text in (*HOSTILE, *map(json.dumps, (endless, huge, other, number))):
        found = rounds(
            federation, asked, initial,
            {**wire.spec_fields(SPEC), wire.PREPROCESSOR: text},
        )  # fmt: skip
        asked = replace(asked, sessions=asked.sessions + 1)
        (named,) = {reason.partition(":")[0] for reason in found}
        assert named in {"DataError", "SchemaMismatchError"}, text[:60]
    assert reached == []
    assert [_history(federation, device) for device in range(CLIENTS)] == before


@pytest.mark.parametrize("threshold", [0.0, 40.0, 70.0, 1e300])
@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e300])
def test_whether_features_are_made_tells_nothing_of_the_rows(federation, threshold, scale):
    asked = federation.ask()
    plain = json.loads(asked.preprocessor.to_json())
    for column in plain["columns"]:
        if column["kind"] == "number":
            column |= {"low": threshold, "high": None, "mean": threshold, "scale": scale}
            column["fill"] = 1e308
    preprocessor = Preprocessor.from_json(json.dumps(plain))
    for number in range(CLIENTS):
        data = federation.device(number).features(preprocessor)
        assert np.isfinite(data.x_train).all()
        assert np.isfinite(data.x_test).all()


def test_a_run_without_statistics_trains_no_device_with_a_raw_table(federation, reached, initial):
    asked = federation.ask()
    assert rounds(federation, asked, initial, {}) == {"DataError: see the log on the device"}
    with pytest.raises(DataError, match="raw table"):
        federation.device(0).data()


# Questions on the wire

QUESTION = {"version": 1, "noise_multiplier": 1.0, "most_rows": MAX_ROWS}


def test_a_question_is_the_same_on_the_wire():
    question = Question(
        (Rows(), Hashes("plan", bytes(16), 10), Moments("age", 60.0, 60.0)), 3.5, MAX_ROWS
    )
    assert from_json(to_json(question), SPEC.schema) == question


@pytest.mark.parametrize(
    "part",
    [
        {"kind": "rows", "column": "age"},
        {"kind": "magnitudes", "column": "plan"},
        {"kind": "magnitudes", "column": "diary"},
        {"kind": "magnitudes", "column": ["age"]},
        {"kind": "bins", "column": "age", "edges": [0, float("nan")]},
        {"kind": "bins", "column": "age", "edges": ["a", "b"]},
        {"kind": "bins", "column": "age", "edges": [0.0] * 100_000},
        {"kind": "moments", "column": "age", "centre": 0.0, "half": 0.0},
        {"kind": "moments", "column": "age", "centre": True, "half": 1.0},
        {"kind": "hashes", "column": "plan", "salt": "", "bits": 10},
        {"kind": "hashes", "column": "plan", "salt": "00" * 16, "bits": 40},
        {"kind": "hashes", "column": "plan", "salt": "00" * 16, "bits": -1},
        {"kind": "hashes", "column": "plan", "salt": "00" * 16, "bits": 9, "prefixes": [0, 0]},
        {"kind": "hashes", "column": "plan", "salt": "00" * 16, "bits": 9, "prefixes": [1]},
        {"kind": "hashes", "column": "plan", "salt": "00" * 16, "bits": 9, "prefix_bits": 48},
        {"kind": "hashes", "column": "plan", "salt": "00" * 16, "bits": 16, "prefix_bits": 12,
         "prefixes": list(range(4096))},
        {"kind": "listed", "column": "plan", "values": ["a", "a"]},
        {"kind": "listed", "column": "plan", "values": [1]},
        {"kind": "names", "column": "plan", "salt": "00" * 16, "hashes": [-1]},
        {"kind": "names", "column": "plan", "salt": "00" * 16, "hashes": [2**48]},
        {"kind": "elsewhere"},
        {},
        "rows",
    ],
)  # fmt: skip
def test_a_question_that_no_honest_server_asks_is_refused(part):
    text = json.dumps({**QUESTION, "noise_multiplier": 0.0, "parts": [part]})
    with pytest.raises(QuestionError):
        from_json(text, SPEC.schema)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"parts": []}, {"parts": {}}, {"most_rows": 2**40}, {"most_rows": 0},
        {"most_rows": 10}, {"parts": [{"kind": "rows"}] * 2},
        {"noise_multiplier": -1.0}, {"noise_multiplier": None}, {"noise_multiplier": 10**400},
    ],
)  # fmt: skip
def test_a_damaged_question_is_refused(change):
    plain = {**QUESTION, "parts": [{"kind": "rows"}]}
    from_json(json.dumps(plain), SPEC.schema)
    with pytest.raises(QuestionError):
        from_json(json.dumps({**plain, **change}), SPEC.schema)
    for text in ("", "[]", "nonsense", "[" * 100_000):
        with pytest.raises(QuestionError):
            from_json(text, SPEC.schema)


def test_noise_cannot_be_asked_for_with_names():
    part = {"kind": "names", "column": "plan", "salt": "00" * 16, "hashes": [1]}
    text = json.dumps({**QUESTION, "parts": [part]})
    with pytest.raises(QuestionError):
        from_json(text, SPEC.schema)


# What a device reads


def test_an_encrypted_table_is_the_same_table_and_account(federation):
    folder = federation.folders[0]
    plain = federation.device(0).table
    key = DecryptionKey.generate()
    content = (folder / "data.csv").read_bytes()
    (folder / "data.csv.lepton").write_bytes(seal(content, [key.recipient], purpose=FILE_PURPOSE))
    key.save(folder / "data.key")
    (folder / "data.csv").unlink()
    sealed = federation.device(0)
    assert sealed.data_digest() == plain.records
    np.testing.assert_array_equal(sealed.table.y_train, plain.y_train)


def test_the_order_of_the_rows_opens_no_other_account(federation):
    before = federation.device(0).data_digest()
    path = federation.folders[0] / "data.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(rows)]) + "\n")
    assert federation.device(0).data_digest() == before
    path.write_text("\n".join([header, *rows[1:]]) + "\n")
    assert federation.device(0).data_digest() != before


def test_features_beside_a_raw_table_are_refused(federation):
    (federation.folders[0] / "data.npz").write_bytes(b"rows")
    with pytest.raises(DataError, match="remove one of them"):
        _ = federation.device(0).table
    with contextlib.suppress(DataError):
        federation.device(0).data()


def test_a_schema_that_others_could_change_is_refused(federation):
    (federation.folders[0] / "schema.toml").chmod(0o666)
    with pytest.raises(Exception, match=r"schema\.toml: mode 0666"):
        _ = federation.device(0).spec


def test_a_message_outside_secure_aggregation_gets_no_statistics(federation):
    message = Message(RecordDict({}), 0, "query.statistics")
    message.metadata.__dict__["_message_id"] = "0"
    from flwr.app import Context

    reply = answer(message, Context(RUN_ID, 0, {"partition-id": 0}, RecordDict(), {}))
    assert reply.error.reason.startswith("PolicyError: this device answers within secure")
