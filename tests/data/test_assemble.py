import numpy as np
import pytest

from lepton_flwr.config import PARTITIONS, RunConfig
from lepton_flwr.data.assemble import assemble
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.errors import ConfigError, DataError

N = 600
X = np.arange(N, dtype=np.float32)[:, None]  # a row's feature is its number
Y = (np.arange(N) % 3).astype(np.int32)
KEYS = np.array([f"k{i % 4}" for i in range(N)])


def build(keys=KEYS, num_classes=3, **settings) -> FederatedData:
    config = RunConfig.build({"data": {"min_rows": 20, "alpha": 2.0}}, settings)
    return assemble(config, X, Y, keys=keys, clients=5, num_classes=num_classes)


def rows(data: FederatedData, part: str) -> list[list[float]]:
    return [getattr(client, f"x_{part}")[:, 0].tolist() for client in data.clients]


@pytest.mark.parametrize("partition", PARTITIONS)
def test_no_row_is_in_two_clients_or_both_trained_on_and_held_out(partition):
    data = build(data={"partition": partition})
    every = [row for part in ("train", "test") for own in rows(data, part) for row in own]
    assert sorted(every) == X[:, 0].tolist()
    for client in data.clients:
        share = len(client.x_test) / (len(client.x_test) + len(client.x_train))
        assert share == pytest.approx(0.2, abs=0.15)  # each row by itself
    assert sum(map(len, rows(data, "test"))) == pytest.approx(0.2 * N, abs=50)


def test_a_row_less_changes_the_side_of_no_other_row():
    config = RunConfig.build({"data": {"min_rows": 2}})
    whole = assemble(config, X, Y, keys=KEYS, clients=4, num_classes=3)
    for gone in range(0, N, 50):
        kept = np.arange(N) != gone
        less = assemble(config, X[kept], Y[kept], keys=KEYS[kept], clients=4, num_classes=3)
        for part in ("train", "test"):
            for one, two in zip(rows(whole, part), rows(less, part), strict=True):
                assert set(one) - {gone} == set(two)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_labels_stay_with_their_rows(partition):
    for client in build(data={"partition": partition}).clients:
        assert np.array_equal(client.x_train[:, 0] % 3, client.y_train)
        assert np.array_equal(client.x_test[:, 0] % 3, client.y_test)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_the_seed_alone_decides_the_rows(partition):
    same = [build(data={"partition": partition}, seed=5, rounds=r) for r in (1, 2)]
    other = build(data={"partition": partition}, seed=6)
    assert rows(same[0], "test") == rows(same[1], "test")
    assert rows(same[0], "train") == rows(same[1], "train")
    assert rows(same[0], "test") != rows(other, "test")


def test_the_number_of_clients_is_the_configured_or_the_given_one():
    assert build(data={"partition": "iid"}).names == tuple(f"client-{i}" for i in range(5))
    assert len(build(data={"partition": "iid"}, clients=12).clients) == 12
    assert build().names == ("k0", "k1", "k2", "k3")
    assert len(build(clients=3).clients) == 3


def test_the_natural_partition_needs_natural_clients():
    with pytest.raises(ConfigError, match="no natural clients"):
        build(keys=None)


def test_a_label_of_one_class_is_refused():
    with pytest.raises(DataError, match="1 class"):
        build(num_classes=1)


def test_more_clients_than_rows_allow_are_refused():
    config = RunConfig.build({"clients": 100, "data": {"partition": "iid"}})
    with pytest.raises(DataError, match="150 rows for 100 clients"):
        assemble(config, X[:150], Y[:150], keys=None, clients=5, num_classes=3)
