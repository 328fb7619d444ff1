"""The ledgers of a client's participants and server, charged before anything is released."""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from lepton_flwr.crypto.digest import digest
from lepton_flwr.device import ledger_path
from lepton_flwr.privacy.events import Event, Unit
from lepton_flwr.privacy.ledger import Charge, Ledger, Limit

_POPULATION = "lepton/sdk/population/v1"


class Spending:
    """What releases of the participants' records may cost, and have.

    The ledgers are those that the simulation goes on with: its devices' and its server's.

    Args:
        folder: of the ledgers, made if missing.
        digests: names each participant's rows, 32 bytes each.
        limit: the most per record.

    **Guarantee**: `released` returns to its body only after the events are reserved in the ledger
    of the participant and, once for all participants, in that of the server.
    """

    def __init__(self, folder: Path, digests: Sequence[bytes], limit: Limit) -> None:
        self.folder = folder
        self.digests = tuple(digests)
        self.limit = limit
        self._run = f"client {datetime.now():%F %T}"

    @property
    def population(self) -> bytes:
        """Names the rows of all participants together, 32 bytes."""
        return digest(_POPULATION, *self.digests)

    @contextmanager
    def released(self, node: int, *events: Event) -> Iterator[None]:
        """Reserve what the body releases of one participant's records; commit it at its end.

        Releases of different participants are of different records: the server counts those of
        the first one, which every other makes as well.

        Raises:
            BudgetError: a limit would be exceeded; nothing may be released.
            LedgerError: a ledger cannot be trusted.
        """
        from strategies.budgets import LEDGER_FILE
        from strategies.server_app import DEVICES

        devices = self.folder / DEVICES
        devices.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = self.digests[node]
        place = ledger_path(devices, own, 1 + self.digests[:node].count(own))
        with contextlib.ExitStack() as stack:
            for path, data in [
                (place, own),
                *([(self.folder / LEDGER_FILE, self.population)] if node == 0 else []),
            ]:
                stack.enter_context(self._reserved(path, data, events))
            yield

    @contextmanager
    def _reserved(self, path: Path, data: bytes, events: Sequence[Event]) -> Iterator[None]:
        with Ledger(path) as ledger:
            charges = [Charge(Unit.RECORD, ledger.dataset(data), event) for event in events]
            number = ledger.reserve(charges, {Unit.RECORD: (self.limit,)}, self._run)
            yield
            ledger.commit(number)
