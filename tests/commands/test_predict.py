"""`lepton predict` on a model of one weight, so that every answer can be computed by hand."""

import csv
import dataclasses
import functools

import numpy as np
import pytest
import tomli_w

from lepton_flwr.config import RunConfig
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.data.preprocessing import Preprocessor
from lepton_flwr.data.preprocessing.preprocessor import FittedCategory, FittedNumber
from lepton_flwr.data.scenarios.health import SCHEMA
from lepton_flwr.data.table_spec import TableSpec
from lepton_flwr.runs.artifacts import write_model, write_preprocessor

# Keras saves variables by an interface that numpy has deprecated.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept:DeprecationWarning"
)

HEADER = "age,sex,sample.yr,kappa,lambda,creatinine,mgus"
ROWS = ["90,F,1997,1.2,1.3,,0", "55,M,2000,0.9,1.0,1.1,0", "85,F,1995,2,2,1,1"]
PASSPHRASE = "correct horse battery"  # noqa: S105 - of a key that is made here


@pytest.fixture
def predict(lepton):
    return functools.partial(lepton, "predict")


def write_table(path, rows, header=HEADER):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def key():
    return DecryptionKey.generate()


@pytest.fixture(scope="module")
def weighted():
    """From the number of inputs to what saves a model of logit 3 times the first."""
    from lepton_flwr.training.models import ModelSpec, build

    def make(inputs):
        def save(path):
            model = build(ModelSpec("mlp", (inputs,), 2, ()), 1)
            kernel = np.zeros((inputs, 1), np.float32)
            kernel[0] = 3
            model.set_weights([kernel, np.zeros(1, np.float32)])
            model.save(path)

        return save

    return make


@pytest.fixture
def health(tmp_path, weighted):
    """A run of scenario health that looks at the age alone; encrypted if there are recipients."""

    def make(recipients=()):
        folder = tmp_path / "run"
        folder.mkdir()
        config = RunConfig.build({"scenario": "health", "train": {"hidden_units": []}})
        (folder / "config.toml").write_text(tomli_w.dumps(config.to_dict()))
        write_model(folder, weighted(len(SCHEMA.feature_names)), recipients)
        return folder

    return make


def predictions(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_get_the_models_probabilities(predict, health, tmp_path):
    table = write_table(tmp_path / "rows.csv", ROWS)
    code, out, err = predict(health(), table, "--out", "answers.csv")
    assert (code, err) == (0, "")
    assert "3 predictions" in out
    assert "no column 'death'" in out
    rows = predictions(tmp_path / "answers.csv")
    assert [row["prediction"] for row in rows] == ["1", "0", "1"]
    ages = (np.array([90, 55, 85]) - 75) / 25
    expected = 1 / (1 + np.exp(-3 * ages))
    assert [float(r["probability 1"]) for r in rows] == pytest.approx(expected, abs=1e-5)
    assert [float(r["probability 0"]) for r in rows] == pytest.approx(1 - expected, abs=1e-5)
    assert not (tmp_path / "answers.png").exists()


def test_with_the_answers_it_says_how_right_it_is(predict, health, tmp_path):
    rows = [f"{row},{death}" for row, death in zip(ROWS, (1, 0, 0), strict=True)]
    table = write_table(tmp_path / "rows.csv", rows, f"{HEADER},death")
    code, out, _ = predict(health(), table)
    assert code == 0
    assert "accuracy 0.667, AUC 1.000" in out
    assert (tmp_path / "predictions.png").read_bytes().startswith(b"\x89PNG")


def test_an_encrypted_model_opens_with_the_key_of_a_recipient(predict, health, tmp_path, key):
    table = write_table(tmp_path / "rows.csv", ROWS)
    folder = health([key.recipient])
    key.save(tmp_path / "alice.key")
    code, _, err = predict(folder, table, "--key", "alice.key")
    assert (code, err) == (0, "")
    assert [row["prediction"] for row in predictions(tmp_path / "predictions.csv")] == list("101")


def test_a_key_behind_a_passphrase_asks_for_it(predict, health, tmp_path, key, monkeypatch):
    table = write_table(tmp_path / "rows.csv", ROWS)
    folder = health([key.recipient])
    key.save(tmp_path / "alice.key", PASSPHRASE)
    monkeypatch.setenv("LEPTON_PASSPHRASE", PASSPHRASE)
    assert predict(folder, table, "--key", "alice.key")[0] == 0
    monkeypatch.setenv("LEPTON_PASSPHRASE", "another one, wrong")
    code, _, err = predict(folder, table, "--key", "alice.key")
    assert code == 3
    assert "wrong passphrase" in err


def refused(outcome, *words):
    code, _, err = outcome
    assert code in (2, 3)
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1
    for word in words:
        assert word in err


def test_a_wrong_or_missing_key_is_named(predict, health, tmp_path, key):
    table = write_table(tmp_path / "rows.csv", ROWS)
    folder = health([key.recipient])
    refused(predict(folder, table), "encrypted", "--key")
    DecryptionKey.generate().save(tmp_path / "eve.key")
    refused(predict(folder, table, "--key", "eve.key"), "not encrypted for key")
    refused(predict(folder, table, "--key", "none.key"), "none.key")
    envelope = folder / "model.keras.lepton"
    content = bytearray(envelope.read_bytes())
    content[-1] ^= 1
    envelope.write_bytes(content)
    key.save(tmp_path / "alice.key")
    refused(predict(folder, table, "--key", "alice.key"), "chunk")
    assert not (tmp_path / "predictions.csv").exists()


def test_rows_that_cannot_be_used_are_named(predict, health, tmp_path):
    folder, path = health(), tmp_path / "rows.csv"

    def on(rows, header=HEADER):
        return predict(folder, write_table(path, rows, header))

    refused(on([], HEADER), "no rows")
    refused(on(["1,F"], "age,sex"), "missing column", "sample.yr")
    refused(on(["old,F,1997,1,1,,0"]), "age", "expected numbers")
    refused(on([",F,1997,1,1,,0"]), "age", "missing")
    refused(on([*ROWS, "90,X,1997,1,1,,0"]), "sex", "1 of 4", "--unseen other")
    refused(on([*ROWS, "90,F,1997,1,1,,0,7,7"]), "rows of different lengths")
    refused(on([f"{ROWS[0]},7"], f"{HEADER},death"), "labels are none of 0, 1")
    refused(predict(folder, tmp_path / "none.csv"), "none.csv", "No such file")
    path.write_text("")
    refused(predict(folder, path), "names every column")
    assert not (tmp_path / "predictions.csv").exists()


def test_unseen_categories_are_taken_as_other_if_asked(predict, health, tmp_path):
    table = write_table(tmp_path / "rows.csv", [*ROWS, "90,X,1997,1,1,,0"])
    assert predict(health(), table, "--unseen", "other")[0] == 0
    assert len(predictions(tmp_path / "predictions.csv")) == 4


def test_what_is_no_run_is_named(predict, health, tmp_path):
    table = write_table(tmp_path / "rows.csv", ROWS)
    folder = health()
    refused(predict(tmp_path / "nothing", table), "expected a run's folder")
    refused(predict(folder, table, "--out", table), "--out")
    refused(predict(folder, table, "--unseen", "ignore"), "--unseen")
    (folder / "config.toml").rename(tmp_path / "config.toml")
    refused(predict(folder, table), "config.toml beside it")
    (folder / "config.toml").write_text('scenario = "customers"\n')
    refused(predict(folder, table), "outputs")
    (folder / "config.toml").write_text('scenario = "credit"\n')
    credit = "Seniority,Home,Time,Age,Marital,Records,Job,Expenses,Income,Assets,Debt,Amount,Price"
    loan = "9,rent,60,30,married,no,freelance,73,129,0,0,800,846"
    refused(predict(folder, write_table(table, [loan], credit)), "rows of shape (29,)", "(9,)")
    (folder / "config.toml").write_text('scenario = "image"\n')
    refused(predict(folder, table), "preprocessor.json")
    (tmp_path / "config.toml").replace(folder / "config.toml")
    (folder / "model.keras").write_bytes(b"PK")
    refused(predict(folder, table), "no Keras model")


@pytest.mark.parametrize("sealed", [False, True])
def test_a_run_on_a_users_table_predicts_by_its_preprocessor(
    predict, tmp_path, weighted, key, sealed
):
    folder = tmp_path / "run"
    folder.mkdir()
    columns = (
        FittedNumber("income", 100.0, 50.0, 100.0),
        FittedCategory("town", ("Oslo", "Bergen")),
    )
    recipients = [key.recipient] if sealed else []
    write_preprocessor(folder, Preprocessor(columns, salt=bytes(16)), recipients)
    write_model(folder, weighted(3), recipients)
    model = {"label": "bad", "classes": ["no", "yes"], "num_classes": 2, "input_shape": [3]}
    config = RunConfig.build({"scenario": "csv", "model": model})
    (folder / "config.toml").write_text(tomli_w.dumps(config.to_dict()))
    key.save(tmp_path / "alice.key")
    with_key = ["--key", "alice.key"] if sealed else []
    table = tmp_path / "rows.csv"
    write_table(table, ["150,Oslo,yes", ",Bergen,no", "20,Oslo,no"], "income,town,bad")
    code, out, err = predict(folder, table, *with_key)
    assert (code, err) == (0, "")
    assert "accuracy 1.000" in out
    assert [r["prediction"] for r in predictions(tmp_path / "predictions.csv")] == [
        "yes", "no", "no",
    ]  # fmt: skip
    refused(
        predict(folder, write_table(table, ["1,Rome,no"], "income,town,bad"), *with_key), "town"
    )
    refused(predict(folder, write_table(table, ["1,Oslo,?"], "income,town,bad"), *with_key), "bad")


def test_a_run_on_devices_tables_reads_texts_as_devices_do(predict, tmp_path, weighted):
    """Among categories 007 is no number, though pandas takes the column for numbers."""
    folder = tmp_path / "run"
    folder.mkdir()
    columns = (FittedCategory("plan", ("007", "8")), FittedNumber("age", 50.0, 50.0, 50.0))
    write_preprocessor(folder, Preprocessor(columns, salt=bytes(16)), [])
    write_model(folder, weighted(3), [])
    spec = TableSpec.from_plain(
        {"label": "bad", "classes": ["1", "0"], "columns": {"plan": "category", "age": "number"}}
    )
    model = {"label": "bad", "classes": spec.classes, "num_classes": 2, "input_shape": [3]}
    config = RunConfig.build({"scenario": "csv", "model": model})
    config = dataclasses.replace(config, table=spec.config)
    (folder / "config.toml").write_text(tomli_w.dumps(config.to_dict()))
    table = tmp_path / "rows.csv"
    write_table(table, ["007,True,2", "8,30,0"], "plan,age,bad")
    refused(predict(folder, table), "bad", "1 of 2 values")
    write_table(table, ["007,True,01", "8,30,0", "007,,1"], "plan,age,bad")
    code, out, err = predict(folder, table)
    assert (code, err) == (0, "")
    assert "accuracy 1.000" in out
    rows = predictions(tmp_path / "predictions.csv")
    shares = [float(row["probability 1"]) for row in rows]
    assert shares == pytest.approx([1 / (1 + np.exp(-3)), 0.5, 1 / (1 + np.exp(-3))], abs=1e-5)
    write_table(table, ["7,30"], "plan,age")
    refused(predict(folder, table), "plan")
    refused(predict(folder, write_table(table, ["007,old"], "plan,age")), "age", "not numbers")
    refused(predict(folder, write_table(table, ["007"], "plan")), "missing column", "age")


def test_a_run_on_an_array_takes_columns_by_position(predict, tmp_path, weighted):
    folder = tmp_path / "run"
    folder.mkdir()
    columns = (
        FittedNumber("column 1", 100.0, 50.0, 100.0),
        FittedCategory("column 0", ("Oslo", "Bergen")),
    )
    order = ("column 0", "column 1", "column 2")
    made = Preprocessor(columns, salt=bytes(16), dropped=("column 2",), order=order)
    write_preprocessor(folder, made, [])
    write_model(folder, weighted(3), [])
    model = {"label": "label", "classes": ["0", "1"], "num_classes": 2, "input_shape": [3]}
    config = RunConfig.build({"scenario": "csv", "model": model})
    (folder / "config.toml").write_text(tomli_w.dumps(config.to_dict()))
    table = tmp_path / "rows.csv"
    write_table(table, ["Oslo,150,x,1", "Bergen,20,y,0"], "town,income,diary,bad")
    code, out, err = predict(folder, table)
    assert (code, err) == (0, "")
    assert "accuracy 1.000" in out
    write_table(table, ["Oslo,150,x", "Bergen,20,y"], "town,income,diary")
    assert predict(folder, table)[0] == 0
    assert [r["prediction"] for r in predictions(tmp_path / "predictions.csv")] == ["1", "0"]
    write_table(table, ["Oslo,150"], "town,income")
    refused(predict(folder, table), "2 columns", "the 3 of the array")
