import pytest
from flwr.common.constant import ErrorCode

from lepton_flwr.crypto.identity import CertificateError, NotOnRosterError
from lepton_flwr.errors import ConfigError, DataError, PolicyError, VersionError, classify
from lepton_flwr.failures import Failure, counted
from lepton_flwr.privacy.accounting import BudgetError
from lepton_flwr.privacy.ledger_errors import LedgerRolledBackError
from lepton_flwr.secagg.errors import FloorError, KeyRecordError, MessageError, SessionLostError


class ResourceExhaustedError(Exception):
    """As TensorFlow's."""


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (SessionLostError(), Failure.LEFT),
        (PolicyError(), Failure.REFUSED),
        (FloorError(), Failure.REFUSED),
        (BudgetError(), Failure.BUDGET),
        (LedgerRolledBackError(), Failure.BUDGET),
        (MemoryError(), Failure.MEMORY),
        (ResourceExhaustedError(), Failure.MEMORY),
        (DataError(), Failure.DATA),
        (VersionError(), Failure.VERSION),
        (KeyRecordError(), Failure.IDENTITY),
        (CertificateError(), Failure.IDENTITY),
        (NotOnRosterError(), Failure.IDENTITY),
        (MessageError(), Failure.PROTOCOL),
        (ConfigError(), Failure.OTHER),
        (ZeroDivisionError(), Failure.OTHER),
    ],
)
def test_every_error_has_its_class(error, failure):
    assert classify(error) is failure


def test_a_class_survives_the_wire_and_no_code_is_flowers():
    flowers = {value for name, value in vars(ErrorCode).items() if name.isupper()}
    for failure in Failure:
        assert Failure.of_code(failure.code) is failure
        assert failure.code not in flowers
    assert len({failure.code for failure in Failure}) == len(Failure)


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (ErrorCode.NODE_UNAVAILABLE, Failure.LEFT),
        (ErrorCode.CLIENT_APP_CRASHED, Failure.LEFT),
        (ErrorCode.MESSAGE_UNAVAILABLE, Failure.TIMEOUT),
        (ErrorCode.REPLY_MESSAGE_UNAVAILABLE, Failure.TIMEOUT),
        (ErrorCode.INVALID_FAB, Failure.VERSION),
        (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, Failure.OTHER),
        (-(2**62), Failure.OTHER),
    ],
)
def test_flowers_own_codes_and_foreign_ones_are_told_apart(code, failure):
    assert Failure.of_code(code) is failure


def test_counts_for_people_name_what_occurred_the_most_frequent_first():
    counts = {Failure.DATA: 1, Failure.TIMEOUT: 2, Failure.LEFT: 0}
    assert counted(counts) == "2 timed out, 1 bad data"
