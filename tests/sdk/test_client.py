"""`LeptonClient`: the order of its calls, what it keeps, and what it pays."""

import gc
import math
import pickle
import types

import numpy as np
import pandas as pd
import pytest

import lepton_flwr
from lepton_flwr.crypto.errors import EnvelopeError, TamperedChunkError, WrongKeyError
from lepton_flwr.crypto.files import KeyFileError
from lepton_flwr.data.preprocessing import support
from lepton_flwr.errors import DataError
from lepton_flwr.privacy import losses
from lepton_flwr.privacy.accounting import BudgetError
from lepton_flwr.privacy.events import SampledGaussian, Unit
from lepton_flwr.privacy.ledger import Ledger
from lepton_flwr.provision import ledger_files
from lepton_flwr.sdk import LabelError, OrderError
from lepton_flwr.sdk.perturbation import Perturbation
from lepton_flwr.sdk.rows import EncryptedRows
from strategies.budgets import LEDGER_FILE

METHODS = (
    "preprocess_data",
    "encrypt_data",
    "add_differential_privacy_noise",
    "federated_learning",
)


def encrypted(client, rows):
    client.preprocess_data(*rows)
    client.encrypt_data()
    return client


def test_the_package_offers_the_client_and_no_other_name():
    assert lepton_flwr.LeptonClient.__name__ == "LeptonClient"
    with pytest.raises(AttributeError, match="no attribute 'Client'"):
        _ = lepton_flwr.Client


@pytest.mark.parametrize("number", range(1, 4))
def test_a_method_before_its_turn_names_the_one_that_is_missing(make, number):
    with pytest.raises(OrderError, match=f"{METHODS[number]}: expected {METHODS[number - 1]}"):
        getattr(make(), METHODS[number])()


@pytest.mark.parametrize(
    ("method", "arguments", "missing"),
    [
        ("get_model_params", (), "federated_learning"),
        ("predict", ([[1]],), "decrypt_model_params"),
        ("predict_proba", ([[1]],), "decrypt_model_params"),
        ("report", (), "federated_learning"),
    ],
)
def test_a_question_before_its_turn_names_what_is_missing(make, method, arguments, missing):
    with pytest.raises(OrderError, match=f"{method}: expected {missing} before it"):
        getattr(make(), method)(*arguments)


def test_a_method_a_second_time_is_refused(make, rows):
    client = encrypted(make(), rows)
    with pytest.raises(OrderError, match="preprocess_data was called already"):
        client.preprocess_data(*rows)
    with pytest.raises(OrderError, match="encrypt_data was called already"):
        client.encrypt_data()


def reachable(thing):
    """All objects that `thing` leads to, without modules, classes and functions."""
    seen, waiting = {}, [thing]
    skipped = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)
    while waiting:
        found = waiting.pop()
        if id(found) not in seen and not isinstance(found, skipped):
            seen[id(found)] = found
            waiting += gc.get_referents(found)
    return list(seen.values())


def secret_table():
    """Rows that tell themselves: a number and a text that nothing else has."""
    rng = np.random.default_rng(0)
    amounts = rng.normal(123456.789, 0.001, 60)
    names = np.array([f"patient-{i:05d}" for i in range(60)], dtype=object)
    x = np.empty((60, 2), dtype=object)
    x[:, 0], x[:, 1] = amounts, names
    return x, np.arange(60) % 2


def test_encrypted_rows_are_ciphertext_in_the_object_and_on_disk(make, tmp_path):
    x, y = secret_table()
    client = make(epsilon=20.0, statistics_share=0.8)  # few rows are seen
    client.preprocess_data(x, y)
    features = client._data.clients[0].x_train
    plain = [features[0].tobytes(), features.tobytes()]
    assert features[0].any()  # so that its bytes are its own
    assert any(found is features for found in reachable(client))
    del features
    client.encrypt_data()
    plain += [amount.tobytes() for amount in x[:, 0].astype(np.float64)]
    plain += [name.encode() for name in x[:, 1]]

    left = reachable(client)
    assert not [found for found in left if isinstance(found, np.ndarray | pd.DataFrame)]
    texts = [found.encode() for found in left if isinstance(found, str)]
    contents = texts + [bytes(found) for found in left if isinstance(found, bytes | bytearray)]
    contents.append(pickle.dumps(client.__dict__))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sum("participant" in path.name for path in files) == 6  # three keys, three files
    contents += [path.read_bytes() for path in files]
    assert not [part for part in plain for content in contents if part in content]
    assert not [n for n in left if isinstance(n, float) and abs(n - 123456.789) < 1e-9]


def test_rows_are_opened_by_their_participants_key_alone(make, rows, tmp_path):
    client = encrypted(make(), rows)
    encrypted_rows = client._rows
    assert len(encrypted_rows.open(0).x_train) > 100
    keys = tmp_path / "keys"
    (keys / "participant-0.key").rename(keys / "other")
    (keys / "participant-1.key").rename(keys / "participant-0.key")
    with pytest.raises(WrongKeyError, match=r"participant-0\.lepton: not encrypted for key"):
        encrypted_rows.open(0)


@pytest.mark.parametrize("mechanism", ["training", "laplace"])
def test_an_altered_file_of_rows_is_named_before_anything_is_done(make, rows, mechanism):
    client = encrypted(make(mechanism=mechanism), rows)
    if mechanism == "training":
        client.add_differential_privacy_noise()
    (path,) = client.folder.rglob("participant-1.lepton")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    step = client.federated_learning if mechanism == "training" else None
    with pytest.raises(TamperedChunkError, match=r"participant-1\.lepton: chunk 1 of 1"):
        (step or client.add_differential_privacy_noise)()
    path.write_bytes(content[:100])
    with pytest.raises(EnvelopeError, match=r"participant-1\.lepton"):
        (step or client.add_differential_privacy_noise)()


def test_a_missing_file_of_rows_is_named(make, rows):
    client = encrypted(make(), rows)
    client.add_differential_privacy_noise()
    (path,) = client.folder.rglob("participant-2.lepton")
    path.unlink()
    with pytest.raises(DataError, match=r"participant-2\.lepton: No such file"):
        client.federated_learning()


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda x, y: (x, np.full(len(y), "stays")), LabelError, "1 different value"),
        (lambda x, y: (x, np.where(np.arange(len(y)) == 3, None, y)), LabelError, "1 of 440"),
        (lambda x, y: (x[:20], y[:20]), DataError, "20 rows for 3 participants"),
        (lambda x, y: (x[:50], y), DataError, "50 rows and 440 labels"),
        (lambda x, y: (x[:, 0], y), DataError, "expected \\(rows, columns\\)"),
        (lambda x, y: (np.full((len(y), 1), np.inf), y), DataError, "infinite"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(make, rows, tmp_path, change, error, text):
    client = make()
    with pytest.raises(error, match=text) as caught:
        client.preprocess_data(*change(*rows))
    assert "\n" not in str(caught.value)
    assert client.folder is None
    assert not list((tmp_path / "runs").iterdir())


def test_the_noise_spends_what_the_statistics_leave_and_no_more(make, rows):
    client = encrypted(make(), rows)
    guarantee = client.add_differential_privacy_noise()
    fitted = client._basis.preprocessor

    def together(releases):
        statistics = SampledGaussian(fitted.noise_multiplier, 1.0, 1)
        training = SampledGaussian(guarantee.noise_multiplier, 1.0, 1)
        return losses.epsilon([(statistics, releases), (training, 2 * 40)], 1e-5)

    epsilon = together(fitted.releases)
    assert guarantee.epsilon == pytest.approx(epsilon)
    # There are three, and fewer where the noise hides both columns of numbers.
    assert epsilon <= together(3) <= 3.0
    assert together(3) > 2.95
    assert (guarantee.unit, guarantee.delta) == ("record", 1e-5)
    assert f"({math.ceil(epsilon * 1000) / 1000:g}, 1e-05)-differentially private" in str(guarantee)
    assert "adding or removing one record" in str(guarantee)


def spent(client, delta):
    """Epsilon in each participant's ledger and in the server's."""
    basis = client._basis
    files = [
        (basis.ledgers / LEDGER_FILE, basis.population),
        *zip(ledger_files(basis.ledgers / "devices", basis.records), basis.records, strict=True),
    ]
    found = []
    for path, data in files:
        with Ledger(path) as ledger:
            found.append(ledger.spent(Unit.RECORD, ledger.dataset(data), delta))
    return found


def test_statistics_are_charged_to_every_ledger(make, rows):
    client = make()
    client.preprocess_data(*rows)
    fitted = client._basis.preprocessor  # a column that the noise hides is asked less of
    asked = [(SampledGaussian(fitted.noise_multiplier, 1.0, 1), fitted.releases)]
    assert 1 <= fitted.releases <= 3
    assert spent(client, 1e-5) == pytest.approx([losses.epsilon(asked, 1e-5)] * 4)
    assert 0 < losses.epsilon(asked, 1e-5) <= 0.9


def changed(noisy, clean):
    """Whether the features are perturbed: of discrete noise some is zero, once in 1e7 numbers."""
    return (noisy.x_train != clean.x_train).mean() > 0.99


@pytest.mark.parametrize("mechanism", ["laplace", "gaussian"])
def test_perturbed_records_are_charged_and_take_the_place_of_the_others(make, rows, mechanism):
    client = encrypted(make(mechanism=mechanism), rows)
    before = [client._rows.open(i) for i in range(3)]
    guarantee = client.add_differential_privacy_noise()
    assert spent(client, 1e-5) == pytest.approx([guarantee.epsilon] * 4)
    assert 1.5 < guarantee.epsilon <= 3.0
    flips = []
    for number, clean in enumerate(before):
        noisy = client._rows.open(number)
        assert noisy.x_train.shape == clean.x_train.shape
        assert changed(noisy, clean)
        flips += (noisy.y_train != clean.y_train).tolist()
        assert (noisy.x_test == clean.x_test).all()
    assert 0.1 < np.mean(flips) < 0.5  # 0.31 is expected; false alarms below 1e-14
    assert "replacing one record" in str(guarantee)
    assert "much less accurate" in str(guarantee)


@pytest.mark.parametrize("where", [(EncryptedRows, "open"), (Perturbation, "apply")])
def test_an_interrupted_perturbation_goes_on_where_it_was(make, rows, monkeypatch, where):
    client = encrypted(make(mechanism="gaussian"), rows)
    clean = [client._rows.open(i) for i in range(3)]
    owner, name = where
    real, calls = getattr(owner, name), []
    last = 3 + 2 if name == "open" else 2  # all are opened once before

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == last:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.add_differential_privacy_noise()
    first = client._rows.open(0)
    assert changed(first, clean[0])
    assert (client._rows.open(1).x_train == clean[1].x_train).all()
    with pytest.raises(OrderError):
        client.federated_learning()
    guarantee = client.add_differential_privacy_noise()
    assert spent(client, 1e-5) == pytest.approx([guarantee.epsilon] * 4)
    assert (client._rows.open(0).x_train == first.x_train).all()
    for number in (1, 2):
        assert changed(client._rows.open(number), clean[number])


def test_a_kept_ledger_refuses_the_same_rows_a_second_time(make, rows, tmp_path):
    options = {"ledger": tmp_path / "kept", "statistics_share": 0.9}
    make(**options).preprocess_data(*rows)
    with pytest.raises(BudgetError):
        make(**options).preprocess_data(*rows)
    make(seed=2, **options).preprocess_data(rows[0][:200], rows[1][:200])  # other rows


def test_runs_in_folders_of_one_name_are_two_runs_in_a_shared_ledger(
    make, rows, tmp_path, monkeypatch
):
    def new_folder(out, name):
        folder = out / name
        folder.mkdir(parents=True)
        return folder

    monkeypatch.setattr("lepton_flwr.sdk.client.new_folder", new_folder)
    clients = [
        make(ledger=tmp_path / "kept", out=tmp_path / out, epsilon=8.0) for out in ("one", "two")
    ]
    for client in clients:
        client.preprocess_data(*rows)
    with Ledger(tmp_path / "kept" / LEDGER_FILE) as ledger:
        runs = [entry.run for entry in ledger.history()]
    assert len(set(runs)) == 2
    assert len(runs) == sum(client._basis.preprocessor.releases for client in clients)


@pytest.mark.parametrize("change", [{"seed": 2}, {"participants": 4}, {"test_fraction": 0.3}, {}])
def test_no_other_division_of_the_same_rows_has_a_budget_of_its_own(make, rows, tmp_path, change):
    options = {"ledger": tmp_path / "kept", "statistics_share": 0.9}
    make(**options).preprocess_data(*rows)
    x, y = rows
    with pytest.raises(BudgetError, match="the ledger allows no round"):
        make(**options | change).preprocess_data(x[::-1], y[::-1])


def test_a_participant_for_each_value_of_a_column(make, table):
    frame = table()
    client = make(partition="natural", by="town", participants=None)
    client.preprocess_data(frame.drop(columns="outcome"), frame["outcome"])
    assert len(client._data.clients) == 3
    assert not [name for name in client._data.feature_names if "town" in name]
    by_place = make(partition="natural", by=1, participants=None)
    by_place.preprocess_data(frame.iloc[:, :-1].values, frame["outcome"].values)
    assert [len(c.y_train) for c in by_place._data.clients] == [
        len(c.y_train) for c in client._data.clients
    ]
    with pytest.raises(DataError, match="no such column"):
        make(partition="natural", by="city").preprocess_data(frame, frame["outcome"])


def test_duplicates_within_a_participant_count_once(make, rows):
    x, y = np.concatenate([rows[0]] * 3), np.concatenate([rows[1]] * 3)
    client = make(partition="natural", by=4, participants=None)
    owner = np.repeat(["a", "b", "c"], len(rows[1]))
    shuffled = np.concatenate([x, owner[:, None]], axis=1)
    client.preprocess_data(shuffled, y)
    sizes = [len(c.y_train) + len(c.y_test) for c in client._data.clients]
    assert sizes == [len(pd.DataFrame(x).assign(y=y).drop_duplicates())] * 3
    assert sizes[0] < 440


def test_an_open_key_store_is_refused_before_anything_is_charged(make, rows, tmp_path):
    (tmp_path / "keys").mkdir(mode=0o755)
    with pytest.raises(KeyFileError):
        make().preprocess_data(*rows)
    assert not (tmp_path / "runs").exists()


def test_numbers_vary_by_half_a_deviation_and_held_out_rows_likewise(make, rows, monkeypatch):
    # Else noise alone widens a column's bounds in one run of a hundred.
    monkeypatch.setattr(support, "FAILURE", 1e-12)
    client = make(epsilon=20.0, statistics_share=0.8)
    client.preprocess_data(*rows)
    data = client._data
    place = data.feature_names.index("column 0")
    values = np.concatenate([c.x_train[:, place] for c in data.clients])
    assert values.std() == pytest.approx(0.5, abs=0.05)
    assert values.mean() == pytest.approx(0, abs=0.05)
    held = np.concatenate([c.x_test[:, place] for c in data.clients])
    assert 0.3 < held.std() < 0.7
