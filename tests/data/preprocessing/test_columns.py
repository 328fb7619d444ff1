import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_flwr.data.preprocessing import Column, TableSchema, distinct_rows
from lepton_flwr.errors import ConfigError, DataError

CELL = "cell-value"


def test_kinds_are_those_of_the_values_and_truth_values_are_numbers():
    frame = pd.DataFrame(
        {
            "n": [1, 2, 3], "f": [1.5, None, 2.0], "t": ["a", None, "b"], "b": [True, False, True],
            "mixed": [1, "x", 2.5], "nullable": pd.array([1, None, 3], dtype="Int64"),
            "empty": [None, None, None], "cat": pd.Categorical(["u", "v", "u"]),
            "day": pd.to_datetime(["2020-01-01"] * 3),
        }
    )  # fmt: skip
    kinds = {column.name: column.kind for column in TableSchema.infer(frame).columns}
    numbers = {"n", "f", "b", "nullable"}
    assert kinds == {name: "number" if name in numbers else "category" for name in frame}


def test_a_frame_a_mapping_and_an_array_read_alike():
    frame = pd.DataFrame({"n": [1.0, None, 3.0], "t": [" a ", None, "b"]})
    schema = TableSchema.infer(frame)
    for source in (frame, frame[["t", "n"]], frame.to_dict("list"), frame.to_numpy(dtype=object)):
        table = schema.read(source)
        np.testing.assert_array_equal(table["n"], [1, np.nan, 3])
        assert table["t"].tolist() == ["a", None, "b"]


def test_a_category_of_numbers_does_not_depend_on_how_they_are_stored():
    schema = TableSchema((Column("c", "category"),))
    same = [[3, 4.0], [3.0, "4"], np.array([3, 4], dtype=np.int8), np.array([3.0, 4.0])]
    assert {tuple(schema.read({"c": values})["c"]) for values in same} == {("3", "4")}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"t": ["a"]}, "missing column 'number'"),
        ({"numbr": [1], "t": ["a"]}, "did you mean 'numbr'"),
        ({"number": [CELL, 1], "t": ["a", "b"]}, "1 of 2 values are not numbers"),
        ({"number": [np.inf], "t": ["a"]}, "infinite values"),
        ({"number": [1e300], "t": ["a"]}, "beyond 2\\^64"),
        ({"number": [1, 2], "t": ["a"]}, "different lengths"),
        ({"number": [1], "t": [CELL * 50]}, "a text of 500 bytes"),
        ({"number": [1], "t": ["\ud800"]}, "UTF-8 cannot encode"),
        ({"number": [1], "t": [["list"]]}, "expected text or numbers"),
        (np.zeros((4, 3)), "3 columns: expected 2"),
        (np.zeros(4), r"an array of shape \(4,\)"),
    ],
)
def test_a_wrong_table_is_one_line_that_shows_no_value(source, message):
    schema = TableSchema((Column("number", "number"), Column("t", "category")))
    with pytest.raises(DataError, match=message) as caught:
        schema.read(source)
    assert "\n" not in str(caught.value)
    assert CELL not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"name": "", "kind": "number"},
        {"name": "a", "kind": "text"},
        {"name": "a", "kind": "number", "low": 1.0},
        {"name": "a", "kind": "number", "low": 2.0, "high": 1.0},
        {"name": "a", "kind": "category", "low": 1.0, "high": 2.0},
        {"name": "a", "kind": "category", "values": ("x", "x")},
    ],
)
def test_a_column_that_contradicts_itself_is_refused(values):
    with pytest.raises(ConfigError):
        Column(**values)


def test_bounds_of_no_column_of_numbers_are_refused():
    with pytest.raises(ConfigError, match="bounds of 't'"):
        TableSchema.infer({"n": [1], "t": ["a"]}, bounds={"t": [0, 1]})


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 1.0, np.nan]), st.sampled_from(["a", "", None]), st.integers(0, 1)
        ),
        min_size=1, max_size=30,
    ),
    st.data(),
)  # fmt: skip
def test_of_equal_rows_the_first_stays_and_one_record_more_is_one_row_more_at_most(rows, data):
    def kept(some):
        table = {
            "n": np.array([row[0] for row in some]),
            "t": np.array([row[1] for row in some], dtype=object),
        }
        return distinct_rows(table, np.array([row[2] for row in some])).tolist()

    def key(row):
        return ("missing" if np.isnan(row[0]) else row[0], row[1], row[2])

    first = {}
    for i, row in enumerate(rows):
        first.setdefault(key(row), i)
    assert kept(rows) == sorted(first.values())
    gone = data.draw(st.integers(0, len(rows) - 1))
    without = rows[:gone] + rows[gone + 1 :]
    if without:
        more = {key(rows[i]) for i in kept(rows)}
        less = {key(without[i]) for i in kept(without)}
        assert less <= more
        assert len(more - less) <= 1
