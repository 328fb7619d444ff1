import pytest

from lepton_flwr.secagg.wire import STATISTICS, purpose_of


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
