"""The work of a client: train and evaluate a Keras model on its own rows.

Imported only inside the actions that need TensorFlow. Compiled models are kept per process: the
many simulated clients of one worker share them, weights and optimizer state being set anew.
"""

import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from lepton_flwr.data.federated import ClientData
from lepton_flwr.errors import ConfigError
from lepton_flwr.training import predictions
from lepton_flwr.training.models import build, compile_model
from lepton_flwr.training.plain import PlainTrainer
from lepton_flwr.training.private import PrivateTrainer, RecordPrivacy
from lepton_flwr.training.scores import evaluate_counts
from lepton_flwr.training.task import Task


def train(
    task: Task, weights: Sequence[np.ndarray], data: ClientData, server_round: int
) -> list[np.ndarray]:
    """One round of training from the global weights.

    Returns:
        The new weights, in the order and shapes of `weights`.

    Raises:
        ConfigError: the weights do not fit the model, or the model cannot be trained privately.
        DataError: the rows do not fit the model.
    """
    model = _load(task, weights)
    if task.noise_multiplier > 0:
        privacy = RecordPrivacy(task.l2_norm_clip, task.noise_multiplier, task.sampling_probability)
        trainer = PrivateTrainer(model, privacy, engine=task.engine)
        trainer.fit(data.x_train, data.y_train, steps=task.local_steps, fresh_optimizer=True)
    else:
        # Of the rows, not of the node: the same seed gives the same order wherever they are.
        own = zlib.crc32(np.ascontiguousarray(data.x_train).data)
        order = np.random.default_rng([task.seed, server_round, own])
        plain = PlainTrainer(model, task.sampling_probability, order)
        plain.fit(data.x_train, data.y_train, steps=task.local_steps)
    return [np.asarray(weight) for weight in model.get_weights()]


def evaluate(task: Task, weights: Sequence[np.ndarray], data: ClientData) -> Mapping[str, Any]:
    """Counts of the held-out rows that add up over clients; see `training.scores`."""
    model = _load(task, weights)
    return evaluate_counts(model, data.x_test, data.y_test, task.model.num_classes)


def probabilities(task: Task, weights: Sequence[np.ndarray], x: np.ndarray) -> np.ndarray:
    """Probability of each class, float64 (n, classes), for rows (n, ...).

    Raises:
        ConfigError: the weights do not fit the model.
        DataError: the rows do not fit the model, or its answers are not finite.
    """
    return predictions.probabilities(predictions.predict_logits(_load(task, weights), x))


def _load(task: Task, weights: Sequence[np.ndarray]) -> Any:
    model = _model(task)
    if [weight.shape for weight in model.get_weights()] != [weight.shape for weight in weights]:
        raise ConfigError("the weights do not have the shapes of the model of this task")
    model.set_weights(list(weights))
    return model


@lru_cache(maxsize=4)
def _model(task: Task) -> Any:
    model = build(task.model, 0)
    compile_model(model, task.optimizer, task.learning_rate)
    return model
