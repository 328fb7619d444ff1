"""What a secure sum costs: `python -m simulations.benchmarks.secagg [--quick]`.

Every client of a session runs for real, one after the other in this process. A few of them are
timed; the server is timed by playing all replies back to fresh sessions, once more with its memory
traced. Times are those of the processor, all threads together: other work on the machine does not
change them much. Beside it, the cipher, signatures and key agreements that a client cannot do
without, called alone, and the masking and unmasking of Flower's SecAgg+ by Flower's own functions.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import functools
import platform
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from rich.console import Console
from rich.table import Table

from lepton_flwr.crypto.authority import Authority
from lepton_flwr.crypto.certificates import parse_pem
from lepton_flwr.crypto.identity import Identity, Roster
from lepton_flwr.crypto.stream import CipherStream, StreamCipher
from lepton_flwr.secagg.client import ClientSession
from lepton_flwr.secagg.encoding import Kind, Layout, Segment
from lepton_flwr.secagg.floors import ClientFloors
from lepton_flwr.secagg.graph import session_graph
from lepton_flwr.secagg.masking import CHUNK
from lepton_flwr.secagg.messages import (
    Attestation,
    KeyRecord,
    Participation,
    Reveal,
    ShareBundle,
)
from lepton_flwr.secagg.parameters import SessionConfig
from lepton_flwr.secagg.plan import payload
from lepton_flwr.secagg.server import ServerSession
from lepton_flwr.secagg.transcript import keys_digest

CONTENT = bytes(32)
MEASURED = 3
REPEATS = 3
BOUND = 1.0


@dataclass(frozen=True)
class Setting:
    """One row: N clients, d coordinates, how many send no masked vector, the masks' cipher."""

    clients: int
    dimension: int
    dropped: int
    cipher: StreamCipher = StreamCipher.AES


SETTINGS = (
    Setting(100, 1_000_000, 10),
    Setting(1_000, 100_000, 100),
    Setting(50, 1_000_000, 5, StreamCipher.CHACHA20),
    Setting(50, 1_000_000, 5),
)
QUICK = (
    Setting(20, 100_000, 2),
    Setting(150, 10_000, 15),
    Setting(10, 100_000, 1, StreamCipher.CHACHA20),
    Setting(10, 100_000, 1),
)


@dataclass
class Result:
    """Medians over the measured clients and the repeats; seconds.

    Attributes:
        first: processor seconds of a client that meets every certificate for the first time.
        later: of one that has verified the others' certificates in an earlier round.
        mask: of which the masks take.
        primitives: what the calls into the cryptographic library alone take, of a later round.
        bytes_up: payload of one client.
        server: processor seconds of the server, from the first reply to the sum.
        unmask: of which after the last reply.
        wall: seconds of the server by the clock: it unmasks on all cores.
        vectors: peak memory of the server, in masked vectors, one that arrives included.
    """

    first: float
    later: float
    mask: float
    primitives: float
    bytes_up: float
    server: float
    unmask: float
    wall: float
    vectors: float


class Clock:
    """Processor seconds, added up."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what happens inside."""
        start = time.process_time()
        yield
        self.seconds += time.process_time() - start


class SharedRoster:
    """Checks each record once for all the clients that are not measured."""

    def __init__(self, roster: Roster) -> None:
        self.verify = functools.cache(roster.verify)


def measure(setting: Setting) -> Result:
    """Run one session with every client, then the server alone."""
    authority = Authority.create("benchmark")
    devices = [authority.issue(f"device-{i}") for i in range(setting.clients)]
    layout = Layout((Segment("update", Kind.MEAN, setting.dimension, BOUND),), setting.clients)
    config = SessionConfig("benchmark", 1, "train", layout, 2, cipher=setting.cipher)
    session = Session(config, devices, authority.certificate_pem, setting.dropped)
    clients = session.run()
    seconds = [session.replay() for _ in range(REPEATS)]
    return Result(
        first=median(clients[i][0] for i in range(MEASURED)),
        later=median(clients[i][0] for i in range(MEASURED, 2 * MEASURED)),
        mask=median(clients[i][1] for i in range(2 * MEASURED)),
        primitives=measure_primitives(setting, *session.partners()),
        bytes_up=median(session.bytes_up(i) for i in range(2 * MEASURED)),
        server=median(whole for whole, _, _ in seconds),
        unmask=median(last for _, last, _ in seconds),
        wall=median(wall for _, _, wall in seconds),
        vectors=session.peak_memory() / (4 * layout.dimension),
    )


class Session:
    """All replies of one session, and the means to play them back."""

    def __init__(
        self, config: SessionConfig, devices: Sequence[Identity], pem: bytes, dropped: int
    ) -> None:
        self.config = config
        self._devices = devices
        self._pem = pem
        self._shared = SharedRoster(_roster(pem))
        self._count = len(devices)
        self._left = range(self._count - dropped)
        self._records: list[KeyRecord] = []
        self._bundles: list[ShareBundle] = []
        self._participations: list[Participation] = []
        self._signed: list[Attestation] = []
        self._reveals: list[Reveal] = []

    def run(self) -> list[tuple[float, float]]:
        """Run it; returns each client's processor seconds, and of which those of the masks."""
        server = self._server()
        clocks = [Clock() for _ in range(self._count)]
        masks = [Clock() for _ in range(self._count)]
        sessions: list[ClientSession] = []
        for i, device in enumerate(self._devices):
            members = _roster(self._pem) if i < 2 * MEASURED else self._shared
            with clocks[i].running():
                session, record = ClientSession.open(
                    server.request_keys(), device, members, ClientFloors(), 0
                )
            sessions.append(session)
            self._records.append(record)
            server.receive_keys(i, record)
            if MEASURED <= i < 2 * MEASURED:
                session._members = _Warm(self._pem)
        rosters = server.close_keys()
        for i, session in enumerate(sessions):
            if isinstance(session._members, _Warm):
                session._members.warm(self.config, self._records)
            with clocks[i].running():
                self._bundles.append(session.share(rosters[i]))
            server.receive_shares(i, self._bundles[-1])
        update = np.random.default_rng(0).uniform(
            -BOUND, BOUND, self.config.layout.segments[0].size
        )
        total = np.zeros(self.config.layout.dimension, dtype=np.uint32)
        work = server.close_shares()
        for i in self._left:
            with clocks[i].running():
                self._participations.append(sessions[i].start(work[i], CONTENT))
                vector = self.config.layout.encode({"update": update}, 1)
            total += vector
            with clocks[i].running(), masks[i].running():
                vector = sessions[i].mask(vector)
            server.receive_masked(i, vector, self._participations[-1])
        survivors = server.close_masked()
        for i in self._left:
            with clocks[i].running():
                self._signed.append(sessions[i].attest(survivors[i]))
            server.receive_attestation(i, self._signed[-1])
        requests = server.close_attestations()
        for i in self._left:
            with clocks[i].running():
                self._reveals.append(sessions[i].reveal(requests[i]))
            server.receive_reveal(i, self._reveals[-1])
        if not np.array_equal(server.close_reveals(), total):
            raise RuntimeError("the session's sum is wrong: its times mean nothing")
        return [(clock.seconds, mask.seconds) for clock, mask in zip(clocks, masks, strict=True)]

    def replay(self) -> tuple[float, float, float]:
        """The server's processor seconds, in all and after the last reply; seconds of the clock."""
        vector = np.ones(self.config.layout.dimension, dtype=np.uint32)
        began, start = time.monotonic(), time.process_time()
        server = self._server()
        for i, record in enumerate(self._records):
            server.receive_keys(i, record)
        server.close_keys()
        for i, bundle in enumerate(self._bundles):
            server.receive_shares(i, bundle)
        server.close_shares()
        for i, participation in zip(self._left, self._participations, strict=True):
            server.receive_masked(i, vector, participation)
        server.close_masked()
        for i, signed in zip(self._left, self._signed, strict=True):
            server.receive_attestation(i, signed)
        server.close_attestations()
        for i, reveal in zip(self._left, self._reveals, strict=True):
            server.receive_reveal(i, reveal)
        last = time.process_time()
        server.close_reveals()
        end = time.process_time()
        return end - start, end - last, time.monotonic() - began

    def partners(self) -> tuple[int, int]:
        """Neighbours of a client, and members of the committee whose signatures it checks."""
        graph = session_graph(bytes(32), self._count)
        return len(graph.neighbours(0)), graph.quorum

    def peak_memory(self) -> int:
        """Bytes that the server and one arriving vector take at most."""
        tracemalloc.start()
        try:
            self.replay()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def bytes_up(self, i: int) -> int:
        """Payload of one client."""
        replies = (
            self._records[i],
            self._bundles[i],
            self._participations[i],
            self._signed[i],
            self._reveals[i],
        )
        sizes = sum(payload(reply.to_fields()) for reply in replies)
        return sizes + 4 * self.config.layout.dimension

    def _server(self) -> ServerSession:
        return ServerSession(self.config, CONTENT, _roster(self._pem))


class _Warm:
    """A roster that has seen everybody's certificates in an earlier round."""

    def __init__(self, pem: bytes) -> None:
        self._roster = _roster(pem)
        self.verify = self._roster.verify

    def warm(self, config: SessionConfig, records: Sequence[KeyRecord]) -> None:
        """See them."""
        for record in records:
            self._roster.verify(record.credential, *_signed(config, record))


def _signed(config: SessionConfig, record: KeyRecord) -> tuple[bytes, bytes]:
    message = keys_digest(config, CONTENT, record.mask_public, record.share_public, record.nonce)
    return message, record.signature


def _roster(pem: bytes) -> Roster:
    # `of_authority` shares rosters within a process; every real device has its own.
    return Roster(authorities=(parse_pem(pem),))


def measure_primitives(setting: Setting, neighbours: int, committee: int) -> float:
    """The least a client can take: processor seconds, the median of `REPEATS`.

    One stream of the cipher for each mask, one X25519 agreement with each neighbour for the mask
    and one for the channel, one Ed25519 signature of each neighbour and of the committee.
    """
    key, signer = X25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    other, verifier = X25519PrivateKey.generate().public_key(), signer.public_key()
    signature = signer.sign(CONTENT)
    part = np.empty(min(CHUNK, setting.dimension), dtype=np.uint32).data.cast("B")
    seconds = []
    for _ in range(REPEATS):
        clock = Clock()
        with clock.running():
            for _ in range(neighbours + 1):
                stream = CipherStream(cipher=setting.cipher)
                for start in range(0, 4 * setting.dimension, len(part)):
                    stream.read_into(part[: 4 * setting.dimension - start])
            for _ in range(2 * neighbours):
                key.exchange(other)
            for _ in range(neighbours + committee):
                verifier.verify(signature, CONTENT)
        seconds.append(clock.seconds)
    return median(seconds)


def measure_flower(setting: Setting) -> tuple[float, float]:
    """Flower's SecAgg+ at its defaults, as its mod and workflow call it: processor seconds.

    The client masks once with its own seed and once with each other; the server combines a secret
    of every client, removes one mask of each survivor and, of each that dropped out, one for every
    other client. Key agreement and shares are included, encryption and messages are not.
    """
    from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
    from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
    from flwr.common.secure_aggregation.ndarrays_arithmetic import (
        parameters_addition,
        parameters_mod,
        parameters_subtraction,
    )
    from flwr.common.secure_aggregation.quantization import quantize
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
    from flwr.supercore.primitives.asymmetric import (
        bytes_to_private_key,
        bytes_to_public_key,
        generate_key_pairs,
        private_key_to_bytes,
        public_key_to_bytes,
    )

    modulus, clip, target = 1 << 32, 8.0, 1 << 22
    threshold = 2 * setting.clients // 3 + 1
    shape = [(setting.dimension,)]
    pairs = [generate_key_pairs() for _ in range(setting.clients)]
    publics = [public_key_to_bytes(public) for _, public in pairs]
    secret = private_key_to_bytes(pairs[0][0])
    update = [np.random.default_rng(0).uniform(-1, 1, setting.dimension)]

    start = time.process_time()
    seed = os.urandom(32)
    shares_of_seed = create_shares(seed, threshold, setting.clients)
    shares_of_key = create_shares(secret, threshold, setting.clients)
    vector = quantize(update, clip, target)
    vector = parameters_addition(vector, pseudo_rand_gen(seed, modulus, shape))
    for public in publics[1:]:
        key = generate_shared_key(bytes_to_private_key(secret), bytes_to_public_key(public))
        vector = parameters_addition(vector, pseudo_rand_gen(key, modulus, shape))
    vector = parameters_mod(vector, modulus)
    client = time.process_time() - start

    begin = time.process_time()
    for _ in range(setting.clients - setting.dropped):
        revealed = combine_shares(shares_of_seed[: setting.clients - setting.dropped])
        vector = parameters_subtraction(vector, pseudo_rand_gen(revealed, modulus, shape))
    for _ in range(setting.dropped):
        revealed = combine_shares(shares_of_key[: setting.clients - setting.dropped])
        for public in publics[1:]:
            key = generate_shared_key(bytes_to_private_key(revealed), bytes_to_public_key(public))
            vector = parameters_addition(vector, pseudo_rand_gen(key, modulus, shape))
    parameters_mod(vector, modulus)
    return client, time.process_time() - begin


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small settings: seconds, not minutes")
    parser.add_argument("--no-flower", action="store_true", help="leave out Flower's SecAgg+")
    options = parser.parse_args(arguments)
    settings = QUICK if options.quick else SETTINGS
    table = Table(
        title=f"One secure sum, processor time ({platform.machine()}, {os.cpu_count()} cores)"
    )
    for name in ("clients", "d", "dropped", "what"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for name in (
        "first ms",
        "later ms",
        "masks ms",
        "floor ms",
        "up / 4d",
        "server s",
        "unmask s",
        "wall s",
        "vectors",
    ):
        table.add_column(name, justify="right")
    for setting in settings:
        row = (f"{setting.clients:,}", f"{setting.dimension:,}", str(setting.dropped))
        result = measure(setting)
        table.add_row(
            *row,
            f"lepton-flwr, {setting.cipher}",
            *(
                f"{1e3 * s:.1f}"
                for s in (result.first, result.later, result.mask, result.primitives)
            ),
            f"{result.bytes_up / (4 * setting.dimension):.4f}",
            f"{result.server:.2f}",
            f"{result.unmask:.2f}",
            f"{result.wall:.2f}",
            f"{result.vectors:.1f}",
        )
        if setting is settings[-1] and not options.no_flower:
            client, server = measure_flower(setting)
            ours = f"{client / result.later:.0f} x, {server / result.server:.0f} x"
            cells = (f"{1e3 * client:.1f}", "", "", "", "", f"{server:.2f}", "", "", "")
            table.add_row(*row, f"Flower SecAgg+ ({ours})", *cells)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
