import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_flwr.data.schema import Category, Cycle, Number, Schema
from lepton_flwr.errors import ConfigError, DataError

SCHEMA = Schema(
    (
        Number("a", -2, 6),
        Number("b", 0, 100, log1p=True, centred=False, fill=3, indicator=True),
        Category("c", ("x", "y")),
        Category("d", (1, 2, 3), other=True),
        Cycle("e", 24),
        Cycle("f", 360, optional=True),
    )
)
numbers = st.floats(-1e6, 1e6)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "a": numbers,
            "b": numbers | st.just(math.nan),
            "c": st.sampled_from(["x", "y", "z", None]),
            "d": st.sampled_from([1, 2.0, 3, 9, math.nan]),
            "e": numbers,
            "f": numbers | st.just(math.nan),
        }
    ),
    min_size=1,
    max_size=30,
)


def table(rows: list[dict]) -> dict[str, np.ndarray]:
    kind = {"c": object}
    return {name: np.array([row[name] for row in rows], kind.get(name)) for name in "abcdef"}


@given(rows, st.data())
def test_a_row_is_encoded_without_regard_to_other_rows(rows, data):
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=10))
    whole = SCHEMA.transform(table(rows))
    alone = SCHEMA.transform(table([rows[i] for i in chosen]))
    assert alone.tobytes() == whole[chosen].tobytes()


@given(rows)
def test_features_are_finite_named_and_within_one(rows):
    encoded = SCHEMA.transform(table(rows))
    assert encoded.dtype == np.float32
    assert encoded.shape == (len(rows), len(SCHEMA.feature_names))
    assert np.isfinite(encoded).all()
    assert np.abs(encoded).max() <= 1


def test_numbers_are_clipped_to_their_range_and_scaled():
    schema = Schema((Number("a", -2, 6), Number("b", 0, 10, centred=False)))
    encoded = schema.transform({"a": [-2, 2, 6, 99, -99], "b": [0, 5, 10, 11, -1]})
    assert encoded.T.tolist() == [[-1, 0, 1, 1, -1], [0, 0.5, 1, 1, 0]]


def test_amounts_are_scaled_by_their_logarithm():
    schema = Schema((Number("a", 0, 99, log1p=True, centred=False),))
    np.testing.assert_allclose(schema.transform({"a": [0, 9, 99]})[:, 0], [0, 0.5, 1])


def test_a_missing_number_takes_the_declared_fill_and_is_marked():
    schema = Schema((Number("a", 0, 10, centred=False, fill=5, indicator=True),))
    assert schema.feature_names == ("a", "a missing")
    assert schema.transform({"a": [math.nan, 10]}).tolist() == [[0.5, 1], [1, 0]]


def test_a_missing_number_without_a_fill_is_refused_by_column_name():
    with pytest.raises(DataError, match="column a: 1 of 2 values are missing"):
        Schema((Number("a", 0, 1),)).transform({"a": [0.5, math.nan]})
    with pytest.raises(DataError, match="column e: 1 of 2 values are missing"):
        Schema((Cycle("e", 24),)).transform({"e": [3, math.nan]})


def test_unseen_categories_are_zero_or_other():
    schema = Schema((Category("c", ("x", "y")), Category("d", ("x", "y"), other=True)))
    values = np.array(["y", "z", None], object)
    assert schema.transform({"c": values, "d": values}).tolist() == [
        [0, 1, 0, 1, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1],
    ]


def test_a_cycle_joins_its_ends_and_a_missing_angle_is_the_centre():
    schema = Schema((Cycle("f", 360, optional=True),))
    encoded = schema.transform({"f": [0, 90, 360, math.nan]})
    expected = [[0, 1], [1, 0], [0, 1], [0, 0]]
    np.testing.assert_allclose(encoded, expected, atol=1e-6)


def test_text_among_numbers_is_refused_without_showing_it():
    with pytest.raises(DataError, match="column a: holds text") as caught:
        Schema((Number("a", 0, 1),)).transform({"a": ["secret", "0.5"]})
    assert "secret" not in str(caught.value)


def test_an_absent_column_is_named():
    with pytest.raises(DataError, match="missing column b"):
        Schema((Number("a", 0, 1), Number("b", 0, 1))).transform({"a": [1.0]})


@pytest.mark.parametrize(
    "declare",
    [
        lambda: Number("a", 1, 1),
        lambda: Number("a", 0, math.inf),
        lambda: Number("a", -1, 1, log1p=True),
        lambda: Number("a", 0, 1, indicator=True),
        lambda: Category("a", ()),
        lambda: Category("a", ("x", "x")),
        lambda: Cycle("a", 0),
        lambda: Schema(()),
        lambda: Schema((Number("a", 0, 1), Number("a", 0, 2))),
    ],
)
def test_a_declaration_without_meaning_is_refused(declare):
    with pytest.raises(ConfigError):
        declare()
