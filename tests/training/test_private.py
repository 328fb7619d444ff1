import keras
import numpy as np
import pytest

from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.errors import ConfigError, DataError
from lepton_flwr.privacy.accounting import BudgetError
from lepton_flwr.privacy.noise import GaussianNoise, poisson_sample
from lepton_flwr.training import private
from lepton_flwr.training.draws import bucket
from lepton_flwr.training.models import ModelSpec, build, compile_model
from lepton_flwr.training.private import PrivateTrainer, RecordPrivacy

SPEC = ModelSpec("mlp", (6,), 2, (8,))


def new_model(optimizer="sgd", learning_rate=1.0, spec=SPEC):
    return compile_model(build(spec, 1), optimizer, learning_rate)


def data(rows=60, width=6):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(rows, width)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int64)


def keyed(model, privacy, number=0):
    noise = GaussianNoise(CipherStream(bytes(31) + bytes([number])))
    return PrivateTrainer(model, privacy, noise=noise, sampling=CipherStream(bytes([9] * 32)))


def flat(model):
    return np.concatenate([w.ravel() for w in model.get_weights()]).astype(np.float64)


class Constant:
    """Stands in for the noise where a test must know every draw."""

    def __init__(self, value):
        self.value = value

    def fill(self, out, stddev):
        out[:] = self.value * stddev


def test_a_step_is_the_clipped_sum_over_the_expected_batch_size():
    model, (x, y) = new_model(), data()
    q, clip = 0.3, 0.05
    before = [v.numpy() for v in model.trainable_variables]
    engine = private._engine_of(model, "bookkeeping")
    stream = CipherStream(bytes(32))
    chosen = poisson_sample(CipherStream(bytes(32)), 60, q)
    mask = np.ones(chosen.size, np.float32)
    sums = [s.numpy() for s in engine.clipped_sum(x[chosen], y[chosen], mask, clip)]
    trainer = PrivateTrainer(
        model, RecordPrivacy(clip, 1.0, q), noise=Constant(0.0), sampling=stream
    )
    trainer.fit(x, y, steps=1)
    for b, s, v in zip(before, sums, model.trainable_variables, strict=True):
        np.testing.assert_allclose(v.numpy(), b - s / (q * 60), rtol=1e-5, atol=1e-7)


def test_a_draw_enters_the_update_times_multiplier_and_clip_once():
    model, (x, y) = new_model(), data()
    x[:] = np.nan
    before = flat(model)
    PrivateTrainer(model, RecordPrivacy(0.7, 1.3, 0.5), noise=Constant(2.0)).fit(x, y, steps=1)
    np.testing.assert_allclose(before - flat(model), 0.7 * 1.3 * 2.0 / (0.5 * 60), rtol=1e-5)


@pytest.mark.parametrize("rows", ["all NaN", "none sampled"])
def test_an_update_without_gradients_is_pure_noise_of_the_stated_deviation(rows):
    """Variance within 4 standard errors: false-alarm rate 1e-4 each (fixed key)."""
    spec = ModelSpec("mlp", (200,), 2, (64,))
    model = new_model(spec=spec)
    x, y = data(50, 200)
    q = 0.5 if rows == "all NaN" else 1e-15
    if rows == "all NaN":
        x[:] = np.nan
    before = flat(model)
    keyed(model, RecordPrivacy(0.7, 1.3, q)).fit(x, y, steps=1)
    moved = (flat(model) - before) * q * 50
    scale = 0.7 * 1.3
    if rows == "all NaN":  # else the noise dwarfs the weights, and float32 rounding is nothing
        assert np.abs(moved).max() < 6 * scale
    assert abs(moved.var() / scale**2 - 1) < 4 * np.sqrt(2 / moved.size)
    assert abs(moved.mean()) < 4 * scale / np.sqrt(moved.size)


def test_noise_is_fresh_in_every_step_and_every_fit():
    model, (x, y) = new_model(), data()
    x[:] = np.nan
    trainer = PrivateTrainer(model, RecordPrivacy(1.0, 1.0, 1.0))
    seen = [flat(model)]
    for _ in range(3):
        trainer.fit(x, y, steps=1)
        seen.append(flat(model))
    steps = np.diff(seen, axis=0)
    assert np.abs(np.corrcoef(steps)[np.triu_indices(3, 1)]).max() < 0.9


def test_two_trainers_without_injected_streams_differ():
    x, y = data()
    ends = []
    for _ in range(2):
        model = new_model()
        PrivateTrainer(model, RecordPrivacy(1.0, 1.0, 0.5)).fit(x, y, steps=1)
        ends.append(flat(model))
    assert not np.array_equal(*ends)


def test_injected_streams_and_any_history_of_the_model_give_the_same_weights():
    x, y = data()
    model = new_model("adam", 0.01)
    start = model.get_weights()
    privacy = RecordPrivacy(1.0, 1.0, 0.4)
    keyed(model, privacy).fit(x, y, steps=4, fresh_optimizer=True)
    first = flat(model)
    keyed(model, RecordPrivacy(0.1, 3.0, 0.9), 1).fit(x[:20], y[:20], steps=3)
    model.set_weights(start)
    keyed(model, privacy).fit(x, y, steps=4, fresh_optimizer=True)
    np.testing.assert_array_equal(flat(model), first)


def test_one_trace_serves_all_clients_settings_and_batch_sizes(monkeypatch):
    from lepton_flwr.training.bookkeeping import BookkeepingEngine

    traces = []
    original = BookkeepingEngine.clipped_sum

    def counting(self, *args):
        traces.append(1)
        return original(self, *args)

    monkeypatch.setattr(BookkeepingEngine, "clipped_sum", counting)
    model = new_model("adam", 0.01)
    sizes = set()
    for rows, q, clip in [(5, 0.01, 1.0), (60, 0.5, 2.0), (400, 0.1, 0.1), (400, 1.0, 0.1)]:
        x, y = data(rows)
        sizes.add(bucket(round(rows * q)))
        keyed(model, RecordPrivacy(clip, 1.0, q)).fit(x, y, steps=3)
    assert len(sizes) > 2
    assert len(traces) == 1
    model.compile("sgd", model.loss)
    keyed(model, RecordPrivacy(1.0, 1.0, 0.1)).fit(*data(), steps=1)
    assert len(traces) == 2  # compiled again: the old step would move the old optimizer


def test_private_training_learns():
    model, (x, y) = new_model(), data(1000)
    keyed(model, RecordPrivacy(1.0, 1.0, 0.2)).fit(x, y, steps=100)
    predicted = np.asarray(model(x))[:, 0] > 0
    assert 0.85 < np.mean(predicted == y) < 1.0


class Recorder(keras.callbacks.Callback):
    def __init__(self, stop_after=None):
        super().__init__()
        self.calls, self.logs, self.stop_after = [], [], stop_after

    def on_train_begin(self, logs=None):
        self.calls.append("begin")

    def on_train_batch_begin(self, batch, logs=None):
        self.calls.append(f"batch {batch}")

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append(logs)
        if batch + 1 == self.stop_after:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(logs)

    def on_train_end(self, logs=None):
        self.calls.append("end")
        self.logs.append(logs)


def test_callbacks_run_and_learn_nothing_but_step_numbers():
    recorder = Recorder()
    history = keyed(new_model(), RecordPrivacy(1.0, 1.0, 0.5)).fit(
        *data(), steps=3, callbacks=[recorder]
    )
    assert recorder.calls == ["begin", "batch 0", "batch 1", "batch 2", "end"]
    assert recorder.logs == [{"step": 1}, {"step": 2}, {"step": 3}, {"steps": 3}, {"steps": 3}]
    assert history.history == {"steps": [3]}


def test_a_callback_can_stop_training_and_the_next_fit_is_not_stopped():
    model = new_model()
    trainer = keyed(model, RecordPrivacy(1.0, 1.0, 0.5))
    assert trainer.fit(*data(), steps=9, callbacks=[Recorder(2)]).history == {"steps": [2]}
    assert int(model.optimizer.iterations) == 2
    assert trainer.fit(*data(), steps=3).history == {"steps": [3]}


def test_batches_are_padded_and_never_cut():
    for size in range(0, 3000):
        assert size <= bucket(size) <= max(16, size + 7, size * 17 / 16)
        assert bucket(size) % 8 == 0
    assert len({bucket(size) for size in range(1025)}) <= 64


@pytest.mark.parametrize("field", ["l2_norm_clip", "noise_multiplier", "sampling_probability"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_settings_are_refused(field, value):
    good = {"l2_norm_clip": 1.0, "noise_multiplier": 1.0, "sampling_probability": 0.1}
    with pytest.raises(ConfigError, match=field):
        RecordPrivacy(**(good | {field: value}))


def test_batch_normalisation_is_refused_before_training():
    model = keras.Sequential([keras.Input((6,)), keras.layers.BatchNormalization()])
    model.add(keras.layers.Dense(1))
    model.compile("sgd", "mse")
    with pytest.raises(ConfigError, match="GroupNormalization"):
        PrivateTrainer(model, RecordPrivacy(1.0, 1.0, 0.1))


def test_data_that_does_not_fit_is_refused():
    trainer = keyed(new_model(), RecordPrivacy(1.0, 1.0, 0.1))
    x, y = data()
    for bad_x, bad_y in ((x, y[:-1]), (x[:0], y[:0]), (x[:, :5], y), (x[:, :, None], y)):
        with pytest.raises(DataError, match="expected"):
            trainer.fit(bad_x, bad_y, steps=1)
    with pytest.raises(ConfigError, match="steps"):
        trainer.fit(x, y, steps=0)


def test_a_batch_in_pieces_is_the_same_release_with_noise_once():
    x, y = data(200)
    ends = []
    for piece in (None, 7):
        model = new_model()
        noise = GaussianNoise(CipherStream(bytes(32)))
        trainer = PrivateTrainer(
            model,
            RecordPrivacy(0.3, 1.0, 0.4),
            physical_batch_size=piece,
            noise=noise,
            sampling=CipherStream(bytes([9] * 32)),
        )
        trainer.fit(x, y, steps=3)
        ends.append(flat(model))
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-4, atol=1e-5)


def test_penalties_of_weights_are_added_to_the_release_unclipped():
    x, y = data()
    x[:] = np.nan
    model = keras.Sequential([keras.Input((6,))])
    model.add(keras.layers.Dense(1, use_bias=False, kernel_regularizer=keras.regularizers.L2(5.0)))
    model.compile(keras.optimizers.SGD(0.01), "mse")
    before = flat(model)
    PrivateTrainer(model, RecordPrivacy(1e-3, 1.0, 0.5), noise=Constant(0.0)).fit(x, y, steps=1)
    np.testing.assert_allclose(flat(model), before - 0.01 * 2 * 5.0 * before, rtol=1e-5)


@pytest.mark.parametrize("scaling", ["wrapper", "factor"])
def test_an_optimizer_that_scales_losses_makes_the_same_step(scaling):
    x, y = data()
    ends = []
    for optimizer in (
        keras.optimizers.SGD(1.0),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=512.0)
        if scaling == "wrapper"
        else keras.optimizers.SGD(1.0, loss_scale_factor=512.0),
    ):
        model = new_model()
        model.compile(optimizer, model.loss)
        keyed(model, RecordPrivacy(0.3, 1.0, 0.4)).fit(x, y, steps=3)
        ends.append(flat(model))
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-5, atol=1e-6)


def test_noise_of_a_calibrated_trainer_keeps_to_its_epsilon():
    model, (x, y) = new_model(), data(600)
    x_test, y_test = data(50)
    trainer = PrivateTrainer.from_epsilon(
        model,
        epsilon=2.0,
        delta=1e-5,
        num_records=600,
        batch_size=60,
        epochs=2,
        l2_norm_clip=1.0,
    )
    assert trainer.privacy.sampling_probability == 0.1
    assert trainer.privacy.truncated_batch_size is None
    model.compile("sgd", model.loss, metrics=["accuracy"])
    history = trainer.fit(x, y, epochs=2, validation_data=(x_test, y_test)).history
    assert set(history) == {"steps", "epsilon", "val_loss", "val_accuracy"}
    assert history["steps"] == [10, 10]
    assert history["epsilon"][0] < history["epsilon"][1]
    assert 1.97 < history["epsilon"][1] <= 2.0
    assert trainer.epsilon_rdp() > trainer.epsilon() == history["epsilon"][1]
    before = flat(model)
    with pytest.raises(BudgetError):
        trainer.fit(x, y, steps=1)
    np.testing.assert_array_equal(flat(model), before)


def test_epsilon_without_a_budget_needs_a_delta():
    trainer = keyed(new_model(), RecordPrivacy(1.0, 1.0, 0.1))
    with pytest.raises(ConfigError, match="expected delta"):
        trainer.epsilon()
    assert trainer.epsilon(1e-5) == 0.0
    trainer.fit(*data(), steps=2)
    assert 0 < trainer.epsilon(1e-5) < trainer.epsilon_rdp(1e-5)


def test_every_step_counts_also_one_that_fails(monkeypatch):
    trainer = keyed(new_model(), RecordPrivacy(1.0, 1.0, 0.5))

    class Failing(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        trainer.fit(*data(), steps=5, callbacks=[Failing()])
    assert trainer.steps_taken == 1


def test_several_inputs_as_keras_takes_them():
    left, right = keras.Input((2,), name="left"), keras.Input((4,), name="right")
    joined = keras.layers.concatenate([left, right])
    model = keras.Model({"left": left, "right": right}, keras.layers.Dense(1)(joined))
    model.compile("sgd", "mse")
    x, y = data()
    trainer = keyed(model, RecordPrivacy(1.0, 1.0, 0.5))
    trainer.fit({"left": x[:, :2], "right": x[:, 2:]}, y, steps=2)
    for bad in ({"left": x}, {"left": x[:, :2], "right": x}, x):
        with pytest.raises(DataError, match="expected"):
            trainer.fit(bad, y, steps=1)


def test_weights_of_examples_reach_the_release():
    x, y = data()
    ends = []
    for weight in (None, np.zeros(60, np.float32)):
        model = new_model()
        noise = Constant(0.0)
        PrivateTrainer(model, RecordPrivacy(1.0, 1.0, 1.0), noise=noise).fit(
            x, y, steps=1, sample_weight=weight
        )
        ends.append(flat(model))
    start = flat(new_model())
    assert not np.array_equal(ends[0], start)
    np.testing.assert_array_equal(ends[1], start)


def test_batches_of_one_shape_cost_a_little_more_noise():
    options = {
        "epsilon": 2.0,
        "delta": 1e-5,
        "num_records": 600,
        "batch_size": 60,
        "epochs": 2,
        "l2_norm_clip": 1.0,
    }
    free = PrivateTrainer.from_epsilon(new_model(), **options)
    trainer = PrivateTrainer.from_epsilon(new_model(), static_shape=True, **options)
    assert trainer.privacy.truncated_batch_size % 8 == 0
    assert 80 < trainer.privacy.truncated_batch_size < 120
    ratio = trainer.privacy.noise_multiplier / free.privacy.noise_multiplier
    assert 1 < ratio < 1.02
    trainer.fit(*data(600), epochs=2)
    assert 1.97 < trainer.epsilon() <= 2.0 < trainer.epsilon_rdp()
