"""Small tables as data scientists have them, and clients that keep to a test's folder."""

import numpy as np
import pandas as pd
import pytest

from lepton_flwr import LeptonClient


def table(rows=400, seed=0):
    """Numbers and texts, some of them missing, some rows twice; a text label that follows."""
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 80, rows).astype(float)
    income = rng.lognormal(3, 0.5, rows).round(2)
    town = rng.choice(["Ayr", "Bute", "Crail"], rows, p=[0.5, 0.3, 0.2]).astype(object)
    risk = (age - 49) / 18 + (town == "Bute") + rng.normal(0, 0.3, rows)
    frame = pd.DataFrame({"age": age, "town": town, "income": income, "note": "plain"})
    frame["outcome"] = np.where(risk > 0.3, "stays", "leaves")
    frame.loc[rng.random(rows) < 0.05, "age"] = np.nan
    frame.loc[rng.random(rows) < 0.05, "income"] = np.nan
    return pd.concat([frame, frame.head(rows // 10)], ignore_index=True)


@pytest.fixture(name="table")
def table_fixture():
    return table


@pytest.fixture
def rows():
    frame = table()
    return frame.iloc[:, :-1].values, frame.iloc[:, -1].values


@pytest.fixture
def make(tmp_path):
    """Make a client below the test's folder; what is printed is off."""

    def client(**options):
        options = {"key_store": tmp_path / "keys", "out": tmp_path / "runs"} | options
        return LeptonClient(**({"progress": False, "participants": 3, "rounds": 2} | options))

    return client
