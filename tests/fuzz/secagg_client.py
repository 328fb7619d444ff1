"""Fuzz target: one message of a hostile server to a client of secure aggregation.

Input bytes choose an exchange, of a session on the complete graph or on a ring, and change its
honest message: fields dropped, added, retyped,
truncated, lengthened, repeated, bits flipped. The client must answer a message that is as good as
the honest one, or end in a named error with its secrets gone. `fuzz.py` beside this file runs it
under atheris, `tests/secagg/test_fuzz.py` without.
"""

import functools
from collections.abc import Callable

import numpy as np
from choices import Choices, ExhaustedError, require
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lepton_flwr.crypto.identity import Roster
from lepton_flwr.errors import LeptonError
from lepton_flwr.secagg.client import ClientSession
from lepton_flwr.secagg.degree import ring_parameters
from lepton_flwr.secagg.encoding import Kind, Layout, Segment
from lepton_flwr.secagg.floors import ClientFloors
from lepton_flwr.secagg.graph import Ring
from lepton_flwr.secagg.messages import (
    Fields,
    KeyRequest,
    KeyRoster,
    RevealRequest,
    SurvivorRequest,
    WorkRequest,
)
from lepton_flwr.secagg.parameters import SessionConfig
from lepton_flwr.secagg.server import ServerSession
from lepton_flwr.secagg.state import Stage
from lepton_flwr.secagg.transcript import from_bitmap

# On the complete graph, and the fewest on a ring.
CLIENTS = (5, 129)
CONTENT = bytes(range(32))
LAST_NUMBER, LAST_EXCHANGE = 6, 4
FLOORS = ClientFloors(min_survivors=3, max_dimension=10, max_number=1000)


class Device:
    """A signer whose credential is its public key."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self.certificate = self.public_key = self._key.public_key().public_bytes_raw()
        self.sign = self._key.sign


class Rehearsal:
    """An honest session, with the first client as it stood before each exchange."""

    def __init__(self, size: int) -> None:
        self.devices = [Device() for _ in range(size)]
        self.roster = Roster.of_keys([device.public_key for device in self.devices])
        layout = Layout((Segment("update", Kind.MEAN, 2, 1.0),), size)
        config = SessionConfig("7", 7, "train", layout, 3)
        self.floor = config.floor(size)
        server = ServerSession(config, CONTENT, self.roster)
        self.before: list[Fields] = [{}]
        self.honest: list[Fields] = [server.request_keys().to_fields()]
        clients = []
        for i in range(size):
            client, record = self.open(server.request_keys(), i)
            clients.append(client)
            server.receive_keys(i, record)
        rosters = server.close_keys()
        self.keep(clients[0], rosters[0])
        for i, client in enumerate(clients):
            server.receive_shares(i, client.share(rosters[i]))
        work = server.close_shares()
        self.keep(clients[0], work[0])
        for i, client in enumerate(clients):
            tags = client.start(work[i], CONTENT)
            server.receive_masked(i, client.mask(np.zeros(layout.dimension, np.uint32)), tags)
        survivors = server.close_masked()
        self.keep(clients[0], survivors[0])
        self.proofs: dict[int, bytes] = {}  # by sender, those to everybody
        for i, client in enumerate(clients):
            attestation = client.attest(survivors[i])
            server.receive_attestation(i, attestation)
            if client.state.committee and attestation.proof:
                self.proofs[client.state.index] = attestation.proof
        self.keep(clients[0], server.close_attestations()[0])
        self.graph = clients[0].state.graph
        self.near = self.graph.neighbours(clients[0].state.index)

    def open(self, request: KeyRequest, i: int = 0):
        return ClientSession.open(request, self.devices[i], self.roster, FLOORS, LAST_NUMBER)

    def keep(self, client: ClientSession, request) -> None:
        self.before.append(client.to_fields())
        self.honest.append(request.to_fields())

    def restore(self, exchange: int) -> ClientSession:
        return ClientSession.from_fields(
            self.before[exchange], self.devices[0], self.roster, FLOORS
        )

    def listed(self, client: ClientSession, bitmap: bytes) -> frozenset[int]:
        """The clients of a list that was accepted: as many and as spread as they have to be."""
        indices = from_bitmap(bitmap, self.graph.size) or frozenset()
        require(client.state.index in indices and len(indices) >= self.floor, "too few are left")
        if isinstance(self.graph, Ring):
            half, ring = self.graph.degree // 2, self.graph._ring
            for start in range(len(ring)):
                row = {ring[(start + step) % len(ring)] for step in range(half)}
                spare = ring_parameters(len(ring)).spare
                require(len(row - indices) <= spare, "a gap was accepted")
        return indices

    def among(self, column, indices) -> tuple:
        """What the honest message has of those neighbours that are on a list."""
        return tuple(
            item for other, item in zip(self.near, column, strict=True) if other in indices
        )


rehearsal = functools.cache(Rehearsal)


def scalar(source: Choices) -> object:
    kind = source.below(7)
    if kind == 0:
        return int.from_bytes(source.take(1 + source.below(9)), "big", signed=True)
    if kind == 1:
        return [0.0, -1.0, float("nan"), float("inf"), 1e308, 0.5][source.below(6)]
    if kind == 2:
        return source.take(source.below(40)).decode("latin-1")
    if kind == 3:
        return bytes(source.below(5000))
    if kind == 4:
        return source.take(source.below(100))
    return [None, True][source.below(2)] if kind == 5 else ""


def flipped(source: Choices, value: bytes) -> bytes:
    changed = bytearray(value)
    if changed:
        changed[source.below(len(changed))] ^= 1 << source.below(8)
    return bytes(changed)


def resized(source: Choices, value: bytes) -> bytes:
    return value[: source.below(len(value) + 1)] if source.below(2) else value + source.take(1)


def mutate(source: Choices, fields: dict[str, object]) -> None:
    name = sorted(fields)[source.below(len(fields))]
    value, action = fields[name], source.below(8)
    if action == 0:
        del fields[name]
    elif action == 1:
        fields[name + "x"] = scalar(source)
    elif action == 2:
        fields[name] = [scalar(source) for _ in range(source.below(6))]
    elif action == 3:
        fields[name] = scalar(source)
    elif isinstance(value, list) and value:
        column, at = list(value), source.below(len(value))
        item = column[at]
        if action == 4:
            column.insert(source.below(len(column)), item)
        elif action == 5:
            del column[at]
        elif action == 6:
            other = source.below(len(column))
            column[at], column[other] = column[other], item
        elif isinstance(item, bytes):
            column[at] = (flipped, resized)[source.below(2)](source, item)
        else:
            column[at] = scalar(source)
        fields[name] = column
    elif isinstance(value, bytes):
        fields[name] = (flipped, resized)[action % 2](source, value)
    else:
        fields[name] = scalar(source)


def run(data: bytes) -> str:
    """One input; returns what the client did: the error's name, or "answered"."""
    source, scenes = Choices(data), [rehearsal(size) for size in CLIENTS]
    try:
        # E0 is the same for every graph.
        exchange = source.below(9)
        scene = scenes[exchange > LAST_EXCHANGE]
        exchange -= LAST_EXCHANGE * (exchange > LAST_EXCHANGE)
        fields: dict[str, object] = dict(scene.honest[exchange])
        try:
            while fields:
                mutate(source, fields)
        except ExhaustedError:
            pass
        client = scene.restore(exchange) if exchange else None
    except ExhaustedError:
        return "empty"
    try:
        STEPS[exchange](scene, client, fields)
    except LeptonError as error:
        if client is not None and client.state.stage is not Stage.CLOSED:
            # Unreadable: the state machine has not seen it, and the adapter ends the session.
            client.close()
        if client is not None:
            left = client.to_fields()
            secrets = ("mask-secret", "share-secret", "self-seed", "channels", "held")
            require(not any(left[name] for name in secrets), "secrets after an error")
        return type(error).__name__
    return "answered"


def keys_step(scene: Rehearsal, _client: object, fields: Fields) -> None:
    request = KeyRequest.from_fields(fields)
    scene.open(request)
    config = request.config
    require(config.number > LAST_NUMBER, "a number was used again")
    require(config.min_survivors >= FLOORS.min_survivors, "the floor was lowered")
    require(config.layout.dimension <= FLOORS.max_dimension, "a vector was too long")


def shares_step(scene: Rehearsal, client: ClientSession, fields: Fields) -> None:
    roster = KeyRoster.from_fields(fields)
    client.share(roster)
    require(roster == KeyRoster.from_fields(scene.honest[1]), "another list of keys was accepted")


def work_step(scene: Rehearsal, client: ClientSession, fields: Fields) -> None:
    request, honest = WorkRequest.from_fields(fields), WorkRequest.from_fields(scene.honest[2])
    client.start(request, CONTENT)
    participants = scene.listed(client, request.participants)
    expected = scene.among(honest.ciphertexts, participants)
    require(request.ciphertexts == expected, "another share was accepted")


def attest_step(scene: Rehearsal, client: ClientSession, fields: Fields) -> None:
    request = SurvivorRequest.from_fields(fields)
    honest = SurvivorRequest.from_fields(scene.honest[3])
    client.attest(request)
    survivors = scene.listed(client, request.survivors)
    expected = scene.among(honest.tags, survivors)
    require(request.tags == expected, "another word on the participants was accepted")


def reveal_step(scene: Rehearsal, client: ClientSession, fields: Fields) -> None:
    request = RevealRequest.from_fields(fields)
    client.reveal(request)
    honest = RevealRequest.from_fields(scene.honest[4])
    true = scene.proofs or dict(zip(honest.senders, honest.proofs, strict=True))
    pairs = dict(zip(request.senders, request.proofs, strict=True))
    valid = sum(true.get(sender) == proof for sender, proof in pairs.items())
    require(valid >= (scene.graph.quorum or scene.graph.threshold - 1), "too few attested")


STEPS: list[Callable[..., None]] = [keys_step, shares_step, work_step, attest_step, reveal_step]
