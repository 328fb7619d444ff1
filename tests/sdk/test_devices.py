"""A client at the server of a federation, before anything is started there."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tomli_w

from lepton_flwr import LeptonClient
from lepton_flwr.config import ModelConfig
from lepton_flwr.crypto.address import Address
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
from lepton_flwr.sdk.devices import labels_of
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


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("federation") / "clinics"
    create(folder, 4, Address("localhost", 8000), schema=SCHEMA)
    StatusFile(folder / "server").enter(RUNNING)
    with only_one(folder / "server"):
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
    StatusFile(still).enter(RUNNING)
    with only_one(still), pytest.raises(ConfigError, match=r"no schema\.toml"):
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
    ],
)
def test_labels_come_back_as_they_were(classes, y, kind, values):
    labels = labels_of(spec(*classes), y)
    assert (labels.kind, labels.values) == (kind, values)
    # Class i of the devices is label i of the client.
    assert spec(*classes).answers(list(values)).tolist() == [0, 1]


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
    skipped = []

    def run(server, config, out, ledger, console):
        model = ModelConfig((2,), 2, "ill", ("no", "yes"))
        config = replace(config, model=model)
        (folder / "config.toml").write_text(tomli_w.dumps(config.to_dict()))
        recipients = recipients_of(config)
        write_preprocessor(folder, made, recipients)
        kernel, bias = np.array([[3.0], [0.0]], np.float32), np.zeros(1, np.float32)
        save = model_saver(config)
        write_model(folder, lambda path: save([kernel, bias], path), recipients)
        summary = {"rounds": 2, "rounds_skipped": skipped}
        (folder / "summary.json").write_text(json.dumps(summary))
        return folder

    monkeypatch.setattr(train, "train", run)
    client.preprocess_data(X, Y)
    client.encrypt_data()
    client.add_differential_privacy_noise()
    skipped[:] = [1, 2]
    with pytest.raises(FederationError, match="no round released a sum"):
        client.federated_learning()
    skipped.clear()
    client.federated_learning()
    assert client.folder == folder
    assert not (folder / "model.keras").exists()
    envelope = client.get_model_params()
    assert b"plan" not in envelope
    kernel, _ = client.decrypt_model_params(envelope)
    assert kernel.tolist() == [[3.0], [0.0]]
    assert client.predict(X).text.tolist() == ["no", "no", "yes"]
