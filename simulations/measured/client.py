"""A ClientApp without work: its updates follow from the device's number and the round."""

import re

from .trace import Traced  # isort: skip - its clock starts first

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.client_app import participant
from clients.policy_mod import policy_mod
from clients.secagg_mod import SecureAggregationMod
from lepton_flwr.device import PARTITION_KEY, find
from lepton_flwr.secagg.wire import NUM_EXAMPLES

UPDATE_STDDEV = 0.1

fixed = ClientApp(mods=[policy_mod, SecureAggregationMod(participant)])


@fixed.train()
def train(message: Message, context: Context) -> Message:
    """Add this device's update of this round to the model."""
    number = _number(context)
    server_round = message.content.config_records["config"]["server-round"]
    arrays = message.content.array_records["arrays"].to_numpy_ndarrays()
    update = fixed_update(number, int(server_round), [array.shape for array in arrays])
    moved = [array + step for array, step in zip(arrays, update, strict=True)]
    metrics = MetricRecord({NUM_EXAMPLES: fixed_weight(number)})
    content = RecordDict({"arrays": ArrayRecord(moved), "metrics": metrics})
    return Message(content, reply_to=message)


def fixed_update(number: int, server_round: int, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """The update of a device in a round, float32 arrays."""
    generator = np.random.default_rng([number, server_round])
    return [generator.normal(0, UPDATE_STDDEV, shape).astype(np.float32) for shape in shapes]


def fixed_weight(number: int) -> int:
    """How many examples a device says it has."""
    return 100 + 37 * number


def _number(context: Context) -> int:
    """The device's number, from 0: its node's, where there is one, else by its folder's name."""
    if PARTITION_KEY in context.node_config:
        return int(context.node_config[PARTITION_KEY])
    (number,) = re.findall(r"\d+$", find(context.node_config, context.run_id).name)
    return int(number) - 1


app = Traced(fixed)
