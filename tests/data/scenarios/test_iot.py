import numpy as np
import pytest

from lepton_flwr.config import RunConfig
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.data.scenarios import get, iot
from lepton_flwr.errors import ConfigError, DataError

PEOPLE = 6


def recordings(samples: int = 260) -> dict:
    """Two exercises of six people, in the form of `load_watch`: the second is the faster one."""
    rng = np.random.default_rng(0)
    made = {"X": [], "y": [], "subject": [], "side": []}
    for person in range(1, PEOPLE + 1):
        for label in (0, 1):
            time = np.arange(samples)[:, None] * (0.1 + 0.3 * label)
            made["X"].append(np.sin(time + person) + rng.normal(0, 0.1, (samples, 6)))
            made["y"].append(label)
            made["subject"].append(person)
            made["side"].append(float(person % 2))
    return made


@pytest.fixture
def load(monkeypatch):
    monkeypatch.setattr(iot, "_read", recordings)

    def start(clients=None, **data) -> FederatedData:
        more = {} if clients is None else {"clients": clients}
        table = {"scenario": "iot", "data": {"min_rows": 2, **data}, **more}
        return get("iot").load(RunConfig.build(get("iot").defaults, table))

    return start


def test_windows_are_two_seconds_begun_every_second():
    x, y, people = iot.windows(recordings(260))  # 5.2 s: from 0, 1, 2 and 3
    assert x.shape == (4 * 2 * PEOPLE, 48)
    assert len(iot.feature_names()) == 48
    assert np.bincount(y).tolist() == [4 * PEOPLE] * 2
    assert np.bincount(people)[1:].tolist() == [8] * PEOPLE


def test_a_window_s_features_are_statistics_of_its_own_samples():
    rng = np.random.default_rng(1)
    samples = rng.normal(0, 1, (150, 6))
    made = {"X": [samples], "y": [3], "subject": [1], "side": [1.0]}
    x, _, _ = iot.windows(made)
    unit = np.clip(samples[50:150] / iot.BOUNDS, -1, 1)
    wanted = {"mean": unit.mean(0), "smallest": unit.min(0), "half": np.median(unit, 0)}
    for name, values in wanted.items():
        at = [iot.feature_names().index(f"{channel} {name}") for channel in iot.CHANNELS]
        np.testing.assert_allclose(x[1, at], values, atol=1e-6)
    other = {**made, "X": [np.vstack([samples[:50] * 9, samples[50:]])]}
    np.testing.assert_array_equal(iot.windows(other)[0][1], x[1])


def test_features_stay_within_their_scale_whatever_the_watch_says():
    wild = {"X": [np.random.default_rng(2).normal(0, 1e6, (300, 6))], "y": [0], "subject": [1],
            "side": [0.0]}  # fmt: skip
    assert np.abs(iot.windows(wild)[0]).max() <= 1


def test_a_left_arm_is_a_right_arm_in_a_mirror():
    rng = np.random.default_rng(1)
    right = rng.normal(0, 0.5, (100, 6))
    left = right * iot.MIRROR
    one = {"X": [right], "y": [0], "subject": [1], "side": [1.0]}
    two = {"X": [left], "y": [0], "subject": [1], "side": [0.0]}
    np.testing.assert_array_equal(iot.windows(one)[0], iot.windows(two)[0])


def test_nobody_is_trained_on_and_evaluated_on(load):
    x, _, people = iot.windows(recordings())
    whose = {row.tobytes(): int(person) for row, person in zip(x, people, strict=True)}
    data = load(test_fraction=0.3)
    trained = {whose[row.tobytes()] for c in data.clients for row in c.x_train}
    tested = {whose[row.tobytes()] for c in data.clients for row in c.x_test}
    assert len(data.clients) == len(trained) == 4
    assert len(tested) == 2
    assert not trained & tested
    assert sum(len(c.y_train) + len(c.y_test) for c in data.clients) == len(x)
    assert all({whose[row.tobytes()] for row in c.x_train} == {int(n[-2:])}
               for n, c in zip(data.names, data.clients, strict=True))  # fmt: skip
    assert min(len(c.y_test) for c in data.clients) >= 1


def test_the_people_left_out_change_with_the_seed_and_only_with_it(load, monkeypatch):
    def names(seed):
        config = RunConfig.build(get("iot").defaults, {"seed": seed, "data": {"min_rows": 2}})
        return get("iot").load(config).names

    assert names(1) == names(1)
    assert len({names(seed) for seed in range(6)}) > 1


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "shards", "quantity"])
def test_other_partitions_leave_people_out_too(load, partition):
    x, _, people = iot.windows(recordings())
    whose = {row.tobytes(): int(person) for row, person in zip(x, people, strict=True)}
    data = load(partition=partition, clients=3, alpha=5.0)
    assert len(data.clients) == 3
    trained = {whose[row.tobytes()] for c in data.clients for row in c.x_train}
    assert not trained & {whose[row.tobytes()] for c in data.clients for row in c.x_test}


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["X"].__setitem__(0, np.zeros((200, 5))),
        lambda r: r["X"].__setitem__(0, np.full((200, 6), np.nan)),
        lambda r: r["X"].__setitem__(slice(None), [np.zeros((99, 6))] * len(r["X"])),
    ],
)
def test_recordings_of_another_kind_are_refused(change):
    made = recordings()
    change(made)
    with pytest.raises(DataError):
        iot.windows(made)


def test_too_few_windows_name_the_setting_to_change(load):
    with pytest.raises(ConfigError, match=r"lower data\.min_rows"):
        load(min_rows=1000)


def test_without_seglearn_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "seglearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install 'lepton-flwr\[simulation\]'"):
        get("iot").load(RunConfig.build(get("iot").defaults))


def test_the_published_data_are_4677_windows_of_ten_people_at_seven_exercises():
    data = get("iot").load(RunConfig.build(get("iot").defaults, {"scenario": "iot"}))
    assert len(data.clients) == 8
    assert data.num_classes == 7
    assert sum(len(c.y_train) + len(c.y_test) for c in data.clients) == 4677
    labels = np.concatenate([c.y_train for c in data.clients])
    assert np.bincount(labels, minlength=7).min() > 300
    x = np.concatenate([c.x_train for c in data.clients])
    assert (x.std(axis=0) > 0.01).all()
