import numpy as np
import pytest

from lepton_flwr.config import RunConfig
from lepton_flwr.data.federated import ClientData
from lepton_flwr.inference.local_models import train_local_models
from lepton_flwr.training.models import ModelSpec


def rows(sign: int) -> ClientData:
    """Class 1 where the first feature has this sign."""
    x = np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32)
    y = (sign * x[:, 0] > 0).astype(np.int32)
    return ClientData(x[:160], y[:160], x[160:], y[160:])


def test_every_participants_model_is_of_its_own_rows_and_stays_so():
    config = RunConfig.build({"train": {"learning_rate": 1.0, "sampling_probability": 0.5}})
    clients = [rows(1), rows(-1)]
    models = train_local_models(config, ModelSpec("mlp", (2,), 2, ()), clients, steps=40)
    for _ in range(2):  # in any order, for they share a network
        for model, client in zip(models, clients, strict=True):
            shares = model(client.x_test)
            assert shares.sum(axis=1) == pytest.approx(1)
            assert np.mean(shares.argmax(axis=1) == client.y_test) > 0.9
