"""Every error that lepton-flwr raises on purpose.

A `LeptonError` is shown to people as one line. Its text may be sent to the server, so it never
holds data: it names a setting, a count or a size, what was expected, and the way to mend it.
"""

from typing import ClassVar

from lepton_flwr.failures import Failure


class LeptonError(Exception):
    """Base of all errors.

    Attributes:
        exit_code: what the command line ends with.
        failure: of which class it is where it costs a round a client.
    """

    exit_code: ClassVar[int] = 1
    failure: ClassVar[Failure] = Failure.OTHER


class ConfigError(LeptonError, ValueError):
    """A setting is unknown, has the wrong type, or is outside its range."""

    exit_code = 2


class DataError(LeptonError, ValueError):
    """A data set cannot be used as it is: text, NaN, an empty client, one class only."""

    exit_code = 2
    failure = Failure.DATA


class OutputError(LeptonError, OSError):
    """A run folder cannot be made or written: no permission, no space."""

    exit_code = 4


class PrivacyError(LeptonError):
    """Going on would break a stated privacy guarantee."""

    exit_code = 3


class PolicyError(PrivacyError):
    """The device's own policy forbids what was asked."""

    failure = Failure.REFUSED


class VersionError(LeptonError):
    """The two ends run versions that do not work together."""

    failure = Failure.VERSION


class FederationError(LeptonError):
    """The federation could not start, or too few nodes came or stayed."""

    exit_code = 5


def classify(error: BaseException) -> Failure:
    """The class of any exception; one of TensorFlow's is told by its name, without importing it."""
    if isinstance(error, LeptonError):
        return error.failure
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return Failure.MEMORY
    return Failure.OTHER
