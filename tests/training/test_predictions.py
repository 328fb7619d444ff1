import numpy as np
import pytest

from lepton_flwr.errors import DataError
from lepton_flwr.training.models import ModelSpec, build
from lepton_flwr.training.predictions import predict_logits, probabilities


def test_one_logit_is_that_of_class_1():
    shares = probabilities(np.array([[0.0], [2.0], [-800.0]]))
    assert shares[:2] == pytest.approx(np.array([[0.5, 0.5], [0.1192, 0.8808]]), abs=1e-4)
    assert shares[2].tolist() == [1.0, 0.0]


def test_several_logits_are_a_softmax():
    shares = probabilities(np.array([[1000.0, 1000.0, 0.0]]))
    assert shares == pytest.approx(np.array([[0.5, 0.5, 0.0]]))


def test_logits_are_the_models_whatever_the_number_of_rows():
    model = build(ModelSpec("mlp", (3,), 4, (5,)), 1)
    x = np.random.default_rng(1).normal(size=(5000, 3)).astype(np.float32)
    logits = predict_logits(model, x)
    assert logits.shape == (5000, 4)
    assert logits[4500] == pytest.approx(np.asarray(model(x[4500:4501]))[0], abs=1e-5)
    assert predict_logits(model, x[:0]).shape == (0, 4)


def test_rows_of_another_shape_and_broken_models_are_refused():
    model = build(ModelSpec("mlp", (3,), 2, ()), 1)
    with pytest.raises(DataError, match=r"rows of shape \(4,\): expected \(3,\)"):
        predict_logits(model, np.zeros((2, 4), np.float32))
    model.set_weights([np.full((3, 1), np.nan, np.float32), np.zeros(1, np.float32)])
    with pytest.raises(DataError, match="NaN"):
        predict_logits(model, np.ones((2, 3), np.float32))
