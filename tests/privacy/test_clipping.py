import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lepton_flwr.errors import ConfigError, PrivacyError
from lepton_flwr.privacy.clipping import clip_by_layer, clip_l2

finite = st.floats(allow_nan=False, allow_infinity=False)
bounds = st.floats(min_value=1e-100, max_value=1e300)


@given(arrays(np.float64, st.integers(0, 12), elements=finite), bounds)
def test_the_exact_norm_never_exceeds_the_bound(vector, bound):
    clipped, _, _ = clip_l2(vector, bound)
    assert sum((Fraction(float(v)) ** 2 for v in clipped), Fraction(0)) <= Fraction(bound) ** 2


def test_the_exact_norm_of_long_vectors_on_the_edge_never_exceeds_the_bound():
    rng = np.random.default_rng(1)
    for size in (10, 1_000, 20_000):
        vector = rng.normal(size=size)
        clipped, norm, scaled = clip_l2(vector, float(np.linalg.norm(vector)))
        assert scaled
        assert sum(Fraction(float(v)) ** 2 for v in clipped) <= Fraction(norm) ** 2
        np.testing.assert_allclose(clipped, vector, rtol=1e-10)


def test_vectors_within_the_bound_are_unchanged():
    vector = np.array([0.3, -0.4])
    clipped, norm, scaled = clip_l2(vector, 0.6)
    np.testing.assert_array_equal(clipped, vector)
    assert norm == pytest.approx(0.5)
    assert not scaled


@given(arrays(np.float64, 5, elements=st.floats(-1e3, 1e3)), st.floats(1e-3, 1e3))
def test_long_vectors_keep_their_direction(vector, bound):
    clipped, norm, scaled = clip_l2(vector, bound)
    if scaled:
        np.testing.assert_allclose(clipped, vector * (bound / norm), rtol=1e-12, atol=1e-300)
    else:
        np.testing.assert_array_equal(clipped, vector)


@pytest.mark.parametrize(
    ("vector", "norm"),
    [
        (np.zeros(3), 0.0),
        (np.zeros(0), 0.0),
        (np.full(4, 1e-200), 2e-200),
        (np.full(4, 1e200), 2e200),
        (np.full(4, 1.7e308), float("inf")),
    ],
)
def test_edge_cases_have_the_right_norm(vector, norm):
    clipped, found, _ = clip_l2(vector, 1.0)
    assert found == pytest.approx(norm)
    assert np.linalg.norm(clipped) <= 1.0
    assert np.isfinite(clipped).all()


def test_the_result_is_a_copy():
    vector = np.ones(2)
    clip_l2(vector, 10.0)[0][0] = 5
    assert vector[0] == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(PrivacyError, match="NaN or infinity"):
        clip_l2(np.array([0.0, bad]), 1.0)


def test_matrices_are_refused():
    with pytest.raises(PrivacyError, match="flat"):
        clip_l2(np.ones((2, 2)), 1.0)


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan"), float("inf"), 1e-200])
def test_impossible_bounds_are_refused(bound):
    with pytest.raises(ConfigError, match="bound"):
        clip_l2(np.ones(2), bound)


@given(
    arrays(np.float64, 12, elements=st.floats(-1e6, 1e6, allow_subnormal=False)),
    st.floats(1e-3, 1e3),
)
def test_layers_and_the_whole_keep_to_their_bounds(values, bound):
    layers = [values[:3], values[3:4], values[4:].reshape(2, 4)]
    whole, scaled = clip_by_layer(layers, bound)
    assert sum((Fraction(float(v)) ** 2 for v in whole), Fraction(0)) <= Fraction(bound) ** 2
    share = bound / math.sqrt(3)
    for part in (whole[:3], whole[3:4], whole[4:]):
        assert np.linalg.norm(part) <= share * (1 + 1e-12)
    norms = [np.linalg.norm(layer) for layer in layers]
    if max(norms) < share * (1 - 1e-9):
        assert not scaled
        np.testing.assert_allclose(whole, values, rtol=1e-12)
    if max(norms) > share * (1 + 1e-9):
        assert scaled


def test_a_large_layer_does_not_shrink_a_small_one():
    whole, scaled = clip_by_layer([np.array([100.0]), np.array([0.1])], 1.0)
    assert scaled
    assert whole[1] == 0.1
    assert whole[0] == pytest.approx(math.sqrt(0.5))


def test_no_layer_is_refused():
    with pytest.raises(PrivacyError, match="no array"):
        clip_by_layer([], 1.0)
