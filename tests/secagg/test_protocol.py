"""The five exchanges, as the papers' transcript."""

import itertools

import numpy as np
import pytest

from lepton_flwr.secagg.errors import ThresholdError
from lepton_flwr.secagg.floors import ClientFloors
from lepton_flwr.secagg.graph import complete_threshold


def expected(federation, survivors):
    layout = federation.config.layout
    return sum(
        layout.encode({"update": federation.vectors[i]}, 1).view(np.int32).astype(np.int64)
        for i in survivors
    )


def test_sum_of_all_is_exact(federation):
    fed = federation(clients=7)
    np.testing.assert_array_equal(fed.run(), expected(fed, range(7)))


def test_sum_is_right_to_the_fixed_point_step(federation):
    fed = federation(clients=5)
    total = fed.config.layout.decode(fed.run())
    step = 1 / fed.config.layout.scale(fed.config.layout.segments[0])
    error = np.abs(total.means["update"] * total.weight - sum(fed.vectors))
    assert error.max() <= 5 * step / 2
    assert total.weight == 5


@pytest.mark.parametrize("exchange", range(5))
def test_two_clients_may_drop_at_any_exchange(federation, exchange):
    fed = federation(clients=8)
    dropped = {1: exchange, 6: exchange}
    survivors = [i for i in range(8) if dropped.get(i, 9) > 2]
    np.testing.assert_array_equal(fed.run(dropped), expected(fed, survivors))


def test_three_of_ten_vanish_each_at_a_different_exchange(federation):
    for exchanges in itertools.combinations(range(5), 3):
        fed = federation(clients=10)
        dropped = dict(zip((0, 4, 9), exchanges, strict=True))
        survivors = [i for i in range(10) if dropped.get(i, 9) > 2]
        np.testing.assert_array_equal(fed.run(dropped), expected(fed, survivors))


@pytest.mark.parametrize("exchange", [1, 2, 3, 4])
def test_with_fewer_than_the_threshold_nothing_is_revealed(federation, exchange):
    fed = federation(clients=9)
    too_many = 9 - complete_threshold(9) + 1
    with pytest.raises(ThresholdError):
        fed.run(dict.fromkeys(range(too_many), exchange))


def test_floor_of_survivors_above_the_threshold_is_kept(federation):
    fed = federation(clients=9, min_survivors=9)
    with pytest.raises(ThresholdError, match="expected at least 9"):
        fed.run({3: 2})


def test_a_session_survives_the_end_of_its_process_between_any_two_exchanges(federation):
    fed = federation(clients=5)

    def restart():
        for i, session in fed.clients.items():
            fields = session.to_fields()
            fed.clients[i] = type(session).from_fields(
                fields, fed.identities[i], fed.roster, ClientFloors()
            )

    roster = fed.keys(range(5))
    restart()
    requests = fed.shares(roster, range(5))
    restart()
    survivors = fed.work(requests, range(1, 5))
    restart()
    signatures = fed.attest(survivors, range(1, 5))
    restart()
    total = fed.reveal(signatures, range(1, 5))
    np.testing.assert_array_equal(total, expected(fed, range(1, 5)))


def test_nothing_is_left_of_a_finished_session(federation):
    fed = federation(clients=4)
    fed.run()
    for client in fed.clients.values():
        fields = client.to_fields()
        assert fields["stage"] == "closed"
        assert not any(fields[name] for name in ("mask-secret", "share-secret", "self-seed"))
        assert fields["held"] == []


def test_a_masked_vector_looks_uniform_whatever_is_in_it(federation):
    # 10,000 coordinates, all zero before masking. Each of the 32 bits is fair: at seven standard
    # deviations (50 each), 4 vectors give a false alarm with probability 128 * 2.6e-12 = 3e-10.
    fed = federation(clients=4, dimension=10_000)
    fed.vectors = [np.zeros(10_000) for _ in range(4)]
    fed.until_attest()
    for vector in (item for item in fed.seen if isinstance(item, np.ndarray)):
        ones = np.unpackbits(vector[:10_000].view(np.uint8)).reshape(10_000, 32)
        assert np.abs(ones.sum(axis=0, dtype=int) - 5_000).max() < 7 * 50
