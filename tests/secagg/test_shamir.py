import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_flwr.secagg import shamir
from lepton_flwr.secagg.errors import RevealError

secrets = st.binary(min_size=32, max_size=32)


@given(secrets, st.integers(1, 6), st.integers(0, 4))
@settings(max_examples=30, deadline=None)
def test_any_threshold_of_shares_gives_the_secret(secret, threshold, extra):
    points = range(1, threshold + extra + 1)
    shares = dict(zip(points, shamir.split(secret, threshold, points), strict=True))
    for chosen in itertools.islice(itertools.combinations(points, threshold), 10):
        assert shamir.combine({x: shares[x] for x in chosen}) == secret


def test_fewer_shares_fit_every_secret():
    # With threshold 3, two shares and any wanted secret lie on one polynomial of degree 2: what
    # they say of the secret is nothing. Find that polynomial's third share and combine.
    points = [1, 2, 3]
    shares = dict(zip(points, shamir.split(bytes(32), 3, points), strict=True))
    wanted = b"\x5a" * 32
    two = {x: int.from_bytes(shares[x], "big") for x in (1, 2)}
    whole, scale = shamir._lagrange_at_zero((1, 2, 3))
    weights = {x: weight * scale for x, weight in zip((1, 2, 3), whole, strict=True)}
    rest = int.from_bytes(wanted, "big") - sum(weights[x] * two[x] for x in two)
    third = rest * pow(weights[3], -1, shamir.PRIME) % shamir.PRIME
    assert shamir.combine({1: shares[1], 2: shares[2], 3: third.to_bytes(33, "big")}) == wanted


def test_coefficients_come_from_the_operating_system():
    points = range(1, 4)
    assert shamir.split(bytes(32), 3, points) != shamir.split(bytes(32), 3, points)


def test_known_answer():
    # p(x) = 5 + 7 x over the field, by hand.
    shares = shamir.split((5).to_bytes(32, "big"), 2, [1, 2], lambda n: (7).to_bytes(n, "big"))
    assert [int.from_bytes(share, "big") for share in shares] == [12, 19]


def test_the_field_is_that_of_the_design():
    assert shamir.PRIME == 2**256 + 297
    assert all(pow(base, shamir.PRIME - 1, shamir.PRIME) == 1 for base in (2, 3, 5, 7, 11))


@pytest.mark.parametrize(
    ("secret", "threshold", "points"),
    [
        (b"short", 2, [1, 2]),
        (bytes(32), 3, [1, 2]),
        (bytes(32), 0, [1]),
        (bytes(32), 1, [0]),
        (bytes(32), 1, [2, 2]),
        (bytes(32), 1, [shamir.PRIME]),
    ],
)
def test_arguments_outside_their_range_are_refused(secret, threshold, points):
    with pytest.raises(ValueError, match="expected"):
        shamir.split(secret, threshold, points)


@pytest.mark.parametrize("share", [b"", bytes(32), b"\xff" * 33])
def test_a_share_that_is_no_field_element_is_refused(share):
    with pytest.raises(RevealError):
        shamir.combine({1: share})


def test_shares_that_meet_outside_the_secrets_are_refused():
    with pytest.raises(RevealError, match="wrong"):
        shamir.combine({1: (2**256 + 5).to_bytes(33, "big")})
