"""What learning without federation and without privacy reaches: the references of the results.

Rows, features, held-out rows and metrics are those of the federated run with the same seed.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.config import RunConfig
from lepton_flwr.data import scenarios
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.errors import ConfigError

KINDS = ("majority", "network", "trees")
_LEAST = 1e-12  # probability of a class, so that its logarithm is finite


@dataclass(frozen=True)
class Central:
    """One reference.

    Attributes:
        accuracy: on the held-out rows of all clients together.
        auc: on the same rows, as a run's; None where it is not defined.
        seconds: of training, without reading the data.
        rows: rows trained on.
        features: numbers of a row.
    """

    accuracy: float | None
    auc: float | None
    seconds: float
    rows: int
    features: int


def central(config: RunConfig, kind: str) -> Central:
    """Train on the rows of all clients together.

    Args:
        config: the run; its privacy is left aside.
        kind: "network" trains the run's model and optimizer for as many steps as the rounds have
            in all, with batches of the same share of the rows; "trees" is scikit-learn's
            histogram gradient boosting with its own settings; "majority" always answers with the
            most frequent class.

    Raises:
        ConfigError: unknown kind or scenario.
    """
    from lepton_flwr.training.scores import counts_of, summarise

    check.choice("kind", kind, KINDS)
    data = scenarios.get(config.scenario).load(config)
    if not isinstance(data, FederatedData):
        raise ConfigError(f"scenario {config.scenario}: expected one with public ranges")
    x, x_test = (_joined(data, f"x_{part}") for part in ("train", "test"))
    y, y_test = (_joined(data, f"y_{part}") for part in ("train", "test"))
    fit = {"network": _network, "trees": _trees, "majority": _majority}[kind]
    start = time.perf_counter()
    predict = fit(config, data, x, y)
    seconds = time.perf_counter() - start
    summary = summarise(counts_of(predict(x_test), y_test.astype(np.int64)))
    return Central(summary.accuracy, summary.auc, seconds, len(x), int(np.prod(x.shape[1:])))


def _joined(data: FederatedData, name: str) -> np.ndarray:
    return np.concatenate([getattr(client, name) for client in data.clients])


def _network(config: RunConfig, data: FederatedData, x: np.ndarray, y: np.ndarray) -> Any:
    from lepton_flwr.training.models import ModelSpec, build, compile_model
    from lepton_flwr.training.plain import PlainTrainer

    kind, train = scenarios.get(config.scenario).model, config.train
    spec = ModelSpec(kind, data.input_shape, data.num_classes, train.hidden_units)
    model = compile_model(build(spec, config.seed), train.optimizer, train.learning_rate)
    trainer = PlainTrainer(model, train.sampling_probability, np.random.default_rng(config.seed))
    trainer.fit(x, y, steps=config.rounds * train.local_steps)
    return lambda rows: np.asarray(model.predict(rows, batch_size=4096, verbose=0), np.float64)


def _trees(config: RunConfig, data: FederatedData, x: np.ndarray, y: np.ndarray) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    flat = x.reshape(len(x), -1)
    trees = HistGradientBoostingClassifier(random_state=config.seed).fit(flat, y)

    def logits(rows: np.ndarray) -> np.ndarray:
        found = np.full((len(rows), data.num_classes), _LEAST)
        found[:, trees.classes_] = trees.predict_proba(rows.reshape(len(rows), -1))
        return _logits(found)

    return logits


def _majority(_: RunConfig, data: FederatedData, __: np.ndarray, y: np.ndarray) -> Any:
    shares = np.bincount(y, minlength=data.num_classes) / len(y)
    return lambda rows: _logits(np.tile(shares, (len(rows), 1)))


def _logits(probabilities: np.ndarray) -> np.ndarray:
    """Logits as a network of the scenario has them: one for two classes, else one for each."""
    logs = np.log(np.maximum(probabilities, _LEAST))
    return logs[:, 1:] - logs[:, :1] if logs.shape[1] == 2 else logs
