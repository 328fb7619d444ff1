import numpy as np
import pytest

from lepton_flwr.config import RunConfig
from lepton_flwr.crypto.errors import EnvelopeError, WrongKeyError
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.data.preprocessing import Preprocessor
from lepton_flwr.data.preprocessing.preprocessor import FittedNumber
from lepton_flwr.errors import ConfigError, DataError
from lepton_flwr.runs import events
from lepton_flwr.runs.artifacts import (
    find_model,
    has_model,
    read_model,
    read_preprocessor,
    write_model,
    write_preprocessor,
)
from lepton_flwr.runs.folder import RunFolder

SECRET = np.arange(1000, dtype=np.float32).tobytes()


def save(path):
    path.write_bytes(b"PK" + SECRET)


@pytest.fixture(scope="module")
def key():
    return DecryptionKey.generate()


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_with_recipients_the_model_is_in_the_folder_as_an_envelope_alone(tmp_path, key):
    write_model(tmp_path, save, [])
    assert SECRET in files(tmp_path)["model.keras"]
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    write_model(sealed, save, [key.recipient])
    assert list(files(sealed)) == ["model.keras.lepton"]
    assert not any(SECRET[:64] in content for content in files(sealed).values())
    assert has_model(sealed)
    assert find_model(sealed).name == "model.keras.lepton"


def test_every_recipient_opens_a_preprocessor_and_others_do_not(tmp_path, key):
    other = DecryptionKey.generate()
    made = Preprocessor((FittedNumber("age in years", 41.5, 12.25, 41.5),), salt=bytes(16))
    write_preprocessor(tmp_path, made, [key.recipient, other.recipient])
    assert list(files(tmp_path)) == ["preprocessor.json.lepton"]
    assert b"age in years" in made.to_json().encode()
    assert b"age in years" not in files(tmp_path)["preprocessor.json.lepton"]
    for opener in (key, other):
        assert read_preprocessor(tmp_path, lambda k=opener: k) == made
    with pytest.raises(WrongKeyError):
        read_preprocessor(tmp_path, DecryptionKey.generate)
    with pytest.raises(ConfigError, match="--key"):
        read_preprocessor(tmp_path, None)


def test_a_preprocessor_in_clear_needs_no_key(tmp_path):
    assert read_preprocessor(tmp_path, None) is None
    made = Preprocessor((FittedNumber("age", 41.5, 12.25, 41.5),), salt=bytes(16))
    write_preprocessor(tmp_path, made, [])
    assert read_preprocessor(tmp_path, None) == made
    (tmp_path / "preprocessor.json").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not text"):
        read_preprocessor(tmp_path, None)


def test_an_envelope_in_the_place_of_another_is_refused(tmp_path, key):
    made = Preprocessor((FittedNumber("age", 1.0, 1.0, 1.0),), salt=bytes(16))
    write_preprocessor(tmp_path, made, [key.recipient])
    path = tmp_path / "model.keras.lepton"
    (tmp_path / "preprocessor.json.lepton").rename(path)
    with pytest.raises(EnvelopeError, match="purpose"):
        read_model(path, lambda: key)


def test_a_run_for_recipients_leaves_no_weight_in_clear(tmp_path, runs, key, monkeypatch):
    monkeypatch.setattr(events, "write", lambda *_: None)
    weights = (np.arange(7000, dtype=np.float32),)
    text = key.recipient.to_text().strip()

    def run(**output):
        config = RunConfig.build(runs.start(2).config.to_dict(), {"output": output})
        folder = RunFolder(
            config, save_model=lambda w, path: path.write_bytes(w[0].tobytes()), out=tmp_path
        )
        folder.run_started(runs.start(2))
        for number in (1, 2):
            folder.round_finished(runs.record(number, 2), weights)
        folder.run_ended(runs.end())
        return files(folder.path)

    assert any(weights[0][:16].tobytes() in content for content in run().values())
    left = run(model_to=[text])
    assert "model.keras" not in left
    assert len(left["model.keras.lepton"]) > weights[0].nbytes
    assert not any(weights[0][:16].tobytes() in content for content in left.values())


def test_what_is_no_recipient_is_refused_before_a_folder_is_made(tmp_path, runs):
    config = RunConfig.build(runs.start(2).config.to_dict(), {"output": {"model_to": ["x"]}})
    with pytest.raises(ConfigError, match="recipient"):
        RunFolder(config, save_model=lambda *_: None, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("content", [b"", b"no model", b"PK\3\4 no zip"])
def test_what_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(DataError, match="no Keras model"):
        read_model(path, None)


def test_a_missing_model_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ConfigError, match="expected a run's folder"):
            find_model(path)
    with pytest.raises(DataError, match="No such file"):
        read_model(tmp_path / "model.keras", None)
