"""Models and their envelopes."""

import io
import zipfile

import numpy as np
import pytest

from lepton_flwr.crypto.envelope import seal
from lepton_flwr.crypto.errors import (
    PurposeError,
    TamperedChunkError,
    TruncatedError,
    WrongKeyError,
)
from lepton_flwr.data.preprocessing import TableSchema
from lepton_flwr.data.preprocessing.fit import fit_tables
from lepton_flwr.errors import ConfigError, DataError
from lepton_flwr.sdk import ModelEnvelope, OrderError, UnseenCategoryError
from lepton_flwr.sdk.keystore import KeyStore
from lepton_flwr.sdk.labels import Labels
from lepton_flwr.sdk.model import PURPOSE, LearntModel
from lepton_flwr.training.models import ModelSpec


def preprocessor(rows):
    schema = TableSchema.infer(rows)
    halves = [schema.read(rows[::2]), schema.read(rows[1::2])]
    return fit_tables(halves, schema)


@pytest.fixture
def model(rows):
    fitted = preprocessor(rows[0])
    width = len(fitted.feature_names)
    weights = (
        np.linspace(-1, 1, width * 1, dtype=np.float32).reshape(width, 1),
        np.array([0.25], np.float32),
    )
    spec = ModelSpec("mlp", (width,), 2, ())
    return LearntModel(spec, weights, fitted, Labels.of(rows[1])[0], "a promise", None)


@pytest.fixture
def store(tmp_path):
    return KeyStore(tmp_path / "keys", "x25519")


def envelope(model, store):
    return ModelEnvelope(seal(model.to_bytes(), [store.models().recipient], purpose=PURPOSE))


def test_bytes_bring_back_the_whole_model(model, rows):
    again = LearntModel.from_bytes(model.to_bytes())
    assert again.spec == model.spec
    assert again.labels == model.labels
    assert again.guarantee == "a promise"
    assert again.preprocessor == model.preprocessor
    assert (again.predict_proba(rows[0]) == model.predict_proba(rows[0])).all()


def test_probabilities_are_those_of_the_weights(model, rows):
    features = model.preprocessor.transform(rows[0]).astype(np.float64)
    positive = 1 / (1 + np.exp(-(features @ model.weights[0] + model.weights[1])[:, 0]))
    found = model.predict_proba(rows[0])
    assert found.shape == (len(rows[0]), 2)
    assert found.sum(axis=1) == pytest.approx(1)
    assert found[:, 1] == pytest.approx(positive, abs=1e-5)


def test_an_envelope_gives_the_model_to_its_key_store_in_a_new_client(make, model, store, rows):
    sealed = envelope(model, store)
    client = make()
    weights = client.decrypt_model_params(sealed)
    assert [weight.tolist() for weight in weights] == [w.tolist() for w in model.weights]
    assert client.labels.tolist() == ["leaves", "stays"]
    expected = model.predict_proba(rows[0]).argmax(axis=1)
    assert np.asarray(client.predict(rows[0])).tolist() == expected.tolist()
    assert client.predict_proba(rows[0]).argmax(axis=1).tolist() == expected.tolist()


def test_an_envelope_shows_nothing_and_survives_a_file(model, store, tmp_path):
    sealed = envelope(model, store)
    assert repr(sealed) == str(sealed) == f"<encrypted model of {len(sealed):,} bytes>"
    assert b"income" not in sealed
    assert model.weights[0].tobytes() not in sealed
    sealed.save(tmp_path / "model.lepton")
    assert ModelEnvelope.load(tmp_path / "model.lepton") == sealed
    with pytest.raises(DataError, match="No such file"):
        ModelEnvelope.load(tmp_path / "other")


def test_a_wrong_key_is_named(make, model, store, tmp_path):
    other = make(key_store=tmp_path / "other")
    with pytest.raises(WrongKeyError, match="not encrypted for key"):
        other.decrypt_model_params(envelope(model, store))
    with pytest.raises(OrderError, match="expected decrypt_model_params before it"):
        other.predict([[1]])


def test_an_altered_envelope_is_named(make, model, store):
    sealed = bytes(envelope(model, store))
    flipped = sealed[:-1] + bytes([sealed[-1] ^ 1])
    client = make()
    with pytest.raises(TamperedChunkError):
        client.decrypt_model_params(flipped)
    with pytest.raises(TruncatedError):
        client.decrypt_model_params(sealed[:-20])
    other = seal(model.to_bytes(), [store.models().recipient], purpose="lepton/rows/v1")
    with pytest.raises(PurposeError):
        client.decrypt_model_params(other)
    with pytest.raises(ConfigError, match="expected what get_model_params returns"):
        client.decrypt_model_params([1, 2])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"x" * 1000])
def test_a_sealed_thing_that_is_no_model_is_refused(make, store, content):
    sealed = seal(content, [store.models().recipient], purpose=PURPOSE)
    with pytest.raises(DataError, match="not a model"):
        make().decrypt_model_params(sealed)


def members(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def claiming(shape):
    file, header = io.BytesIO(), io.BytesIO()
    about = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, about)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("about.npy", header.getvalue())
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        claiming((2**42,)),
        claiming((2**70, 0)),
        members(about=np.frombuffer(b"[" * 100_000, np.uint8)),
        members(about=np.frombuffer(b"{}", np.uint8)),
        members(about=np.frombuffer(b"[]", np.uint8), other=np.zeros(1)),
    ],
)
def test_a_hostile_archive_is_one_named_error(content):
    with pytest.raises(DataError, match="not a model"):
        LearntModel.from_bytes(content)


def test_a_compressed_model_is_refused(model):
    with np.load(io.BytesIO(model.to_bytes())) as arrays:
        whole = dict(arrays)
    assert LearntModel.from_bytes(members(**whole)).spec == model.spec
    file = io.BytesIO()
    np.savez_compressed(file, **whole)
    with pytest.raises(DataError, match="not a model"):
        LearntModel.from_bytes(file.getvalue())


@pytest.mark.parametrize("weights", [(), (np.zeros((3, 1), np.float32), np.zeros(1, np.float32))])
def test_weights_of_other_shapes_are_refused(model, weights):
    with pytest.raises(DataError, match="shapes of the model"):
        LearntModel(model.spec, weights, model.preprocessor, model.labels, "")


def test_weights_that_are_not_finite_are_refused(model):
    broken = (model.weights[0] * np.float32("nan"), model.weights[1])
    with pytest.raises(DataError, match="NaN"):
        LearntModel(model.spec, broken, model.preprocessor, model.labels, "")


def test_rows_that_do_not_fit_are_refused_by_name(model, rows):
    strange = rows[0].copy()
    strange[0, 1] = "Oban"
    assert model.predict_proba(strange).shape == (len(strange), 2)
    with pytest.raises(UnseenCategoryError, match="1 values are none of the categories"):
        model.predict_proba(strange, unseen="error")
    with pytest.raises(DataError, match="expected \\(rows, 4\\)"):
        model.predict_proba(rows[0][:, :2])
    strange[0, 0] = "old"
    with pytest.raises(DataError, match="not numbers"):
        model.predict_proba(strange)
