"""What the tables of the SDK are measured on."""

import pandas as pd
import pytest

from simulations.benchmarks.sdk_tables import TABLES, Result, central, export, report


@pytest.fixture(scope="module", params=["flchain", "credit_data"])
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    path, held_out = export(request.param, folder, 1)
    return request.param, pd.read_csv(path), held_out, path


def test_held_out_rows_are_a_fifth_and_the_label_is_last(exported):
    name, table, held_out, _ = exported
    assert len(held_out) / (len(table) + len(held_out)) == pytest.approx(0.2, abs=0.001)
    assert table.columns[-1] == held_out.columns[-1] == TABLES[name][1]
    assert list(table.columns) == list(held_out.columns)
    assert not {"futime", "chapter", "rownames"} & set(table.columns)


def test_the_central_model_is_as_good_as_published(exported):
    """Two-sided: the references of the scenarios are .820 and .798, of other splits."""
    name, _, held_out, path = exported
    linear, trees = central(path, held_out)
    assert 0.78 < linear < 0.84, name
    assert 0.77 < trees < 0.84, name


def test_the_report_is_a_table_of_means():
    results = [
        Result("flchain", 6299, 9, 0.80, 0.81, 0.7, accuracy, 2.99, 60) for accuracy in (0.79, 0.80)
    ]
    assert report(results).splitlines()[2] == (
        "| flchain | 6,299 | 0.700 | 0.800 | 0.810 | **0.795** | -0.5 points | 2.99 | 60 |"
    )
