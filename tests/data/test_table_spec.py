"""What a raw table holds, as files and settings say it."""

import json
import tomllib

import numpy as np
import pytest
import tomli_w

from lepton_flwr.config import RunConfig
from lepton_flwr.data import wire
from lepton_flwr.data.table_spec import TableSpec
from lepton_flwr.data.tables import device_tables
from lepton_flwr.errors import ConfigError, DataError

TEXT = """
label = "ill"
classes = ["yes", "no"]
test_fraction = 0.25
drop_duplicates = false
[columns]
"age, in years" = { kind = "number", low = 0, high = 120 }
income = "number"
town = { kind = "category", values = ["north", "south"] }
plan = "category"
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "schema.toml").write_text(TEXT)
    return TableSpec.read(tmp_path / "schema.toml")


def test_a_file_and_the_settings_of_a_run_say_the_same(spec):
    assert (spec.test_fraction, spec.drop_duplicates) == (0.25, False)
    config = RunConfig(scenario="csv", table=spec.config)
    read = RunConfig.build(tomllib.loads(tomli_w.dumps(config.to_dict())))
    assert read == config
    again = TableSpec.of(read.table)
    assert again == spec
    assert [c.name for c in again.schema.columns] == [c.name for c in spec.schema.columns]
    assert again.test_fraction == 0.2  # a device's own, which no settings carry
    assert wire.spec_of(wire.spec_fields(spec)) == spec


def test_a_run_of_features_says_nothing_of_tables():
    assert "table" not in RunConfig(scenario="csv").to_dict()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": ""}, "expected texts"),
        ({"label": 3}, "expected label"),
        ({"label": "income"}, "without the label"),
        ({"classes": ["no"]}, "two different texts"),
        ({"classes": ["no", "no"]}, "two different texts"),
        ({"classes": [str(i) for i in range(101)]}, "at most 100"),
        ({"classes": [1, 2]}, "expected texts"),
        ({"columns": {}}, "expected one or more"),
        ({"columns": ["age"]}, r"expected a table \[columns\]"),
        ({"columns": {"age": "integer"}}, "kind of column age"),
        ({"columns": {"age": 3}}, "kind of column age"),
        ({"columns": {"age": {"kind": "number", "low": 0}}}, "both bounds"),
        ({"columns": {"age": {"kind": "number", "lo": 0}}}, "columns.age: expected"),
        ({"columns": {"age": {"kind": "category", "values": "ab"}}}, "expected a list of texts"),
        ({"columns": {"age": {"kind": "category", "values": [1]}}}, "different texts"),
        ({"test_fraction": 1.0}, "test_fraction=1.0"),
        ({"test_fraction": "much"}, "test_fraction='much'"),
        ({"drop_duplicates": 1}, "drop_duplicates=1"),
        ({"kinds": {}}, "kinds: unknown"),
    ],
)
def test_what_makes_no_sense_is_refused(spec, change, reason):
    with pytest.raises(ConfigError, match=reason):
        TableSpec.from_plain({**spec.to_plain(), **change})


@pytest.mark.parametrize("text", ["label = ", "label = 'a'", "\x00"])
def test_a_file_that_is_none_is_refused_by_its_name(tmp_path, text):
    (tmp_path / "schema.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"schema\.toml"):
        TableSpec.read(tmp_path / "schema.toml")
    with pytest.raises(ConfigError, match="No such file"):
        TableSpec.read(tmp_path / "other.toml")


@pytest.mark.parametrize("text", [None, 3, "", "null", "[]", "{", "[" * 100_000, json.dumps({})])
def test_hostile_text_is_no_spec(text):
    with pytest.raises(ConfigError):
        wire.spec_of({wire.TABLE: text})


@pytest.mark.parametrize(
    ("classes", "values", "numbers"),
    [
        (["b", "a"], ["a", " b"], [0, 1]),
        (["10", "9"], ["9", 10, 10.0, "9.0"], [0, 1, 1, 0]),
        (["False", "True"], [True, "False"], [1, 0]),
        (["2", "x"], ["x", "2.0"], [1, 0]),
    ],
)
def test_every_device_numbers_the_classes_alike(spec, classes, values, numbers):
    for order in (classes, classes[::-1]):
        made = TableSpec.from_plain({**spec.to_plain(), "classes": order})
        assert made.answers(values).tolist() == numbers


def test_a_label_that_is_none_of_the_classes_is_refused(spec):
    with pytest.raises(DataError, match="2 of 3 values are none of the 2 classes"):
        spec.answers(["yes", "perhaps", ""])


def plain_table(rows):
    rng = np.random.default_rng(3)
    table = {"age": rng.integers(0, 9, rows).astype(float)}
    return table, rng.integers(0, 2, rows).astype(np.int32)


def test_one_record_more_moves_no_other_and_order_opens_no_account(spec):
    table, y = plain_table(200)
    shorter = device_tables({"age": table["age"][:-1]}, y[:-1], spec, "device")
    longer = device_tables(table, y, spec, "device")
    assert len(longer.y_train) + len(longer.y_test) == 200
    moved = (len(longer.y_train) - len(shorter.y_train), len(longer.y_test) - len(shorter.y_test))
    assert moved in ((1, 0), (0, 1))
    order = np.arange(200)[::-1]
    assert (
        device_tables({"age": table["age"][order]}, y[order], spec, "d").records == longer.records
    )
    assert 20 < len(longer.y_test) < 80  # a quarter, beyond 4 deviations of chance
