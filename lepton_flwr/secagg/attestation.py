"""Who vouches for the lists before anything is revealed: the neighbours, or a committee.

On the complete graph each client gives every other one a tag on the list of survivors, and two
thirds of all must agree. On a ring neighbours see their own part of it only, so a committee that
follows from the session's name signs for all: honest members sign once, and no two different pairs
of lists can both have a quorum. Each way has a client's side and a server's.
"""

import hmac
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from lepton_flwr.errors import PrivacyError
from lepton_flwr.secagg.errors import AttestationError, MessageError, ThresholdError
from lepton_flwr.secagg.graph import Graph
from lepton_flwr.secagg.keys import Channel
from lepton_flwr.secagg.messages import SIGNATURE_BYTES, Attestation, RevealRequest
from lepton_flwr.secagg.roles import Members, Signer
from lepton_flwr.secagg.transcript import TAG_BYTES, lists_digest, survivors_digest, tag, to_bitmap


@dataclass(frozen=True)
class Lists:
    """What is attested.

    Attributes:
        sid: the session's name.
        graph: of the session.
        participants: indices of those that shared their secrets (U1).
        survivors: indices of those whose vectors came (U2).
    """

    sid: bytes
    graph: Graph
    participants: Collection[int]
    survivors: Collection[int]

    def survivors_digest(self) -> bytes:
        """What neighbours vouch for."""
        return survivors_digest(self.sid, to_bitmap(self.survivors, self.graph.size))

    def digest(self) -> bytes:
        """What the committee signs."""
        size = self.graph.size
        bitmaps = (to_bitmap(self.participants, size), to_bitmap(self.survivors, size))
        return lists_digest(self.sid, *bitmaps)

    def near(self, index: int) -> list[int]:
        """Surviving neighbours of a client, in index order."""
        return [i for i in self.graph.neighbours(index) if i in self.survivors]


class Witness(ABC):
    """A client's side."""

    @abstractmethod
    def attest(self) -> Attestation:
        """E3: vouch for the lists."""

    @abstractmethod
    def check(self, request: RevealRequest) -> None:
        """E4: whether enough others vouched for exactly these lists.

        Raises:
            AttestationError: a sender is not one of them or is there twice, or too few vouched.
        """


class Collector(ABC):
    """The server's side; clients are named by their index."""

    @abstractmethod
    def receive(self, index: int, attestation: Attestation) -> None:
        """E3: take one survivor's.

        Raises:
            MessageError: it does not hold what this client had to send.
            AttestationError: it is not the client's.
        """

    @abstractmethod
    def requests(self, indices: Iterable[int]) -> dict[int, RevealRequest]:
        """E4: what each client is shown.

        Raises:
            ThresholdError: too few vouched.
        """


class NeighbourWitness(Witness):
    """Tags to and from the neighbours; a tag that does not fit does not count.

    Guarantee (Bonawitz et al. 2017, section 6.2): under a third of the clients corrupt, no two
    lists of survivors can both pass.

    Args:
        lists: what is attested.
        index: this client.
        channels: its keys with the others.
    """

    def __init__(self, lists: Lists, index: int, channels: Mapping[int, Channel]) -> None:
        self._near = lists.near(index)
        self._needed = lists.graph.threshold - 1  # and this client itself
        self._digest = lists.survivors_digest()
        self._channels = channels

    def attest(self) -> Attestation:
        """A tag to each surviving neighbour."""
        return Attestation(b"".join(tag(self._channels[i].vouch, self._digest) for i in self._near))

    def check(self, request: RevealRequest) -> None:
        """The threshold of valid tags, with this client's own word."""
        _check_senders(request, self._near)
        valid = sum(
            hmac.compare_digest(proof, tag(self._channels[sender].check, self._digest))
            for sender, proof in zip(request.senders, request.proofs, strict=True)
        )
        if valid < self._needed:
            raise AttestationError(
                f"{valid} tags on the list that this client vouched for: expected at least "
                f"{self._needed}"
            )


class NeighbourCollector(Collector):
    """Passes tags on, which only their receivers can check."""

    def __init__(self, lists: Lists) -> None:
        self._lists = lists
        # By client, then by the neighbour that its tag is for.
        self._tags: dict[int, dict[int, bytes]] = {}

    def receive(self, index: int, attestation: Attestation) -> None:
        """One tag for each surviving neighbour."""
        near = self._lists.near(index)
        _check_size(attestation, len(near) * TAG_BYTES)
        tags = (
            attestation.proof[at : at + TAG_BYTES]
            for at in range(0, len(near) * TAG_BYTES, TAG_BYTES)
        )
        self._tags[index] = dict(zip(near, tags, strict=True))

    def requests(self, indices: Iterable[int]) -> dict[int, RevealRequest]:
        """The tags for each client."""
        requests = {}
        for index in indices:
            senders = tuple(i for i in self._lists.near(index) if i in self._tags)
            tags = tuple(self._tags[i][index] for i in senders)
            requests[index] = RevealRequest(senders, tags)
        return requests


class CommitteeWitness(Witness):
    """Signatures of the committee.

    Guarantee: of all clients of a session that accept, all hold the same two lists, if
    2 * quorum > members + corrupt members (see `degree`).

    Args:
        lists: what is attested.
        committee: its members' long-term public keys, by index.
        index: this client.
        signer: its long-term key.
        members: its roster.
    """

    def __init__(
        self,
        lists: Lists,
        committee: Mapping[int, bytes],
        index: int,
        signer: Signer,
        members: Members,
    ) -> None:
        self._digest = lists.digest()
        self._quorum = lists.graph.quorum
        self._committee = committee
        self._index = index
        self._signer = signer
        self._members = members

    def attest(self) -> Attestation:
        """A signature, if this client is a member."""
        if self._index not in self._committee:
            return Attestation(b"")
        return Attestation(self._signer.sign(self._digest))

    def check(self, request: RevealRequest) -> None:
        """The quorum of signatures, each of another member, on this client's own lists."""
        _check_senders(request, self._committee)
        count = len(request.senders)
        if not self._quorum <= count == len(request.credentials):
            raise AttestationError(
                f"{count} signatures of the committee: expected at least {self._quorum}, each with "
                "its credential"
            )
        for sender, proof, credential in zip(
            request.senders, request.proofs, request.credentials, strict=True
        ):
            _verify(self._members, credential, self._digest, proof, self._committee[sender])


class CommitteeCollector(Collector):
    """Collects signatures, and shows everybody as many as needed.

    Args:
        lists: what is attested.
        committee: its members' long-term public keys, by index.
        credentials: their credentials.
        members: the roster.
    """

    def __init__(
        self,
        lists: Lists,
        committee: Mapping[int, bytes],
        credentials: Mapping[int, bytes],
        members: Members,
    ) -> None:
        self._digest = lists.digest()
        self._quorum = lists.graph.quorum
        self._committee = committee
        self._credentials = credentials
        self._members = members
        self._signed: dict[int, bytes] = {}

    def receive(self, index: int, attestation: Attestation) -> None:
        """A member's signature; nothing of anybody else."""
        key = self._committee.get(index)
        _check_size(attestation, SIGNATURE_BYTES if key else 0)
        if key:
            credential = self._credentials[index]
            _verify(self._members, credential, self._digest, attestation.proof, key)
            self._signed[index] = attestation.proof

    def requests(self, indices: Iterable[int]) -> dict[int, RevealRequest]:
        """The quorum's signatures, the same for all."""
        senders = tuple(sorted(self._signed))[: self._quorum]
        if len(senders) < self._quorum:
            raise ThresholdError(
                f"{len(senders)} of {len(self._committee)} members of the committee signed the "
                f"lists: expected at least {self._quorum}"
            )
        proofs = tuple(self._signed[i] for i in senders)
        credentials = tuple(self._credentials[i] for i in senders)
        return dict.fromkeys(indices, RevealRequest(senders, proofs, credentials))


def _check_size(attestation: Attestation, expected: int) -> None:
    if len(attestation.proof) != expected:
        raise MessageError(f"attestation of {len(attestation.proof)} bytes: expected {expected}")


def _check_senders(request: RevealRequest, allowed: Collection[int]) -> None:
    senders = set(request.senders)
    if len(senders) != len(request.senders) or not senders <= set(allowed):
        raise AttestationError(
            "attestations: expected one of each sender, of those only that vouch to this client"
        )


def _verify(members: Members, credential: bytes, said: bytes, proof: bytes, key: bytes) -> None:
    try:
        signer = members.verify(credential, said, proof)
    except PrivacyError as error:
        raise AttestationError(f"signature of the committee refused: {error}") from None
    if signer != key:
        raise AttestationError("signature of the committee: expected that of the listed member")
