import keras
import numpy as np
import pytest

from lepton_flwr.training.loop import reset_optimizer


def new_model(optimizer):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    return model


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adagrad", "RMSprop", "AdamW", "Nadam"])
def test_a_reset_optimizer_equals_a_fresh_one(name):
    optimizer_class = getattr(keras.optimizers, name)
    model = new_model(optimizer_class(0.1))
    for _ in range(2):
        model.optimizer.apply(
            [v + 1.0 for v in model.trainable_variables], model.trainable_variables
        )
    used = [v.numpy() for v in model.optimizer.variables]
    reset_optimizer(model)
    fresh = optimizer_class(0.1)
    fresh.build(model.trainable_variables)
    for a, b in zip(model.optimizer.variables, fresh.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    pairs = zip(used, model.optimizer.variables, strict=True)
    assert any(not np.array_equal(a, b.numpy()) for a, b in pairs)


def test_the_learning_rate_stays_as_it_was_set():
    model = new_model(keras.optimizers.SGD(0.5))
    reset_optimizer(model)
    model.optimizer.learning_rate = 0.25
    reset_optimizer(model)
    assert float(model.optimizer.learning_rate) == 0.25


def test_schedules_start_again():
    schedule = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    model = new_model(keras.optimizers.SGD(schedule))
    model.fit(np.ones((8, 3)), np.ones(8), verbose=0)
    assert float(model.optimizer.learning_rate) < 1.0
    reset_optimizer(model)
    assert float(model.optimizer.learning_rate) == 1.0


# Keras 3 converts variables with np.array in a way that numpy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
def test_a_model_with_kept_steps_can_still_be_saved(tmp_path):
    from lepton_flwr.training.plain import PlainTrainer

    model = new_model("adam")
    PlainTrainer(model, 0.5, np.random.default_rng(1)).fit(np.ones((8, 3)), np.ones(8), steps=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
