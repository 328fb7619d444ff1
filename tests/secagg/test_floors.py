"""A device's own floors: read from its policy, and kept against any server."""

import dataclasses

import pytest

from lepton_flwr.crypto.stream import StreamCipher
from lepton_flwr.device import Policy
from lepton_flwr.errors import ConfigError, PolicyError
from lepton_flwr.secagg.errors import FloorError
from lepton_flwr.secagg.floors import ClientFloors
from lepton_flwr.secagg.graph import session_graph


def test_a_policy_file_says_all_floors(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(
        "min_survivors = 20\n[secagg]\nmin_clients = 30\nmin_threshold = 21\nsparse = false\n"
        'max_dimension = 1000\nmax_number = 50\nciphers = ["chacha20"]\n'
    )
    assert Policy.read(path).floors == ClientFloors(
        20, 30, 21, False, 1000, 50, (StreamCipher.CHACHA20,)
    )


def test_what_a_policy_leaves_out_is_the_default(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text("min_survivors = 20\n")
    assert Policy.read(path).floors == ClientFloors(min_survivors=20)


@pytest.mark.parametrize(
    "line",
    [
        "min_client = 30",
        "min_clients = 1",
        "min_clients = 30.0",
        "min_threshold = 0",
        "max_dimension = 0",
        "max_number = 0",
        "sparse = 1",
        "ciphers = []",
        'ciphers = "chacha20"',
        'ciphers = ["rot13"]',
        "ciphers = [1]",
        "min_survivors = 2",
    ],
)
def test_a_policy_that_cannot_be_read_as_meant_is_refused(tmp_path, line):
    path = tmp_path / "policy.toml"
    path.write_text(f"min_survivors = 20\n[secagg]\n{line}\n")
    with pytest.raises(PolicyError, match=r"policy\.toml"):
        Policy.read(path)


def test_a_table_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="table"):
        Policy(min_survivors=3, secagg=7)


@pytest.mark.parametrize(
    ("floors", "text"),
    [
        (ClientFloors(min_survivors=5), "at least 5"),
        (ClientFloors(min_clients=7), "at least 7"),
        (ClientFloors(max_dimension=51), "at most 51"),
        (ClientFloors(max_number=2), "at most 2"),
        (ClientFloors(ciphers=("chacha20",)), "chacha20"),
    ],
)
def test_a_session_below_a_floor_is_refused(federation, floors, text):
    config = federation(clients=6, min_survivors=4, number=3).config
    with pytest.raises(FloorError, match=text):
        floors.check(config)


def test_a_session_at_the_floors_is_accepted(federation):
    config = federation(clients=6, min_survivors=4, number=3).config
    config = dataclasses.replace(config, cipher=StreamCipher.CHACHA20)
    floors = ClientFloors(4, 6, 5, False, 52, 3, ("chacha20",))
    floors.check(config)
    floors.check_graph(session_graph(bytes(32), 6))


@pytest.mark.parametrize(
    ("floors", "size", "text"),
    [
        (ClientFloors(min_clients=7), 6, "clients: 6"),
        (ClientFloors(min_threshold=6), 6, "threshold: 5"),
        (ClientFloors(sparse=False), 129, "complete graph"),
    ],
)
def test_a_graph_below_a_floor_is_refused(floors, size, text):
    with pytest.raises(FloorError, match=text):
        floors.check_graph(session_graph(bytes(32), size))
