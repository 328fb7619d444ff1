import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_flwr.errors import ConfigError
from lepton_flwr.secagg.encoding import Kind, Layout, Segment
from lepton_flwr.secagg.errors import OverflowConfigError, VectorError


def layout(clients=3, bound=2.0, max_weight=1, size=4):
    return Layout((Segment("u", Kind.MEAN, size, bound),), clients, max_weight)


@given(
    clients=st.integers(2, 128),
    bound=st.floats(1e-6, 1e6),
    weights=st.lists(st.integers(1, 1000), min_size=2, max_size=8),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_weighted_mean_is_right_to_the_fixed_point_step(clients, bound, weights, seed):
    weights = weights[:clients]
    lay = layout(clients, bound, 1000)
    rng = np.random.default_rng(seed)
    rows = [rng.uniform(-bound, bound, 4) for _ in weights]
    total = sum(lay.encode({"u": row}, w) for row, w in zip(rows, weights, strict=True))
    decoded = lay.decode(lay.lift(total))
    truth = sum(w * row for row, w in zip(rows, weights, strict=True)) / sum(weights)
    # Half a unit for each client, and round-off of the double-precision scale.
    step = len(weights) * 1000 / (2 * lay.scale(lay.segments[0]) * sum(weights))
    np.testing.assert_allclose(decoded.means["u"], truth, rtol=0, atol=step + 1e-12 * bound)
    assert decoded.weight == sum(weights)
    assert decoded.saturated == 0


@given(st.integers(2, 128), st.floats(1e-9, 1e9), st.integers(1, 2**24 - 1))
@settings(max_examples=60, deadline=None)
def test_no_sum_overflows_at_the_bound(clients, bound, max_weight):
    try:
        lay = layout(clients, bound, max_weight)
    except OverflowConfigError:
        assert clients * max_weight + clients / 2 > 2**31 - 1
        return
    for sign in (1, -1):
        vector = lay.encode({"u": np.full(4, sign * bound * 10)}, max_weight).view(np.int32)
        exact = vector.astype(object) * clients
        assert all(abs(value) <= 2**31 - 1 for value in exact)
        np.testing.assert_array_equal(
            lay.lift((vector.view(np.uint32) * np.uint32(clients)).astype(np.uint32)), exact
        )


def test_values_beyond_the_bound_are_cut_and_counted():
    lay = layout()
    decoded = lay.decode(lay.lift(lay.encode({"u": np.array([9.0, -9.0, 1.0, 2.0])}, 1)))
    np.testing.assert_allclose(decoded.means["u"], [2, -2, 1, 2], atol=1e-8)
    assert decoded.saturated == 2


def test_counts_and_sums_come_back():
    lay = Layout((Segment("n", Kind.COUNT, 2, 1000), Segment("loss", Kind.SUM, 1, 50.0)), 4, 100)
    one = lay.encode({"n": np.array([1000, 7]), "loss": 3.25}, 60)
    decoded = lay.decode(lay.lift(one + one))
    assert decoded.sums["n"].tolist() == [2000, 14]
    assert decoded.sums["loss"][0] == pytest.approx(6.5, abs=1e-6)
    assert decoded.weight == 120


def test_a_client_with_too_many_examples_counts_as_the_largest():
    lay = layout(max_weight=10)
    assert lay.decode(lay.lift(lay.encode({"u": np.ones(4)}, 10**9))).weight == 10


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(bad):
    with pytest.raises(VectorError, match="NaN or infinity"):
        layout().encode({"u": np.array([0, bad, 0, 0])}, 1)


@pytest.mark.parametrize(
    ("values", "weight"),
    [({}, 1), ({"u": np.zeros(3)}, 1), ({"u": np.zeros(4), "x": 1.0}, 1), ({"u": np.zeros(4)}, -1)],
)
def test_wrong_values_are_refused(values, weight):
    with pytest.raises(VectorError):
        layout().encode(values, weight)


@pytest.mark.parametrize("count", [-1.0, 0.5])
def test_a_count_is_a_whole_number(count):
    with pytest.raises(VectorError, match="whole"):
        Layout((Segment("n", Kind.COUNT, 1, 10),), 3).encode({"n": count}, 1)


def test_a_mean_over_no_examples_is_refused():
    lay = layout(max_weight=10)
    with pytest.raises(VectorError, match="no examples"):
        lay.decode(lay.lift(lay.encode({"u": np.ones(4)}, 0)))


@pytest.mark.parametrize("total", [np.zeros(6, np.int32), np.zeros(5, np.uint32)])
def test_a_sum_of_another_shape_or_type_is_refused(total):
    with pytest.raises(VectorError):
        layout().lift(total)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Segment("", Kind.MEAN, 1, 1.0),
        lambda: Segment("u", Kind.MEAN, 0, 1.0),
        lambda: Segment("u", Kind.MEAN, 1, float("inf")),
        lambda: Segment("u", Kind.COUNT, 1, 1.5),
        lambda: Layout((Segment("u", Kind.MEAN, 1, 1.0),), 0),
        lambda: Layout((Segment("weight", Kind.MEAN, 1, 1.0),), 3),
        lambda: Layout((Segment("u", Kind.MEAN, 2**28, 1.0), Segment("v", Kind.MEAN, 1, 1.0)), 3),
        lambda: Layout((Segment("n", Kind.COUNT, 1, 2**31),), 3),
        lambda: layout().slice("nothing"),
    ],
)
def test_a_layout_that_cannot_work_is_refused(make):
    with pytest.raises(ConfigError):
        make()
