"""A client's session at rest: all that it knows between two exchanges, secrets included."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lepton_flwr.crypto.digest import DIGEST_BYTES
from lepton_flwr.secagg.errors import MessageError
from lepton_flwr.secagg.graph import MAX_CLIENTS, MAX_HOLDERS, Graph, session_graph
from lepton_flwr.secagg.keys import KEY_BYTES, Channel
from lepton_flwr.secagg.messages import MAX_BITMAP_BYTES, Fields, KeyRequest, Reader
from lepton_flwr.secagg.shamir import SHARE_BYTES
from lepton_flwr.secagg.transcript import from_bitmap, to_bitmap

_PREFIX = "request."
# Of a channel, what is needed after the shares went out.
_CHANNEL_BYTES = 3 * KEY_BYTES


class Stage(StrEnum):
    """What the client has answered."""

    KEYS = "keys"
    SHARES = "shares"
    STARTED = "started"
    MASKED = "masked"
    ATTESTED = "attested"
    CLOSED = "closed"


@dataclass
class Secrets:
    """What a session must forget.

    Attributes:
        mask_secret: X25519 key of the pairwise masks, until the vector is masked.
        share_secret: X25519 key of the channels, until they are made.
        self_seed: seed of the self mask, until the vector is masked.
        channels: by neighbour; the sealing key is used up and empty.
        held: by participant whose shares this client holds: that of its seed, that of its mask key.
    """

    mask_secret: bytes = b""
    share_secret: bytes = b""
    self_seed: bytes = b""
    channels: dict[int, Channel] = field(default_factory=dict)
    held: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)


@dataclass
class SessionState:
    """One client's session.

    Attributes:
        request: what the session is.
        record: digest of this client's key record.
        stage: the last exchange that it answered.
        sid: the session's name, from E1 on.
        index: this client's.
        count: number of clients with key records.
        mask_publics: X25519 keys of the neighbours' masks, by index.
        committee: long-term public keys of the committee's members, by index.
        participants: indices of those that shared their secrets, ascending.
        survivors: indices of those whose vectors came, ascending.
        secrets: see there.
    """

    request: KeyRequest
    record: bytes = b""
    stage: Stage = Stage.KEYS
    sid: bytes = b""
    index: int = -1
    count: int = 0
    mask_publics: dict[int, bytes] = field(default_factory=dict)
    committee: dict[int, bytes] = field(default_factory=dict)
    participants: tuple[int, ...] = ()
    survivors: tuple[int, ...] = ()
    secrets: Secrets = field(default_factory=Secrets)

    @property
    def graph(self) -> Graph:
        """Who holds whose shares."""
        return session_graph(self.sid, self.count)

    def holders_among(self, indices: Iterable[int]) -> list[int]:
        """Those whose shares this client holds, and they its own, in index order."""
        among = set(indices)
        return [i for i in self.graph.holders(self.index) if i in among]

    def neighbours_among(self, indices: Iterable[int]) -> list[int]:
        """Those of them that this client exchanges masks and tags with, in index order."""
        return [i for i in self.holders_among(indices) if i != self.index]

    def close(self) -> None:
        """End the session and drop its secrets; safe to call again."""
        self.stage = Stage.CLOSED
        self.secrets = Secrets()

    def to_fields(self) -> Fields:
        """Flat form: keep it on this device alone."""
        secrets = self.secrets
        request = self.request.to_fields()
        return {
            **{f"{_PREFIX}{name}": value for name, value in request.items()},
            "stage": str(self.stage),
            "record": self.record,
            "sid": self.sid,
            "index": self.index,
            "count": self.count,
            "near": list(self.mask_publics),
            "mask-publics": list(self.mask_publics.values()),
            "committee": list(self.committee),
            "committee-keys": list(self.committee.values()),
            "participants": to_bitmap(self.participants, self.count),
            "survivors": to_bitmap(self.survivors, self.count),
            "mask-secret": secrets.mask_secret,
            "share-secret": secrets.share_secret,
            "self-seed": secrets.self_seed,
            "joined": list(secrets.channels),
            "channels": [c.open + c.vouch + c.check for c in secrets.channels.values()],
            "holding": list(secrets.held),
            "held": [seed_share + key_share for seed_share, key_share in secrets.held.values()],
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> "SessionState":
        """Read and check the flat form.

        Raises:
            MessageError: the fields are not a session's.
        """
        request = KeyRequest.from_fields(
            {k.removeprefix(_PREFIX): v for k, v in fields.items() if k.startswith(_PREFIX)}
        )
        read = Reader({k: v for k, v in fields.items() if not k.startswith(_PREFIX)})
        stage = read.one("stage", str)
        if stage not in set(Stage):
            raise MessageError(f"stage: expected one of {', '.join(Stage)}")
        count = read.one("count", int)
        if not 0 <= count <= MAX_CLIENTS:
            raise MessageError(f"count: expected 0 to {MAX_CLIENTS}")
        state = cls(
            request=request,
            record=read.one("record", bytes, DIGEST_BYTES),
            stage=Stage(stage),
            sid=read.one("sid", bytes, (0, DIGEST_BYTES)),
            index=read.one("index", int),
            count=count,
            mask_publics=_by_index(read, "near", "mask-publics", KEY_BYTES),
            committee=_by_index(read, "committee", "committee-keys", KEY_BYTES),
            participants=_indices(read, "participants", count),
            survivors=_indices(read, "survivors", count),
            secrets=Secrets(
                mask_secret=read.one("mask-secret", bytes, (0, KEY_BYTES)),
                share_secret=read.one("share-secret", bytes, (0, KEY_BYTES)),
                self_seed=read.one("self-seed", bytes, (0, KEY_BYTES)),
                channels={
                    other: Channel(b"", *_parts(keys, KEY_BYTES))
                    for other, keys in _by_index(read, "joined", "channels", _CHANNEL_BYTES).items()
                },
                held={
                    other: (pair[:SHARE_BYTES], pair[SHARE_BYTES:])
                    for other, pair in _by_index(read, "holding", "held", 2 * SHARE_BYTES).items()
                },
            ),
        )
        read.end()
        return state


def _by_index(read: Reader, indices: str, values: str, size: int) -> dict[int, bytes]:
    names = read.many(indices, int, MAX_HOLDERS)
    column = read.many(values, bytes, MAX_HOLDERS, size)
    if not len(set(names)) == len(names) == len(column):
        raise MessageError(f"{indices}, {values}: expected one value for each index")
    return dict(zip(names, column, strict=True))


def _parts(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def _indices(read: Reader, name: str, count: int) -> tuple[int, ...]:
    indices = from_bitmap(read.one(name, bytes, (0, MAX_BITMAP_BYTES)), count)
    if indices is None:
        raise MessageError(f"{name}: expected a bitmap of {count} clients")
    return tuple(sorted(indices))
