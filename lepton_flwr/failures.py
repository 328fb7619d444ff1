"""Why a client is not in a sum: one fixed list for the wire, metrics, log and report.

A client sends the code of a class. The text beside it is at most a sentence that was written to be
sent (`LeptonError`): of every other exception, and of all that is said about data, only the name
leaves the device.
"""

from enum import StrEnum
from typing import Self

# Flower's own, of which some mean one of ours; the lowest floor does not import Flower.
_UNAVAILABLE, _REPLY_UNAVAILABLE, _NODE_UNAVAILABLE, _INVALID_APP, _APP_CRASHED = 3, 4, 5, 7, 8


class Failure(StrEnum):
    """A class of failures; the value is what `metrics.csv` calls it.

    Attributes:
        code: on the wire, beyond all of Flower's own.
        words: for people.
    """

    code: int
    words: str

    def __new__(cls, value: str, code: int, words: str) -> Self:
        """A member: its value, its code and its words."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.code = code
        member.words = words
        return member

    LEFT = "left", 101, "left or restarted"
    TIMEOUT = "timeout", 102, "timed out"
    REFUSED = "refused", 103, "refused by its policy"
    BUDGET = "budget", 104, "budget spent"
    MEMORY = "memory", 105, "out of memory"
    DATA = "data", 106, "bad data"
    VERSION = "version", 107, "version mismatch"
    IDENTITY = "identity", 108, "certificate or key not accepted"
    PROTOCOL = "protocol", 109, "message not accepted"
    OTHER = "other", 110, "other failure"

    @classmethod
    def of_code(cls, code: int) -> "Failure":
        """What an error code says, ours or Flower's; one that nobody knows is `OTHER`."""
        return _BY_CODE.get(code, cls.OTHER)


_BY_CODE = {
    **{failure.code: failure for failure in Failure},
    _UNAVAILABLE: Failure.TIMEOUT,  # Flower drops a message when its time is over
    _REPLY_UNAVAILABLE: Failure.TIMEOUT,
    _NODE_UNAVAILABLE: Failure.LEFT,
    _INVALID_APP: Failure.VERSION,
    _APP_CRASHED: Failure.LEFT,
}


def counted(failures: "dict[Failure, int]") -> str:
    """Counts for people: "2 timed out, 1 bad data"."""
    known = [(count, failure) for failure, count in failures.items() if count]
    return ", ".join(f"{count} {failure.words}" for count, failure in sorted(known)[::-1])
