"""CSV files as devices read them."""

import numpy as np
import pytest

from lepton_flwr.data.csv_rows import read, read_file
from lepton_flwr.data.preprocessing import Column, TableSchema
from lepton_flwr.errors import DataError

SCHEMA = TableSchema((Column("age", "number"), Column("plan", "category")))


def rows(text, **options):
    return read(text.encode(), SCHEMA, "ill", "data.csv", **options)


def test_columns_are_found_by_name_and_others_are_not_looked_at():
    table, labels = rows('ill,diary,plan,age\n yes ,"a, b",x,3\nno,"c\nd",,4.5\n')
    assert table["age"].tolist() == [3.0, 4.5]
    assert table["plan"].tolist() == ["x", None]
    assert labels == ["yes", "no"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7.0), (" 7 ", 7.0), ("-1e3", -1000.0), ("True", 1.0), ("false", 0.0),
     ("", np.nan), ("NA", np.nan), ("nan", np.nan), ("None", np.nan)],
)  # fmt: skip
def test_numbers(text, value):
    np.testing.assert_equal(rows(f"age,plan\n{text},a\n")[0]["age"], [value])


@pytest.mark.parametrize(
    ("text", "value"), [("007", "007"), ("7", "7"), (" a b ", "a b"), ("NA", None), ("1.0", "1.0")]
)
def test_a_text_among_categories_means_the_same_whatever_the_others_are(text, value):
    for other in ("1", "x", ""):
        table, _ = rows(f"age,plan\n1,{other}\n1,{text}\n")
        assert table["plan"][1] == value


def test_a_byte_order_mark_and_blank_lines_are_no_rows():
    table, labels = read("\ufeffage,plan\n1,a\n\n".encode(), SCHEMA, "ill", "f")
    assert table["age"].tolist() == [1.0]
    assert labels == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected a first line that names every column"),
        ("age,plan\n", "a header and no rows"),
        ("age,age\n1,2\n", "column 'age' appears more than once"),
        ("age,\n1,2\n", "expected a first line that names every column"),
        ("age,plan\n1\n1,a\n", "1 of 2 rows do not have the 2 values"),
        ("age,plan\n1,a,b\n", "1 of 1 rows do not have the 2 values"),
        ("age\n1\n", "missing column 'plan'"),
        ("age,plan\nold,a\n7,b\nx,c\n", "column 'age': 2 of 3 values are not numbers"),
        ("age,plan\n1_000,a\n", "1 of 1 values are not numbers"),
        ("age,plan\ninf,a\n", "column 'age' has infinite values"),
        ("age,plan\n1e300,a\n", "column 'age' has infinite values, or beyond"),
        (f"age,plan\n1,{'a' * 300}\n", "a text of 300 bytes"),
        ('age,plan\n1,"a\n', "no CSV file in UTF-8"),
        (f"age,plan\n1,{'a' * 200_000}\n", "no CSV file in UTF-8"),
    ],
)
def test_what_is_no_such_table_is_refused_without_a_value_of_it(text, reason):
    with pytest.raises(DataError, match=reason) as caught:
        rows(text)
    assert "\n" not in str(caught.value)
    assert "old" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"age,plan\n\xff,a\n", b"\x00", b"PK"])
def test_bytes_that_are_no_text_are_a_named_error(content):
    with pytest.raises(DataError):
        read(content, SCHEMA, "ill", "data.csv")


def test_a_missing_file_is_a_named_error(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_file(tmp_path / "none.csv", SCHEMA, "ill")
