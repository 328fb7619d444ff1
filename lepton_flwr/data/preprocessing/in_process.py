"""Secure sums among participants that live in this process, by the real protocol.

For simulations and for one owner's table that is divided among several: every participant has an
identity and a session of its own, and the server's side learns the sums alone.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np

from lepton_flwr.crypto.authority import Authority
from lepton_flwr.crypto.identity import Roster
from lepton_flwr.data.preprocessing.columns import Table
from lepton_flwr.data.preprocessing.questions import Question
from lepton_flwr.data.preprocessing.whole import WholeNumbers
from lepton_flwr.errors import DataError
from lepton_flwr.privacy.events import Event
from lepton_flwr.secagg.content import content_digest
from lepton_flwr.secagg.floors import ClientFloors
from lepton_flwr.secagg.in_process import Party, secure_sum
from lepton_flwr.secagg.parameters import SessionConfig
from lepton_flwr.secagg.wire import STATISTICS

Charge = Callable[[int, Event], AbstractContextManager[None]]


class InProcess:
    """Asks participants in this process and adds up their answers securely.

    Args:
        tables: one for each participant, as `TableSchema.read` returns them; two or more.
        charge: reserves an event in the ledger of a participant, by number, before its answer is
            computed, and commits it afterwards. None keeps no ledger.
        progress: told of participants that have answered and of all answers of this question.

    **Guarantee**: `charge` has reserved an answer before any of its noise is drawn; if it raises,
    that participant's records are not looked at and there is no sum.

    Raises:
        DataError: fewer than two participants.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        charge: Charge | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if len(tables) < 2:
            raise DataError(
                f"{len(tables)} participants: expected at least 2, for the sum of one is its table"
            )
        authority = Authority.create("lepton statistics")
        self._roster = Roster.of_authority(authority.certificate_pem)
        floors = ClientFloors(min_survivors=len(tables))
        self._parties = [
            Party(authority.issue(f"participant-{i}"), self._roster, floors)
            for i in range(len(tables))
        ]
        self._tables = tables
        self._charge = charge
        self._progress = progress
        self._number = 0

    @property
    def participants(self) -> int:
        """How many there are."""
        return len(self._tables)

    def __call__(self, question: Question) -> tuple[list[int], int]:
        """The sums in units of 1 / grid, exact, and the number of participants in them."""
        self._number += 1
        coding = WholeNumbers(question.size, question.bound, self.participants)
        config = SessionConfig(
            "statistics", self._number, STATISTICS, coding.layout, self.participants
        )
        content = content_digest({"question": {"parts": repr(question)}})

        def encode(node: int, _: SessionConfig) -> np.ndarray:
            vector = coding.encode(self._answer(node, question))
            if self._progress is not None:
                self._progress(node + 1, self.participants)
            return vector

        encoders = [partial(encode, node) for node in range(self.participants)]
        found = secure_sum(config, content, self._roster, self._parties, encoders, tolerant=False)
        return coding.decode(found.total.astype(np.uint32))

    def _answer(self, node: int, question: Question) -> np.ndarray:
        with self._charge(node, question.event) if self._charge else nullcontext():
            return question.answer(self._tables[node])
