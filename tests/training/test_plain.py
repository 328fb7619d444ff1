import keras
import numpy as np
import pytest

from lepton_flwr.errors import ConfigError
from lepton_flwr.training.models import ModelSpec, build, compile_model
from lepton_flwr.training.plain import PlainTrainer


def new_model(dropout=False):
    if not dropout:
        return compile_model(build(ModelSpec("mlp", (6,), 2, (8,)), 1), "adam", 0.05)
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dropout(0.3), keras.layers.Dense(1)])
    return compile_model(model, "adam", 0.05)


def data(rows=200):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(rows, 6)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int64)


def trained(model, start, seed, rows=200):
    model.set_weights(start)
    PlainTrainer(model, 0.1, np.random.default_rng(seed)).fit(*data(rows), steps=15)
    return np.concatenate([w.ravel() for w in model.get_weights()])


@pytest.mark.parametrize("dropout", [False, True])
def test_one_seed_gives_the_same_bits_whoever_trained_before(dropout):
    model = new_model(dropout)
    start = model.get_weights()
    first = trained(model, start, 1)
    other = trained(model, start, 2, rows=90)
    np.testing.assert_array_equal(trained(model, start, 1), first)
    assert not np.array_equal(first, other)


class CountTraces(keras.losses.Loss):
    traces = 0

    def call(self, y_true, y_pred):
        CountTraces.traces += 1
        assert y_pred.shape[1:] == (1,)
        return keras.ops.square(y_pred[:, 0] - keras.ops.cast(y_true, "float32"))


def test_clients_of_all_sizes_share_few_traces():
    model = new_model()
    model.compile("sgd", CountTraces())
    PlainTrainer(model, 0.1, np.random.default_rng(1)).fit(*data(50), steps=2)
    PlainTrainer(model, 0.1, np.random.default_rng(1)).fit(*data(60), steps=2)
    after_two = CountTraces.traces
    for rows in (7, 33, 100, 3000):
        PlainTrainer(model, 0.3, np.random.default_rng(1)).fit(*data(rows), steps=2)
    assert CountTraces.traces == after_two == 1


def test_every_row_is_used_once_in_a_pass():
    """With learning rate 1 and loss -y * w the weight counts the rows."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(1.0), lambda y, p: -y * p)
    model.set_weights([np.zeros((1, 1), np.float32)])
    x = 2.0 ** np.arange(8, dtype=np.float32)[:, None]
    trainer = PlainTrainer(model, 0.25, np.random.default_rng(3))
    trainer.fit(x, np.ones(8, np.float32), steps=4)
    assert model.get_weights()[0].item() * 2 == 255


def test_a_tiny_client_steps_with_one_row():
    PlainTrainer(new_model(), 0.01, np.random.default_rng(1)).fit(*data(2), steps=3)


def test_it_learns():
    model, (x, y) = new_model(), data(1000)
    PlainTrainer(model, 0.1, np.random.default_rng(1)).fit(x, y, steps=60)
    assert np.mean((np.asarray(model(x))[:, 0] > 0) == y) > 0.93


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="sampling_probability"):
        PlainTrainer(new_model(), 0.0, np.random.default_rng(1))
    with pytest.raises(ConfigError, match="compiled"):
        PlainTrainer(build(ModelSpec("mlp", (6,), 2), 1), 0.1, np.random.default_rng(1))
