import json
import zipfile

import keras
import numpy as np
import pytest

from lepton_flwr.errors import ConfigError, DataError, OutputError
from lepton_flwr.privacy.accounting import BudgetError
from lepton_flwr.training.checkpoint import MEMBER, CheckpointCallback
from lepton_flwr.training.private import PrivateTrainer, RecordPrivacy, StepBudget

# Keras 3 converts variables with np.array in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept:DeprecationWarning"
)


NOISE = 1.5  # nine steps of it are within the budget below, and twelve are not


def trainer_of(**options):
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, "relu")])
    model.add(keras.layers.Dense(1))
    model.compile(keras.optimizers.Adam(0.1), "mse", metrics=["mae"])
    privacy = RecordPrivacy(0.5, NOISE, 20 / 60, truncated_batch_size=48)
    return PrivateTrainer(model, privacy, budget=StepBudget(4.0, 1e-5, 60), **options)


def data():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 5)).astype(np.float32)
    return x, x[:, :1]


def test_a_resumed_training_is_the_same_mechanism(tmp_path):
    path = tmp_path / "model.keras"
    trainer = trainer_of(physical_batch_size=8)
    trainer.fit(*data(), epochs=2)
    trainer.save(path)
    resumed = PrivateTrainer.load(path)
    assert resumed.privacy == trainer.privacy
    assert resumed.budget == trainer.budget
    assert resumed.steps_taken == trainer.steps_taken == 6
    assert resumed.epochs_done == 2
    assert resumed.epsilon() == trainer.epsilon()
    assert resumed.physical_batch_size == 8
    for a, b in zip(trainer.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    pairs = zip(trainer.model.optimizer.variables, resumed.model.optimizer.variables, strict=True)
    for a, b in pairs:  # the momenta too
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    history = resumed.fit(*data(), epochs=3, initial_epoch=resumed.epochs_done)
    assert history.history["steps"] == [3]
    assert resumed.epsilon() <= 4.0
    with pytest.raises(BudgetError, match="train fewer epochs"):
        resumed.fit(*data(), epochs=1)


def test_no_key_is_in_the_file(tmp_path):
    """Noise after a checkpoint is fresh: two resumptions from one file differ."""
    path = tmp_path / "model.keras"
    trainer = trainer_of()
    trainer.fit(*data(), epochs=1)
    trainer.save(path)
    ends = []
    for _ in range(2):
        resumed = PrivateTrainer.load(path)
        resumed.fit(*data(), epochs=2, initial_epoch=1)
        ends.append(np.concatenate([w.ravel() for w in resumed.model.get_weights()]))
    assert not np.array_equal(*ends)
    with zipfile.ZipFile(path) as archive:
        state = json.loads(archive.read(MEMBER))
    assert set(state) == {
        "version",
        "steps_taken",
        "engine",
        "physical_batch_size",
        "privacy",
        "budget",
    }


def test_the_callback_saves_after_every_epoch_and_replaces_whole_files(tmp_path):
    path = tmp_path / "model.keras"
    trainer = trainer_of()
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(PrivateTrainer.load(path).steps_taken)

    trainer.fit(*data(), epochs=3, callbacks=[CheckpointCallback(trainer, path), Watch()])
    assert seen == [3, 6, 9]
    assert [p.name for p in tmp_path.iterdir()] == ["model.keras"]


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    trainer = trainer_of()
    trainer.save(path)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(OutputError, match="No space left"):
        trainer.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.keras"]


def rewritten(path, **changes):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    state = json.loads(members[MEMBER])
    for name, value in changes.items():
        if value is None:
            del state[name]
        else:
            state[name] = value
    members[MEMBER] = json.dumps(state).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"steps_taken": -1},
        {"steps_taken": 1.5},
        {"privacy": {"l2_norm_clip": 1.0}},
        {"privacy": {"l2_norm_clip": 1.0, "noise_multiplier": 0.0, "sampling_probability": 0.1}},
        {"budget": {"epsilon": -1.0, "delta": 1e-5, "num_records": 60}},
        {"engine": "magic"},
        {"engine": None},
    ],
    ids=str,
)
def test_a_changed_file_is_refused(tmp_path, changes):
    path = tmp_path / "model.keras"
    trainer_of().save(path)
    rewritten(path, **changes)
    with pytest.raises(DataError, match=r"model\.keras"):
        PrivateTrainer.load(path)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(DataError, match="cannot read"):
        PrivateTrainer.load(path)
    trainer = trainer_of()
    trainer.model.save(path)
    with pytest.raises(DataError, match=r"PrivateTrainer\.save"):
        PrivateTrainer.load(path)
    trainer.save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="damaged"):
        PrivateTrainer.load(path)
    with pytest.raises(ConfigError, match=r"ends in \.keras"):
        trainer.save(tmp_path / "model.h5")


def test_another_data_set_does_not_spend_this_ones_budget():
    trainer = trainer_of()
    x, y = data()
    with pytest.raises(ConfigError, match="calibrate anew"):
        trainer.fit(x[:50], y[:50])
    assert trainer.steps_taken == 0
