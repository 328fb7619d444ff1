"""A client at the server of a federation, before anything is started there."""

import contextlib
import json
import types
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tomli_w

from lepton_flwr import LeptonClient
from lepton_flwr.config import ModelConfig
from lepton_flwr.crypto.address import Address
from lepton_flwr.crypto.files import KeyFileError
from lepton_flwr.data.preprocessing import Preprocessor
from lepton_flwr.data.preprocessing.preprocessor import FittedCategory, FittedNumber
from lepton_flwr.data.table_spec import TableSpec
from lepton_flwr.deploy import train
from lepton_flwr.deploy.folders import create
from lepton_flwr.deploy.status import RUNNING, StatusFile
from lepton_flwr.deploy.supervisor import only_one
from lepton_flwr.errors import ConfigError, DataError, FederationError
from lepton_flwr.privacy import losses
from lepton_flwr.privacy.events import SampledGaussian
from lepton_flwr.runs.artifacts import recipients_of, write_model, write_preprocessor
from lepton_flwr.sdk.devices import DevicePlan, labels_of
from lepton_flwr.sdk.errors import LabelError, OrderError
from strategies.server_app import model_saver

SCHEMA = b"""
label = "ill"
classes = ["yes", "no"]
[columns]
age = { kind = "number", low = 0, high = 120 }
income = "number"
plan = "category"
"""
X = np.array([[50, 1e3, "a"], [60, 2e3, "b"], [70, np.nan, None]], dtype=object)
Y = ["no", "yes", "no"]


@contextlib.contextmanager
def running(folder):
    """What a running server's folder looks like from outside."""
    StatusFile(folder).enter(RUNNING)
    with only_one(folder):
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("federation") / "clinics"
    create(folder, 4, Address("localhost", 8000), schema=SCHEMA)
    with running(folder / "server"):
        yield folder / "server"


@pytest.fixture
def client(server, tmp_path):
    return LeptonClient(federation=server, key_store=tmp_path / "keys", progress=False, rounds=2)


@pytest.fixture
def handed(monkeypatch):
    """The configurations that runs are started with; none is started."""
    found = []

    def started(folder, config, out, ledger, console):
        found.append((folder, config, out, ledger))
        raise FederationError("no server in this test")

    monkeypatch.setattr(train, "train", started)
    return found


def test_the_rows_of_the_script_are_in_no_configuration_and_not_kept(client, handed, server):
    client.preprocess_data(X, Y)
    client.encrypt_data()
    guarantee = client.add_differential_privacy_noise()
    with pytest.raises(FederationError, match="no server in this test"):
        client.federated_learning()
    ((folder, config, out, ledger),) = handed
    assert (folder, out, ledger) == (server.resolve(), None, None)
    assert config.table == TableSpec.read(server / "schema.toml").config
    assert config.clients == 4
    assert config.train.average
    assert config.output.model_to
    # What it says is what the run was calibrated to: the statistics and all steps, within epsilon.
    record, steps = config.dp.record, config.train.local_steps
    statistics = SampledGaussian(record.statistics_noise_multiplier, 1.0, 1)
    training = SampledGaussian(record.noise_multiplier, 1.0, steps)
    spent = losses.epsilon([(statistics, 3), (training, 2)], config.dp.delta)
    assert guarantee.epsilon == spent <= 3.0
    assert record.statistics_releases == 3
    assert "3 Gaussian releases of preprocessing statistics" in str(guarantee)
    assert all(value is not X for value in vars(client).values())
    assert client._data is None
    assert client._rows is None
    with pytest.raises(OrderError, match="get_model_params: expected federated_learning before"):
        client.get_model_params()


def test_columns_with_public_bounds_need_no_statistics(handed, tmp_path):
    bounded = SCHEMA.replace(b'income = "number"\nplan = "category"\n', b"")
    create(tmp_path / "bounded", 4, Address("localhost", 8000), schema=bounded)
    server = tmp_path / "bounded" / "server"
    client = LeptonClient(federation=server, key_store=tmp_path / "keys", progress=False)
    with running(server):
        client.preprocess_data()
    client.encrypt_data()
    guarantee = client.add_differential_privacy_noise()
    with pytest.raises(FederationError, match="no server in this test"):
        client.federated_learning()
    ((_, config, _, _),) = handed
    training = SampledGaussian(config.dp.record.noise_multiplier, 1.0, config.train.local_steps)
    spent = losses.epsilon([(training, config.rounds)], config.dp.delta)
    assert guarantee.epsilon == spent
    assert 2.9 < spent <= 3.0  # all of it goes to training
    assert "statistics" not in str(guarantee)
    assert "accountant, over " in str(guarantee)


@pytest.fixture
def ended(monkeypatch, tmp_path):
    """Runs that ended on a server; each has the number of its rounds that were skipped."""
    runs = []

    def started(folder, config, out, ledger, console):
        run = tmp_path / f"run-{len(runs)}"
        run.mkdir()
        runs.append(run)
        skipped = list(range(1, config.rounds + 1)) if ended.fail else []
        summary = {"rounds": config.rounds, "rounds_skipped": skipped}
        (run / "summary.json").write_text(json.dumps(summary))
        (run / "report.html").write_text("<html></html>")
        return run

    monkeypatch.setattr(train, "train", started)
    ended = types.SimpleNamespace(runs=runs, fail=False)
    return ended


def ready(client):
    client.preprocess_data()
    client.encrypt_data()
    client.add_differential_privacy_noise()
    return client


def test_a_run_without_a_sum_is_reported_and_not_paid_for_again(client, ended):
    ended.fail = True
    ready(client)
    for _ in range(2):
        with pytest.raises(FederationError, match=r"no round released a sum.*a new LeptonClient"):
            client.federated_learning()
    (run,) = ended.runs
    assert client.report() == run / "report.html"


def test_a_finished_run_whose_model_was_not_read_is_read_by_the_next_call(
    client, ended, monkeypatch
):
    ready(client)
    tries = []

    def learnt(plan, folder, key, guarantee):
        tries.append(folder)
        if len(tries) == 1:
            raise KeyFileError("the key store is open to other users")
        return types.SimpleNamespace(to_bytes=lambda: b"model")

    monkeypatch.setattr(DevicePlan, "learnt", learnt)
    with pytest.raises(KeyFileError):
        client.federated_learning()
    client.federated_learning()
    assert tries == [ended.runs[0]] * 2
    assert len(ended.runs) == 1
    assert client.get_model_params()


def test_the_order_of_calls_is_that_of_the_ten_lines(client):
    with pytest.raises(OrderError, match="encrypt_data: expected preprocess_data before it"):
        client.encrypt_data()
    client.preprocess_data()
    with pytest.raises(OrderError, match="preprocess_data was called already"):
        client.preprocess_data()
    with pytest.raises(OrderError, match="expected encrypt_data before it"):
        client.add_differential_privacy_noise()
    with pytest.raises(OrderError, match="predict: expected decrypt_model_params before it"):
        client.predict(X)


def test_rows_of_other_columns_are_refused(client):
    with pytest.raises(DataError, match="2 columns: expected 3, those of the schema"):
        client.preprocess_data(X[:, :2], Y)
    with pytest.raises(DataError, match="missing column 'plan'"):
        client.preprocess_data(pd.DataFrame(X[:, :2], columns=["age", "income"]), Y)
    with pytest.raises(DataError, match="3 rows and 2 labels"):
        client.preprocess_data(X, Y[:2])
    with pytest.raises(LabelError, match="3 labels: expected those of the 2 classes"):
        client.preprocess_data(X, ["no", "yes", "perhaps"])
    client.preprocess_data(X, Y)  # none of that was a call


def test_without_a_federation_rows_are_needed(tmp_path):
    with pytest.raises(DataError, match="expected rows X and labels y"):
        LeptonClient(key_store=tmp_path / "keys").preprocess_data()


def test_what_is_no_running_server_is_named(tmp_path, server):
    with pytest.raises(ConfigError, match="expected the folder of a server"):
        LeptonClient(federation="fl.example.org:8000", key_store=tmp_path / "k").preprocess_data()
    create(tmp_path / "still", 3, Address("localhost", 8000))
    still = tmp_path / "still" / "server"
    with pytest.raises(FederationError, match="expected `lepton server run`"):
        LeptonClient(federation=still, key_store=tmp_path / "k").preprocess_data()
    with running(still), pytest.raises(ConfigError, match=r"no schema\.toml"):
        LeptonClient(federation=still, key_store=tmp_path / "k").preprocess_data()


def spec(*classes):
    return TableSpec.from_plain(
        {"label": "ill", "classes": list(classes), "columns": {"age": "number"}}
    )


@pytest.mark.parametrize(
    ("classes", "y", "kind", "values"),
    [
        (("yes", "no"), None, "text", ("no", "yes")),
        (("10", "9"), None, "int", (9, 10)),
        (("0.5", "2"), None, "float", (0.5, 2.0)),
        (("1", "0"), [1, 1], "int", (0, 1)),
        (("1", "0"), np.array([1.0, 0.0]), "float", (0.0, 1.0)),
        (("True", "False"), [True, False], "bool", (False, True)),
        (("no", "yes"), ["yes"], "text", ("no", "yes")),
        (("007", "010"), None, "text", ("007", "010")),
        (("1_0", "1_1"), None, "text", ("1_0", "1_1")),
        (("0.50", "2"), None, "text", ("0.50", "2")),
        (("inf", "nan"), None, "text", ("inf", "nan")),
        (("01", "1"), None, "text", ("01", "1")),
    ],
)
def test_labels_come_back_as_they_were(classes, y, kind, values):
    labels = labels_of(spec(*classes), y)
    assert (labels.kind, labels.values) == (kind, values)
    # Class i of the devices is label i of the client.
    assert spec(*classes).answers(list(values)).tolist() == [0, 1]


def test_classes_that_are_neither_numbers_nor_texts_in_order_are_named():
    with pytest.raises(LabelError, match="another order as texts than as numbers"):
        labels_of(spec("9", "010"), None)


@pytest.mark.parametrize("y", [["10"], [3], [True], [1, "yes"], []])
def test_labels_that_are_none_of_the_classes_are_refused(y):
    with pytest.raises(LabelError):
        labels_of(spec("9", "10"), y)


@pytest.mark.slow
def test_what_a_run_has_left_becomes_an_envelope_that_predicts(client, monkeypatch, tmp_path):
    """The run itself is replaced: its folder is written as the server's app writes it."""
    folder = tmp_path / "run"
    folder.mkdir()
    columns = (FittedNumber("age", 60.0, 10.0, 60.0), FittedCategory("plan", slots=(3,), bits=10))
    made = Preprocessor(columns, salt=bytes(16), order=("age", "income", "plan"))

    def run(server, config, out, ledger, console):
        model = ModelConfig((2,), 2, "ill", ("no", "yes"))
        config = replace(config, model=model)
        (folder / "config.toml").write_text(tomli_w.dumps(config.to_dict()))
        recipients = recipients_of(config)
        write_preprocessor(folder, made, recipients)
        kernel, bias = np.array([[3.0], [0.0]], np.float32), np.zeros(1, np.float32)
        save = model_saver(config)
        write_model(folder, lambda path: save([kernel, bias], path), recipients)
        summary = {"rounds": 2, "rounds_skipped": [1]}
        (folder / "summary.json").write_text(json.dumps(summary))
        return folder

    monkeypatch.setattr(train, "train", run)
    client.preprocess_data(X, Y)
    client.encrypt_data()
    client.add_differential_privacy_noise()
    client.federated_learning()
    assert client.folder == folder
    assert not (folder / "model.keras").exists()
    envelope = client.get_model_params()
    kernel, _ = client.decrypt_model_params(envelope)
    name = json.dumps(json.dumps("plan"))[1:-1].encode()  # four bytes alone may be there by chance
    assert name in client._model.to_bytes()
    assert name not in envelope
    assert kernel.tolist() == [[3.0], [0.0]]
    assert client.predict(X).text.tolist() == ["no", "no", "yes"]
