"""Whole models: what the one-pass engine takes, what it leaves to the other, what it refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lepton_flwr.errors import ConfigError
from lepton_flwr.training.bookkeeping import BookkeepingEngine
from lepton_flwr.training.contributions import Lookup, Outer, Summed, combined, squares
from lepton_flwr.training.model_checks import input_specs

layers = keras.layers
ROWS = 6
CLASSES = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
rng = np.random.default_rng(8)


@pytest.fixture(autouse=True)
def _first_way(monkeypatch):
    monkeypatch.setattr(
        "lepton_flwr.training.bookkeeping.fastest", lambda key, ways, *like: next(iter(ways))
    )
    keras.utils.set_random_seed(5)
    # The same rows for a test, whichever others ran before it.
    rng.bit_generator.state = np.random.default_rng(8).bit_generator.state


def normal(*shape):
    return rng.normal(size=(ROWS, *shape)).astype(np.float32)


def ids(*shape, below=9):
    return rng.integers(0, below, (ROWS, *shape)).astype(np.int32)


def attention():
    tokens = keras.Input((5, 6))
    attended = layers.MultiHeadAttention(2, 3, dropout=0.0)(tokens, tokens)
    hidden = layers.LayerNormalization()(tokens + attended)
    model = keras.Model(tokens, layers.Dense(2)(hidden))
    model.compile("sgd", "mse")
    return model, normal(5, 6), normal(5, 2)


def shared_layer():
    left, right = keras.Input((6,)), keras.Input((6,))
    twice = layers.Dense(4, "tanh")
    joined = layers.concatenate([twice(left), twice(right)])
    model = keras.Model([left, right], layers.Dense(1)(joined))
    model.compile("sgd", "mse")
    return model, [normal(6), normal(6)], normal(1)


def two_outputs():
    inputs = {"wide": keras.Input((6,), name="wide"), "ids": keras.Input((4,), dtype="int32")}
    inputs["ids"] = keras.Input((4,), dtype="int32", name="ids")
    words = layers.GlobalAveragePooling1D()(layers.Embedding(9, 3)(inputs["ids"]))
    hidden = layers.concatenate([layers.Dense(4, "relu")(inputs["wide"]), words])
    outputs = {
        "class": layers.Dense(3, name="class")(hidden),
        "size": layers.Dense(1, name="size")(hidden),
    }
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"class": CLASSES, "size": "huber"}, loss_weights={"class": 1, "size": 3})
    return model, {"wide": normal(6), "ids": ids(4)}, {"class": ids(below=3), "size": normal(1)}


def tied_weights():
    class Tied(keras.Model):
        def __init__(self):
            super().__init__()
            self.table = layers.ReversibleEmbedding(9, 4)
            self.hidden = layers.Dense(4)

        def call(self, x):
            return self.table(self.hidden(self.table(x)), reverse=True)

    model, x = Tied(), ids(5)
    model(x)
    model.compile("sgd", CLASSES)
    return model, x, ids(5)


def twice_embedded():
    first, second = keras.Input((3,), dtype="int32"), keras.Input((4,), dtype="int32")
    table = layers.Embedding(9, 2)
    joined = layers.concatenate([table(first), table(second)], axis=1)
    model = keras.Model([first, second], layers.Dense(1)(layers.Flatten()(joined)))
    model.compile("sgd", "mse")
    return model, [ids(3), ids(4)], normal(1)


def masked_loss():
    model = keras.Sequential([keras.Input((5,), dtype="int32")])
    model.add(layers.Embedding(9, 3, mask_zero=True))
    model.add(layers.Dense(3))
    model.compile("sgd", CLASSES)
    return model, ids(5, below=3), ids(5, below=3)


def nested_models():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(4, "tanh"), layers.Dense(3)])
    model = keras.Sequential([keras.Input((6,)), inner, layers.Dense(1)])
    model.compile("sgd", "mse")
    return model, normal(6), normal(1)


def over_time():
    model = keras.Sequential([keras.Input((4, 5, 3)), layers.TimeDistributed(layers.Dense(2))])
    model.compile("sgd", "mse")
    return model, normal(4, 5, 3), normal(4, 5, 2)


def any_length():
    words = keras.Input((None,), dtype="int32")
    hidden = layers.LSTM(3, return_sequences=True)(layers.Embedding(9, 4)(words))
    hidden = layers.LayerNormalization()(hidden + layers.MultiHeadAttention(1, 3)(hidden, hidden))
    pooled = layers.GlobalAveragePooling1D()(layers.Dense(5, "relu")(hidden))
    model = keras.Model(words, layers.Dense(1)(pooled))
    model.compile("sgd", "mse")
    return model, ids(7), normal(1)


def started_recurrences():
    sequence, start = keras.Input((5, 3)), keras.Input((4,))
    hidden, *states = layers.LSTM(4, return_sequences=True, return_state=True)(
        sequence, initial_state=[layers.Dense(4)(start), layers.Dense(4)(start)]
    )
    last = layers.GRU(4)(hidden, initial_state=states[1])
    model = keras.Model([sequence, start], layers.Dense(1)(layers.concatenate([last, states[0]])))
    model.compile("sgd", "mse")
    return model, [normal(5, 3), normal(4)], normal(1)


WHOLE = [
    started_recurrences,
    any_length,
    attention,
    shared_layer,
    two_outputs,
    tied_weights,
    twice_embedded,
    masked_loss,
    nested_models,
    over_time,
]


@pytest.mark.parametrize("build", WHOLE, ids=lambda build: build.__name__)
def test_models_of_many_kinds_need_one_pass(oracle, build):
    model, x, y = build()
    engine = BookkeepingEngine(model)
    whole, clipped = oracle.errors(engine, x, y, 2.0**13, 2.0**-3)
    assert whole < 1e-5
    assert clipped < (1e-3 if build is tied_weights else 1e-5)  # one-hot rows: the norm is a ghost
    assert engine.fallback is None


def test_weights_of_examples_scale_before_the_clip(oracle):
    model, x, y = two_outputs()
    engine = BookkeepingEngine(model)
    weight = np.array([0.0, 0.1, 1.0, 2.0, 30.0, 1.0], np.float32)
    for weights in (weight, np.ones(ROWS, np.float32)):
        (error,) = oracle.errors(engine, x, y, 2.0**-2, sample_weight=weights)
        assert error < 1e-5


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_as_exact_as_its_type(oracle, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "tanh"), layers.Dense(1)])
        model.compile("sgd", "mse")
    finally:
        keras.config.set_dtype_policy("float32")
    engine = BookkeepingEngine(model)
    x, y = normal(6), normal(1)
    (error,) = oracle.errors(engine, x, y, 2.0**13)
    assert error < (2e-2 if policy == "mixed_bfloat16" else 4e-3)
    total = oracle.of_engine(engine)(x, y, 2.0**-5)
    assert np.linalg.norm(total) <= ROWS * 2.0**-5


def used_outside():
    class Outside(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(6, use_bias=False)

        def call(self, x):
            return keras.ops.matmul(self.dense(x), keras.ops.transpose(self.dense.kernel))

    model, x = Outside(), normal(6)
    model(x)
    model.compile("sgd", "mse")
    return model, x, normal(6)


def without_a_rule():
    model = keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2DTranspose(2, 3)])
    model.compile("sgd", "mse")
    return model, normal(4, 4, 2), normal(6, 6, 2)


def with_a_loss_of_its_own():
    model = keras.Sequential([keras.Input((6,))])
    model.add(layers.Dense(4, activity_regularizer="l2"))
    model.compile("sgd", "mse")
    return model, normal(6), normal(4)


def low_rank():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    model.layers[0].enable_lora(2)
    model.compile("sgd", "mse")
    return model, normal(6), normal(4)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (used_outside, "outside of the layer"),
        (without_a_rule, "Conv2DTranspose"),
        (with_a_loss_of_its_own, "loss of its own"),
        (low_rank, "no rule for Dense"),
    ],
)
def test_what_no_rule_covers_is_vectorised_and_said_once(oracle, caplog, build, reason):
    model, x, y = build()
    engine = BookkeepingEngine(model)
    clipped_sum = oracle.of_engine(engine)
    expected = oracle.clipped_sum(model, x, y, 2.0**-3)
    for _ in range(2):
        found = clipped_sum(x, y, 2.0**-3)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert reason in engine.fallback
    assert sum(reason in record.message for record in caplog.records) == 1


class MinusMean(layers.Layer):
    def call(self, x):
        return x - keras.ops.mean(x, axis=0, keepdims=True)


class LargestOfBatch(layers.Layer):
    def call(self, x):
        return x * keras.ops.max(x, axis=0, keepdims=True)


class SoftmaxOfBatch(layers.Layer):
    def call(self, x):
        return (
            x
            + keras.ops.softmax(keras.ops.concatenate([x, x], axis=0), axis=0)[
                : keras.ops.shape(x)[0]
            ]
        )


@pytest.mark.parametrize("mixing", [MinusMean, LargestOfBatch, SoftmaxOfBatch])
def test_a_layer_across_the_batch_is_refused(mixing):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), mixing(), layers.Dense(2)])
    model.compile("sgd", "mse")
    engine = BookkeepingEngine(model)
    with pytest.raises(ConfigError, match="depends on other examples"):
        engine.verified(input_specs(model), tf.TensorSpec([None, 2], tf.float32), ())


def test_a_loss_across_the_batch_sees_one_row_and_is_harmless():
    model, _, _ = nested_models()
    model.compile("sgd", lambda y, p: (p - keras.ops.mean(p, axis=0)) ** 2 + (p - y) ** 2)
    BookkeepingEngine(model).verified(input_specs(model), tf.TensorSpec([None, 1]), ())


def test_images_of_any_size_are_vectorised():
    model = keras.Sequential([keras.Input((None, None, 2)), layers.Conv2D(2, 3)])
    model.compile("sgd", "mse")
    engine = BookkeepingEngine(model)
    engine.verified(input_specs(model), tf.TensorSpec([None, 6, 6, 2], tf.float32), ())
    assert engine.fallback == "a convolution over space of unknown size"


def test_layers_within_a_row_are_not_refused():
    model, _, _ = attention()
    BookkeepingEngine(model).verified(input_specs(model), tf.TensorSpec([None, 5, 2]), ())


def test_rounding_never_hides_a_norm():
    """Positions cancel: the products of inputs and gradients tell nothing of the small rest."""
    rows, positions, width = 40, 64, 50
    a = rng.normal(size=(rows, positions // 2, width))
    g = rng.normal(size=(rows, positions // 2, width))
    tiny = 1e-4 * rng.normal(size=a.shape)
    a = np.concatenate([a, a + tiny], axis=1).astype(np.float32)
    g = np.concatenate([g, -g], axis=1).astype(np.float32) * np.float32(1e4)
    formed = a.astype(np.float64).transpose(0, 2, 1) @ g.astype(np.float64)
    true = np.linalg.norm(formed, axis=(1, 2))
    part = Outer(tf.constant(a), tf.constant(g), (width, width), ghost=True)
    norms = np.sqrt(part.squared_norms().numpy())
    naive = np.sum((a @ a.transpose(0, 2, 1)) * (g @ g.transpose(0, 2, 1)), axis=(1, 2))
    # What would be without the slack: too little as often as too much, so that of 40 one is low.
    lowest = int(np.argmin(naive / true**2))
    assert naive[lowest] < 0.9 * true[lowest] ** 2
    assert (norms >= true).all()
    weight = tf.one_hot(lowest, rows, 1.0 / norms[lowest], 0.0, dtype=tf.float64)
    given = part.weighted_sum(weight).numpy().astype(np.float64)
    assert np.linalg.norm(given) <= 1.0 + 1e-3


@pytest.mark.parametrize("entries", [1, 63, 64, 65, 4096, 10_007])
def test_sums_of_squares_are_rounded_up(entries):
    values = rng.normal(size=(20, entries)).astype(np.float32)
    exact = (values.astype(np.float64) ** 2).sum(axis=1)
    found = squares(tf.constant(values)).numpy()
    assert (found >= exact).all()
    assert (found <= exact * (1 + 9e-6)).all()


def test_squares_below_the_smallest_number_still_count():
    """|a| is large and |g| so small that float32 has no square of it."""
    a, g = np.full((1, 1, 4), 1e15, np.float32), np.full((1, 1, 4), 1e-25, np.float32)
    part = Outer(tf.constant(a), tf.constant(g), (4, 4))
    true = np.linalg.norm(a[0].astype(np.float64).T @ g[0].astype(np.float64))
    assert float(tf.sqrt(part.squared_norms())[0]) >= true


def test_contributions_of_different_kinds_to_one_variable_add_up():
    table = Lookup(tf.constant(ids(3)), tf.constant(normal(3, 4)), 9)
    dense = Outer(tf.constant(normal(2, 9)), tf.constant(normal(2, 4)), (9, 4))
    plain = Summed(tf.constant(normal(9, 4)))
    for parts in ([table, table], [table, dense], [dense, dense], [table, dense, plain]):
        together = combined(parts)
        expected = sum(part.formed().numpy().astype(np.float64) for part in parts)
        norms = (expected**2).sum(axis=(1, 2))
        np.testing.assert_allclose(together.squared_norms().numpy(), norms, rtol=2e-4)
        weights = rng.uniform(size=ROWS)
        np.testing.assert_allclose(
            together.weighted_sum(tf.constant(weights)).numpy(),
            np.tensordot(weights, expected, 1),
            rtol=1e-4,
            atol=1e-4,
        )
