"""Shamir's secret sharing over the prime field of p = 2^256 + 297."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import comb, prod
from operator import mul

import numpy as np

from lepton_flwr.secagg.errors import RevealError

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33
MAX_POINT = 1024
# Numbers up to MAX_POINT whose product fits 63 bits.
_FACTORS = 6


def split(
    secret: bytes,
    threshold: int,
    points: Sequence[int],
    random: Callable[[int], bytes] = os.urandom,
) -> list[bytes]:
    """Share a secret so that any `threshold` shares give it back and fewer tell nothing.

    Args:
        secret: 32 bytes.
        threshold: 1 <= threshold <= len(points).
        points: distinct evaluation points, 1 <= x <= MAX_POINT; one share each.
        random: source of coefficients; tests inject one.

    Returns:
        Shares of 33 bytes in the order of `points`.

    Raises:
        ValueError: an argument is outside its range.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"{len(secret)}-byte secret: expected {SECRET_BYTES} bytes")
    if not 1 <= threshold <= len(points):
        raise ValueError(f"threshold={threshold}: expected 1 to {len(points)}, the shares")
    if len(set(points)) != len(points) or not all(1 <= x <= MAX_POINT for x in points):
        raise ValueError(f"points: expected distinct numbers from 1 to {MAX_POINT}")
    coefficients = [_uniform(random) for _ in range(threshold - 1)]
    coefficients.append(int.from_bytes(secret, "big"))
    shares = []
    for x in points:
        # One reduction at the end: a point is small, so the value grows by a byte or so each time,
        # and a longer number costs less than a remainder.
        value = 0
        for coefficient in coefficients:
            value = value * x + coefficient
        shares.append((value % PRIME).to_bytes(SHARE_BYTES, "big"))
    return shares


def combine(shares: Mapping[int, bytes]) -> bytes:
    """Give back the secret from exactly `threshold` shares, by point.

    Raises:
        RevealError: a share is not a field element, or the shares do not meet in a 32-byte secret.
    """
    points = tuple(sorted(shares))
    weights, scale = _lagrange_at_zero(points)
    total = 0
    for x, weight in zip(points, weights, strict=True):
        value = int.from_bytes(shares[x], "big")
        if len(shares[x]) != SHARE_BYTES or value >= PRIME:
            raise RevealError(f"share of point {x}: expected {SHARE_BYTES} bytes below the prime")
        total += weight * value
    secret = total * scale % PRIME
    if secret >= 2 ** (8 * SECRET_BYTES):
        raise RevealError("shares do not meet in a 32-byte secret: one of them is wrong")
    return secret.to_bytes(SECRET_BYTES, "big")


@lru_cache(maxsize=64)
def _lagrange_at_zero(points: tuple[int, ...]) -> tuple[list[int], int]:
    """Whole weights of ascending points and their common factor modulo p.

    A weight is prod over the others o of o / (o - x). Over all of 1 to m that is
    (-1)^(x - 1) comb(m, x); each gap q gives back its q / (q - x), where the q of all gaps are the
    common factor. With few gaps, as when few clients are missing, this is little work.
    """
    last = points[-1]
    gaps = sorted(set(range(1, last)) - set(points))
    binomials = _signed_binomials(last)
    weights = [binomials[x] for x in points]
    column = np.array(points, dtype=np.int64)
    for start in range(0, len(gaps), _FACTORS):
        factors = np.ones_like(column)
        for gap in gaps[start : start + _FACTORS]:
            factors *= gap - column
        weights = list(map(mul, weights, factors.tolist()))
    return weights, pow(prod(gaps), -1, PRIME)


@lru_cache(maxsize=64)
def _signed_binomials(last: int) -> tuple[int, ...]:
    return tuple((1 if x % 2 else -1) * comb(last, x) for x in range(last + 1))


def _uniform(random: Callable[[int], bytes]) -> int:
    # 64 bits more than the prime: the remainder is within 2^-64 of uniform.
    return int.from_bytes(random(SHARE_BYTES + 8), "big") % PRIME
