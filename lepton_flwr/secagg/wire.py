"""Names on the wire, the same at both ends."""

from enum import StrEnum

RECORD = "lepton.secagg"
EXCHANGE = "exchange"
MASKED = "lepton.masked"
UPDATE = "update"
UNCLIPPED = "unclipped"  # clients whose update clipping left as it was
NUM_EXAMPLES = "num-examples"


class Exchange(StrEnum):
    """The five exchanges, E0 to E4; each is also a phase of a round."""

    KEYS = "keys"
    SHARES = "shares"
    WORK = "train"
    ATTEST = "attest"
    REVEAL = "reveal"
