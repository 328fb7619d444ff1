"""The scenarios that read a table: what comes out, and what must never go in."""

import numpy as np
import pytest

from lepton_flwr.config import RunConfig
from lepton_flwr.data import rdata
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.data.scenarios import SCENARIOS, get, transport
from lepton_flwr.errors import ConfigError, DataError

# name: rows kept, clients, features, share of each class, median norm of a row
TABLES = {
    "smoke": (569, 5, 30, (0.627, 0.373), (2, 4)),
    "health": (7874, 9, 9, (0.725, 0.275), (1, 3)),
    "credit": (4428, 5, 29, (0.718, 0.282), (2, 4)),
    "ads": (5822, 10, 93, (0.940, 0.060), (2, 4)),
    "customers": (14318, 16, 18, (0.06, 0.20, 0.12, 0.19, 0.43), (1, 3)),
    "transport": (325_041, 29, 226, (0.763, 0.237), (2, 5)),
}
OUTCOME = {
    "smoke": {"target"},
    "health": {"death", "futime", "chapter", "flc.grp"},
    "credit": {"Status"},
    "ads": {"Purchase"},
    "customers": {"market_segment", "distribution_channel", "agent", "company"},
    "transport": {"dep_delay", "dep_time", "arr_time", "air_time", "arr_delay", "tailnum"},
}
names = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n == "transport" else n for n in TABLES],
)


def load(name: str, **settings) -> FederatedData:
    scenario = get(name)
    return scenario.load(RunConfig.build(scenario.defaults, {"scenario": name}, settings))


@pytest.fixture(scope="module")
def loaded():
    cache: dict[str, FederatedData] = {}

    def once(name: str) -> FederatedData:
        if name not in cache:
            cache[name] = load(name)
        return cache[name]

    return once


@names
def test_rows_clients_features_and_classes_are_those_described(name, loaded):
    data = loaded(name)
    num_rows, clients, features, shares, (low, high) = TABLES[name]
    labels = np.concatenate([part for c in data.clients for part in (c.y_train, c.y_test)])
    assert len(data.clients) == clients
    assert data.input_shape == (features,)
    assert len(data.feature_names) == features
    assert len(labels) == num_rows
    np.testing.assert_allclose(np.bincount(labels) / num_rows, shares, atol=0.01)
    x = np.concatenate([client.x_train for client in data.clients])
    assert np.abs(x).max() <= 1
    assert low < np.median(np.linalg.norm(x, axis=1)) < high


@names
def test_every_feature_varies_and_none_is_the_label(name, loaded):
    data = loaded(name)
    x = np.concatenate([client.x_train for client in data.clients])
    y = np.concatenate([client.y_train for client in data.clients])
    varied = {n for n, v in zip(data.feature_names, x.std(axis=0), strict=True) if v > 0}
    unvaried = {n for n in data.feature_names if n not in varied}
    # Public lists name hours, airports and housing that these rows happen not to have.
    assert all("=" in n for n in unvaried), unvaried
    for k in range(data.num_classes):
        z = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9)
        correlation = np.abs(((y == k) - (y == k).mean()) @ z / (len(y) * (y == k).std()))
        assert correlation.max() < 0.85


@names
def test_no_outcome_or_later_knowledge_is_a_feature(name, loaded):
    columns = {feature.split("=")[0].split(" missing")[0] for feature in loaded(name).feature_names}
    assert not columns & OUTCOME[name]


@pytest.mark.parametrize("name", ["credit", "ads", "smoke"])
def test_a_scenario_is_loaded_the_same_again_and_differently_with_another_seed(name, loaded):
    first, again, other = loaded(name), load(name), load(name, seed=9)
    for a, b in zip(first.clients, again.clients, strict=True):
        assert np.array_equal(a.x_train, b.x_train)
        assert np.array_equal(a.x_test, b.x_test)
    assert any(
        a.x_test.shape != b.x_test.shape or not np.array_equal(a.x_test, b.x_test)
        for a, b in zip(first.clients, other.clients, strict=True)
    )


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "shards"])
def test_another_partition_takes_any_number_of_clients(partition):
    data = load("credit", clients=7, data={"partition": partition, "min_rows": 20})
    assert len(data.clients) == 7
    assert sum(len(c.y_train) + len(c.y_test) for c in data.clients) == 4454


def test_more_clients_than_natural_ones_are_refused_with_the_way_out():
    with pytest.raises(ConfigError, match=r"5 natural clients.*at least 6.*data\.partition"):
        load("credit", clients=6)


def test_transport_reads_nothing_known_after_the_scheduled_departure():
    """Changing all that is known later changes no feature."""
    flights = {
        "year": [2013, 2013],
        "month": [1, 12],
        "day": [1, 31],
        "hour": [6, 23],
        "minute": [30, 59],
        "carrier": ["UA", "ZZ"],
        "origin": ["JFK", "EWR"],
        "dest": ["LAX", "BOS"],
        "distance": [2475, 200],
        **{name: [1.0, np.nan] for name in ("temp", "dewp", "humid", "wind_dir", "wind_speed")},
        **{name: [1.0, np.nan] for name in ("wind_gust", "precip", "pressure", "visib")},
    }
    import pandas as pd

    def features(late: float) -> np.ndarray:
        table = pd.DataFrame(
            flights | {n: [late] * 2 for n in ("arr_delay", "dep_delay", "arr_time", "air_time")}
        )
        return transport.SCHEMA.transform(transport.columns(table))

    assert np.array_equal(features(-5.0), features(500.0))
    first, second = (
        dict(zip(transport.SCHEMA.feature_names, row, strict=True)) for row in features(0.0)
    )
    assert first["weekday=1"] == 1  # 1 January 2013 was a Tuesday
    assert second["weekday=1"] == 1  # and so was 31 December
    assert first["week=0"] == first["hour=6"] == first["carrier=UA"] == first["dest=LAX"] == 1
    assert second["week=52"] == 1
    assert sum(v for n, v in second.items() if n.startswith("carrier=")) == 0
    assert second["temp missing"] == second["pressure missing"] == second["wind_gust missing"] == 1
    assert second["wind_dir sin"] == second["wind_dir cos"] == 0


@pytest.mark.slow
def test_transport_keeps_every_flight_with_a_known_arrival():
    flights = transport.read()
    assert len(flights) == 327_346
    assert flights["arr_delay"].notna().all()
    listed = {n.removeprefix("dest=") for n in transport.SCHEMA.feature_names if "dest=" in n}
    assert len(listed) == 105
    assert set(flights["dest"]) <= listed
    assert flights["temp"].isna().mean() < 0.01


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("smoke", 0.97, 1.0), ("health", 0.81, 0.87), ("credit", 0.80, 0.87), ("ads", 0.69, 0.80)],
)
def test_a_central_linear_model_reaches_the_reference(name, low, high, loaded):
    """Two-sided: too good would mean that the label leaks into the features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    clients = loaded(name).clients
    x, y, x_test, y_test = (
        np.concatenate([getattr(c, part) for c in clients])
        for part in ("x_train", "y_train", "x_test", "y_test")
    )
    scores = LogisticRegression(max_iter=3000).fit(x, y).decision_function(x_test)
    assert low <= roc_auc_score(y_test, scores) <= high


def test_a_table_that_is_not_there_is_a_data_error():
    with pytest.raises(DataError, match="no table nycflights13/trains"):
        rdata.read("nycflights13", "trains")


def test_a_label_off_the_list_is_a_data_error_that_shows_no_value():
    assert rdata.classes(["b", "a"], ("a", "b")).tolist() == [1, 0]
    with pytest.raises(DataError, match="1 labels are none of a, b") as caught:
        rdata.classes(["a", "secret"], ("a", "b"))
    assert "secret" not in str(caught.value)


def test_every_table_of_the_registry_is_tested_here():
    assert set(TABLES) == set(SCENARIOS) - {"image", "csv", "iot"}
