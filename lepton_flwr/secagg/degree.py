"""How large the neighbourhoods and the committee of a ring must be, from hypergeometric tails.

Of n clients in random places on a ring, C = floor(corrupt * n) are corrupt and D = floor(dropout *
n) drop out. A client is joined to the k nearest; m clients, a uniform sample of all, are the
committee. Against an adversary, of whom each of three events has chance 2^-(s + 2) at most:

- shares: some client has t corrupt neighbours, who know its secrets. Union bound over n clients.
- committee: it has so many corrupt members c that 2 tau <= m + c, so that two different lists could
  each have the tau signatures that it takes. Honest members sign one list, corrupt ones both.
- connection: two separate stretches of k / 2 places have k / 2 - w corrupt clients each, who are
  called survivors there beside w missing, so that the sums on both sides come apart. Union bound
  over pairs of stretches; of a pair, that it has twice as many.

Against nature, of whom each of three has chance 2^-(r + 2) at most, over all clients or places:

- a client loses more than k - t neighbours;
- more than w clients are missing from k / 2 places in a row;
- the committee loses more than m - tau members.

Shares and the loss of neighbours are the events of Bell et al. (2020), sections 3.3 and 4.2, with
t > c in place of 2 t > k + c: by the committee, honest neighbours reveal one kind of share. All
arithmetic is on whole numbers, so that every device finds the same answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import comb, inf, log2

from lepton_flwr import _validate as check
from lepton_flwr.errors import ConfigError

CORRUPT = 0.1
DROPOUT = 0.1
# An active server chooses the cohort and may try many session names before it shows one.
SECURITY_BITS = 80
CORRECTNESS_BITS = 40
# Three events of each kind, a quarter of what is allowed to each.
_PARTS = 2


@dataclass(frozen=True)
class RingParameters:
    """What a ring of a given number of clients needs.

    Attributes:
        degree: k, neighbours of each client; even.
        threshold: t, shares needed to reveal a secret.
        spare: w, most clients that may be missing from k / 2 places in a row.
        committee: m, members of the committee.
        quorum: tau, signatures of its members needed to reveal any share.
    """

    degree: int
    threshold: int
    spare: int
    committee: int
    quorum: int


@lru_cache(maxsize=64)
def ring_parameters(
    num_clients: int,
    corrupt: float = CORRUPT,
    dropout: float = DROPOUT,
    security_bits: int = SECURITY_BITS,
    correctness_bits: int = CORRECTNESS_BITS,
) -> RingParameters:
    """The smallest degree that is secure and correct, with the smallest threshold and committee.

    A larger threshold would not make the whole safer, as degree and committee are what 2^-s asks
    for and no more; a smaller one lets more clients drop out, and costs the server less.

    Args:
        num_clients: n.
        corrupt: share of the clients that collude with the server.
        dropout: share of the clients that drop out.
        security_bits: s above.
        correctness_bits: r above.

    Raises:
        ConfigError: an argument is outside its range, or no ring will do.
    """
    check.integer("num_clients", num_clients, at_least=4)
    check.finite("corrupt", corrupt, at_least=0, below=1)
    check.finite("dropout", dropout, at_least=0, below=1)
    check.integer("security_bits", security_bits, at_least=1)
    check.integer("correctness_bits", correctness_bits, at_least=1)
    corrupted, dropped = _part(corrupt, num_clients), _part(dropout, num_clients)
    bits = security_bits + _PARTS, correctness_bits + _PARTS
    neighbourhood = _neighbourhood(num_clients, corrupted, dropped, *bits)
    committee = _committee(num_clients, corrupted, dropped, *bits)
    if neighbourhood is None or committee is None:
        raise ConfigError(
            f"{num_clients} clients with corrupt={corrupt:g} and dropout={dropout:g}: no sparse "
            "graph is safe; expected corrupt + 2 * dropout well below 1, or more clients"
        )
    return RingParameters(*neighbourhood, *committee)


def failure_bits(
    num_clients: int,
    ring: RingParameters,
    corrupt: float = CORRUPT,
    dropout: float = DROPOUT,
) -> tuple[float, float]:
    """-log2 of the bounds on the three events of each kind together; infinity where impossible.

    Args:
        num_clients: n.
        ring: any parameters.
        corrupt: share of the clients that collude with the server.
        dropout: share of the clients that drop out.

    Returns:
        Security and correctness.
    """
    corrupted, dropped = _part(corrupt, num_clients), _part(dropout, num_clients)
    near = _Sample(num_clients - 1, ring.degree)
    stretch = _Sample(num_clients, ring.degree // 2)
    members = _Sample(num_clients, ring.committee)
    security = (
        num_clients * near.at_least(corrupted, ring.threshold)
        + members.at_least(corrupted, 2 * ring.quorum - ring.committee)
        + _cuts(num_clients, corrupted, ring.degree, ring.spare)
    )
    correctness = (
        num_clients * near.at_least(dropped, ring.degree - ring.threshold + 1)
        + num_clients * stretch.at_least(dropped, ring.spare + 1)
        + members.at_least(dropped, ring.committee - ring.quorum + 1)
    )
    return _bits(security), _bits(correctness)


def _bits(chance: Fraction) -> float:
    return log2(chance.denominator) - log2(chance.numerator) if chance else inf


def _part(share: float, num_clients: int) -> int:
    # By its decimal text: 0.07 of 100 is 7, whatever the binary fraction.
    return int(Fraction(str(share)) * num_clients)


def _neighbourhood(
    num_clients: int, corrupted: int, dropped: int, secure: int, correct: int
) -> tuple[int, int, int] | None:
    """The smallest degree, with its threshold and spare places."""
    for degree in range(2, num_clients - 1, 2):
        near = _Sample(num_clients - 1, degree)
        threshold = near.most(corrupted, num_clients, secure) + 1
        if threshold <= degree - near.most(dropped, num_clients, correct):
            spare = _Sample(num_clients, degree // 2).most(dropped, num_clients, correct)
            if _cuts(num_clients, corrupted, degree, spare) <= Fraction(1, 1 << secure):
                return degree, threshold, spare
    return None


def _committee(
    num_clients: int, corrupted: int, dropped: int, secure: int, correct: int
) -> tuple[int, int] | None:
    """The smallest committee, with its quorum."""
    for size in range(1, num_clients + 1):
        members = _Sample(num_clients, size)
        quorum = (size + members.most(corrupted, 1, secure)) // 2 + 1
        if quorum <= size - members.most(dropped, 1, correct):
            return size, quorum
    return None


def _cuts(num_clients: int, corrupted: int, degree: int, spare: int) -> Fraction:
    """Bound on the chance that two separate stretches are full of corrupt clients but `spare`."""
    pairs = num_clients * (num_clients - degree + 1) // 2
    return pairs * _Sample(num_clients, degree).at_least(corrupted, degree - 2 * spare)


@dataclass(frozen=True)
class _Sample:
    """A uniform sample of clients, some of all of whom are marked."""

    population: int
    drawn: int

    def most(self, marked: int, events: int, bits: int) -> int:
        """Smallest c with events * P(more than c marked ones) <= 2^-bits."""
        allowed = comb(self.population, self.drawn) // (events << bits)
        # All ways together are more than what is allowed, so this ends.
        ways = self._ways(marked)
        count, tail = next(ways)
        while tail <= allowed:
            count, more = next(ways)
            tail += more
        return count

    def at_least(self, marked: int, least: int) -> Fraction:
        """P(at least so many marked ones)."""
        tail = sum(ways for count, ways in self._ways(marked) if count >= least)
        return Fraction(tail, comb(self.population, self.drawn))

    def _ways(self, marked: int) -> Iterator[tuple[int, int]]:
        """From the most down: a count of marked ones, and how many samples have it."""
        others = self.population - marked
        top, bottom = min(self.drawn, marked), max(0, self.drawn - others)
        ways = comb(marked, top) * comb(others, self.drawn - top)
        for count in range(top, bottom - 1, -1):
            yield count, ways
            ways = ways * count * (others - self.drawn + count)
            ways //= (marked - count + 1) * (self.drawn - count + 1)
