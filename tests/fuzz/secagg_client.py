"""Fuzz target: one message of a hostile server to a client of secure aggregation.

Input bytes choose an exchange and change its honest message: fields dropped, added, retyped,
truncated, lengthened, repeated, bits flipped. The client must answer a message that is as good as
the honest one, or end in a named error with its secrets gone. `fuzz.py` beside this file runs it
under atheris, `tests/secagg/test_fuzz.py` without.
"""

import functools
from collections.abc import Callable

import numpy as np
from choices import Choices, ExhaustedError, require

from lepton_flwr.crypto.authority import Authority
from lepton_flwr.crypto.identity import Roster
from lepton_flwr.errors import LeptonError
from lepton_flwr.secagg.client import ClientSession
from lepton_flwr.secagg.encoding import Kind, Layout, Segment
from lepton_flwr.secagg.floors import ClientFloors
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

CLIENTS, THRESHOLD = 5, 4
CONTENT = bytes(range(32))
LAST_NUMBER = 6
FLOORS = ClientFloors(min_survivors=3, max_dimension=10, max_number=1000)


class Rehearsal:
    """An honest session of five, with the first client as it stood before each exchange."""

    def __init__(self) -> None:
        authority = Authority.create("fuzz")
        self.devices = [authority.issue(f"device-{i}") for i in range(CLIENTS)]
        self.roster = Roster.of_authority(authority.certificate_pem)
        layout = Layout((Segment("update", Kind.MEAN, 2, 1.0),), CLIENTS)
        config = SessionConfig("7", 7, "train", layout, 3)
        server = ServerSession(config, CONTENT, self.roster)
        self.before: list[Fields] = [{}]
        self.honest: list[Fields] = [server.request_keys().to_fields()]
        clients = []
        for i in range(CLIENTS):
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
            client.start(work[i], CONTENT)
            server.receive_masked(i, client.mask(np.zeros(layout.dimension, np.uint32)))
        survivors = server.close_masked()
        self.keep(clients[0], survivors)
        for i, client in enumerate(clients):
            server.receive_attestation(i, client.attest(survivors))
        self.keep(clients[0], server.close_attestations()[0])

    def open(self, request: KeyRequest, i: int = 0):
        return ClientSession.open(request, self.devices[i], self.roster, FLOORS, LAST_NUMBER)

    def keep(self, client: ClientSession, request) -> None:
        self.before.append(client.to_fields())
        self.honest.append(request.to_fields())

    def restore(self, exchange: int) -> ClientSession:
        return ClientSession.from_fields(
            self.before[exchange], self.devices[0], self.roster, FLOORS
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
    source, scene = Choices(data), rehearsal()
    try:
        exchange = source.below(5)
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
    participants = from_bitmap(request.participants, CLIENTS) or frozenset()
    index = client.state.index
    others = [i for i in range(CLIENTS) if i != index]
    sealed = dict(zip(others, honest.ciphertexts, strict=True))
    require(index in participants and len(participants) >= THRESHOLD, "too few took part")
    expected = tuple(sealed[i] for i in others if i in participants)
    require(request.ciphertexts == expected, "another share was accepted")


def attest_step(_scene: Rehearsal, client: ClientSession, fields: Fields) -> None:
    request = SurvivorRequest.from_fields(fields)
    client.attest(request)
    survivors = from_bitmap(request.survivors, CLIENTS) or frozenset()
    require(client.state.index in survivors and len(survivors) >= THRESHOLD, "too few survived")


def reveal_step(scene: Rehearsal, client: ClientSession, fields: Fields) -> None:
    request = RevealRequest.from_fields(fields)
    client.reveal(request)
    honest = RevealRequest.from_fields(scene.honest[4])
    tags = dict(zip(honest.senders, honest.tags, strict=True))
    pairs = zip(request.senders, request.tags, strict=True)
    valid = sum(tags.get(sender) == tag for sender, tag in pairs)
    require(valid >= THRESHOLD - 1, "too few attested")


STEPS: list[Callable[..., None]] = [keys_step, shares_step, work_step, attest_step, reveal_step]
