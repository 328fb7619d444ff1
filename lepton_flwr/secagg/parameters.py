"""What one session is, said before any key is made and bound into every signature and mask."""

import math
from dataclasses import dataclass
from dataclasses import field as dataclass_field

from lepton_flwr.crypto.digest import digest, field
from lepton_flwr.crypto.stream import StreamCipher
from lepton_flwr.secagg.degree import DROPOUT
from lepton_flwr.secagg.encoding import Layout
from lepton_flwr.secagg.errors import FloorError, MessageError
from lepton_flwr.secagg.graph import MAX_CLIENTS, MAX_COMPLETE, complete_threshold

CONFIG_LABEL = "lepton/secagg/config/v2"
PURPOSES = ("train", "evaluate", "statistics")
MAX_NUMBER = 2**62 - 1


@dataclass(frozen=True)
class SessionConfig:
    """One session: one sum.

    Attributes:
        run_id: the run, as text.
        number: of the session within its run; every session has a greater one.
        purpose: "train", "evaluate" or "statistics".
        layout: the vector; its `num_clients` is the number of invited clients.
        min_survivors: fewest clients whose sum is revealed.
        l2_norm_clip: bound of one client's whole update, which the client enforces; 0 for none.
        cipher: of the masks.
    """

    run_id: str
    number: int
    purpose: str
    layout: Layout
    min_survivors: int
    l2_norm_clip: float = 0.0
    cipher: StreamCipher = StreamCipher.AES
    # Goes into every signature that a client checks: computed once.
    _digest: bytes = dataclass_field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.number <= MAX_NUMBER:
            raise MessageError(f"session number {self.number}: expected 1 or more")
        if self.purpose not in PURPOSES:
            raise MessageError(f"purpose {self.purpose!r}: expected one of {', '.join(PURPOSES)}")
        if not 2 <= self.layout.num_clients <= MAX_CLIENTS:
            raise MessageError(f"{self.layout.num_clients} clients: expected 2 to {MAX_CLIENTS}")
        if not 2 <= self.min_survivors <= self.layout.num_clients:
            raise FloorError(
                f"min_survivors={self.min_survivors}: expected 2 to the "
                f"{self.layout.num_clients} invited clients"
            )
        if not (math.isfinite(self.l2_norm_clip) and self.l2_norm_clip >= 0):
            raise MessageError(f"l2_norm_clip={self.l2_norm_clip}: expected a number >= 0")
        try:
            object.__setattr__(self, "_digest", self._compute())
        except ValueError:
            raise MessageError("run_id, names: expected text that UTF-8 can encode") from None

    def digest(self) -> bytes:
        """32 bytes that determine every field."""
        return self._digest

    def _compute(self) -> bytes:
        parts = [
            piece
            for part in self.layout.segments
            for piece in (
                field(part.name),
                field(str(part.kind)),
                field(part.size),
                field(float(part.bound).hex()),
            )
        ]
        return digest(
            CONFIG_LABEL,
            field(self.run_id),
            field(self.number),
            field(self.purpose),
            field(self.layout.num_clients),
            field(self.layout.max_weight),
            field(self.min_survivors),
            field(float(self.l2_norm_clip).hex()),
            field(str(self.cipher)),
            *parts,
        )

    def floor(self, num_participants: int) -> int:
        """Fewest survivors with which a session of so many participants may be revealed."""
        return max(self.min_survivors, complete_threshold(num_participants))

    def enough(self, asked: int) -> int:
        """Answers of so many clients after which an exchange need not wait for all the others.

        On a ring as many as its sizes are planned for: with a third missing it would not finish.
        """
        spare = int(DROPOUT * asked) if self.layout.num_clients > MAX_COMPLETE else asked
        return max(self.floor(asked), asked - spare)
