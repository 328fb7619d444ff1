"""Charging perturbed records to the ledgers of their participants and of the server."""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lepton_flwr.privacy.events import Event, Unit
from lepton_flwr.privacy.ledger import Charge, Ledger, Limit
from lepton_flwr.provision import ledger_files
from lepton_flwr.sdk.preparation import Basis


@contextmanager
def released(basis: Basis, participant: int, events: Sequence[Event]) -> Iterator[None]:
    """Reserve what the body releases of a participant's records, and commit it at its end.

    Different participants release different records: the server counts once what each of them
    does.

    Args:
        basis: the participants', and their ledgers.
        participant: by number.
        events: of one record.

    Raises:
        BudgetError: a limit would be exceeded; nothing may be released.
        LedgerError: a ledger cannot be trusted.
    """
    from strategies.budgets import LEDGER_FILE
    from strategies.preparation import DEVICES

    own = ledger_files(basis.ledgers / DEVICES, basis.records)[participant]
    with contextlib.ExitStack() as stack:
        if participant == 0:
            server = basis.ledgers / LEDGER_FILE
            stack.enter_context(_reserved(basis, server, basis.population, events))
        stack.enter_context(_reserved(basis, own, basis.records[participant], events))
        yield


@contextmanager
def _reserved(basis: Basis, path: Path, data: bytes, events: Sequence[Event]) -> Iterator[None]:
    dp = basis.config.dp
    limits = {Unit.RECORD: (Limit(dp.record.epsilon, dp.delta),)}
    with Ledger(path) as ledger:
        charges = [Charge(Unit.RECORD, ledger.dataset(data), event) for event in events]
        number = ledger.reserve(charges, limits, f"{basis.run}, perturbed records")
        yield
        ledger.commit(number)
