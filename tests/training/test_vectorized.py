"""The engine against an independent oracle: a loop of batch-of-one gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lepton_flwr.errors import ConfigError
from lepton_flwr.training.engine import get_engine
from lepton_flwr.training.vectorized import VectorizedEngine

layers = keras.layers
LOGITS = keras.losses.BinaryCrossentropy(from_logits=True)
CLASSES = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(*stack, loss=LOGITS):
    keras.utils.set_random_seed(7)
    model = keras.Sequential(list(stack))
    model.compile(keras.optimizers.SGD(1.0), loss)
    return model


def data(shape, classes=2, rows=9, integers=0):
    rng = np.random.default_rng(3)
    x = rng.integers(0, integers, (rows, *shape)) if integers else rng.normal(size=(rows, *shape))
    y = rng.integers(0, classes, rows)
    return x.astype(np.int32 if integers else np.float32), y


def engine_of(model):
    """The engine as one compiled function for batches of any size."""
    run = tf.function(VectorizedEngine(model).clipped_sum, autograph=False, reduce_retracing=True)

    def clipped_sum(x, y, mask=None, clip=1.0):
        mask = np.ones(len(x)) if mask is None else np.asarray(mask)
        clip = tf.constant(clip, tf.float32)
        sums = run(tf.constant(x), tf.constant(y), tf.constant(mask, tf.float32), clip)
        return [t.numpy() for t in sums]

    return clipped_sum


def clipped_sum(model, *args, **kwargs):
    return engine_of(model)(*args, **kwargs)


def example_gradients(model, x, y):
    gradients = []
    for i in range(len(x)):
        with tf.GradientTape() as tape:
            output = model(x[i : i + 1], training=True)
            loss = model.compute_loss(x[i : i + 1], y[i : i + 1], output)
            loss -= sum(v.regularizer(v) for v in model.trainable_variables if v.regularizer)
        parts = tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")
        gradients.append([tf.convert_to_tensor(p).numpy().astype(np.float64) for p in parts])
    return gradients


def oracle(model, x, y, clip=1.0):
    total = [np.zeros(v.shape) for v in model.trainable_variables]
    for parts in example_gradients(model, x, y):
        norm = np.sqrt(sum((p**2).sum() for p in parts))
        factor = min(1.0, clip / norm) if norm else 1.0
        total = [t + factor * p for t, p in zip(total, parts, strict=True)]
    return total


def assert_same(found, expected):
    flat = np.concatenate([e.ravel() for e in expected])
    scale = np.abs(flat).max()
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-5, atol=1e-5 * scale)


CASES = {
    "linear": lambda: (compiled(keras.Input((5,)), layers.Dense(1)), *data((5,))),
    "mlp": lambda: (
        compiled(keras.Input((6,)), layers.Dense(8, "tanh"), layers.Dense(1)),
        *data((6,)),
    ),
    "classes": lambda: (
        compiled(keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(4), loss=CLASSES),
        *data((6,), 4),
    ),
    "regression, huber": lambda: (
        compiled(keras.Input((6,)), layers.Dense(1), loss="huber"),
        data((6,))[0],
        np.linspace(-3, 3, 9, dtype=np.float32),
    ),
    "one-hot labels, summed loss": lambda: (
        compiled(
            keras.Input((6,)),
            layers.Dense(3, "softmax"),
            loss=keras.losses.CategoricalCrossentropy(reduction="sum"),
        ),
        data((6,))[0],
        np.eye(3, dtype=np.float32)[data((6,), 3)[1]],
    ),
    "regularised": lambda: (
        compiled(
            keras.Input((6,)),
            layers.Dense(4, kernel_regularizer="l2", activity_regularizer="l2"),
            layers.Dense(1),
        ),
        *data((6,)),
    ),
    "convolution, group norm": lambda: (
        compiled(
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, strides=2),
            layers.GroupNormalization(2),
            layers.MaxPool2D(2, 1),
            layers.Flatten(),
            layers.Dense(3),
            loss=CLASSES,
        ),
        *data((8, 8, 2), 3),
    ),
    "embedding": lambda: (
        compiled(
            keras.Input((7,), dtype="int32"),
            layers.Embedding(11, 4),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1),
        ),
        *data((7,), integers=11),
    ),
    "lstm": lambda: (
        compiled(keras.Input((5, 3)), layers.LSTM(4), layers.Dense(1)),
        *data((5, 3)),
    ),
    "frozen batch norm": lambda: (
        compiled(
            keras.Input((6,)),
            layers.BatchNormalization(trainable=False),
            layers.Dense(1),
        ),
        *data((6,)),
    ),
}


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.slow) if c == "lstm" else c for c in CASES]
)
def test_the_sum_equals_a_loop_over_single_examples(case):
    model, x, y = CASES[case]()
    clipped = engine_of(model)
    for clip in (1e-3, 0.7, 1e3):
        assert_same(clipped(x, y, clip=clip), oracle(model, x, y, clip))


def test_no_example_ever_contributes_more_than_the_clip():
    model, x, y = CASES["mlp"]()
    clipped = engine_of(model)
    for clip in (2.0**-20, 0.125, 1.0, 50.0):
        for scale in (1e-3, 1.0, 1e4, 1e15):
            for i in range(len(x)):
                mask = np.arange(len(x)) == i
                parts = clipped(x * np.float32(scale), y, mask, clip)
                assert np.sqrt(sum((p.astype(np.float64) ** 2).sum() for p in parts)) <= clip


def test_gradients_whose_float32_squares_overflow_are_clipped_not_dropped():
    model = compiled(keras.Input((2,)), layers.Dense(1, use_bias=False), loss="mae")
    (found,) = clipped_sum(model, np.full((1, 2), 1e25, np.float32), np.zeros(1, np.float32))
    np.testing.assert_allclose(np.linalg.norm(found), 1.0, rtol=1e-5)


def test_masked_examples_contribute_exactly_nothing():
    model, x, y = CASES["mlp"]()
    mask = [1, 0, 1, 1, 0, 0, 1, 1, 0]
    kept = np.flatnonzero(mask)
    found = clipped_sum(model, x, y, mask)
    assert_same(found, oracle(model, x[kept], y[kept]))
    x[1] = 1e6
    for before, after in zip(found, clipped_sum(model, x, y, mask), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_batch_of_padding_gives_zero():
    model, x, y = CASES["mlp"]()
    assert not any(p.any() for p in clipped_sum(model, x, y, np.zeros(len(x))))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_examples_that_are_not_finite_contribute_exactly_nothing(bad):
    model, x, y = CASES["mlp"]()
    kept = [0, 1, 3, 4, 5, 6, 7]
    x[2, 0] = bad
    x[8] = np.nan
    assert_same(clipped_sum(model, x, y), oracle(model, x[kept], y[kept]))


def test_labels_that_are_not_finite_contribute_exactly_nothing():
    model, x, y = CASES["regression, huber"]()
    y[0] = np.nan
    assert_same(clipped_sum(model, x, y), oracle(model, x[1:], y[1:]))


def test_adding_an_example_moves_the_sum_by_at_most_the_clip():
    model, x, y = CASES["convolution, group norm"]()
    clipped = engine_of(model)
    for i in range(len(x)):
        without = np.ones(len(x))
        without[i] = 0
        pairs = zip(clipped(x, y), clipped(x, y, without), strict=True)
        moved = np.sqrt(sum(((a - b) ** 2).sum() for a, b in pairs))
        assert moved <= 1 + 1e-5


def test_frozen_variables_are_left_out():
    model, x, y = CASES["mlp"]()
    model.layers[0].trainable = False
    assert [p.shape for p in clipped_sum(model, x, y)] == [(8, 1), (1,)]
    assert_same(clipped_sum(model, x, y), oracle(model, x, y))


def test_random_layers_draw_for_each_example_and_anew_in_each_step():
    """With identical rows, dropout alone makes the examples and the steps differ."""
    model = compiled(keras.Input((40,)), layers.Dropout(0.5, seed=1), layers.Dense(1))
    x, y = np.ones((6, 40), np.float32), np.ones(6, np.int64)
    engine = VectorizedEngine(model)
    run = tf.function(engine.clipped_sum, autograph=False)

    def of_row(i):
        mask = tf.one_hot(i, 6)
        return run(tf.constant(x), tf.constant(y), mask, 100.0)[0].numpy()

    state = model.non_trainable_variables[0].numpy()

    def at_the_same_step(i):
        model.non_trainable_variables[0].assign(state)
        return of_row(i)

    first, second = at_the_same_step(0), at_the_same_step(1)
    assert 5 < np.sum(first == 0) < 35
    assert np.any((first == 0) != (second == 0))
    assert np.any((first == 0) != (of_row(0) == 0))  # the state has moved on
    np.testing.assert_array_equal(first, at_the_same_step(0))


class MeanTracker(layers.Layer):
    def build(self, shape):
        self.mean = self.add_weight(shape=(), trainable=False)

    def call(self, x):
        self.mean.assign(keras.ops.mean(x))
        return x


@pytest.mark.parametrize("layer", [layers.BatchNormalization, MeanTracker])
def test_state_learnt_from_examples_is_refused_with_the_remedy(layer):
    with pytest.raises(ConfigError, match="GroupNormalization"):
        VectorizedEngine(compiled(keras.Input((3,)), layer(), layers.Dense(1)))


def test_models_that_cannot_be_trained_are_refused():
    with pytest.raises(ConfigError, match="compiled"):
        VectorizedEngine(keras.Sequential([keras.Input((3,)), layers.Dense(1)]))
    with pytest.raises(ConfigError, match="no trainable"):
        VectorizedEngine(compiled(keras.Input((3,)), layers.Flatten()))


def test_engines_are_found_by_name():
    assert get_engine("vectorized") is VectorizedEngine
    with pytest.raises(ConfigError, match="expected one of bookkeeping"):
        get_engine("magic")
