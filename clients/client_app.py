"""The ClientApp: a device's actions, within secure aggregation.

Importing this stays light; TensorFlow is imported by the actions that train and evaluate.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.policy_mod import policy_mod
from clients.secagg_mod import SESSION, SecureAggregationMod
from clients.spending import charged, of_update, reserved
from lepton_flwr.crypto.identity import Identity, Roster
from lepton_flwr.data import wire
from lepton_flwr.device import Device
from lepton_flwr.errors import DataError
from lepton_flwr.inference.ballot import BALLOTS, QUERIES, VOTE, Question
from lepton_flwr.inference.ballot import cast as cast_ballots
from lepton_flwr.privacy.events import Unbounded
from lepton_flwr.privacy.policy import CLIENT_NOISE
from lepton_flwr.secagg.errors import MessageError
from lepton_flwr.secagg.floors import ClientFloors
from lepton_flwr.secagg.wire import NUM_EXAMPLES, STATISTICS

if TYPE_CHECKING:
    from lepton_flwr.data.federated import ClientData
    from lepton_flwr.training.task import Task

ARRAYS = "arrays"
CONFIG = "config"
TASK = "task"


@dataclass(frozen=True)
class Participant:
    """A device as secure aggregation sees it."""

    identity: Identity
    roster: Roster
    floors: ClientFloors


def participant(context: Context) -> Participant:
    """This node's device, for `SecureAggregationMod`.

    Raises:
        PolicyError: see `Device.from_node_config`, as for what else it raises.
    """
    device = Device.from_node_config(context.node_config, context.run_id)
    return Participant(device.identity, device.roster, device.policy.floors)


app = ClientApp(mods=[policy_mod, SecureAggregationMod(participant)])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train on this device's rows; the mod hides the reply."""
    device = Device.from_node_config(context.node_config, context.run_id)
    config = message.content.config_records.get(CONFIG, {})
    task = _task(message)
    server_round = config.get("server-round")
    if not isinstance(server_round, int) or server_round < 0:
        raise MessageError("server-round: expected a whole number")
    noise = _number(config, CLIENT_NOISE)
    clip = _number(message.content.config_records.get(SESSION, {}), "l2-norm-clip")
    rows = _rows(device, config, task)
    with charged(device, context, task, [of_update(noise, clip)]):
        from clients import keras_task

        data = rows()
        weights = keras_task.train(task, _weights(message), data, server_round)
        metrics = MetricRecord({NUM_EXAMPLES: len(data.y_train)})
        return Message(
            RecordDict({ARRAYS: ArrayRecord(weights), "metrics": metrics}), reply_to=message
        )


@app.query(STATISTICS)
def statistics(message: Message, context: Context) -> Message:
    """Answer one question about this device's raw table, with noise; the mod hides the answer.

    **Guarantee**: the answer is charged to the ledger before any noise is drawn; every answer is,
    also to a question that was asked before.
    """
    from lepton_flwr.data.preprocessing import asked
    from lepton_flwr.data.preprocessing.whole import WholeNumbers

    device = Device.from_node_config(context.node_config, context.run_id)
    config = message.content.config_records.get(CONFIG, {})
    asked_of = wire.spec_of(config)
    table = device.table
    device.spec.check_run(asked_of)
    question = asked.from_json(_text(config, wire.QUESTION), device.spec.schema)
    clients = message.content.config_records.get(SESSION, {}).get("num-clients")
    if not isinstance(clients, int):
        raise MessageError("num-clients: expected a whole number")
    coding = WholeNumbers(question.size, question.bound, clients)
    event = question.event
    with reserved(device, context, question.noise_multiplier, event, [Unbounded()]):
        answer = question.answer(table.train)
    limbs = {name: values.tolist() for name, values in coding.limbs_of(answer).items()}
    return Message(
        RecordDict({"metrics": MetricRecord({**limbs, NUM_EXAMPLES: 1})}), reply_to=message
    )


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate on this device's held-out rows; the mod hides the reply."""
    from clients import keras_task

    device = Device.from_node_config(context.node_config, context.run_id)
    task = _task(message)
    data = _rows(device, message.content.config_records.get(CONFIG, {}), task)()
    if len(data.y_test) == 0:
        raise DataError("this device holds out no rows: expected at least one to evaluate")
    counts = keras_task.evaluate(task, _weights(message), data)
    metrics = {
        name: value.tolist() if hasattr(value, "tolist") else value
        for name, value in counts.items()
    }
    metrics[NUM_EXAMPLES] = len(data.y_test)
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


@app.evaluate(VOTE)
def vote(message: Message, context: Context) -> Message:
    """Train on this device's rows alone, then answer the server's queries; the mod hides both.

    What record-level privacy there is comes from the training's own noise: the noise on the votes
    is the server's, and its word is charged to the device as a whole.
    """
    device = Device.from_node_config(context.node_config, context.run_id)
    task = _task(message)
    question = Question.from_fields(message.content.config_records.get(VOTE, {}))
    record = message.content.array_records.get(QUERIES)
    if record is None or len(record) != 1:
        raise MessageError(f"{QUERIES}: expected one array of rows")
    (queries,) = record.to_numpy_ndarrays()
    if queries.ndim < 2 or not len(queries) or queries.dtype != np.float32:
        raise MessageError(f"{QUERIES}: {queries.dtype}{queries.shape}: expected float32 rows")
    rows = _rows(device, message.content.config_records.get(CONFIG, {}), task)
    with charged(device, context, task, question.events(len(queries))):
        from clients import keras_task

        data = rows()
        weights = keras_task.train(task, _weights(message), data, 0)
        part = cast_ballots(partial(keras_task.probabilities, task, weights), queries, question)
    metrics = MetricRecord({BALLOTS: part.reshape(-1).tolist(), NUM_EXAMPLES: 1})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _rows(device: Device, config: Mapping[str, Any], task: "Task") -> Callable[[], "ClientData"]:
    """How it comes by its features: it has them, or the run's statistics make them of its table.

    **Guarantee**: what the server has sent is checked here, against what is public of the device's
    rows and none of them: a refusal tells nothing of a row, and comes before anything is charged.
    """
    if wire.PREPROCESSOR not in config and not device.has_table:
        return device.data
    if not device.has_table or wire.PREPROCESSOR not in config:
        raise DataError(
            "a run on raw tables and a device that brings features, or the other way about: "
            "expected `lepton server train --schema` where devices bring tables"
        )
    spec, preprocessor = wire.spec_of(config), wire.preprocessor_of(config)
    device.spec.check_run(spec)
    device.spec.check_preprocessor(preprocessor)
    wanted = ((len(preprocessor.feature_names),), len(spec.classes))
    if (task.model.input_shape, task.model.num_classes) != wanted:
        raise DataError(
            f"a model of {task.model.input_shape} and {task.model.num_classes} classes for "
            f"{wanted[0]} features and {wanted[1]} classes: expected one that fits"
        )
    return partial(device.features, preprocessor)


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise MessageError(f"{key}: expected text")
    return value


def _number(record: Mapping[str, Any], key: str) -> float:
    value = record.get(key, 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MessageError(f"{key}: expected a number")
    if not (math.isfinite(value) and value >= 0):
        raise MessageError(f"{key}={value}: expected a finite number >= 0")
    return float(value)


def _task(message: Message) -> "Task":
    from lepton_flwr.training.task import Task

    text = message.content.config_records.get(CONFIG, {}).get(TASK)
    if not isinstance(text, str):
        raise MessageError("task: expected the description of the work")
    return Task.from_json(text)


def _weights(message: Message) -> list[np.ndarray]:
    record = message.content.array_records.get(ARRAYS)
    if record is None:
        raise MessageError("arrays: expected the model's weights")
    return cast(list[np.ndarray], record.to_numpy_ndarrays())
