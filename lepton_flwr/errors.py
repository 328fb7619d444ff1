"""Every error that lepton-flwr raises on purpose.

A `LeptonError` is shown to people as one line. Its text may be sent to the server, so it never
holds data: it names a setting, a count or a size, what was expected, and the way to mend it.
"""

from typing import ClassVar


class LeptonError(Exception):
    """Base of all errors; `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class ConfigError(LeptonError, ValueError):
    """A setting is unknown, has the wrong type, or is outside its range."""

    exit_code = 2


class DataError(LeptonError, ValueError):
    """A data set cannot be used as it is: text, NaN, an empty client, one class only."""

    exit_code = 2


class OutputError(LeptonError, OSError):
    """A run folder cannot be made or written: no permission, no space."""

    exit_code = 4


class PrivacyError(LeptonError):
    """Going on would break a stated privacy guarantee."""

    exit_code = 3


class PolicyError(PrivacyError):
    """The device's own policy forbids what was asked."""


class FederationError(LeptonError):
    """The federation could not start, or too few nodes came or stayed."""

    exit_code = 5
