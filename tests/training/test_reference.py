"""Engines against tensorflow-privacy: its optimizer and its model, on Keras 2 twins of a model."""

import functools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.errors import ConfigError
from lepton_flwr.privacy.noise import GaussianNoise
from lepton_flwr.training import tensorflow_privacy
from lepton_flwr.training.engine import get_engine
from lepton_flwr.training.models import ModelSpec, build, compile_model

ENGINES = ("bookkeeping", "vectorized", "tensorflow-privacy")
ROWS = 8
CLASSES = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def mlp(layers, first, unroll):
    return [first((12,)), layers.Dense(16, "tanh"), layers.Dense(10, "relu"), layers.Dense(4)]


def cnn(layers, first, unroll):
    return [
        first((28, 28, 1)),
        layers.Conv2D(16, 8, strides=2, padding="same", activation="relu"),
        layers.MaxPool2D(2, 1),
        layers.Conv2D(32, 4, strides=2, activation="relu"),
        layers.MaxPool2D(2, 1),
        layers.Flatten(),
        layers.Dense(32, "relu"),
        layers.Dense(10),
    ]


def text(layers, first, unroll):
    return [
        first((6,), dtype="int32"),
        layers.Embedding(20, 5),
        layers.LSTM(7, unroll=unroll),
        layers.Dense(3),
    ]


MODELS = {"mlp": mlp, "cnn": cnn, "text": text}
UNROLLED = {"vectorized", "tensorflow-privacy"}  # TensorFlow cannot vectorise the loop's gradient


def model_of(kind, unroll=True):
    keras.utils.set_random_seed(11)
    model = keras.Sequential(MODELS[kind](keras.layers, keras.Input, unroll))
    model.compile("sgd", CLASSES)
    return model


def twin_of(kind, model_class=None, **arguments):
    """A tf-keras model of the same weights."""
    import tf_keras

    stack = MODELS[kind](tf_keras.layers, tf_keras.Input, True)
    twin = (model_class or tf_keras.Sequential)(layers=stack, **arguments)
    twin.set_weights(model_of(kind).get_weights())
    return twin


def rows_of(model):
    rng = np.random.default_rng(4)
    shape = (ROWS, *model.input_shape[1:])
    if model.inputs[0].dtype == "int32":
        x = rng.integers(0, 20, shape).astype(np.int32)
    else:
        x = rng.normal(size=shape).astype(np.float32)
    return x, rng.integers(0, model.output_shape[-1], ROWS)


def engine_of(name, model):
    """The engine as one compiled function of arrays."""
    run = tf.function(get_engine(name)(model).clipped_sum, autograph=False, reduce_retracing=True)

    def clipped_sum(x, y, clip=1.0, mask=None):
        mask = np.ones(len(x)) if mask is None else np.asarray(mask)
        arguments = (tf.constant(x), tf.constant(y), tf.constant(mask, tf.float32))
        return [t.numpy() for t in run(*arguments, tf.constant(clip, tf.float32))]

    return clipped_sum


@functools.cache
def by_optimizer(kind, clip):
    """`make_keras_optimizer_class` with one example in a microbatch and noise zero."""
    import tf_keras

    optimizers = tensorflow_privacy.module("optimizers.dp_optimizer_keras")
    optimizer_class = optimizers.make_keras_optimizer_class(tf_keras.optimizers.legacy.SGD)
    optimizer, twin = optimizer_class(clip, 0.0, ROWS, learning_rate=1.0), twin_of(kind)
    x, y = rows_of(twin)

    def loss():
        return tf_keras.losses.sparse_categorical_crossentropy(y, twin(x), from_logits=True)

    pairs = optimizer._compute_gradients(loss, twin.trainable_variables)
    return [gradient.numpy() * ROWS for gradient, _ in pairs]


class Kept:
    """Stands in for an optimizer and keeps the gradients."""

    def apply_gradients(self, pairs):
        self.gradients = [gradient for gradient, _ in pairs]


@functools.cache
def by_model(kind, clip):
    """`DPSequential.train_step` with noise zero."""
    import tf_keras

    models = tensorflow_privacy.module("keras_models.dp_keras_model")
    arguments = {"l2_norm_clip": clip, "noise_multiplier": 0.0, "use_xla": False}
    twin = twin_of(kind, models.make_dp_model_class(tf_keras.Sequential), **arguments)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    twin.compile(tf_keras.optimizers.legacy.SGD(1.0), loss)
    twin.optimizer = kept = Kept()
    x, y = rows_of(twin)
    twin.train_step((tf.constant(x), tf.constant(y)))
    return [gradient.numpy() * ROWS for gradient in kept.gradients]


def flat(parts):
    return np.concatenate([np.asarray(p, np.float64).ravel() for p in parts])


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("cnn", "text")]


@pytest.mark.parametrize("kind", ["mlp", *SLOW])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_clipped_sum_is_that_of_tensorflow_privacy(engine, kind, monkeypatch):
    """Relative L2 error 1e-5, with every example clipped, some of them, and none."""
    # Norms that are computed without forming the gradients are rounded up by more.
    monkeypatch.setattr(
        "lepton_flwr.training.bookkeeping.fastest", lambda key, ways, *like: next(iter(ways))
    )
    model = model_of(kind, engine in UNROLLED)
    x, y = rows_of(model)
    clipped_sum = engine_of(engine, model)
    norms = [
        np.linalg.norm(flat(clipped_sum(x, y, 1e9, np.arange(ROWS) == i))) for i in range(ROWS)
    ]
    for clip in (min(norms) / 10, float(np.median(norms)), 1e4):
        found = flat(clipped_sum(x, y, clip))
        for oracle in (by_optimizer, by_model):
            expected = flat(oracle(kind, float(np.float32(clip))))
            assert np.linalg.norm(expected) > 0
            assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


def test_the_tutorial_network_is_the_cnn_of_runs():
    model = compile_model(build(ModelSpec("cnn", (28, 28, 1), 10), 1), "sgd", 1.0)
    assert [w.shape for w in model.get_weights()] == [
        w.shape for w in model_of("cnn").get_weights()
    ]


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    """An engine on the MLP, compiled once for all rows of the contract's table."""
    return engine_of(request.param, model_of("mlp"))


def norm_of(parts):
    return np.linalg.norm(flat(parts))


def test_a_gradient_within_the_clip_enters_whole(engine):
    x, y = rows_of(model_of("mlp"))
    whole = flat(engine(x, y, 1e9))
    np.testing.assert_allclose(flat(engine(x, y, 1e3)), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4, 1e15])
def test_no_example_ever_contributes_more_than_the_clip(engine, scale):
    x, y = rows_of(model_of("mlp"))
    for clip in (2.0**-20, 0.125, 1.0, 50.0):
        for i in range(ROWS):
            assert norm_of(engine(x * np.float32(scale), y, clip, np.arange(ROWS) == i)) <= clip


@pytest.mark.parametrize("name", ENGINES)
def test_a_gradient_that_float32_cannot_square_has_the_norm_of_the_clip(name):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mae")
    x, y = np.full((1, 2), 1e25, np.float32), np.zeros(1, np.float32)
    assert 1 - 1e-5 < norm_of(engine_of(name, model)(x, y)) <= 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_example_that_is_not_finite_contributes_exactly_nothing(engine, bad):
    x, y = rows_of(model_of("mlp"))
    without = np.array([1, 1, 0, 1, 1, 1, 1, 0])
    broken = x.copy()
    broken[2, 0] = bad
    broken[7] = np.nan
    found = flat(engine(broken, y))
    np.testing.assert_array_equal(found, flat(engine(broken, y, 1.0, without)))
    np.testing.assert_allclose(found, flat(engine(x, y, 1.0, without)), rtol=1e-5, atol=1e-6)


def test_padding_contributes_exactly_nothing(engine):
    x, y = rows_of(model_of("mlp"))
    mask = np.array([1, 0, 1, 1, 0, 1, 1, 1])
    before = flat(engine(x, y, 1.0, mask))
    x[1] = 1e6
    np.testing.assert_array_equal(flat(engine(x, y, 1.0, mask)), before)
    x[4] = np.nan
    np.testing.assert_allclose(flat(engine(x, y, 1.0, mask)), before, rtol=1e-5, atol=1e-6)
    assert not flat(engine(x, y, 1.0, np.zeros(ROWS))).any()


@pytest.mark.parametrize("name", ENGINES)
def test_random_layers_draw_for_each_example_and_anew_in_each_step(name):
    model = keras.Sequential([keras.Input((40,)), keras.layers.Dropout(0.5, seed=1)])
    model.add(keras.layers.Dense(1))
    model.compile("sgd", "mse")
    clipped_sum = engine_of(name, model)
    x, y = np.ones((6, 40), np.float32), np.ones(6, np.float32)
    (state,) = (v for v in model.non_trainable_variables if "seed" in v.name)
    start = state.numpy()

    def dropped_of(row):
        return clipped_sum(x, y, 100.0, np.arange(6) == row)[0].ravel() == 0

    first = dropped_of(0)
    assert 5 < first.sum() < 35
    assert (first != dropped_of(0)).any()  # the state has moved on
    state.assign(start)
    assert (first != dropped_of(1)).any()
    state.assign(start)
    np.testing.assert_array_equal(first, dropped_of(0))


def test_activity_is_penalised_within_the_clip_and_weights_outside():
    sums = []
    for name in ENGINES:
        keras.utils.set_random_seed(2)
        model = keras.Sequential([keras.Input((6,))])
        model.add(keras.layers.Dense(4, kernel_regularizer="l2", activity_regularizer="l2"))
        model.add(keras.layers.Dense(1))
        model.compile("sgd", "mse")
        rng = np.random.default_rng(3)
        x, y = rng.normal(size=(5, 6)).astype(np.float32), rng.normal(size=5).astype(np.float32)
        sums.append(flat(engine_of(name, model)(x, y, 0.7)))
    for other in sums[1:]:
        np.testing.assert_allclose(other, sums[0], rtol=1e-5, atol=1e-6)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    path = "tensorflow_privacy.privacy.keras_models.dp_keras_model"
    monkeypatch.setitem(sys.modules, path, None)
    with pytest.raises(ConfigError, match=r"pip install 'lepton-flwr\[simulation\]'"):
        get_engine("tensorflow-privacy")(model_of("mlp"))


@pytest.mark.slow
def test_nothing_loads_the_package_but_the_engine_itself():
    code = (
        "import sys, clients.keras_task; from lepton_flwr.training.engine import get_engine;"
        "get_engine('tensorflow-privacy');"
        "print([m for m in ('tensorflow_privacy', 'tf_keras') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_model_trains_with_the_reference_engine():
    from lepton_flwr.training.private import PrivateTrainer, RecordPrivacy

    model = compile_model(build(ModelSpec("mlp", (6,), 2, (8,)), 1), "sgd", 1.0)
    x = np.random.default_rng(5).normal(size=(600, 6)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    trainer = PrivateTrainer(
        model,
        RecordPrivacy(1.0, 1.0, 0.2),
        engine="tensorflow-privacy",
        noise=GaussianNoise(CipherStream(bytes(32))),
        sampling=CipherStream(bytes([9] * 32)),
    )
    trainer.fit(x, y, steps=60)
    assert 0.8 < np.mean((np.asarray(model(x))[:, 0] > 0) == y) <= 1.0
