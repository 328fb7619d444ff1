"""A whole session in one process: every participant's own state machine, and no transport."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lepton_flwr.secagg.client import ClientSession
from lepton_flwr.secagg.errors import ThresholdError
from lepton_flwr.secagg.floors import ClientFloors
from lepton_flwr.secagg.parameters import SessionConfig
from lepton_flwr.secagg.roles import Members, Signer
from lepton_flwr.secagg.server import ServerSession

Encode = Callable[[SessionConfig], np.ndarray]


@dataclass
class Party:
    """One participant: what it brings to a session, and what it remembers between sessions.

    Attributes:
        signer: its long-term key.
        members: its own roster.
        floors: what it requires of a session.
        last_number: greatest session number of this run that it has seen.
    """

    signer: Signer
    members: Members
    floors: ClientFloors = field(default_factory=ClientFloors)
    last_number: int = 0


@dataclass(frozen=True)
class SecureSum:
    """What the server has after a session.

    Attributes:
        total: centred sum of the survivors' encoded vectors, int64 (dimension,).
        survivors: parties in it.
        failures: error classes of those that fell out, counted.
    """

    total: np.ndarray
    survivors: int
    failures: Counter[str]


def secure_sum(
    config: SessionConfig,
    content_hash: bytes,
    members: Members,
    parties: Sequence[Party],
    encode: Sequence[Encode],
    *,
    tolerant: bool = True,
) -> SecureSum:
    """Add up the parties' vectors.

    Guarantee: that of `ServerSession` and `ClientSession`: what passes from a party to the server
    is what would pass over a network.

    Args:
        config: the session; its layout's `num_clients` is the number of parties.
        content_hash: digest of what they work on.
        members: the server's roster.
        parties: the participants.
        encode: for each, what gives its encoded vector, uint32 (dimension,); called once all the
            checks that precede the work have passed.
        tolerant: whether a party that raises is silent from there on, and left out; otherwise its
            error ends the session.

    Raises:
        ThresholdError: too few parties are left; with the error classes of the others.
        RevealError: what they revealed does not fit.
    """
    server = ServerSession(config, content_hash, members)
    sessions: dict[int, ClientSession] = {}
    failures: Counter[str] = Counter()

    def each(nodes: Iterable[int], answer: Callable[[int], None]) -> None:
        for node in nodes:
            try:
                answer(node)
            except Exception as error:
                if not tolerant:
                    raise
                failures[type(error).__name__] += 1
                if node in sessions:
                    sessions[node].close()

    def keys(node: int) -> None:
        party = parties[node]
        sessions[node], record = ClientSession.open(
            request, party.signer, party.members, party.floors, party.last_number
        )
        party.last_number = config.number
        server.receive_keys(node, record)

    def masked(node: int) -> None:
        participation = sessions[node].start(work[node], content_hash)
        vector = sessions[node].mask(encode[node](config))
        server.receive_masked(node, vector, participation)

    try:
        request = server.request_keys()
        each(range(len(parties)), keys)
        rosters = server.close_keys()
        each(rosters, lambda n: server.receive_shares(n, sessions[n].share(rosters[n])))
        work = server.close_shares()
        each(work, masked)
        lists = server.close_masked()
        each(lists, lambda n: server.receive_attestation(n, sessions[n].attest(lists[n])))
        asked = server.close_attestations()
        each(asked, lambda n: server.receive_reveal(n, sessions[n].reveal(asked[n])))
        total = config.layout.lift(server.close_reveals())
    except ThresholdError as error:
        lost = ", ".join(f"{name} ({count})" for name, count in sorted(failures.items()))
        raise ThresholdError(f"{error}; lost by {lost}" if lost else str(error)) from None
    return SecureSum(total, server.num_survivors, failures)
