import numpy as np
import pytest

from lepton_flwr.data.scenarios import csv as csv_file
from lepton_flwr.data.scenarios.health import SCENARIO
from lepton_flwr.errors import ConfigError, DataError
from lepton_flwr.runs.queries import read_features, read_table

HEALTH = "age,sex,sample.yr,kappa,lambda,creatinine,mgus"
ROW = "90,F,1997,1.2,1.3,1,0"


@pytest.fixture
def csv(tmp_path):
    def write(*lines):
        path = tmp_path / "rows.csv"
        path.write_text("\n".join([*lines, ""]))
        return path

    return write


def read(path):
    return read_table(path, csv_file.read(path, {"death"}), SCENARIO.table)


def test_a_table_becomes_what_its_scenario_trains_on(csv):
    bare = read(csv(HEALTH, ROW))
    assert bare.rows.dtype == np.float32
    assert bare.rows.shape[0] == 1
    assert bare.answers is None
    assert bare.classes == SCENARIO.table.classes
    known = read(csv(HEALTH + ",death", ROW + ",1"))
    assert known.answers.tolist() == [1]
    assert known.rows.tolist() == bare.rows.tolist()


def test_features_are_taken_in_the_order_of_the_columns(csv):
    found = read_features(csv("b,a,c,d", "1,2,3,4", "5,6,7,8.5"), (2, 2), ("no", "yes"), 2)
    assert found.rows.tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8.5]]]
    assert found.classes == ("no", "yes")
    assert read_features(csv("a", "1"), (1,), (), 3).classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["a,b", "1,x"], "column 'b': text"),
        (["a,b", "1,inf"], "1 rows with a missing or infinite value"),
        (["a,b", "1,", "2,3"], "1 rows with a missing"),
        (["a,b,c", "1,2,3"], "3 columns: expected the 2 features"),
        (["a", "1"], "1 columns"),
        (["a,a", "1,2"], "more than once"),
        (["a,b"], "no rows"),
        ([""], "first line that names every column"),
        (["a,b", "1,2,3"], "different lengths"),
    ],
)
def test_rows_that_are_no_features_are_refused(csv, lines, told):
    with pytest.raises(DataError, match=told):
        read_features(csv(*lines), (2,), (), 2)


def test_a_missing_file_and_a_missing_shape_are_told(csv, tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_features(tmp_path / "none.csv", (2,), (), 2)
    with pytest.raises(ConfigError, match="input_shape and num_classes"):
        read_features(csv("a,b", "1,2"), (), (), 0)


def test_a_column_that_the_scenario_needs_is_missed_by_name(csv):
    with pytest.raises(DataError, match="missing column age"):
        read(csv("sex", "F"))
