"""The pages of results from made-up measurements; what measures is run by hand."""

import dataclasses
import sys

import numpy as np
import pytest

from lepton_flwr.data import scenarios
from lepton_flwr.data.federated import ClientData, FederatedData
from lepton_flwr.errors import ConfigError, DataError, LeptonError
from simulations.results import measure
from simulations.results.__main__ import measure_all
from simulations.results.central import central
from simulations.results.measure import WAYS, Store, missing, settings
from simulations.results.pages import write

RUN = {
    "loss": 0.4, "clients": 9, "rounds": 10, "rounds_skipped": [], "delta": 1e-5,
    "num_parameters": 10, "saturated": 0, "bytes_up_per_client": 1_500_000,
}  # fmt: skip


def measured(way, seed=1, auc=0.83):
    found = {"accuracy": 0.8, "auc": auc, "seconds": 61.0, "seed": seed}
    found["command"] = " ".join(way.command("health", seed))
    if way.key in ("majority", "trees", "network"):
        return found | {"rows": 6300, "features": 9}
    curve = [[number, auc - 0.1 / number, 0.8] for number in range(1, 11)]
    return found | RUN | {"curve": curve, "epsilon_record": way.epsilon}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_what_is_measured_is_not_measured_again(store, tmp_path):
    assert [way.key for _, way in missing(store, ["health"], 1)] == [way.key for way in WAYS]
    for way in WAYS[:5]:
        store.put("health", way, 1, measured(way))
    again = Store(tmp_path)
    assert [way.key for _, way in missing(again, ["health"], 1)] == ["epsilon-3", "epsilon-1"]
    assert len(list(missing(again, ["health"], 2))) == len(WAYS)


def test_two_that_measure_at_once_keep_each_others_numbers(store, tmp_path):
    other = Store(tmp_path)
    store.put("health", WAYS[0], 1, measured(WAYS[0]))
    other.put("credit", WAYS[1], 1, measured(WAYS[1]))
    assert Store(tmp_path).has("health", WAYS[0], 1)


def test_a_page_says_what_was_measured_and_how(store, tmp_path):
    for way in WAYS:
        store.put("health", way, 1, measured(way))
    write(store, tmp_path)
    page = (tmp_path / "health.md").read_text()
    assert "| federated, epsilon 1 | 0.800 | 0.830 | 1 | 1 min 01 s |" in page
    assert "`lepton simulate health --epsilon 3`" in page
    assert "`python -m simulations.results central health trees`" in page
    assert "One seed is one draw" in page
    assert "](health.png)" in page
    assert (tmp_path / "health.png").stat().st_size < 60_000
    assert "[health](health.md)" in (tmp_path / "README.md").read_text()


def test_several_seeds_are_a_mean_and_a_range(store, tmp_path):
    for seed, auc in ((1, 0.8), (2, 0.9)):
        store.put("health", WAYS[3], seed, measured(WAYS[3], seed, auc))
    write(store, tmp_path)
    page = (tmp_path / "health.md").read_text()
    assert "0.850 (0.800 to 0.900)" in page
    assert "not measured" in page


def test_a_store_that_is_none_is_refused(tmp_path):
    (tmp_path / "measured.json").write_text("{")
    with pytest.raises(DataError, match="no JSON"):
        Store(tmp_path)


def test_a_command_that_fails_is_named():
    with pytest.raises(LeptonError, match="ended with 3: gone"):
        measure._run([sys.executable, "-c", "import sys; print('gone', file=sys.stderr); exit(3)"])


@pytest.fixture
def separable(monkeypatch):
    """Scenario health on two clients of rows that a line separates."""
    rng = np.random.default_rng(3)

    def load(_config):
        x = rng.normal(size=(2, 300, 9)).astype(np.float32)
        y = (x[..., 0] > 0.5).astype(np.int32)
        clients = tuple(
            ClientData(a[:200], b[:200], a[200:], b[200:]) for a, b in zip(x, y, strict=True)
        )
        return FederatedData(clients, ("a", "b"), 2, ())

    changed = dataclasses.replace(scenarios.get("health"), load=load)
    monkeypatch.setattr(scenarios, "get", lambda name: changed)


@pytest.mark.parametrize(("kind", "least"), [("network", 0.97), ("trees", 0.97)])
def test_references_learn_what_can_be_learnt(separable, kind, least):
    found = central(settings("health"), kind)
    assert found.auc > least
    assert (found.rows, found.features) == (400, 9)


def test_the_most_frequent_answer_knows_nothing(separable):
    found = central(settings("health"), "majority")
    assert found.auc == pytest.approx(0.5)
    assert 0.55 < found.accuracy < 0.8
    with pytest.raises(ConfigError, match="kind"):
        central(settings("health"), "oracle")


def test_a_run_that_fails_is_left_out_and_the_others_go_on(tmp_path, monkeypatch):
    def one(scenario, way, seed, under):
        if way.key == "epsilon-8":
            raise LeptonError("no space")
        return measured(way, seed)

    monkeypatch.setattr("simulations.results.__main__.measure", one)
    with pytest.raises(LeptonError, match="not measured: health epsilon-8; the same command"):
        measure_all(["health"], docs=tmp_path)
    assert [way.key for _, way in missing(Store(tmp_path), ["health"], 1)] == ["epsilon-8"]
    monkeypatch.setattr("simulations.results.__main__.measure", lambda s, w, *_: measured(w))
    measure_all(["health"], only=["epsilon-8"], docs=tmp_path)
    assert list(missing(Store(tmp_path), ["health"], 1)) == []
