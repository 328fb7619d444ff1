"""What one round of training is charged for in this device's ledger, before any data is read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flwr.app import ConfigRecord, Context

from lepton_flwr.device import WHOLE, Device
from lepton_flwr.errors import PolicyError
from lepton_flwr.privacy.events import Event, SampledGaussian, Unbounded, Unit
from lepton_flwr.privacy.ledger import Charge, Ledger
from lepton_flwr.privacy.ledger_errors import LedgerRolledBackError
from lepton_flwr.privacy.policy import CLIENT_NOISE
from lepton_flwr.secagg.errors import MessageError

if TYPE_CHECKING:
    from lepton_flwr.training.task import Task

LEDGER = "lepton-ledger"


@contextmanager
def charged(
    device: Device, context: Context, task: "Task", for_client: Sequence[Event]
) -> Iterator[None]:
    """Charge a round of training, as `reserved` does; see there for what is raised.

    Args:
        device: whose ledger and policy.
        context: Flower's, of this node and run.
        task: what is asked.
        for_client: releases of this device as a whole, as the server says that it noises them.
    """
    with reserved(device, context, task.noise_multiplier, _record(task), for_client):
        yield


@contextmanager
def reserved(
    device: Device,
    context: Context,
    noise_multiplier: float,
    for_record: Event,
    for_client: Sequence[Event],
) -> Iterator[None]:
    """Reserve releases before the body runs, and commit them when it ends well.

    A body that fails stays charged. The ledger's head is remembered in Flower's context too, so
    that a ledger deleted or put back while a run goes on is noticed whatever its files say.

    Args:
        device: whose ledger and policy.
        context: Flower's, of this node and run.
        noise_multiplier: that hides a record; the policy has a floor for it.
        for_record: what is released of each record.
        for_client: releases of this device as a whole.

    Raises:
        PolicyError: the policy asks for more noise.
        BudgetError: a limit of the policy would be exceeded.
        LedgerError: the ledger cannot be trusted.
    """
    policy = device.policy
    if noise_multiplier < policy.min_record_noise_multiplier:
        raise PolicyError(
            f"noise_multiplier={noise_multiplier:g}: this device's policy asks for at least "
            f"{policy.min_record_noise_multiplier:g}"
        )
    with device.ledger() as ledger:
        _check_memory(ledger, context)
        charges = [
            Charge(Unit.RECORD, ledger.dataset(device.data_digest()), for_record),
            *(Charge(Unit.CLIENT, WHOLE, event) for event in for_client),
        ]
        number = ledger.reserve(charges, policy.spending.limits, f"run {context.run_id}")
        row, row_hash = ledger.head
        context.state[LEDGER] = ConfigRecord({"row": row, "hash": row_hash})
        yield
        ledger.commit(number)


def _record(task: "Task") -> Event:
    if task.noise_multiplier == 0:
        return Unbounded()
    return SampledGaussian(task.noise_multiplier, task.sampling_probability, task.local_steps)


def of_update(noise: float, clip: float) -> Event:
    """One participation: sampling by the server does not hide it from the server.

    Args:
        noise: noise multiplier that the server says it adds to the sum; 0 for none.
        clip: to which the secure session clips this device's update; 0 for none.

    Raises:
        PolicyError: noise on updates that nothing bounds.
    """
    if noise == 0:
        return Unbounded()
    if clip == 0:
        raise PolicyError(
            f"{CLIENT_NOISE}={noise:g} in a session that clips no update: expected both or neither"
        )
    return SampledGaussian(noise, 1.0, 1)


def _check_memory(ledger: Ledger, context: Context) -> None:
    known = context.state.config_records.get(LEDGER)
    if known is None:
        return
    row, row_hash = known.get("row"), known.get("hash")
    if not isinstance(row, int) or not isinstance(row_hash, bytes):
        raise MessageError(f"{LEDGER}: not what this device keeps there")
    if not ledger.contains((row, row_hash)):
        raise LedgerRolledBackError(
            "the ledger does not hold a release of this run: it was deleted or put back"
        )
