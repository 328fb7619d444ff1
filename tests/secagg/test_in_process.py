import numpy as np
import pytest

from lepton_flwr.crypto.identity import Roster
from lepton_flwr.secagg.encoding import Kind, Layout, Segment
from lepton_flwr.secagg.errors import ThresholdError
from lepton_flwr.secagg.floors import ClientFloors
from lepton_flwr.secagg.in_process import Party, secure_sum
from lepton_flwr.secagg.parameters import SessionConfig

CLIENTS = 5
CONTENT = bytes(32)


@pytest.fixture
def roster(authority):
    return Roster.of_authority(authority.certificate_pem)


@pytest.fixture
def parties(identities, roster):
    return [Party(identity, roster) for identity in identities[:CLIENTS]]


def session(number: int = 1, min_survivors: int = 2) -> SessionConfig:
    layout = Layout((Segment("numbers", Kind.COUNT, 3, 100.0),), CLIENTS)
    return SessionConfig("run", number, "evaluate", layout, min_survivors)


def sending(numbers):
    return lambda config: config.layout.encode({"numbers": np.array(numbers)}, 1)


def fails(config):
    raise ValueError("row 17")


def test_the_sum_is_that_of_all(parties, roster):
    encode = [sending([i, 1, 10 * i]) for i in range(CLIENTS)]
    found = secure_sum(session(), CONTENT, roster, parties, encode)
    assert found.total[:3].tolist() == [10, 5, 100]
    assert (found.survivors, found.failures) == (5, {})


def test_a_party_that_fails_is_not_in_it(parties, roster):
    encode = [fails, *(sending([i, 1, 0]) for i in range(1, CLIENTS))]
    found = secure_sum(session(), CONTENT, roster, parties, encode)
    assert found.total[:3].tolist() == [10, 4, 0]
    assert (found.survivors, found.failures) == (4, {"ValueError": 1})


def test_too_few_parties_give_no_sum_and_say_why_without_data(parties, roster):
    encode = [fails, fails, *(sending([1, 1, 1]) for _ in range(3))]
    with pytest.raises(ThresholdError, match=r"lost by ValueError \(2\)") as error:
        secure_sum(session(min_survivors=4), CONTENT, roster, parties, encode)
    assert "17" not in str(error.value)


def test_where_all_are_needed_the_first_error_ends_the_session(parties, roster):
    encode = [fails, *(sending([1, 1, 1]) for _ in range(4))]
    with pytest.raises(ValueError, match="row 17"):
        secure_sum(session(), CONTENT, roster, parties, encode, tolerant=False)


def test_a_party_refuses_a_session_below_its_floors_or_of_a_number_seen(parties, roster):
    parties[0].floors = ClientFloors(min_survivors=5)
    encode = [sending([1, 1, 1])] * CLIENTS
    assert secure_sum(session(), CONTENT, roster, parties, encode).failures == {"FloorError": 1}
    with pytest.raises(ThresholdError, match="ReplayError"):
        secure_sum(session(), CONTENT, roster, parties, encode)
    assert secure_sum(session(2), CONTENT, roster, parties, encode).survivors == 4
