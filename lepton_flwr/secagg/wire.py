"""Names on the wire, the same at both ends."""

from enum import StrEnum

RECORD = "lepton.secagg"
EXCHANGE = "exchange"
MASKED = "lepton.masked"
UPDATE = "update"
UNCLIPPED = "unclipped"  # clients whose update clipping left as it was
NUM_EXAMPLES = "num-examples"


# The one action whose message type does not begin with its purpose: Flower's categories are fixed.
STATISTICS = "statistics"
STATISTICS_ACTION = f"query.{STATISTICS}"


def purpose_of(action: str) -> str:
    """The purpose of the sessions in which messages of a type go, for example "train.masked"."""
    return STATISTICS if action == STATISTICS_ACTION else action.partition(".")[0]


class Exchange(StrEnum):
    """The five exchanges, E0 to E4; each is also a phase of a round."""

    KEYS = "keys"
    SHARES = "shares"
    WORK = "train"
    ATTEST = "attest"
    REVEAL = "reveal"
