import dataclasses

import pytest

from lepton_flwr.secagg.errors import FloorError, MessageError
from lepton_flwr.secagg.graph import complete_threshold, default_floor


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"number": 0}, MessageError),
        ({"number": 2**62}, MessageError),
        ({"purpose": "query"}, MessageError),
        ({"l2_norm_clip": -1.0}, MessageError),
        ({"l2_norm_clip": float("nan")}, MessageError),
        ({"min_survivors": 1}, FloorError),
        ({"min_survivors": 7}, FloorError),
    ],
)
def test_a_session_that_cannot_be_is_refused(federation, change, error):
    with pytest.raises(error):
        dataclasses.replace(federation(clients=6).config, **change)


@pytest.mark.parametrize("clients", [1, 10_001])
def test_a_session_has_2_to_10000_clients(federation, clients):
    config = federation(clients=6).config
    with pytest.raises(MessageError, match="clients"):
        dataclasses.replace(config, layout=dataclasses.replace(config.layout, num_clients=clients))


def test_the_floor_that_nobody_named_is_what_the_protocol_needs():
    assert default_floor(30) == complete_threshold(30) == 21
    assert default_floor(3) == 3
    assert default_floor(100, sampling_probability=0.5) == complete_threshold(25)
    assert default_floor(10, sampling_probability=0.1) == 3


def test_on_a_ring_an_exchange_waits_for_nine_tenths(federation, sparse):
    assert federation(clients=9).config.enough(9) == 7
    assert federation(clients=9, min_survivors=8).config.enough(9) == 8
    assert sparse().config.enough(150) == 135
    assert sparse().config.enough(121) == 109
    assert sparse(min_survivors=140).config.enough(150) == 140
