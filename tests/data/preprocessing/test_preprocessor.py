import dataclasses
import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from lepton_flwr.data.preprocessing import Preprocessor, TableSchema, fit_tables
from lepton_flwr.data.preprocessing.preprocessor import FittedCategory
from lepton_flwr.errors import DataError, LeptonError

CELL = "cell-value"


@pytest.fixture(params=[0.0, 0.3], ids=["exact", "private"], scope="module")
def fitted(request, table, keyed_fit):
    return keyed_fit(table, request.param, most_rows=256)


@pytest.fixture(scope="module")
def exact(table, split):
    schema = TableSchema.infer(table)
    return fit_tables(split(table, 3, schema), schema)


def test_it_travels_as_json_and_gives_the_same_features(fitted, table, tmp_path):
    fitted.save(tmp_path / "preprocessor.json")
    loaded = Preprocessor.load(tmp_path / "preprocessor.json")
    assert loaded == fitted
    np.testing.assert_array_equal(loaded.transform(table), fitted.transform(table))
    assert loaded.feature_names == fitted.feature_names


def test_every_feature_is_finite_and_a_row_s_features_are_its_own(fitted, table):
    x = fitted.transform(table)
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    some = [5, 3, 400]
    np.testing.assert_array_equal(fitted.transform(table.iloc[some]), x[some])


def test_private_features_stay_within_the_released_bounds(table, keyed_fit):
    made = keyed_fit(table, 0.3, most_rows=256)
    wild = table.iloc[:2].assign(age=[1e15, -1e15], income=[1e18, -1e18])
    x, (age, income) = made.transform(wild), made.columns[:2]
    for at, column in ((0, age), (made.feature_names.index("income"), income)):
        want = [
            (column.high - column.mean) / column.scale,
            (column.low - column.mean) / column.scale,
        ]
        np.testing.assert_allclose(x[:, at], want, rtol=1e-5)


def test_an_unseen_category_is_other_or_an_error_as_asked(fitted, table):
    rows = table.iloc[:3].assign(town=[CELL, "Ulm", None])
    features = [i for i, name in enumerate(fitted.feature_names) if name.startswith("town")]
    unseen = fitted.transform(rows)[0, features]
    other = any(name.startswith("town other") for name in fitted.feature_names)
    assert unseen.sum() == other
    with pytest.raises(DataError, match="'town': 1 values are none of the categories") as caught:
        fitted.transform(rows, unseen="error")
    assert CELL not in str(caught.value)
    fitted.transform(rows.iloc[1:], unseen="error")


def test_new_rows_are_read_by_name_and_an_array_by_position(fitted, table):
    x = fitted.transform(table)
    np.testing.assert_array_equal(fitted.transform(table[table.columns[::-1]].assign(more=1)), x)
    np.testing.assert_array_equal(fitted.transform(table.to_numpy(dtype=object)), x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="age"), "missing column 'age'"),
        (lambda t: t.rename(columns={"age": "Age"}), "did you mean 'Age'"),
        (lambda t: t.assign(age=CELL), "column 'age': 600 of 600 values are not numbers"),
        (lambda t: t.to_numpy(dtype=object)[:, 1:], "expected \\(rows, 7\\): age, income"),
        (lambda t: t.assign(age=np.inf), "'age' has infinite values"),
    ],
)
def test_rows_of_another_kind_are_one_line_that_shows_no_value(fitted, table, change, message):
    with pytest.raises(DataError, match=message) as caught:
        fitted.transform(change(table))
    assert CELL not in str(caught.value)


def broken(values, **changes):
    return json.dumps({**values, **changes})


@pytest.mark.parametrize(
    "damage",
    [
        lambda v: "",
        lambda v: "[]",
        lambda v: "{}",
        lambda v: json.dumps(v)[:-9],
        lambda v: broken(v, version=2),
        lambda v: broken(v, salt="00"),
        lambda v: broken(v, salt=7),
        lambda v: broken(v, extra=1),
        lambda v: broken(v, columns=[]),
        lambda v: broken(v, columns=[*v["columns"], v["columns"][0]]),
        lambda v: broken(v, columns=[{**v["columns"][0], "scale": 0}]),
        lambda v: broken(v, columns=[{**v["columns"][0], "mean": None}]),
        lambda v: json.dumps(v).replace('"mean": ', '"mean": NaN, "x": ', 1),
        lambda v: broken(v, columns=[{**v["columns"][0], "kind": "code"}]),
        lambda v: broken(v, columns=[{**v["columns"][-1], "values": [1, 2]}]),
        lambda v: broken(v, columns=[{**v["columns"][-1], "values": ["a"], "fill": 3}]),
        lambda v: broken(v, columns=["age"]),
        lambda v: broken(v, columns=[{**v["columns"][0], "indicator": "yes"}]),
        lambda v: broken(v, noise_multiplier=-1),
        lambda v: broken(v, releases="x"),
        lambda v: broken(v, releases=-1),
        lambda v: "[" * 100_000,
    ],
)
def test_a_damaged_file_is_one_named_error(exact, damage, tmp_path):
    values = json.loads(exact.to_json())
    (tmp_path / "p.json").write_text(damage(values))
    with pytest.raises(LeptonError) as caught:
        Preprocessor.load(tmp_path / "p.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "columns"), [("c", 50), ("c" * 2**20, 1)])
def test_a_small_file_of_many_features_takes_no_memory_and_is_refused(exact, name, columns):
    column = {
        "kind": "category", "values": [], "slots": [], "bits": 0, "missing": False,
        "others": 4096, "fill": None,
    }  # fmt: skip
    made = [{**column, "name": f"{name}{number}"} for number in range(columns)]
    text = broken(json.loads(exact.to_json()), columns=made, order=[])
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="damaged"):
            Preprocessor.from_json(text)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_the_number_of_features_is_that_of_their_names(fitted):
    for column in (*fitted.columns, FittedCategory("c", ("a",), missing=True, others=7)):
        assert column.num_features == len(column.feature_names)


def test_an_absent_file_is_one_named_error(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        Preprocessor.load(tmp_path / "absent.json")


def test_the_file_holds_no_category_by_name_under_privacy(table, split, exact):
    schema = TableSchema.infer(table)
    made = fit_tables(split(table, 3, schema), schema, noise_multiplier=0.3)
    assert "Ulm" not in made.to_json()
    assert "Ulm" in exact.to_json()


def test_equal_preprocessors_are_equal_and_frozen(fitted):
    with pytest.raises(dataclasses.FrozenInstanceError):
        fitted.releases = 0
    assert pd.DataFrame(fitted.transform(pd.DataFrame({n: [] for n in fitted.order}))).empty


@pytest.mark.parametrize("others", [1, 2, 64])
def test_other_categories_are_divided_by_their_hash_and_by_nothing_else(others):
    column = FittedCategory("c", values=("a", "b"), others=others)
    fitted = Preprocessor((column,), bytes(16))
    assert len(fitted.feature_names) == 2 + others
    texts = np.array(["a", *(f"rare-{i}" for i in range(500))], dtype=object)
    features = fitted.transform({"c": texts})
    assert (features.sum(axis=1) == 1).all()
    assert features[0, 0] == 1
    assert (features[1:, :2] == 0).all()
    assert (features[1:, 2:].sum(axis=0) > 0).sum() > 0.9 * others
    assert (fitted.transform({"c": texts[::-1]})[::-1] == features).all()
    assert Preprocessor.from_json(fitted.to_json()) == fitted
    if others > 1:
        salted = Preprocessor((column,), bytes(15) + b"x").transform({"c": texts})
        assert (salted != features).any()
