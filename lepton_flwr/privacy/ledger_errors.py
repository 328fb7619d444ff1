"""Why a ledger cannot be used."""

from lepton_flwr.errors import PrivacyError
from lepton_flwr.failures import Failure


class LedgerError(PrivacyError):
    """A ledger cannot be used, so nothing may be released."""

    failure = Failure.BUDGET


class LedgerCorruptError(LedgerError):
    """It is not what was written: damaged, edited, or another kind of file."""


class LedgerVersionError(LedgerError):
    """A newer version of this software wrote it."""


class LedgerMissingError(LedgerError):
    """It was deleted or replaced, though releases have been written to it."""


class LedgerRolledBackError(LedgerError):
    """It is an older copy: its head names releases that it does not hold."""


class LedgerBusyError(LedgerError):
    """Another process has held it for too long."""
