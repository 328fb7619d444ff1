"""Tables like a scenario's own, as somebody else has them."""

import numpy as np
import pandas as pd
import pytest

from lepton_flwr.data.scenarios import SCENARIOS, credit, health, smoke, transport
from lepton_flwr.errors import DataError

FLIGHT = {
    "year": 2013, "month": 7, "day": 4, "hour": 17, "minute": 30, "carrier": "B6",
    "origin": "JFK", "dest": "SJU", "distance": 1598, "temp": 80.1, "dewp": 65.0, "humid": 60.0,
    "wind_dir": 180.0, "wind_speed": 10.0, "wind_gust": np.nan, "precip": 0.02, "pressure": 1015.0,
    "visib": 10.0, "arr_delay": 16,
}  # fmt: skip
LOAN = {
    "Seniority": 9, "Home": "rent", "Time": 60, "Age": 30, "Marital": "married", "Records": "no",
    "Job": "freelance", "Expenses": 73, "Income": 129, "Assets": 0, "Debt": 0, "Amount": 800,
    "Price": 846, "Status": "good",
}  # fmt: skip


def frame(row, **changes):
    return pd.DataFrame([row | changes])


def named(names, row):
    return {name for name, value in zip(names, row, strict=True) if value == 1}


def test_every_scenario_of_a_table_says_how_others_become_rows():
    tables = {name for name, scenario in SCENARIOS.items() if scenario.table is not None}
    assert {"transport", "health", "credit", "ads", "customers", "smoke"} <= tables
    for name in tables:
        table = SCENARIOS[name].table
        assert table.label not in table.columns
        assert len(table.classes) >= 2


def test_a_flight_becomes_its_calendar_and_weather():
    row = transport.TABLE.transform(frame(FLIGHT), "error")[0]
    ones = named(transport.SCHEMA.feature_names, row)
    assert {"weekday=3", "week=26", "hour=17", "carrier=B6", "origin=JFK", "dest=SJU"} <= ones
    assert "wind_gust missing" in ones
    assert transport.TABLE.answers(frame(FLIGHT)["arr_delay"]).tolist() == [1]
    assert transport.TABLE.answers(pd.Series([15, -3, 16.0])).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"month": 13}, "column month: expected whole numbers from 1 to 12"),
        ({"day": np.nan}, "column day"),
        ({"hour": "noon"}, "column hour: holds text"),
        ({"precip": "rain"}, "column precip: holds text"),
        ({"carrier": "ZZ"}, "column carrier: 1 of 1 values"),
    ],
)
def test_an_impossible_flight_is_refused(changes, words):
    with pytest.raises(DataError, match=words):
        transport.TABLE.transform(frame(FLIGHT, **changes), "error")


def test_a_missing_column_is_named():
    with pytest.raises(DataError, match="missing column dest, visib: expected"):
        transport.TABLE.transform(frame(FLIGHT).drop(columns=["dest", "visib"]))
    with pytest.raises(DataError, match=r"missing column .* \(and 25 more\)"):
        smoke.TABLE.transform(pd.DataFrame({"x": [1]}))


def test_a_loan_without_records_is_known_and_other_words_are_not():
    assert credit.TABLE.transform(frame(LOAN), "error").shape == (1, 29)
    with pytest.raises(DataError, match="column Records: 1 of 1"):
        credit.TABLE.transform(frame(LOAN, Records="perhaps"), "error")
    with pytest.raises(DataError, match="loan_to_price"):
        credit.TABLE.transform(frame(LOAN, Amount=0, Price=0))


def test_missing_categories_are_not_unseen_ones():
    known = credit.TABLE.transform(frame(LOAN, Home=None, Job=np.nan), "error")
    assert not named(credit.SCHEMA.feature_names, known[0]) & {"Home=rent", "Job=freelance"}


def test_other_words_are_zero_in_all_if_allowed():
    rows = [LOAN, LOAN | {"Home": "castle"}]
    one, other = credit.TABLE.transform(pd.DataFrame(rows), "other")
    names = credit.SCHEMA.feature_names
    assert "Home=rent" in named(names, one)
    assert not any(name.startswith("Home") for name in named(names, other))


def test_answers_that_are_none_are_refused():
    with pytest.raises(DataError, match="1 labels are none of 0, 1"):
        health.TABLE.answers(pd.Series([0, 1, 2]))
    with pytest.raises(DataError, match="1 delays are missing"):
        transport.TABLE.answers(pd.Series([np.nan, 1.0]))
    assert smoke.TABLE.answers(pd.Series([0, 1])).tolist() == [1, 0]
