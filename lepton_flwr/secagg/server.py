"""The server's side of one session: collects, forwards, and adds masked vectors as they come.

The server learns the sum over the survivors and their number. Its memory is a few vectors, however
many clients there are.
"""

import os
from collections.abc import Collection, Container, Iterable, Iterator

import numpy as np

from lepton_flwr.errors import PrivacyError
from lepton_flwr.secagg import keys, shamir
from lepton_flwr.secagg.attestation import (
    Collector,
    CommitteeCollector,
    Lists,
    NeighbourCollector,
)
from lepton_flwr.secagg.errors import (
    AttestationError,
    KeyRecordError,
    MessageError,
    OrderError,
    RevealError,
    ThresholdError,
    VectorError,
)
from lepton_flwr.secagg.graph import Complete, Graph, session_graph
from lepton_flwr.secagg.masking import add_streams
from lepton_flwr.secagg.messages import (
    Attestation,
    KeyRecord,
    KeyRequest,
    KeyRoster,
    Participation,
    Reveal,
    RevealRequest,
    ShareBundle,
    SurvivorRequest,
    WorkRequest,
)
from lepton_flwr.secagg.parameters import SessionConfig
from lepton_flwr.secagg.roles import Members
from lepton_flwr.secagg.transcript import (
    keys_digest,
    session_id,
    to_bitmap,
)


class ServerSession:
    """One session. For each exchange: `receive_*` one reply at a time, then `close_*` once.

    A client is named by whatever the transport names it by (`node`, an int). A bad reply raises and
    leaves the session as it was: the caller drops that client and goes on.

    Args:
        config: the session.
        content_hash: digest of what the clients will work on.
        members: the roster, as the clients have it: an impostor's record is left out here, where
            it would otherwise make every client give up the round.
    """

    def __init__(self, config: SessionConfig, content_hash: bytes, members: Members) -> None:
        self.config = config
        self.content_hash = content_hash
        self._members = members
        self._exchange = 0
        self._records: dict[int, tuple[bytes, KeyRecord]] = {}
        self._known: set[bytes] = set()
        self._order: list[int] = []
        self._index: dict[int, int] = {}
        self._sid = b""
        self._graph: Graph = Complete(0)
        self._bundles: dict[int, tuple[bytes, ...]] = {}
        self._started: dict[int, None] = {}
        # By client, then by the neighbour that its tag on the participants is for.
        self._masked: dict[int, dict[int, bytes]] = {}
        self._collector: Collector  # from the end of E2 on
        self._attested: set[int] = set()
        # By client, then by whose share it is.
        self._revealed: dict[int, dict[int, bytes]] = {}
        self._total = np.zeros(config.layout.dimension, dtype=np.uint32)

    @property
    def threshold(self) -> int:
        """Shares needed of a client's secret."""
        return self._graph.threshold

    def request_keys(self) -> KeyRequest:
        """E0."""
        return KeyRequest(self.config, self.content_hash)

    def receive_keys(self, node: int, record: KeyRecord) -> None:
        """E0: one client's record.

        Raises:
            KeyRecordError: not signed by a member, or a member's second.
        """
        self._expect(0, node, self._records)
        signed = keys_digest(
            self.config, self.content_hash, record.mask_public, record.share_public, record.nonce
        )
        try:
            member = self._members.verify(record.credential, signed, record.signature)
        except PrivacyError as error:
            raise KeyRecordError(f"key record refused: {error}") from None
        if member in self._known:
            raise KeyRecordError("key record of a member that has sent one")
        self._known.add(member)
        self._records[node] = (member, record)

    def close_keys(self) -> dict[int, KeyRoster]:
        """E1: for each client, who takes part and its neighbours' records.

        Raises:
            ThresholdError: too few for a session.
        """
        self._advance(0, len(self._records), len(self._records))
        self._order = sorted(self._records, key=lambda node: self._records[node][0])
        self._index = {node: index for index, node in enumerate(self._order)}
        members = b"".join(self._records[node][0] for node in self._order)
        records = [self._records[node][1] for node in self._order]
        digests = b"".join(record.digest() for record in records)
        self._sid = session_id(self.config, self.content_hash, members, digests)
        self._graph = session_graph(self._sid, len(records))
        return {
            node: KeyRoster(
                members, digests, tuple(records[i] for i in self._graph.neighbours(index))
            )
            for node, index in self._index.items()
        }

    def receive_shares(self, node: int, bundle: ShareBundle) -> None:
        """E1: one client's encrypted shares.

        Raises:
            MessageError: not one for each neighbour.
        """
        self._expect(1, node, self._bundles)
        if len(bundle.ciphertexts) != self._graph.degree:
            raise MessageError(f"{len(bundle.ciphertexts)} shares: expected {self._graph.degree}")
        self._bundles[node] = bundle.ciphertexts

    def close_shares(self) -> dict[int, WorkRequest]:
        """E2: for each client that shared, who is left and the shares for it.

        Raises:
            ThresholdError: too few, or too many missing in one place.
        """
        self._advance(1, len(self._bundles), len(self._order))
        self._started = {node: None for node in self._order if node in self._bundles}
        self._graph.check_present([self._index[node] for node in self._started])
        participants = self._bitmap(self._started)
        # A bundle has its receivers in index order; senders are taken in that order too.
        inbox: dict[int, list[bytes]] = {node: [] for node in self._order}
        for sender in self._started:
            receivers = self._graph.neighbours(self._index[sender])
            for index, sealed in zip(receivers, self._bundles.pop(sender), strict=True):
                inbox[self._order[index]].append(sealed)
        requests = {node: WorkRequest(participants, tuple(inbox[node])) for node in self._started}
        self._bundles = {}
        return requests

    def receive_masked(self, node: int, vector: np.ndarray, participation: Participation) -> None:
        """E2: one client's masked vector, uint32 (dimension,), added to the sum and not kept.

        Raises:
            VectorError: wrong dtype or shape.
            MessageError: not one tag for each neighbour that shared its secrets.
        """
        self._expect(2, node, self._masked)
        if node not in self._started:
            raise OrderError("a masked vector of a client that did not share its secrets")
        if vector.dtype != np.uint32 or vector.shape != self._total.shape:
            raise VectorError(
                f"vector of {vector.dtype}{vector.shape}: expected uint32{self._total.shape}"
            )
        others = list(self._neighbours(node, self._started))
        if len(participation.tags) != len(others):
            raise MessageError(f"{len(participation.tags)} tags: expected {len(others)}")
        np.add(self._total, vector, out=self._total)
        self._masked[node] = dict(zip(others, participation.tags, strict=True))

    def close_masked(self) -> dict[int, SurvivorRequest]:
        """E3: for each survivor, whose vectors are in the sum; one that comes later is refused.

        Raises:
            ThresholdError: too few, or too many missing in one place.
        """
        self._advance(2, len(self._masked), len(self._order))
        survivors = frozenset(self._index[node] for node in self._masked)
        self._graph.check_present(survivors)
        self._collector = self._collect(survivors)
        bitmap, requests = to_bitmap(survivors, len(self._order)), {}
        for node in self._masked:
            others = self._neighbours(node, self._masked)
            tags = tuple(self._masked[other][node] for other in others)
            requests[node] = SurvivorRequest(bitmap, tags)
        return requests

    def _collect(self, survivors: Collection[int]) -> Collector:
        started = frozenset(self._index[node] for node in self._started)
        lists = Lists(self._sid, self._graph, started, survivors)
        committee = {i: self._records[self._order[i]] for i in self._graph.committee}
        if not committee:
            return NeighbourCollector(lists)
        return CommitteeCollector(
            lists,
            {i: member for i, (member, _) in committee.items()},
            {i: record.credential for i, (_, record) in committee.items()},
            self._members,
        )

    def receive_attestation(self, node: int, attestation: Attestation) -> None:
        """E3: one survivor's word on the lists.

        Raises:
            AttestationError: it is not among the survivors, or has signed something else.
            MessageError: not what this client had to send.
        """
        self._expect(3, node, self._attested)
        if node not in self._masked:
            raise AttestationError("an attestation of a client that is not among the survivors")
        self._collector.receive(self._index[node], attestation)
        self._attested.add(node)

    def close_attestations(self) -> dict[int, RevealRequest]:
        """E4: for each client that attested, who vouched to it.

        Raises:
            ThresholdError: too few.
        """
        self._advance(3, len(self._attested), len(self._order), self.threshold)
        requests = self._collector.requests(self._index[node] for node in self._attested)
        return {self._order[index]: request for index, request in requests.items()}

    def receive_reveal(self, node: int, reveal: Reveal) -> None:
        """E4: one client's shares.

        Raises:
            MessageError: not one for each client that started and whose shares it holds.
        """
        self._expect(4, node, self._revealed)
        if node not in self._attested:
            raise OrderError("shares of a client that did not attest the lists")
        held = list(self._holders(node, self._started))
        if len(reveal.shares) != len(held):
            raise MessageError(f"{len(reveal.shares)} shares: expected {len(held)}")
        self._revealed[node] = dict(zip(held, reveal.shares, strict=True))

    def close_reveals(self) -> np.ndarray:
        """The sum of the survivors' vectors modulo 2^32: uint32, shape (dimension,).

        Raises:
            ThresholdError: too few revealed, in all or of one client's shares.
            RevealError: shares do not give the secret that belongs to a public key.
        """
        self._advance(4, len(self._revealed), len(self._order), self.threshold)
        masks = [mask for node in self._started for mask in self._masks(node)]
        add_streams(self._total, masks, self.config.cipher, os.cpu_count() or 1)
        return self._total

    def _masks(self, node: int) -> Iterator[tuple[bytes, int]]:
        """What the sum still holds because of one client, with the sign that removes it."""
        secret = shamir.combine(self._shares_of(node))
        index = self._index[node]
        if node in self._masked:
            yield keys.self_key(secret, self._sid, index), -1
            return
        if keys.public_key(secret) != self._records[node][1].mask_public:
            raise RevealError("a revealed mask key does not fit its public key")
        private = keys.private_key(secret)
        for survivor in self._holders(node, self._masked):
            other = self._index[survivor]
            public = self._records[survivor][1].mask_public
            key = keys.pair_key(private, public, self._sid, index, other)
            yield key, 1 if other > index else -1

    def _shares_of(self, node: int) -> dict[int, bytes]:
        """As many as needed of one client's shares, by point.

        The first ones: on the complete graph they have the same points for every client, and
        everywhere few gaps, which is what makes the coefficients cheap.
        """
        index = self._index[node]
        shares: dict[int, bytes] = {}
        for point, holder in enumerate(self._graph.holders(index), 1):
            revealed = self._revealed.get(self._order[holder])
            if revealed is not None:
                shares[point] = revealed[node]
                if len(shares) == self.threshold:
                    return shares
        raise ThresholdError(
            f"{len(shares)} of one client's neighbours revealed: expected at least {self.threshold}"
        )

    def _holders(self, node: int, among: Container[int]) -> Iterator[int]:
        """Who of `among` holds shares of a client, in index order."""
        for index in self._graph.holders(self._index[node]):
            if self._order[index] in among:
                yield self._order[index]

    def _neighbours(self, node: int, among: Container[int]) -> Iterator[int]:
        """Who of `among` exchanges masks and tags with a client, in index order."""
        return (other for other in self._holders(node, among) if other != node)

    @property
    def num_survivors(self) -> int:
        """Clients in the sum."""
        return len(self._masked)

    def _expect(self, exchange: int, node: int, seen: Container[int]) -> None:
        if self._exchange != exchange:
            raise OrderError(f"a reply to exchange {exchange} during exchange {self._exchange}")
        if exchange and node not in self._index:
            raise OrderError("a reply of a client that sent no keys")
        if node in seen:
            raise OrderError("a second reply of one client in one exchange")

    def _advance(self, exchange: int, count: int, cohort: int, floor: int | None = None) -> None:
        if self._exchange != exchange:
            raise OrderError(f"exchange {exchange} closed during exchange {self._exchange}")
        needed = self.config.floor(cohort) if floor is None else floor
        if count < needed:
            self._exchange = -1
            raise ThresholdError(
                f"{count} clients answered exchange E{exchange}: expected at least {needed}"
            )
        self._exchange += 1

    def _bitmap(self, nodes: Iterable[int]) -> bytes:
        return to_bitmap((self._index[node] for node in nodes), len(self._order))
