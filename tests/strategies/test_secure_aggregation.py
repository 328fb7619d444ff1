"""Whole runs: real strategies, real client mods, no processes."""

import logging
import re

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedProx,
    FedYogi,
)

from lepton_flwr.crypto.stream import StreamCipher
from lepton_flwr.errors import ConfigError, DataError, FederationError, PrivacyError
from lepton_flwr.failures import Failure
from lepton_flwr.privacy.adaptive import AdaptiveClip
from lepton_flwr.privacy.clipping import CLIP_BY_LAYER
from lepton_flwr.secagg.encoding import Kind, Segment
from lepton_flwr.secagg.floors import ClientFloors
from strategies.secure_aggregation import SecureAggregation
from strategies.secure_grid import ClientPrivacy, SecureGrid, SecureSettings

STRATEGIES = {
    "fedavg": FedAvg,
    "fedavgm": lambda **kw: FedAvgM(**kw, server_momentum=0.9),
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "fedadagrad": FedAdagrad,
    "fedprox": lambda **kw: FedProx(**kw, proximal_mu=0.1),
}
METRICS = (Segment("train-loss", Kind.MEAN, 1, 10.0),)
COUNTS = (Segment("correct", Kind.COUNT, 1, 1000),)


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("flwr").setLevel(logging.CRITICAL)


def settings(**changes):
    defaults = {
        "update_bound": 2.0,
        "max_examples": 1000,
        "timeout": 0.2,
        "train_metrics": METRICS,
        "evaluate_metrics": COUNTS,
    }
    return SecureSettings(**{**defaults, **changes})


def run(grid, members, initial, inner=None, rounds=3, sessions=None, evaluate_every=1, **changes):
    collect = (
        None if sessions is None else lambda report, decoded: sessions.append((report, decoded))
    )
    strategy = SecureAggregation(
        inner or FedAvg(),
        lambda plain: SecureGrid(plain, members[1], settings(**changes), on_session=collect),
        evaluate_every=evaluate_every,
    )
    return strategy.start(grid, initial, num_rounds=rounds, train_config=ConfigRecord())


def flat(arrays):
    return np.concatenate([a.ravel() for a in arrays.to_numpy_ndarrays()]).astype(np.float64)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_model_is_that_of_the_same_strategy_without_secure_aggregation(
    grid, members, initial, name
):
    kinds = {"train_metrics_aggr_fn": lambda contents, key: None}
    secure = run(grid(), members, initial, STRATEGIES[name](**kinds))
    plain = STRATEGIES[name](**kinds).start(grid(secure=False), initial, num_rounds=3)
    expected, got = flat(plain.arrays), flat(secure.arrays)
    assert np.linalg.norm(got - expected) <= 1e-5 * np.linalg.norm(expected)
    # The model has really moved.
    assert np.linalg.norm(expected - flat(initial)) > 1e-2 * np.linalg.norm(expected)


def test_metrics_are_weighted_as_flower_weighs_them(grid, members, initial):
    result = run(grid(), members, initial, rounds=1)
    plain = FedAvg().start(grid(secure=False), initial, num_rounds=1)
    loss = result.train_metrics_clientapp[1]["train-loss"]
    assert loss == pytest.approx(plain.train_metrics_clientapp[1]["train-loss"], abs=1e-6)


def test_the_cipher_of_the_masks_changes_nothing_but_the_masks(grid, members, initial):
    aes = run(grid(), members, initial, rounds=1)
    floors = ClientFloors(ciphers=("chacha20",))
    chacha = run(grid(floors=floors), members, initial, rounds=1, cipher=StreamCipher.CHACHA20)
    np.testing.assert_array_equal(flat(aes.arrays), flat(chacha.arrays))
    assert np.linalg.norm(flat(aes.arrays) - flat(initial)) > 0
    refused = []
    run(grid(floors=floors), members, initial, rounds=1, sessions=refused)
    assert refused[0][0].failures == {Failure.REFUSED: 6}


def test_two_runs_on_the_same_updates_agree_bit_for_bit(grid, members, initial):
    one, two = (run(grid(), members, initial) for _ in range(2))
    np.testing.assert_array_equal(flat(one.arrays), flat(two.arrays))


def test_three_of_ten_vanish_each_at_a_different_exchange(grid, members, initial):
    sessions = []
    some = grid(clients=10)
    some.gone = {101: 1, 104: 2, 108: 3}
    result = run(some, members, initial, rounds=1, sessions=sessions)
    survivors = [i for i in range(10) if i not in (1, 4)]
    alone = grid(clients=10, secure=False)
    alone.apps = {100 + i: alone.apps[100 + i] for i in survivors}
    expected = FedAvg().start(alone, initial, num_rounds=1)
    step = 10 * 2.0 / 2**31 * 1000 / 100
    np.testing.assert_allclose(flat(result.arrays), flat(expected.arrays), rtol=1e-6, atol=step)
    assert sessions[0][0].survivors == 8
    assert not sessions[0][0].skipped


@pytest.mark.slow
def test_a_round_of_131_clients_on_a_ring_with_some_lost_at_each_exchange(grid, members, initial):
    sessions = []
    some = grid(clients=131)
    some.gone = {100 + i: i % 5 for i in range(0, 131, 13)}
    result = run(some, members, initial, rounds=1, sessions=sessions, max_examples=10_000)
    survivors = [i for i in range(131) if some.gone.get(100 + i, 9) > 2]
    alone = grid(clients=131, secure=False)
    alone.apps = {100 + i: alone.apps[100 + i] for i in survivors}
    expected = FedAvg().start(alone, initial, num_rounds=1)
    report = sessions[0][0]
    assert not report.skipped
    assert report.failures == {Failure.TIMEOUT: len(some.gone)}
    assert report.survivors == len(survivors) == 124
    np.testing.assert_allclose(flat(result.arrays), flat(expected.arrays), rtol=1e-5, atol=1e-4)
    assert np.linalg.norm(flat(result.arrays) - flat(initial)) > 0.01


def test_with_too_few_survivors_the_round_is_skipped_and_the_model_unchanged(
    grid, members, initial
):
    sessions = []
    some = grid(clients=9)
    some.gone = {100: 2, 101: 2, 102: 2, 103: 2}
    some.lost_sessions = lambda number: number == 1
    seen = []
    strategy = SecureAggregation(
        FedAvg(),
        lambda plain: SecureGrid(
            plain, members[1], settings(), on_session=lambda r, d: sessions.append((r, d))
        ),
    )
    strategy.start(
        some, initial, num_rounds=2, evaluate_fn=lambda r, arrays: seen.append(flat(arrays))
    )
    np.testing.assert_array_equal(seen[1], flat(initial))
    assert np.abs(seen[2] - seen[1]).max() > 0
    first, decoded = sessions[0]
    assert decoded is None
    assert "5 clients answered exchange E2: expected at least 7" in first.skipped
    assert sessions[2][1] is not None


def test_evaluation_counts_add_up(grid, members, initial):
    sessions = []
    run(grid(clients=5), members, initial, rounds=1, sessions=sessions)
    (decoded,) = (d for r, d in sessions if r.purpose == "evaluate")
    assert decoded.sums["correct"][0] == sum(3 + i for i in range(5))
    assert decoded.weight == sum(10 + i for i in range(5))


def test_evaluation_comes_every_nth_round_and_at_the_end(grid, members, initial):
    sessions = []
    run(grid(), members, initial, rounds=5, sessions=sessions, evaluate_every=2)
    assert [r.purpose[0] for r, _ in sessions] == list("ttetteTe".lower())


def test_nothing_of_one_client_passes_the_grid(grid, members, initial):
    """Of a client's update, weight and metrics there is no trace in any reply or log."""
    lines: list[str] = []
    flower, handler = logging.getLogger("flwr"), logging.Handler(logging.DEBUG)
    handler.emit = lambda record: lines.append(record.getMessage())
    flower.setLevel(logging.DEBUG)
    flower.addHandler(handler)
    some = grid()
    try:
        run(some, members, initial, rounds=2)
    finally:
        flower.removeHandler(handler)
    numbers = [100 + 37 * i for i in range(1, 6)] + [10 + i for i in range(6)]
    assert any("aggregate_train" in line for line in lines)
    assert not any(re.search(rf"(?<![\d.]){n}(?![\d.])", line) for line in lines for n in numbers)
    alike = 0
    for reply in some.replies:
        assert not reply.has_error()
        assert not reply.content.metric_records
        for record in reply.content.array_records.values():
            (array,) = record.to_numpy_ndarrays()
            assert array.dtype == np.uint32
            alike += len(set(array.tolist()) & set(numbers))
        for record in reply.content.config_records.values():
            flattened = [
                v
                for value in record.values()
                for v in (value if isinstance(value, list) else [value])
            ]
            assert not any(isinstance(v, int | float) for v in flattened)
    # Of 500 masked numbers one may be alike by chance, in a millionth of runs; never one of each.
    assert alike < 3


def test_one_bad_reply_costs_the_round_one_client(grid, members, initial):
    def tamper(reply):
        vectors = list(reply.content.array_records.values())
        if reply.metadata.src_node_id == 103 and vectors and not damaged:
            damaged.append(reply)
            vectors[0][next(iter(vectors[0]))] = Array(np.zeros(3, np.uint32))
        return reply

    damaged, sessions = [], []
    some = grid()
    some.tamper = tamper
    run(some, members, initial, rounds=1, sessions=sessions)
    report, decoded = sessions[0]
    assert damaged
    assert report.survivors == 5
    assert decoded is not None
    assert report.failures == {Failure.PROTOCOL: 1}


class TestFailures:
    def failing(self, error):
        from flwr.clientapp import ClientApp

        def make(partition, mods):
            app = ClientApp(mods=mods)

            @app.train()
            @app.evaluate()
            def work(message, context):
                raise error

            return app

        return make

    @pytest.mark.parametrize("error", [ValueError, DataError])
    def test_the_text_of_a_clients_exception_stays_on_the_device(
        self, grid, members, initial, error
    ):
        some = grid(app=self.failing(error("patient 4711 has NaN")))
        sessions = []
        run(some, members, initial, rounds=1, sessions=sessions)
        reasons = [reply.error.reason for reply in some.replies if reply.has_error()]
        assert reasons
        assert all("4711" not in reason and error.__name__ in reason for reason in reasons)
        assert sessions[0][0].skipped

    def test_a_floor_above_the_servers_wish_refuses_the_session(self, grid, members, initial):
        some = grid(floors=ClientFloors(min_survivors=6))
        sessions = []
        run(some, members, initial, rounds=1, sessions=sessions)
        report, _ = sessions[0]
        assert report.failures == {Failure.REFUSED: 6}

    def test_a_message_outside_secure_aggregation_is_refused(self, grid, initial):
        some = grid()
        some.gone = {}
        replies = FedAvg().configure_train(1, initial, ConfigRecord(), some)
        for reply in some.send_and_receive(replies):
            assert reply.has_error()
            assert "PolicyError" in reply.error.reason

    def test_a_charge_that_is_refused_ends_the_run_before_anything_is_sent(
        self, grid, members, initial
    ):
        some = grid()

        def refuse():
            raise PrivacyError("no budget left")

        strategy = SecureAggregation(
            FedAvg(),
            lambda plain: SecureGrid(plain, members[1], settings(), before_train=refuse),
        )
        with pytest.raises(PrivacyError):
            strategy.start(some, initial, num_rounds=1)
        assert not some.requests

    def test_members_are_renewed_before_a_round_is_charged(self, grid, members, initial):
        some, charged = grid(), []

        def refuse():
            raise PrivacyError("a list that cannot be used")

        strategy = SecureAggregation(
            FedAvg(),
            lambda plain: SecureGrid(
                plain,
                members[1],
                settings(),
                before_session=refuse,
                before_train=lambda: charged.append(1),
            ),
        )
        with pytest.raises(PrivacyError, match="cannot be used"):
            strategy.start(some, initial, num_rounds=1)
        assert not some.requests
        assert not charged

    def test_single_replies_cannot_be_asked_for(self, grid, members):
        secure = SecureGrid(grid(), members[1], settings())
        with pytest.raises(ConfigError):
            secure.push_messages([])
        with pytest.raises(ConfigError):
            secure.pull_messages([])


class TestClientPrivacy:
    def privacy(self, **changes):
        values = {
            "l2_norm_clip": 0.2,
            "noise_multiplier": 1e-9,
            "sampling_probability": 1.0,
            "population": 6,
        }
        return ClientPrivacy(**{**values, **changes})

    def test_updates_are_clipped_weighted_alike_and_divided_by_the_public_cohort(
        self, grid, members, initial
    ):
        sessions = []
        privacy = self.privacy(population=8)
        result = run(grid(), members, initial, rounds=1, sessions=sessions, client_privacy=privacy)
        assert sessions[0][1].weight == 6
        updates = []
        for i in range(6):
            rng = np.random.default_rng([i, 1])
            update = np.concatenate(
                [rng.normal(0, 0.1, a.shape).ravel() for a in initial.to_numpy_ndarrays()]
            )
            updates.append(update * min(1, 0.2 / np.linalg.norm(update)))
        moved = flat(result.arrays) - flat(initial)
        np.testing.assert_allclose(moved, sum(updates) / 8, atol=1e-6)

    def test_noise_has_the_stated_size(self, grid, members, initial):
        # 37 coordinates, 8 rounds: 296 draws; their standard deviation is within 25 % of the
        # truth but for a false alarm of 1e-8.
        privacy = self.privacy(noise_multiplier=50.0)
        models = []
        strategy = SecureAggregation(
            FedAvg(),
            lambda plain: SecureGrid(plain, members[1], settings(client_privacy=privacy)),
            evaluate_every=100,
        )
        strategy.start(
            grid(), initial, num_rounds=8, evaluate_fn=lambda r, a: models.append(flat(a))
        )
        steps = np.diff(models, axis=0)
        assert np.std(steps) == pytest.approx(50.0 * 0.2 / 6, rel=0.25)

    def test_more_clients_than_accounted_for_are_refused(self, grid, members, initial):
        with pytest.raises(FederationError, match="population of 5"):
            run(grid(), members, initial, client_privacy=self.privacy(population=5))

    def test_cohorts_are_poisson_samples(self, grid, members, initial):
        # 40 rounds of 6 clients at one half: 240 fair coins, 7 standard deviations are 54: false
        # alarms below 1e-11.
        sessions = []
        privacy = self.privacy(sampling_probability=0.5)
        run(
            grid(),
            members,
            initial,
            rounds=40,
            sessions=sessions,
            evaluate_every=100,
            client_privacy=privacy,
            timeout=5.0,
        )
        sizes = [r.participants for r, _ in sessions if r.purpose == "train"]
        assert abs(sum(sizes) - 120) < 54
        assert len(set(sizes)) > 1


class TestAdaptiveClipping:
    """Updates of 40 coordinates of about N(0, 0.1): norms near 0.6."""

    def run(self, grid, members, initial, clip, rounds=12, clients=8, **adaptive):
        sessions = []
        privacy = ClientPrivacy(
            l2_norm_clip=clip,
            noise_multiplier=0.02,
            sampling_probability=1.0,
            population=clients,
            adaptive=AdaptiveClip(learning_rate=0.5, **adaptive),
        )
        some = grid(clients=clients)
        run(some, members, initial, rounds=rounds, sessions=sessions, client_privacy=privacy)
        training = [s for s in sessions if s[0].purpose == "train"]
        return [s[0].l2_norm_clip for s in training], training, some

    @pytest.mark.parametrize("clip", [0.05, 8.0])
    def test_the_bound_moves_to_the_norms_from_either_side(self, grid, members, initial, clip):
        clips, _, _ = self.run(grid, members, initial, clip)
        assert clips[0] == clip
        assert abs(np.log(clips[-1] / 0.58)) < 0.5 * abs(np.log(clip / 0.58))

    def test_the_count_that_is_decoded_is_noised(self, grid, members, initial):
        privacy = ClientPrivacy(
            l2_norm_clip=9.0,
            noise_multiplier=50.0,
            sampling_probability=1.0,
            population=6,
            adaptive=AdaptiveClip(),
        )
        sessions = []
        run(
            grid(),
            members,
            initial,
            rounds=6,
            sessions=sessions,
            evaluate_every=100,
            client_privacy=privacy,
        )
        counts = [d.sums["unclipped"].item() for r, d in sessions if r.purpose == "train"]
        assert len(counts) == 6
        # Deviation 50 / sqrt(0.05) = 224: all six within 0..6 has a chance below 1e-11.
        assert any(not 0 <= count <= 6 for count in counts)

    def test_the_share_counts_whose_update_was_not_scaled(self, grid, members, initial):
        for clip, expected in ((9.0, 8), (0.01, 0)):
            _, sessions, _ = self.run(grid, members, initial, clip, rounds=1)
            assert sessions[0][1].sums["unclipped"].item() == expected


def test_layers_are_clipped_one_by_one_where_the_round_says_so(grid, members, initial):
    privacy = ClientPrivacy(
        l2_norm_clip=0.2, noise_multiplier=1e-9, sampling_probability=1.0, population=6
    )
    strategy = SecureAggregation(
        FedAvg(),
        lambda plain: SecureGrid(plain, members[1], settings(client_privacy=privacy)),
    )
    config = ConfigRecord({CLIP_BY_LAYER: True})
    result = strategy.start(grid(), initial, num_rounds=1, train_config=config)
    before, expected = initial.to_numpy_ndarrays(), [0.0] * 4
    for i in range(6):
        rng = np.random.default_rng([i, 1])
        for number, array in enumerate(before):
            layer = rng.normal(0, 0.1, array.shape)
            expected[number] += layer * min(1, 0.1 / np.linalg.norm(layer)) / 6
    for new, old, moved in zip(result.arrays.to_numpy_ndarrays(), before, expected, strict=True):
        np.testing.assert_allclose(new - old, moved, atol=1e-6)
