import pytest

from lepton_flwr.secagg import wire
from lepton_flwr.secagg.wire import STATISTICS, purpose_of


def test_names_on_the_wire_do_not_change():
    # Devices and servers of different releases read them.
    assert list(wire.Exchange) == ["keys", "shares", "train", "attest", "reveal"]
    names = (wire.RECORD, wire.EXCHANGE, wire.MASKED, wire.UPDATE, wire.NUM_EXAMPLES)
    assert names == ("lepton.secagg", "exchange", "lepton.masked", "update", "num-examples")


@pytest.mark.parametrize(
    ("message_type", "purpose"),
    [
        ("train", "train"),
        ("evaluate", "evaluate"),
        ("evaluate.vote", "evaluate"),
        (f"query.{STATISTICS}", STATISTICS),
    ],
)
def test_a_session_is_for_one_kind_of_work(message_type, purpose):
    assert purpose_of(message_type) == purpose
