"""A client's side of one session: five steps, each once, in order.

Every step either answers or raises; after an error the session is over, its secrets are gone and
every later step is refused. Between steps a session can be put aside (`state`).
"""

import hmac
import os
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar, cast

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lepton_flwr.crypto.digest import DIGEST_BYTES, field
from lepton_flwr.errors import PrivacyError
from lepton_flwr.secagg import keys, shamir
from lepton_flwr.secagg.attestation import CommitteeWitness, Lists, NeighbourWitness, Witness
from lepton_flwr.secagg.errors import (
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
from lepton_flwr.secagg.floors import ClientFloors
from lepton_flwr.secagg.masking import add_streams
from lepton_flwr.secagg.messages import (
    NONCE_BYTES,
    Attestation,
    Fields,
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
from lepton_flwr.secagg.roles import Members, Signer
from lepton_flwr.secagg.state import Secrets, SessionState, Stage
from lepton_flwr.secagg.transcript import (
    from_bitmap,
    keys_digest,
    participants_digest,
    session_id,
    tag,
    to_bitmap,
)

GCM_NONCE_BYTES = 12

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
            state = self.state
            stage, state.stage = state.stage, Stage.CLOSED
            try:
                if stage is not before:
                    raise OrderError(f"{method.__name__} after {stage}: expected after {before}")
                answer = method(self, *args, **kwargs)
            except BaseException:
                state.close()
                raise
            state.stage = after
            if after is Stage.CLOSED:
                state.close()
            return answer

        return cast(Callable[Concatenate["ClientSession", P], R], run)

    return decorate


class ClientSession:
    """One client in one session; make it with `open` or `from_fields`.

    Guarantee: whatever the server and up to a third of the clients do, on a sparse graph up to a
    tenth of them, all honest clients that reveal anything hold the same lists of participants and
    survivors. For each other participant a client gives out at most one of (share of its seed,
    share of its mask key), and nothing that depends on its vector but one masked copy of it. What
    follows from that for the server is proved in docs/secure-aggregation.md.

    Args:
        state: what the session knows.
        signer: this client's long-term key.
        members: this client's roster.
        floors: this device's own.
        random: source of keys, seeds and nonces; only tests inject one.
    """

    def __init__(
        self,
        state: SessionState,
        signer: Signer,
        members: Members,
        floors: ClientFloors,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.state = state
        self._signer = signer
        self._members = members
        self._floors = floors
        self._random = random

    @property
    def config(self) -> SessionConfig:
        """What the session is."""
        return self.state.request.config

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
        secrets = Secrets(mask_secret=random(keys.KEY_BYTES), share_secret=random(keys.KEY_BYTES))
        mask_public = keys.public_key(secrets.mask_secret)
        share_public = keys.public_key(secrets.share_secret)
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
        state = SessionState(request, record.digest(), secrets=secrets)
        return cls(state, signer, members, floors, random), record

    @_step(Stage.KEYS, Stage.SHARES)
    def share(self, roster: KeyRoster) -> ShareBundle:
        """E1: check who takes part and the neighbours' keys, then share this session's secrets.

        Raises:
            ThresholdError: fewer participants than the floor, or more than were announced.
            FloorError: too few participants for this device's own floors, or too many.
            KeyRecordError: a member is listed twice or out of order; a neighbour's record is not
                the listed one, not signed by the listed member of the roster, or has another's
                keys; this client's own is missing or altered.
            MessageError: not one record for each neighbour.
        """
        state = self.state
        members, digests = _split(roster.members), _split(roster.digests)
        state.count = count = len(members)
        if not self.config.floor(count) <= count <= self.config.layout.num_clients:
            raise ThresholdError(
                f"{count} key records: expected {self.config.floor(count)} to "
                f"{self.config.layout.num_clients}"
            )
        # So each member is there once, in all and not only among the neighbours.
        if any(map(bytes.__ge__, members, members[1:])):
            raise KeyRecordError("key records: expected each member once, by public key")
        if (self._signer.public_key, state.record) not in zip(members, digests, strict=True):
            raise KeyRecordError("this client's own key record is missing or altered")
        state.index = members.index(self._signer.public_key)
        content_hash = state.request.content_hash
        state.sid = session_id(self.config, content_hash, roster.members, roster.digests)
        self._floors.check_graph(state.graph)
        near = state.graph.neighbours(state.index)
        if len(roster.records) != len(near):
            raise MessageError(
                f"{len(roster.records)} key records: expected {len(near)}, one of each neighbour"
            )
        neighbours = dict(zip(near, roster.records, strict=True))
        for i, record in neighbours.items():
            self._check_record(record, members[i], digests[i])
        for name in ("share_public", "mask_public"):
            if len({getattr(record, name) for record in roster.records}) != len(near):
                raise KeyRecordError(f"two records hold the same {name.replace('_', ' ')} key")
        state.committee = {i: members[i] for i in state.graph.committee}
        state.mask_publics = {i: record.mask_public for i, record in neighbours.items()}
        return self._deal({i: record.share_public for i, record in neighbours.items()})

    def _check_record(self, record: KeyRecord, member: bytes, digest: bytes) -> None:
        if record.digest() != digest:
            raise KeyRecordError("key record of a neighbour: expected the one that all were told")
        signed = keys_digest(
            self.config,
            self.state.request.content_hash,
            record.mask_public,
            record.share_public,
            record.nonce,
        )
        try:
            signer = self._members.verify(record.credential, signed, record.signature)
        except PrivacyError as error:
            raise KeyRecordError(f"key record refused: {error}") from None
        if signer != member:
            raise KeyRecordError("key record of another member than the listed one")

    def _deal(self, share_publics: Mapping[int, bytes]) -> ShareBundle:
        state, secrets = self.state, self.state.secrets
        holders, threshold = state.graph.holders(state.index), state.graph.threshold
        points = range(1, len(holders) + 1)
        secrets.self_seed = self._random(shamir.SECRET_BYTES)
        seed_shares = shamir.split(secrets.self_seed, threshold, points, self._random)
        key_shares = shamir.split(secrets.mask_secret, threshold, points, self._random)
        private = keys.private_key(secrets.share_secret)
        ciphertexts = []
        for holder, *pair in zip(holders, seed_shares, key_shares, strict=True):
            if holder == state.index:
                secrets.held[holder] = (pair[0], pair[1])
                continue
            channel = keys.channel(private, share_publics[holder], state.sid, state.index, holder)
            # The key serves this one message; a random nonce costs nothing beside it.
            nonce = self._random(GCM_NONCE_BYTES)
            plain, associated = b"".join(pair), self._associated(state.index, holder)
            sealed = AESGCM(channel.seal).encrypt(nonce, plain, associated)
            ciphertexts.append(nonce + sealed)
            secrets.channels[holder] = keys.Channel(b"", channel.open, channel.vouch, channel.check)
        secrets.share_secret = b""
        return ShareBundle(tuple(ciphertexts))

    def _associated(self, sender: int, receiver: int) -> bytes:
        return self.state.sid + field(sender) + field(receiver)

    @_step(Stage.SHARES, Stage.STARTED)
    def start(self, request: WorkRequest, content_hash: bytes) -> Participation:
        """E2, before the work: check who is left and that the content is the bound one.

        Returns:
            What goes out beside the masked vector.

        Raises:
            ModelMismatchError: the content is not what the session was opened for.
            SurvivorError: the participants are no subset, or lack this client.
            ThresholdError: fewer of them than the floor, or of its neighbours than the threshold.
            MessageError: not one share of each neighbour that takes part.
            ShareError: a share cannot be opened.
        """
        state = self.state
        if content_hash != state.request.content_hash:
            raise ModelMismatchError(
                "the model or its settings are not those that this session was opened for"
            )
        participants = self._subset(request.participants, frozenset(range(state.count)))
        others = state.neighbours_among(participants)
        if len(request.ciphertexts) != len(others):
            raise MessageError(
                f"{len(request.ciphertexts)} shares: expected {len(others)}, one of each neighbour"
            )
        for other, sealed in zip(others, request.ciphertexts, strict=True):
            state.secrets.held[other] = self._open(other, sealed)
        state.participants = participants
        told, channels = self._participants_digest(), state.secrets.channels
        return Participation(tuple(tag(channels[other].vouch, told) for other in others))

    def _subset(self, bitmap: bytes, of: frozenset[int]) -> tuple[int, ...]:
        state = self.state
        indices = from_bitmap(bitmap, state.count)
        if indices is None or not indices <= of:
            raise SurvivorError("survivors: expected a subset of the clients that took part before")
        if state.index not in indices:
            raise SurvivorError("survivors: this client answered and is not in the list")
        floor = self.config.floor(state.count)
        if len(indices) < floor:
            raise ThresholdError(f"{len(indices)} survivors: expected at least {floor}")
        near = len(state.holders_among(indices))
        if near < state.graph.threshold:
            raise ThresholdError(
                f"{near} survivors among this client's neighbours: expected at least "
                f"{state.graph.threshold}"
            )
        state.graph.check_present(indices)
        return tuple(sorted(indices))

    def _open(self, sender: int, sealed: bytes) -> tuple[bytes, bytes]:
        nonce, body = sealed[:GCM_NONCE_BYTES], sealed[GCM_NONCE_BYTES:]
        associated = self._associated(sender, self.state.index)
        try:
            key = self.state.secrets.channels[sender].open
            plain = AESGCM(key).decrypt(nonce, body, associated)
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
        state, secrets = self.state, self.state.secrets
        expected = (self.config.layout.dimension,)
        if vector.dtype != np.uint32 or vector.shape != expected:
            raise VectorError(f"vector of {vector.dtype}{vector.shape}: expected uint32{expected}")
        masks = [(keys.self_key(secrets.self_seed, state.sid, state.index), 1)]
        private = keys.private_key(secrets.mask_secret)
        for other in state.neighbours_among(state.participants):
            public = state.mask_publics[other]
            key = keys.pair_key(private, public, state.sid, state.index, other)
            masks.append((key, 1 if other > state.index else -1))
        vector = np.ascontiguousarray(vector)
        add_streams(vector, masks, self.config.cipher)
        # Only their shares are needed from here on, and those are with the others.
        secrets.mask_secret = secrets.self_seed = b""
        return vector

    @_step(Stage.MASKED, Stage.ATTESTED)
    def attest(self, request: SurvivorRequest) -> Attestation:
        """E3: vouch for the list of survivors, once.

        Raises:
            SurvivorError: it is no subset of those who started, or lacks this client; or a
                neighbour on it was told other participants.
            ThresholdError: fewer of them than the floor, or of its neighbours than the threshold.
            MessageError: not one tag of each surviving neighbour.
        """
        state = self.state
        state.survivors = self._subset(request.survivors, frozenset(state.participants))
        near = state.neighbours_among(state.survivors)
        if len(request.tags) != len(near):
            raise MessageError(f"{len(request.tags)} tags: expected {len(near)}")
        told = self._participants_digest()
        for other, word in zip(near, request.tags, strict=True):
            if not hmac.compare_digest(word, tag(state.secrets.channels[other].check, told)):
                raise SurvivorError(
                    "survivors: one did not vouch for the participants that this client was told"
                )
        return self._witness().attest()

    def _participants_digest(self) -> bytes:
        state = self.state
        return participants_digest(state.sid, to_bitmap(state.participants, state.count))

    def _witness(self) -> Witness:
        state = self.state
        graph = state.graph
        lists = Lists(state.sid, graph, frozenset(state.participants), frozenset(state.survivors))
        if graph.committee:
            return CommitteeWitness(
                lists, state.committee, state.index, self._signer, self._members
            )
        return NeighbourWitness(lists, state.index, state.secrets.channels)

    @_step(Stage.ATTESTED, Stage.CLOSED)
    def reveal(self, request: RevealRequest) -> Reveal:
        """E4: when enough vouched for the same lists, give out one share of each participant.

        Of the participants whose shares this client holds.

        Raises:
            AttestationError: see `Witness.check`.
        """
        self._witness().check(request)
        state = self.state
        survivors = set(state.survivors)
        return Reveal(
            tuple(
                state.secrets.held[i][0 if i in survivors else 1]
                for i in state.holders_among(state.participants)
            )
        )

    def close(self) -> None:
        """End the session and drop its secrets; safe to call again."""
        self.state.close()

    def to_fields(self) -> Fields:
        """The session between two steps, secrets included: keep it on this device alone."""
        return self.state.to_fields()

    @classmethod
    def from_fields(
        cls, fields: Mapping[str, object], signer: Signer, members: Members, floors: ClientFloors
    ) -> "ClientSession":
        """Continue a session that `to_fields` put aside.

        Raises:
            MessageError: the fields are not a session's.
        """
        return cls(SessionState.from_fields(fields), signer, members, floors)


def _split(column: bytes) -> list[bytes]:
    """A column of keys or digests, 32 bytes each."""
    return [column[at : at + DIGEST_BYTES] for at in range(0, len(column), DIGEST_BYTES)]
