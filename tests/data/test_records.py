import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_flwr.config import RunConfig
from lepton_flwr.data.preprocessing import TableSchema
from lepton_flwr.data.records import of_features, of_table, population
from lepton_flwr.data.tables import assemble_tables

TABLE = {
    "a": np.array([0.0, -0.0, np.nan, -np.nan, 1.0]),
    "b": np.array([None, None, "x", "x", ""], dtype=object),
    "c": np.array(["x", "x", "y", "y", "z"], dtype=object),
}
Y = np.array([0, 0, 1, 1, 0], np.int32)


def test_equal_records_have_one_name_and_others_another():
    one = of_table(TABLE, Y)
    assert one[0] == one[1]
    assert one[2] == one[3]
    assert len(set(one)) == 3
    x = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 2.0]], np.float32)
    rows = of_features(x, Y[:3] * 0)
    assert rows[0] == rows[1] != rows[2]
    assert of_features(x.reshape(3, 1, 2, 1), Y[:3] * 0) == rows  # images by all their values


@pytest.mark.parametrize(
    ("name", "value"), [("a", 2.0), ("b", "other"), ("b", ""), ("c", "other"), ("y", 1)]
)
def test_a_name_depends_on_every_value_and_on_no_other_record(name, value):
    columns = {**{key: values.copy() for key, values in TABLE.items()}, "y": Y.copy()}
    columns[name][0] = value
    y = columns.pop("y")
    before, after = of_table(TABLE, Y), of_table(columns, y)
    assert before[0] != after[0]
    assert before[1:] == after[1:]


def test_values_do_not_move_between_columns():
    y = np.zeros(1, np.int32)
    one = {"a": np.array(["xy"], object), "b": np.array(["z"], object)}
    two = {"a": np.array(["x"], object), "b": np.array(["yz"], object)}
    assert of_table(one, y) != of_table(two, y)
    assert of_table({"other": one["a"], "names": one["b"]}, y) == of_table(one, y)


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1), st.randoms())
def test_together_they_have_one_name_in_any_order_and_however_often(records, random):
    again = records + records[:1]
    random.shuffle(again)
    assert population(again) == population(records)
    assert population([*records, b"new"]) != population(records)


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 2},
        {"clients": 4},
        {"data": {"partition": "dirichlet", "alpha": 5.0}},
        {"data": {"test_fraction": 0.5}},
        {"data": {"impute": "median"}},
    ],
)
def test_no_setting_makes_other_records_of_the_same_rows(settings):
    rng = np.random.default_rng(0)
    table = {"age": rng.normal(size=200)}
    y = np.arange(200, dtype=np.int32) % 2
    schema = TableSchema.infer(table)
    base = {"data": {"partition": "iid", "min_rows": 2}}

    def named(table, y, *tables):
        config = RunConfig.build(base, *tables)
        return assemble_tables(
            config, table, y, schema=schema, keys=None, clients=3, num_classes=2
        ).population

    first = named(table, y)
    assert named(table, y, settings) == first
    assert named({"age": table["age"][::-1]}, y[::-1], settings) == first
    assert named({"age": table["age"] + 1}, y, settings) != first


def test_a_record_more_is_one_record_more_on_one_side_whether_it_is_a_duplicate_or_not():
    rng = np.random.default_rng(0)
    table = {
        "age": rng.integers(20, 40, 90).astype(float),
        "plan": rng.choice(["a", "b", None], 90).astype(object),
    }
    y = rng.integers(0, 2, 90).astype(np.int32)
    keys = np.array(["one", "two", "three"] * 30)
    schema = TableSchema.infer(table)
    config = RunConfig.build({"data": {"min_rows": 2}})

    def records(count):
        some = {name: values[:count] for name, values in table.items()}
        made = assemble_tables(
            config, some, y[:count], schema=schema, keys=keys[:count], clients=3, num_classes=2
        )
        return [
            set(of_table(rows, classes))
            for client in made.clients
            for rows, classes in [(client.train, client.y_train), (client.test, client.y_test)]
        ]

    added = []
    for count in range(60, 90):
        before, after = records(count), records(count + 1)
        assert all(one <= two for one, two in zip(before, after, strict=True))
        added.append(sum(map(len, after)) - sum(map(len, before)))
    assert set(added) == {0, 1}  # both kinds were there
