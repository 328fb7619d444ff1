"""Who holds whose shares and who masks with whom, and how many it takes to reveal.

Up to `MAX_COMPLETE` clients everybody is joined to everybody. Above, clients sit on a ring in an
order that nobody chose (it follows from the session's name) and are joined to the nearest on both
sides: a Harary graph, of the size in `degree`.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection
from functools import lru_cache

import numpy as np

from lepton_flwr.crypto.digest import digest
from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.secagg.degree import ring_parameters
from lepton_flwr.secagg.errors import ThresholdError

MAX_COMPLETE = 128
MAX_CLIENTS = 10_000
# Most holders of one client's shares, and most members of a committee, at any number of clients.
MAX_HOLDERS = 256
GRAPH_LABEL = "lepton/secagg/graph/v1"
COMMITTEE_LABEL = "lepton/secagg/committee/v1"
_SORT_BYTES = 16


class Graph(ABC):
    """The graph of one session; clients are indices from 0 to size - 1.

    Attributes:
        size: number of clients with key records.
        degree: neighbours of each client, itself not counted.
        threshold: shares needed to reveal a secret.
        committee: who signs the lists for all, in no order; nobody where neighbours attest them.
        quorum: signatures of the committee needed to reveal any share.
    """

    size: int
    degree: int
    threshold: int
    committee: tuple[int, ...] = ()
    quorum: int = 0

    @abstractmethod
    def holders(self, index: int) -> tuple[int, ...]:
        """Who holds shares of `index`, in index order; the n-th of them has the share of point n.

        The relation is symmetric: these are also the ones whose shares `index` holds.
        """

    def neighbours(self, index: int) -> tuple[int, ...]:
        """Who exchanges masks and shares with `index`, in index order."""
        return tuple(other for other in self.holders(index) if other != index)

    @abstractmethod
    def check_present(self, indices: Collection[int]) -> None:
        """Refuse a list of clients that may leave the others in pieces.

        Raises:
            ThresholdError: too many are missing in one place.
        """


class Complete(Graph):
    """Everybody is joined to everybody and holds a share of its own secrets, too."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.degree, self.threshold = size - 1, complete_threshold(size)
        self._all = tuple(range(size))

    def holders(self, index: int) -> tuple[int, ...]:  # noqa: ARG002
        """All, itself included."""
        return self._all

    def check_present(self, indices: Collection[int]) -> None:
        """Nothing to refuse: no list leaves pieces."""


class Ring(Graph):
    """Each is joined to the nearest ones on a ring, and some sign for all.

    Args:
        sid: the session's name.
        size: number of clients with key records.
    """

    def __init__(self, sid: bytes, size: int) -> None:
        parameters = ring_parameters(size)
        self.size = size
        self.degree, self.threshold = parameters.degree, parameters.threshold
        self.quorum = parameters.quorum
        self.committee = _shuffled(COMMITTEE_LABEL, sid, size)[: parameters.committee]
        self._spare = parameters.spare
        self._ring = _shuffled(GRAPH_LABEL, sid, size)
        self._place = {index: place for place, index in enumerate(self._ring)}
        self._holders: dict[int, tuple[int, ...]] = {}

    def holders(self, index: int) -> tuple[int, ...]:
        """The neighbours."""
        if index not in self._holders:
            place, half = self._place[index], self.degree // 2
            steps = (*range(-half, 0), *range(1, half + 1))
            self._holders[index] = tuple(
                sorted(self._ring[(place + step) % self.size] for step in steps)
            )
        return self._holders[index]

    def neighbours(self, index: int) -> tuple[int, ...]:
        """The same: nobody holds a share of its own."""
        return self.holders(index)

    def check_present(self, indices: Collection[int]) -> None:
        """No more may be missing from any degree / 2 places in a row than chance would give.

        Raises:
            ThresholdError: more are.
        """
        half = self.degree // 2
        missing = np.ones(self.size + half, dtype=np.int64)
        missing[[self._place[index] for index in indices]] = 0
        missing[self.size :] = missing[:half]
        sums = np.concatenate([[0], np.cumsum(missing)])
        most = int((sums[half:] - sums[:-half]).max())
        if most > self._spare:
            raise ThresholdError(
                f"{most} of {half} clients in a row are missing: expected at most {self._spare}"
            )


@lru_cache(maxsize=8)  # simulated clients of one process share the session's graph
def session_graph(sid: bytes, size: int) -> Graph:
    """The graph of a session; `sid` binds every key record, and through it the order."""
    return Complete(size) if size <= MAX_COMPLETE else Ring(sid, size)


def _shuffled(label: str, sid: bytes, size: int) -> tuple[int, ...]:
    """Indices in the order of the cipher stream's 16-byte blocks, keyed by the session's name."""
    blocks = CipherStream(digest(label, sid)).read(_SORT_BYTES * size)
    return tuple(sorted(range(size), key=lambda i: blocks[_SORT_BYTES * i : _SORT_BYTES * (i + 1)]))


def complete_threshold(num_participants: int) -> int:
    """Shares needed to reveal a secret on the complete graph: floor(2N/3) + 1.

    With under N/3 corrupt clients no two lists of survivors can both gather this many signatures,
    and with under N/3 dropped the survivors always suffice (Bonawitz et al. 2017, section 6.2).
    """
    return 2 * num_participants // 3 + 1


def default_floor(clients: int, sampling_probability: float = 1.0) -> int:
    """Fewest survivors where nobody said: what the protocol needs of the cohort anyway.

    A sampled cohort varies in size; half of its expected size is taken as its smallest.
    """
    if sampling_probability == 1.0:
        return max(complete_threshold(clients), 3)
    return max(complete_threshold(int(clients * sampling_probability / 2)), 3)
