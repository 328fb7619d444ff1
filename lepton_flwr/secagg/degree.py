"""How many neighbours and shares a sparse graph needs, from hypergeometric tails.

Of n clients in random places on a ring, C = floor(corrupt * n) are corrupt and D = floor(dropout *
n) drop out. A client is joined to the k nearest, a uniform sample of the n - 1 others. Three bad
events (Bell et al. 2020, sections 3.3 and 4.2; divided as in `graph_parameter_finder` of Google's
federated-compute):

- shares, 2^-(s + 1): some client has so many corrupt neighbours c that 2 t <= k + c. Each honest
  neighbour gives one kind of share and a corrupt one both: with 2 t > k + c one kind stays below
  the threshold t. Union bound over n clients.
- connection, 2^-(s + 1): corrupt clients and those that drop out fill two separate stretches of
  k / 2 places, so that the sums on both sides of them come apart. Union bound over pairs.
- correctness, 2^-r: some client has more than k - t neighbours that drop out. Union bound over n.

All arithmetic is on whole numbers, so that every device finds the same answer.
"""

from collections.abc import Iterator
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


@lru_cache(maxsize=64)
def degree_and_threshold(
    num_clients: int,
    corrupt: float = CORRUPT,
    dropout: float = DROPOUT,
    security_bits: int = SECURITY_BITS,
    correctness_bits: int = CORRECTNESS_BITS,
) -> tuple[int, int]:
    """The smallest even degree that is secure and correct, and the smallest threshold for it.

    Args:
        num_clients: n.
        corrupt: share of the clients that collude with the server.
        dropout: share of the clients that drop out.
        security_bits: s above.
        correctness_bits: r above.

    Returns:
        Degree k, even and below n - 1, and threshold t.

    Raises:
        ConfigError: an argument is outside its range, or no sparse graph will do.
    """
    check.integer("num_clients", num_clients, at_least=4)
    check.finite("corrupt", corrupt, at_least=0, below=1)
    check.finite("dropout", dropout, at_least=0, below=1)
    check.integer("security_bits", security_bits, at_least=1)
    check.integer("correctness_bits", correctness_bits, at_least=1)
    num_corrupt, num_dropped = _part(corrupt, num_clients), _part(dropout, num_clients)
    for degree in range(2, num_clients - 1, 2):
        colluding = _most(num_clients, num_corrupt, degree, security_bits + 1)
        gone = _most(num_clients, num_dropped, degree, correctness_bits)
        threshold = (degree + colluding) // 2 + 1
        if threshold <= degree - gone and _connected(
            num_clients, num_corrupt + num_dropped, degree, security_bits + 1
        ):
            return degree, threshold
    raise ConfigError(
        f"{num_clients} clients with corrupt={corrupt:g} and dropout={dropout:g}: no sparse graph "
        "is safe; expected corrupt + 2 * dropout well below 1, or more clients"
    )


def failure_bits(
    num_clients: int,
    degree: int,
    threshold: int,
    corrupt: float = CORRUPT,
    dropout: float = DROPOUT,
) -> tuple[float, float]:
    """-log2 of the bounds on the events "shares" and "correctness"; infinity where impossible."""

    def bits(share: float, least: int) -> float:
        ways = _ways(num_clients, _part(share, num_clients), degree)
        tail = sum(number for count, number in ways if count >= least)
        return log2(comb(num_clients - 1, degree)) - log2(num_clients * tail) if tail else inf

    return bits(corrupt, 2 * threshold - degree), bits(dropout, degree - threshold + 1)


def _part(share: float, num_clients: int) -> int:
    # By its decimal text: 0.07 of 100 is 7, whatever the binary fraction.
    return int(Fraction(str(share)) * num_clients)


def _most(num_clients: int, marked: int, degree: int, bits: int) -> int:
    """Smallest m with P(some client has more than m marked neighbours) <= 2^-bits."""
    allowed = comb(num_clients - 1, degree) // (num_clients << bits)
    # All ways together are more than what is allowed, so this ends.
    ways = _ways(num_clients, marked, degree)
    count, tail = next(ways)
    while tail <= allowed:
        count, more = next(ways)
        tail += more
    return count


def _ways(num_clients: int, marked: int, degree: int) -> Iterator[tuple[int, int]]:
    """From the most down: a count of marked neighbours, and how many choices have it."""
    others = num_clients - 1 - marked
    top, bottom = min(degree, marked), max(0, degree - others)
    ways = comb(marked, top) * comb(others, degree - top)
    for count in range(top, bottom - 1, -1):
        yield count, ways
        ways = ways * count * (others - degree + count)
        ways //= (marked - count + 1) * (degree - count + 1)


def _connected(num_clients: int, missing: int, degree: int, bits: int) -> bool:
    """Whether two gaps of degree / 2 missing clients are rarer than 2^-bits."""
    pairs = num_clients * (num_clients - degree - 1)
    # P(degree given places are all missing) * pairs / 2 < 2^-bits
    return pairs * comb(missing, degree) << (bits - 1) < comb(num_clients, degree)
