import json

import numpy as np
import pytest

from lepton_flwr.config import OPTIMIZERS
from lepton_flwr.errors import ConfigError
from lepton_flwr.training.models import ModelSpec, build, compile_model

SPECS = [
    ModelSpec("mlp", (180,), 2),
    ModelSpec("mlp", (5,), 7, ()),
    ModelSpec("mlp", (4, 3), 3, (6, 5)),
    ModelSpec("cnn", (28, 28, 1), 10),
    ModelSpec("cnn", (13, 17, 3), 2, (8,)),
]


@pytest.mark.parametrize("spec", SPECS)
def test_a_description_survives_json(spec):
    assert ModelSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("spec", SPECS)
def test_the_model_has_the_promised_parameters_and_outputs(spec):
    model = build(spec, 1)
    assert model.count_params() == spec.num_parameters
    assert model.output_shape == (None, spec.num_outputs)
    assert all(not v.numpy().any() for v in model.trainable_variables if "bias" in v.path)


def test_the_cnn_is_the_one_of_the_tutorial():
    assert ModelSpec("cnn", (28, 28, 1), 10).num_parameters == 26_010


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[4]])
def test_equal_seeds_give_equal_weights_and_others_do_not(spec):
    def weights(seed):
        return np.concatenate([w.ravel() for w in build(spec, seed).get_weights()])

    np.testing.assert_array_equal(weights(3), weights(3))
    assert not np.array_equal(weights(3), weights(4))


GOOD = {"kind": "mlp", "input_shape": [5], "num_classes": 2, "hidden_units": [4]}


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "transformer"},
        {"kind": ["mlp"]},
        {"kind": "cnn"},
        {"kind": "cnn", "input_shape": [12, 28, 1]},
        {"input_shape": []},
        {"input_shape": 5},
        {"input_shape": [0]},
        {"input_shape": [2.0]},
        {"input_shape": [True]},
        {"input_shape": ["5"]},
        {"input_shape": [1, 1, 1, 1]},
        {"input_shape": [1 << 20, 1 << 20, 1 << 20]},
        {"num_classes": 1},
        {"num_classes": 10**9},
        {"num_classes": None},
        {"hidden_units": [-1]},
        {"hidden_units": [1] * 17},
        {"hidden_units": [1 << 20, 1 << 20]},
        {"hidden_units": None},
        {"extra": 1},
    ],
)
def test_descriptions_out_of_bounds_are_refused(change):
    assert ModelSpec.from_json(json.dumps(GOOD)) == ModelSpec("mlp", (5,), 2, (4,))
    with pytest.raises(ConfigError, match="model"):
        ModelSpec.from_json(json.dumps(GOOD | change))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "{" * 4000, "[" * 4000, " " * 5000])
def test_texts_that_are_no_description_are_refused(text):
    with pytest.raises(ConfigError, match="JSON object"):
        ModelSpec.from_json(text)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_the_configuration_compiles(name):
    model = compile_model(build(SPECS[0], 1), name, 0.125)
    assert type(model.optimizer).__name__.lower() == name
    assert float(model.optimizer.learning_rate) == 0.125


def test_the_loss_follows_the_outputs():
    assert compile_model(build(SPECS[0], 1), "sgd", 1.0).loss.name == "binary_crossentropy"
    several = compile_model(build(SPECS[1], 1), "sgd", 1.0)
    assert several.loss.name == "sparse_categorical_crossentropy"


@pytest.mark.parametrize(("name", "rate"), [("sgd", 0.0), ("sgd", float("nan")), ("magic", 1.0)])
def test_impossible_optimizers_are_refused(name, rate):
    with pytest.raises(ConfigError, match=r"train\."):
        compile_model(build(SPECS[1], 1), name, rate)
