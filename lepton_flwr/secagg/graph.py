"""Who holds whose shares and who masks with whom, and how many it takes to reveal.

Up to `MAX_COMPLETE` clients everybody is joined to everybody. Above, clients sit on a ring in an
order that nobody chose (it follows from the session's name) and are joined to the nearest on both
sides: a Harary graph, of the degree and threshold in `degree`.
"""

from functools import lru_cache

from lepton_flwr.crypto.digest import digest
from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.secagg.degree import degree_and_threshold

MAX_COMPLETE = 128
MAX_CLIENTS = 10_000
# Most holders of one client's shares, at any number of clients.
MAX_HOLDERS = 256
GRAPH_LABEL = "lepton/secagg/graph/v1"
_SORT_BYTES = 16


class Graph:
    """The graph of one session; clients are indices from 0 to size - 1.

    Args:
        sid: the session's name.
        size: number of clients with key records.

    Attributes:
        size: as given.
        threshold: shares needed to reveal a secret, and signatures needed to reveal any share.
        degree: neighbours of each client, itself not counted.
    """

    def __init__(self, sid: bytes, size: int) -> None:
        self.size = size
        if size <= MAX_COMPLETE:
            self.degree, self.threshold = size - 1, complete_threshold(size)
            self._ring = tuple(range(size))
        else:
            self.degree, self.threshold = degree_and_threshold(size)
            self._ring = _permutation(sid, size)
        self._place = {index: place for place, index in enumerate(self._ring)}
        self._holders: dict[int, tuple[int, ...]] = {}

    def holders(self, index: int) -> tuple[int, ...]:
        """Who holds shares of `index`, in index order; the n-th of them has the share of point n.

        On the complete graph everybody, itself included; else its neighbours. The relation is
        symmetric: these are also the ones whose shares `index` holds.
        """
        if self.size <= MAX_COMPLETE:
            return self._ring
        if index not in self._holders:
            place, half = self._place[index], self.degree // 2
            steps = (*range(-half, 0), *range(1, half + 1))
            self._holders[index] = tuple(
                sorted(self._ring[(place + step) % self.size] for step in steps)
            )
        return self._holders[index]

    def neighbours(self, index: int) -> tuple[int, ...]:
        """Who exchanges masks and shares with `index`, in index order."""
        return tuple(other for other in self.holders(index) if other != index)


@lru_cache(maxsize=8)  # simulated clients of one process share the session's graph
def session_graph(sid: bytes, size: int) -> Graph:
    """The graph of a session; `sid` binds every key record, and through it the order."""
    return Graph(sid, size)


def _permutation(sid: bytes, size: int) -> tuple[int, ...]:
    """Indices in the order of the cipher stream's 16-byte blocks, keyed by the session's name."""
    blocks = CipherStream(digest(GRAPH_LABEL, sid)).read(_SORT_BYTES * size)
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
