"""What a device keeps between two messages, damaged: real client mods, no processes."""

import logging

import numpy as np
import pytest
from flwr.app import ConfigRecord
from flwr.serverapp.strategy import FedAvg

from lepton_flwr.failures import Failure
from lepton_flwr.secagg.wire import EXCHANGE, RECORD, Exchange
from strategies.secure_aggregation import SecureAggregation
from strategies.secure_grid import SecureGrid, SecureSettings

VICTIM = 102
LATER = ["train", "attest", "reveal"]
# What of a session is kept, and before which exchanges.
KEPT = {
    "mask-secret": ["shares", "train"], "share-secret": ["shares"], "self-seed": ["train"],
    "channels": LATER, "held": LATER, "mask-publics": LATER, "sid": LATER,
}  # fmt: skip


def damaged(value):
    """One wrong bit."""
    if isinstance(value, list):
        return [damaged(value[0]), *value[1:]]
    return bytes([value[0] ^ 1]) + value[1:]


def summed(grid, members, initial, name="", exchange=None):
    """The model after a round in which the victim's `name` is damaged before an exchange."""
    reports, hit, answer = [], [], type(grid).answer

    def fault(message):
        node, record = message.metadata.dst_node_id, message.content.config_records[RECORD]
        if node == VICTIM and record[EXCHANGE] == exchange:
            (key,) = grid.contexts[node].state.config_records
            kept = dict(grid.contexts[node].state.config_records[key])
            if kept.get(name):
                kept[name] = damaged(kept[name])
                grid.contexts[node].state[key] = ConfigRecord(kept)
                hit.append(name)
        return answer(grid, message)

    grid.answer = fault
    settings = SecureSettings(update_bound=2.0, max_examples=1000, timeout=0.2)
    strategy = SecureAggregation(
        FedAvg(fraction_evaluate=0.0),
        lambda plain: SecureGrid(
            plain, members[1], settings, on_session=lambda report, _: reports.append(report)
        ),
    )
    result = strategy.start(grid, initial, num_rounds=1, train_config=ConfigRecord())
    return result.arrays.to_numpy_ndarrays(), reports[0], hit


@pytest.mark.parametrize(
    ("name", "exchange"), [(name, exchange) for name, found in KEPT.items() for exchange in found]
)
def test_one_wrong_bit_in_a_kept_session_costs_the_round_that_device_and_never_the_sum(
    grid, members, initial, name, exchange
):
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    arrays, report, hit = summed(grid(), members, initial, name, exchange)
    assert hit == [name]
    assert report.failures == {Failure.LEFT: 1}
    alone = grid()
    alone.gone = {VICTIM: list(Exchange).index(exchange)}
    expected, without, _ = summed(alone, members, initial)
    assert report.survivors == without.survivors
    for array, other in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(array, other)
