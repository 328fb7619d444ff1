"""A federation in memory: real state machines, no transport."""

import copy
import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np
import pytest

from lepton_flwr.crypto.authority import Authority
from lepton_flwr.crypto.identity import Identity, Roster
from lepton_flwr.secagg.client import ClientSession
from lepton_flwr.secagg.encoding import Kind, Layout, Segment
from lepton_flwr.secagg.floors import ClientFloors
from lepton_flwr.secagg.messages import KeyRecord, KeyRoster, SurvivorRequest, WorkRequest
from lepton_flwr.secagg.parameters import SessionConfig
from lepton_flwr.secagg.server import ServerSession
from lepton_flwr.secagg.transcript import to_bitmap

CONTENT = bytes(range(32))


@dataclass
class Federation:
    """N clients and a server, each exchange a method; a client not `alive` does not answer."""

    identities: list[Identity]
    roster: Roster
    config: SessionConfig
    vectors: list[np.ndarray]
    clients: dict[int, ClientSession] = field(default_factory=dict)
    # Everything that the server ever received, by exchange.
    seen: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = ServerSession(self.config, CONTENT, self.roster)

    def everyone(self) -> list[int]:
        return list(range(len(self.identities)))

    def keys(self, alive: Collection[int]) -> dict[int, KeyRoster]:
        for i in alive:
            self.clients[i], record = self.open(i)
            self.seen.append(record)
            self.server.receive_keys(i, record)
        return self.server.close_keys()

    def open(self, i: int, last_number: int = 0) -> tuple[ClientSession, KeyRecord]:
        request = self.server.request_keys()
        return ClientSession.open(
            request, self.identities[i], self.roster, ClientFloors(), last_number
        )

    def shares(
        self, rosters: dict[int, KeyRoster], alive: Collection[int]
    ) -> dict[int, WorkRequest]:
        for i in alive:
            bundle = self.clients[i].share(rosters[i])
            self.seen.append(bundle)
            self.server.receive_shares(i, bundle)
        return self.server.close_shares()

    def work(self, requests: dict, alive: Collection[int]) -> dict[int, SurvivorRequest]:
        for i in alive:
            participation = self.clients[i].start(requests[i], CONTENT)
            encoded = self.config.layout.encode({"update": self.vectors[i]}, 1)
            masked = self.clients[i].mask(encoded)
            self.seen += [masked.copy(), participation]
            self.server.receive_masked(i, masked, participation)
        return self.server.close_masked()

    def participants(
        self, requests: dict[int, WorkRequest], i: int, indices: Collection[int]
    ) -> WorkRequest:
        """What a server says that calls these participants, with their shares for client i."""
        near = self.server._graph.neighbours(self.server._index[i])
        sealed = dict(zip(near, requests[i].ciphertexts, strict=True))
        return WorkRequest(
            to_bitmap(indices, len(self.server._order)),
            tuple(sealed[j] for j in near if j in set(indices)),
        )

    def survivors(self, i: int, indices: Collection[int]) -> SurvivorRequest:
        """What a server says that calls these survivors, with the tags that it has for client i."""
        server = self.server
        near = [j for j in server._graph.neighbours(server._index[i]) if j in set(indices)]
        tags = (server._masked.get(server._order[j], {}).get(i) for j in near)
        return SurvivorRequest(
            to_bitmap(indices, len(server._order)), tuple(tag for tag in tags if tag)
        )

    def attest(self, requests: dict[int, SurvivorRequest], alive: Collection[int]) -> dict:
        for i in alive:
            attestation = self.clients[i].attest(requests[i])
            self.seen.append(attestation)
            self.server.receive_attestation(i, attestation)
        return self.server.close_attestations()

    def reveal(self, requests: dict, alive: Collection[int]) -> np.ndarray:
        for i in alive:
            reveal = self.clients[i].reveal(requests[i])
            self.seen.append(reveal)
            self.server.receive_reveal(i, reveal)
        return self.config.layout.lift(self.server.close_reveals())

    def run(self, dropped: dict[int, int] | None = None) -> np.ndarray:
        """The whole transcript; `dropped` maps a client to the exchange that it does not answer."""
        gone = dropped or {}
        alive = [[i for i in self.everyone() if gone.get(i, 9) > exchange] for exchange in range(5)]
        roster = self.keys(alive[0])
        requests = self.shares(roster, alive[1])
        survivors = self.work(requests, alive[2])
        signatures = self.attest(survivors, alive[3])
        return self.reveal(signatures, alive[4])

    def until_work(self) -> dict:
        return self.shares(self.keys(self.everyone()), self.everyone())

    def until_attest(self) -> dict[int, SurvivorRequest]:
        return self.work(self.until_work(), self.everyone())

    def until_reveal(self) -> dict:
        return self.attest(self.until_attest(), self.everyone())


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority.create("tests")


@pytest.fixture(scope="session")
def identities(authority: Authority) -> list[Identity]:
    return [authority.issue(f"device-{i}") for i in range(20)]


@pytest.fixture
def federation(authority: Authority, identities: list[Identity]) -> Callable[..., Federation]:
    def make(
        clients: int = 6,
        dimension: int = 50,
        bound: float = 1.0,
        min_survivors: int = 2,
        number: int = 1,
        run_id: str = "7",
    ) -> Federation:
        layout = Layout((Segment("update", Kind.MEAN, dimension, bound),), clients)
        rng = np.random.default_rng(clients)
        return Federation(
            identities[:clients],
            Roster.of_authority(authority.certificate_pem),
            SessionConfig(run_id, number, "train", layout, min_survivors),
            [rng.uniform(-bound, bound, dimension) for _ in range(clients)],
        )

    return make


SPARSE_CLIENTS = 150


class Remembered:
    """A roster that checks each record once for all simulated clients, as nothing changes it."""

    def __init__(self, roster: Roster) -> None:
        self.verify = functools.cache(roster.verify)


@pytest.fixture(scope="session")
def many(authority: Authority) -> tuple[list[Identity], Remembered]:
    devices = [authority.issue(f"device-{i}") for i in range(SPARSE_CLIENTS)]
    return devices, Remembered(Roster.of_authority(authority.certificate_pem))


def of_150(many: tuple[list[Identity], Remembered], min_survivors: int = 2) -> Federation:
    layout = Layout((Segment("update", Kind.MEAN, 3, 1.0),), SPARSE_CLIENTS)
    rng = np.random.default_rng(1)
    vectors = [rng.uniform(-1, 1, 3) for _ in range(SPARSE_CLIENTS)]
    config = SessionConfig("7", 1, "train", layout, min_survivors)
    return Federation(many[0], many[1], config, vectors)


@pytest.fixture
def sparse(many: tuple[list[Identity], Remembered]) -> Callable[..., Federation]:
    """150 clients, each joined to some of the others."""
    return functools.partial(of_150, many)


class Restored(dict):
    """Clients as they stood, each made when it is asked for."""

    def __init__(self, fields: dict[int, dict], fed: Federation) -> None:
        self._fields, self._fed = fields, fed

    def __missing__(self, i: int) -> ClientSession:
        self[i] = ClientSession.from_fields(
            self._fields[i], self._fed.identities[i], self._fed.roster, ClientFloors()
        )
        return self[i]


class Rehearsal:
    """One honest session of 150; `at` gives it as it stood before an exchange, E1 to E4."""

    def __init__(self, fed: Federation) -> None:
        self._fed = fed
        self._kept: dict[str, tuple] = {}
        everyone = fed.everyone()
        requests = fed.keys(everyone)
        for exchange, answer in (("E1", fed.shares), ("E2", fed.work), ("E3", fed.attest)):
            self._keep(exchange, requests)
            requests = answer(requests, everyone)
        self._keep("E4", requests)

    def _keep(self, exchange: str, requests: dict) -> None:
        fed = self._fed
        fields = {i: fed.clients[i].to_fields() for i in fed.everyone()}
        self._kept[exchange] = copy.deepcopy(fed.server), requests, fields, list(fed.seen)

    def at(self, exchange: str) -> tuple[Federation, dict]:
        """The federation and the requests of that exchange, for this test alone."""
        server, requests, fields, seen = self._kept[exchange]
        fed = copy.copy(self._fed)
        fed.server, fed.clients, fed.seen = copy.deepcopy(server), Restored(fields, fed), list(seen)
        return fed, dict(requests)


@pytest.fixture(scope="session")
def rehearsal(many: tuple[list[Identity], Remembered]) -> Rehearsal:
    return Rehearsal(of_150(many))
