"""What a session of a given size costs and tolerates, without running it."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import floor, inf
from typing import cast

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lepton_flwr import _validate as check
from lepton_flwr.crypto.stream import StreamCipher
from lepton_flwr.secagg import keys, shamir
from lepton_flwr.secagg.degree import CORRUPT, DROPOUT, failure_bits, ring_parameters
from lepton_flwr.secagg.encoding import LARGEST, MAX_DIMENSION, Kind, Layout, Segment
from lepton_flwr.secagg.graph import MAX_CLIENTS, MAX_COMPLETE, Graph, session_graph
from lepton_flwr.secagg.masking import add_streams
from lepton_flwr.secagg.messages import (
    CIPHERTEXT_BYTES,
    NONCE_BYTES,
    SIGNATURE_BYTES,
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
from lepton_flwr.secagg.transcript import TAG_BYTES

CREDENTIAL_BYTES = 260  # a device certificate of `crypto.authority`, DER
_SAMPLE = 1 << 20
_COORDINATE_BYTES = 4


@dataclass(frozen=True)
class Plan:
    """Answers for one client and its session.

    Attributes:
        clients: number of clients, N.
        degree: neighbours of each.
        threshold: shares needed of a client's secret.
        vouch: who vouches for the lists, and how many of them it takes.
        floor: fewest survivors of the whole session.
        certain: clients that may be corrupt, and as many others that may drop out, with certainty;
            0 where the answer is a probability.
        cipher: of the masks.
        security_bits: -log2 of the chance that corrupt clients learn a client's secrets, outvote
            the committee or cut the ring, at the share of them that was asked about; infinity if
            impossible.
        correctness_bits: the same that a neighbourhood or the committee loses too many to finish.
        bytes_up: that a client sends in all five exchanges.
        bytes_down: that it receives, a model of float32 included.
        seconds: of one client's processor for the masks, the keys and shares, and the signatures,
            measured on this machine.
        resolution: smallest step of the mean of one coordinate.
        margin: part of the 32-bit range that the largest possible sum leaves free.
    """

    clients: int
    degree: int
    threshold: int
    vouch: str
    floor: int
    certain: int
    cipher: StreamCipher
    security_bits: float
    correctness_bits: float
    bytes_up: int
    bytes_down: int
    seconds: Mapping[str, float]
    resolution: float
    margin: float

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for people."""
        graph = "everybody with everybody" if self.certain else "sparse (Harary)"
        parts = ", ".join(f"{name} {seconds:.3g}" for name, seconds in self.seconds.items())
        return [
            ("graph", graph),
            ("neighbours (k)", str(self.degree)),
            ("threshold (t)", f"{self.threshold} shares"),
            ("lists vouched for by", self.vouch),
            ("cipher of the masks", str(self.cipher)),
            ("survivors needed", f"{self.floor} of {self.clients}"),
            ("corrupt clients", self._chance("more than one sum, or a secret", self.security_bits)),
            ("dropped clients", self._chance("the round fails", self.correctness_bits)),
            ("bytes up", f"{self.bytes_up:,} per client"),
            ("bytes down", f"{self.bytes_down:,} per client"),
            ("seconds", f"{sum(self.seconds.values()):.3g} of a client's processor ({parts})"),
            ("resolution", f"{self.resolution:.3g} of the mean"),
            ("overflow margin", f"{self.margin:.2g} of the range: no sum overflows"),
        ]

    def _chance(self, event: str, bits: float) -> str:
        if self.certain and bits:
            return f"no loss: up to {self.certain} tolerated with certainty"
        if self.certain:
            return f"too many: only up to {self.certain} are tolerated"
        if bits == inf:
            return f"{event}: never, at this share"
        return f"{event}: chance at most 2^-{floor(bits)}" if bits >= 1 else f"{event}: likely"


def plan(
    clients: int,
    dimension: int,
    corrupt: float = CORRUPT,
    dropout: float = DROPOUT,
    *,
    bound: float = 16.0,
    cipher: str = StreamCipher.AES,
) -> Plan:
    """Plan a session.

    Args:
        clients: 3 to 10,000.
        dimension: coordinates of an update.
        corrupt: share of the clients that may collude with the server.
        dropout: share of the clients that may drop out.
        bound: largest absolute coordinate of an update.
        cipher: of the masks.

    Raises:
        ConfigError: an argument is outside its range.
    """
    check.integer("clients", clients, at_least=3, at_most=MAX_CLIENTS)
    check.integer("dim", dimension, at_least=1, at_most=MAX_DIMENSION)
    check.finite("corrupt", corrupt, at_least=0, below=1)
    check.finite("dropout", dropout, at_least=0, below=1)
    check.finite("bound", bound, above=0)
    cipher = StreamCipher(check.choice("cipher", cipher, tuple(StreamCipher)))
    (update,) = segments = (Segment("update", Kind.MEAN, dimension, bound),)
    layout = Layout(segments, clients)
    config = SessionConfig("plan", 1, "train", layout, 2, cipher=cipher)
    graph = session_graph(bytes(32), clients)
    if clients <= MAX_COMPLETE:
        # Under a third, strictly.
        certain = (clients - 1) // 3
        within = (corrupt * clients <= certain, dropout * clients <= certain)
        security, correctness = (inf if well else 0.0 for well in within)
    else:
        certain = 0
        security, correctness = failure_bits(clients, ring_parameters(clients), corrupt, dropout)
    up, down = _bytes(config, graph)
    largest = clients * (bound * layout.scale(update) + 0.5)
    return Plan(
        clients=clients,
        degree=graph.degree,
        threshold=graph.threshold,
        vouch=f"{graph.quorum} of a committee of {len(graph.committee)}"
        if graph.committee
        else f"{graph.threshold} of all",
        floor=config.floor(clients),
        certain=certain,
        cipher=cipher,
        security_bits=max(security, 0.0),
        correctness_bits=max(correctness, 0.0),
        bytes_up=up,
        bytes_down=down,
        seconds=_seconds(graph, layout.dimension, cipher),
        resolution=1 / (layout.scale(update) * clients),
        margin=1 - largest / LARGEST,
    )


def _bytes(config: SessionConfig, graph: Graph) -> tuple[int, int]:
    """Payload up and down if nobody drops out; what a transport adds is not counted."""
    key, bitmap = bytes(keys.KEY_BYTES), bytes((graph.size + 7) // 8)
    signature, holders = bytes(SIGNATURE_BYTES), len(graph.holders(0))
    credential, tags = bytes(CREDENTIAL_BYTES), (bytes(TAG_BYTES),) * graph.degree
    record = KeyRecord(credential, key, key, bytes(NONCE_BYTES), signature)
    sealed = (bytes(CIPHERTEXT_BYTES),) * graph.degree
    vector = _COORDINATE_BYTES * config.layout.dimension
    senders = (0,) * (graph.quorum if graph.committee else graph.degree)
    vouched = RevealRequest(senders, tags)
    if graph.committee:
        vouched = RevealRequest(senders, (signature,) * graph.quorum, (credential,) * graph.quorum)
    up = (
        record.to_fields(),
        ShareBundle(sealed).to_fields(),
        Participation(tags).to_fields(),
        # On a ring that of a member of the committee; the others send nothing there.
        Attestation(signature if graph.committee else b"".join(tags)).to_fields(),
        Reveal((bytes(shamir.SHARE_BYTES),) * holders).to_fields(),
    )
    down = (
        KeyRequest(config, key).to_fields(),
        KeyRoster(key * graph.size, key * graph.size, (record,) * graph.degree).to_fields(),
        WorkRequest(bitmap, sealed).to_fields(),
        SurvivorRequest(bitmap, tags).to_fields(),
        vouched.to_fields(),
    )
    return (
        vector + sum(map(payload, up)),
        vector + sum(map(payload, down)),
    )


def payload(fields: Fields) -> int:
    """Bytes of the values of a message: texts and bytes as they are, numbers as 8 bytes."""
    total = 0
    for value in fields.values():
        for item in cast(list[object], value) if isinstance(value, list) else [value]:
            total += len(item) if isinstance(item, bytes | str) else 8
    return total


def _seconds(graph: Graph, dimension: int, cipher: StreamCipher) -> dict[str, float]:
    secret, message = os.urandom(keys.KEY_BYTES), os.urandom(keys.KEY_BYTES)
    vector = np.zeros(min(dimension, _SAMPLE), dtype=np.uint32)
    private, public = keys.private_key(secret), keys.public_key(os.urandom(keys.KEY_BYTES))
    signer = Ed25519PrivateKey.generate()
    verifier, signature = signer.public_key(), signer.sign(message)
    mask = _timed(lambda: add_streams(vector, [(secret, 1)], cipher), 3)
    agree = _timed(lambda: keys.pair_key(private, public, message, 0, 1), 20)
    points = range(1, len(graph.holders(0)) + 1)
    split = _timed(lambda: shamir.split(secret, graph.threshold, points), 1)
    verify = _timed(lambda: verifier.verify(signature, message), 20)
    return {
        "masks": mask * dimension / vector.size * (graph.degree + 1),
        # Each neighbour: one agreement for the channel, one for the mask.
        "keys and shares": 2 * agree * graph.degree + 2 * split,
        # Of each neighbour's record and each of the quorum the member's and, at first sight, its
        # authority's.
        "signatures": verify * 2 * (graph.degree + graph.quorum),
    }


def _timed(action: Callable[[], object], times: int) -> float:
    """Shortest processor seconds of a few runs."""
    best = inf
    for _ in range(times):
        start = time.process_time()
        action()
        best = min(best, time.process_time() - start)
    return best
