"""What a secure session tells of itself while it goes on."""

from collections.abc import Sequence

from lepton_flwr.failures import Failure


class Watcher:
    """Hears of exchanges and failures; this one does nothing with them."""

    def waiting(self, phase: str, done: int, total: int, nodes: Sequence[int]) -> None:
        """`done` of `total` nodes have answered; `nodes` have not."""

    def failed(self, phase: str, node: int, failure: Failure) -> None:
        """A node is out of this session."""

    def exchanged(self, purpose: str, phase: str, done: int, total: int, seconds: float) -> None:
        """An exchange is over."""

    def retrying(self, attempt: int, seconds: float, reason: str) -> None:
        """A session that asked nobody to work is opened anew, after so many seconds."""
