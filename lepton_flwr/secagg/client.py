"""A client's side of one session: five steps, each once, in order.

Every step either answers or raises; after an error the session is over, its secrets are gone and
every later step is refused. Secrets live between steps in `to_fields`, and nowhere after E4.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar, cast

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lepton_flwr.crypto.digest import DIGEST_BYTES, field
from lepton_flwr.crypto.identity import verify
from lepton_flwr.errors import PrivacyError
from lepton_flwr.secagg import keys, shamir
from lepton_flwr.secagg.errors import (
    AttestationError,
    KeyRecordError,
    MessageError,
    ModelMismatchError,
    OrderError,
    ReplayError,
    ShareError,
    SurvivorError,
    ThresholdError,
    VectorError,
)
from lepton_flwr.secagg.graph import MAX_CLIENTS, MAX_HOLDERS, Graph, session_graph
from lepton_flwr.secagg.masking import add_streams
from lepton_flwr.secagg.messages import (
    MAX_BITMAP_BYTES,
    NONCE_BYTES,
    Attestation,
    Fields,
    KeyRecord,
    KeyRequest,
    KeyRoster,
    Reader,
    Reveal,
    RevealRequest,
    ShareBundle,
    SurvivorRequest,
    WorkRequest,
)
from lepton_flwr.secagg.parameters import ClientFloors, SessionConfig
from lepton_flwr.secagg.roles import Members, Signer
from lepton_flwr.secagg.transcript import (
    attestation_digest,
    from_bitmap,
    keys_digest,
    session_id,
    to_bitmap,
)

GCM_NONCE_BYTES = 12


class Stage(StrEnum):
    """What the client has answered."""

    KEYS = "keys"
    SHARES = "shares"
    STARTED = "started"
    MASKED = "masked"
    ATTESTED = "attested"
    CLOSED = "closed"


@dataclass
class _Secrets:
    """What a session must forget."""

    mask_secret: bytes = b""
    share_secret: bytes = b""
    self_seed: bytes = b""
    # By participant whose shares this client holds: that of its seed and that of its mask key.
    held: tuple[tuple[bytes, bytes], ...] = ()


P = ParamSpec("P")
R = TypeVar("R")


def _step(
    before: Stage, after: Stage
) -> Callable[
    [Callable[Concatenate["ClientSession", P], R]], Callable[Concatenate["ClientSession", P], R]
]:
    """Allow a step once, at its place; an error ends the session."""

    def decorate(
        method: Callable[Concatenate["ClientSession", P], R],
    ) -> Callable[Concatenate["ClientSession", P], R]:
        @wraps(method)
        def run(self: "ClientSession", *args: P.args, **kwargs: P.kwargs) -> R:
            stage, self.stage = self.stage, Stage.CLOSED
            try:
                if stage is not before:
                    raise OrderError(f"{method.__name__} after {stage}: expected after {before}")
                answer = method(self, *args, **kwargs)
            except BaseException:
                self.close()
                raise
            self.stage = after
            if after is Stage.CLOSED:
                self.close()
            return answer

        return cast(Callable[Concatenate["ClientSession", P], R], run)

    return decorate


class ClientSession:
    """One client in one session; make it with `open` or `from_fields`.

    Guarantee: whatever the server and up to a third of the clients do, the client gives out for
    each other participant at most one of (share of its seed, share of its mask key), only after
    the threshold of participants signed the same survivors, and nothing that depends on its vector
    but one masked copy of it. On a sparse graph the threshold is one of neighbours, and up to a
    tenth of the clients may be corrupt; see `degree` for what that leaves.
    """

    def __init__(
        self,
        config: SessionConfig,
        content_hash: bytes,
        signer: Signer,
        members: Members,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.config = config
        self.content_hash = content_hash
        self.stage = Stage.KEYS
        self._signer = signer
        self._members = members
        self._random = random
        self._secrets = _Secrets()
        self._record = b""
        self._sid = b""
        self._index = -1
        self._count = 0
        # By index, of this client and its neighbours: long-term, share and mask public keys.
        self._publics: dict[int, tuple[bytes, bytes, bytes]] = {}
        self._participants: tuple[int, ...] = ()
        self._survivors: tuple[int, ...] = ()

    @classmethod
    def open(
        cls,
        request: KeyRequest,
        signer: Signer,
        members: Members,
        floors: ClientFloors,
        last_number: int,
        *,
        random: Callable[[int], bytes] = os.urandom,
    ) -> tuple["ClientSession", KeyRecord]:
        """E0: check the session against this device's floors and make keys for it.

        Args:
            request: the server's.
            signer: this client's long-term key.
            members: this client's roster.
            floors: this device's own.
            last_number: greatest session number seen in this run, 0 at first.
            random: source of keys, seeds and nonces; only tests inject one.

        Raises:
            ReplayError: the number is not greater than `last_number`.
            FloorError: the session is below the floors.
        """
        config = request.config
        if config.number <= last_number:
            raise ReplayError(
                f"session number {config.number}: expected more than {last_number}, seen before"
            )
        floors.check(config)
        session = cls(config, request.content_hash, signer, members, random)
        session._secrets = _Secrets(
            mask_secret=random(keys.KEY_BYTES), share_secret=random(keys.KEY_BYTES)
        )
        mask_public = keys.public_key(session._secrets.mask_secret)
        share_public = keys.public_key(session._secrets.share_secret)
        nonce = random(NONCE_BYTES)
        record = KeyRecord(
            credential=signer.certificate,
            share_public=share_public,
            mask_public=mask_public,
            nonce=nonce,
            signature=signer.sign(
                keys_digest(config, request.content_hash, mask_public, share_public, nonce)
            ),
        )
        session._record = record.digest()
        return session, record

    @_step(Stage.KEYS, Stage.SHARES)
    def share(self, roster: KeyRoster) -> ShareBundle:
        """E1: check everybody's keys, then share this session's secrets among them.

        Raises:
            ThresholdError: fewer participants than the floor, or more than were announced.
            KeyRecordError: a record is unsigned, not on the roster, duplicated or out of order;
                this client's own is missing or altered.
        """
        records = roster.records
        count = len(records)
        if not self.config.floor(count) <= count <= self.config.layout.num_clients:
            raise ThresholdError(
                f"{count} key records: expected {self.config.floor(count)} to "
                f"{self.config.layout.num_clients}"
            )
        publics = [self._check_record(record) for record in records]
        members = [public for public, _, _ in publics]
        if any(a >= b for a, b in itertools.pairwise(members)):
            raise KeyRecordError("key records: expected each member once, by public key")
        for column, name in ((1, "share"), (2, "mask")):
            if len({keys_of_one[column] for keys_of_one in publics}) != count:
                raise KeyRecordError(f"two records hold the same {name} key")
        digests = [record.digest() for record in records]
        if self._record not in digests:
            raise KeyRecordError("this client's own key record is missing or altered")
        self._index = digests.index(self._record)
        self._sid = session_id(self.config, self.content_hash, digests)
        self._count = count
        near = sorted({self._index, *self._graph.holders(self._index)})
        self._publics = {i: publics[i] for i in near}
        return self._deal()

    @property
    def _graph(self) -> Graph:
        return session_graph(self._sid, self._count)

    def _check_record(self, record: KeyRecord) -> tuple[bytes, bytes, bytes]:
        signed = keys_digest(
            self.config, self.content_hash, record.mask_public, record.share_public, record.nonce
        )
        try:
            member = self._members.verify(record.credential, signed, record.signature)
        except PrivacyError as error:
            raise KeyRecordError(f"key record refused: {error}") from None
        return member, record.share_public, record.mask_public

    def _deal(self) -> ShareBundle:
        holders = self._graph.holders(self._index)
        points, threshold = range(1, len(holders) + 1), self._graph.threshold
        self._secrets.self_seed = self._random(shamir.SECRET_BYTES)
        seed_shares = shamir.split(self._secrets.self_seed, threshold, points, self._random)
        key_shares = shamir.split(self._secrets.mask_secret, threshold, points, self._random)
        secret = keys.private_key(self._secrets.share_secret)
        ciphertexts = []
        for holder, *pair in zip(holders, seed_shares, key_shares, strict=True):
            if holder == self._index:
                self._secrets.held = ((pair[0], pair[1]),)
                continue
            public = self._publics[holder][1]
            key = keys.share_key(secret, public, self._sid, self._index, holder)
            # The key serves this one message; a random nonce costs nothing beside it.
            nonce = self._random(GCM_NONCE_BYTES)
            plain, associated = b"".join(pair), self._associated(self._index, holder)
            ciphertexts.append(nonce + AESGCM(key).encrypt(nonce, plain, associated))
        return ShareBundle(tuple(ciphertexts))

    def _associated(self, sender: int, receiver: int) -> bytes:
        return self._sid + field(sender) + field(receiver)

    @_step(Stage.SHARES, Stage.STARTED)
    def start(self, request: WorkRequest, content_hash: bytes) -> None:
        """E2, before the work: check who is left and that the content is the bound one.

        Raises:
            ModelMismatchError: the content is not what the session was opened for.
            SurvivorError: the participants are no subset, or lack this client.
            ThresholdError: fewer of them than the floor, or of its neighbours than the threshold.
            ShareError: a share cannot be opened.
        """
        if content_hash != self.content_hash:
            raise ModelMismatchError(
                "the model or its settings are not those that this session was opened for"
            )
        participants = self._subset(request.participants, frozenset(range(self._count)))
        holders = self._holders_among(participants)
        others = [i for i in holders if i != self._index]
        if len(request.ciphertexts) != len(others):
            raise MessageError(
                f"{len(request.ciphertexts)} shares: expected {len(others)}, one of each neighbour"
            )
        sealed = dict(zip(others, request.ciphertexts, strict=True))
        secret = keys.private_key(self._secrets.share_secret)
        own = self._secrets.held
        self._secrets.held = tuple(
            own[0] if i == self._index else self._open(secret, i, sealed[i]) for i in holders
        )
        self._participants = participants

    def _holders_among(self, indices: Iterable[int]) -> list[int]:
        """Those whose shares this client holds, and they its own."""
        among = set(indices)
        return [i for i in self._graph.holders(self._index) if i in among]

    def _subset(self, bitmap: bytes, of: frozenset[int]) -> tuple[int, ...]:
        indices = from_bitmap(bitmap, self._count)
        if indices is None or not indices <= of:
            raise SurvivorError("survivors: expected a subset of the clients that took part before")
        if self._index not in indices:
            raise SurvivorError("survivors: this client answered and is not in the list")
        floor = self.config.floor(self._count)
        if len(indices) < floor:
            raise ThresholdError(f"{len(indices)} survivors: expected at least {floor}")
        near = len(self._holders_among(indices))
        if near < self._graph.threshold:
            raise ThresholdError(
                f"{near} survivors among this client's neighbours: expected at least "
                f"{self._graph.threshold}"
            )
        return tuple(sorted(indices))

    def _open(self, secret: X25519PrivateKey, sender: int, sealed: bytes) -> tuple[bytes, bytes]:
        public = self._publics[sender][1]
        key = keys.share_key(secret, public, self._sid, sender, self._index)
        nonce, body = sealed[:GCM_NONCE_BYTES], sealed[GCM_NONCE_BYTES:]
        try:
            plain = AESGCM(key).decrypt(nonce, body, self._associated(sender, self._index))
        except InvalidTag:
            raise ShareError(
                "a share was altered, or belongs to another session or client"
            ) from None
        return plain[: shamir.SHARE_BYTES], plain[shamir.SHARE_BYTES :]

    @_step(Stage.STARTED, Stage.MASKED)
    def mask(self, vector: np.ndarray) -> np.ndarray:
        """E2, after the work: hide the encoded vector.

        Args:
            vector: uint32, shape (layout.dimension,); masked in place and returned.

        Raises:
            VectorError: wrong dtype or shape.
        """
        expected = (self.config.layout.dimension,)
        if vector.dtype != np.uint32 or vector.shape != expected:
            raise VectorError(f"vector of {vector.dtype}{vector.shape}: expected uint32{expected}")
        masks = [(keys.self_key(self._secrets.self_seed, self._sid, self._index), 1)]
        secret = keys.private_key(self._secrets.mask_secret)
        for other in self._holders_among(self._participants):
            if other != self._index:
                public = self._publics[other][2]
                key = keys.pair_key(secret, public, self._sid, self._index, other)
                masks.append((key, 1 if other > self._index else -1))
        vector = np.ascontiguousarray(vector)
        add_streams(vector, masks)
        # Only their shares are needed from here on, and those are with the others.
        self._secrets.mask_secret = self._secrets.share_secret = self._secrets.self_seed = b""
        return vector

    @_step(Stage.MASKED, Stage.ATTESTED)
    def attest(self, request: SurvivorRequest) -> Attestation:
        """E3: sign the list of survivors, once.

        Raises:
            SurvivorError: it is no subset of those who started, or lacks this client.
            ThresholdError: fewer of them than the floor, or of its neighbours than the threshold.
        """
        self._survivors = self._subset(request.survivors, frozenset(self._participants))
        return Attestation(self._signer.sign(self._attested()))

    def _attested(self) -> bytes:
        bitmap = to_bitmap(self._survivors, self._count)
        return attestation_digest(self._sid, bitmap)

    @_step(Stage.ATTESTED, Stage.CLOSED)
    def reveal(self, request: RevealRequest) -> Reveal:
        """E4: when enough survivors signed the same list, give out one share for each participant.

        On a sparse graph, enough of its neighbours, and for each of them.

        Raises:
            AttestationError: a signature is wrong or not a surviving holder's of this client's
                shares, or there are too few.
        """
        signers = set(request.signers)
        needed = self._graph.threshold
        allowed = set(self._holders_among(self._survivors))
        if len(signers) != len(request.signers) or not signers <= allowed:
            raise AttestationError(
                "signatures: expected one of each, of survivors among this client's neighbours only"
            )
        if len(signers) < needed:
            raise AttestationError(f"{len(signers)} signatures: expected at least {needed}")
        message = self._attested()
        for signer, signature in zip(request.signers, request.signatures, strict=True):
            try:
                verify(self._publics[signer][0], message, signature)
            except PrivacyError:
                raise AttestationError(
                    "a survivor's signature is not on the list that this client signed"
                ) from None
        survivors = set(self._survivors)
        return Reveal(
            tuple(
                seed_share if i in survivors else key_share
                for i, (seed_share, key_share) in zip(
                    self._holders_among(self._participants), self._secrets.held, strict=True
                )
            )
        )

    def close(self) -> None:
        """End the session and drop its secrets; safe to call again."""
        self.stage = Stage.CLOSED
        self._secrets = _Secrets()

    def to_fields(self) -> Fields:
        """The session between two steps, secrets included: keep it on this device alone."""
        secrets = self._secrets
        request = KeyRequest(self.config, self.content_hash).to_fields()
        return {
            **{f"request.{name}": value for name, value in request.items()},
            "stage": str(self.stage),
            "record": self._record,
            "sid": self._sid,
            "index": self._index,
            "count": self._count,
            "near": list(self._publics),
            "members": [member for member, _, _ in self._publics.values()],
            "share-publics": [share for _, share, _ in self._publics.values()],
            "mask-publics": [mask for _, _, mask in self._publics.values()],
            "participants": to_bitmap(self._participants, self._count),
            "survivors": to_bitmap(self._survivors, self._count),
            "mask-secret": secrets.mask_secret,
            "share-secret": secrets.share_secret,
            "self-seed": secrets.self_seed,
            "held": [seed_share + key_share for seed_share, key_share in secrets.held],
        }

    @classmethod
    def from_fields(
        cls, fields: Mapping[str, object], signer: Signer, members: Members
    ) -> "ClientSession":
        """Continue a session that `to_fields` put aside.

        Raises:
            MessageError: the fields are not a session's.
        """
        prefix = "request."
        request = KeyRequest.from_fields(
            {k.removeprefix(prefix): v for k, v in fields.items() if k.startswith(prefix)}
        )
        read = Reader({k: v for k, v in fields.items() if not k.startswith(prefix)})
        near = MAX_HOLDERS + 1
        session = cls(request.config, request.content_hash, signer, members)
        stage = read.one("stage", str)
        if stage not in set(Stage):
            raise MessageError(f"stage: expected one of {', '.join(Stage)}")
        session.stage = Stage(stage)
        session._record = read.one("record", bytes, DIGEST_BYTES)
        session._sid = read.one("sid", bytes, (0, DIGEST_BYTES))
        session._index = read.one("index", int)
        session._count = read.one("count", int)
        if not 0 <= session._count <= MAX_CLIENTS:
            raise MessageError(f"count: expected 0 to {MAX_CLIENTS}")
        publics = zip(
            read.many("members", bytes, near, keys.KEY_BYTES),
            read.many("share-publics", bytes, near, keys.KEY_BYTES),
            read.many("mask-publics", bytes, near, keys.KEY_BYTES),
            strict=True,
        )
        session._publics = dict(zip(read.many("near", int, near), publics, strict=True))
        session._participants = session._indices(read, "participants")
        session._survivors = session._indices(read, "survivors")
        size = shamir.SHARE_BYTES
        session._secrets = _Secrets(
            mask_secret=read.one("mask-secret", bytes, (0, keys.KEY_BYTES)),
            share_secret=read.one("share-secret", bytes, (0, keys.KEY_BYTES)),
            self_seed=read.one("self-seed", bytes, (0, keys.KEY_BYTES)),
            held=tuple(
                (pair[:size], pair[size:])
                for pair in read.many("held", bytes, MAX_HOLDERS, 2 * size)
            ),
        )
        read.end()
        return session

    def _indices(self, read: Reader, name: str) -> tuple[int, ...]:
        indices = from_bitmap(read.one(name, bytes, (0, MAX_BITMAP_BYTES)), self._count)
        if indices is None:
            raise MessageError(f"{name}: expected a bitmap of {self._count} clients")
        return tuple(sorted(indices))
