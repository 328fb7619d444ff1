"""What ends a session. A client that raises one of these stays silent for that session."""

from lepton_flwr.errors import ConfigError, PolicyError, PrivacyError
from lepton_flwr.failures import Failure


class SecAggError(PrivacyError):
    """Base of the protocol's errors."""

    failure = Failure.PROTOCOL


class MessageError(SecAggError):
    """A message is malformed: a field is missing, unknown, or of the wrong type or length."""


class OrderError(SecAggError):
    """A message came out of order, twice, or for a session that has ended."""


class ReplayError(OrderError):
    """The session's number is not greater than all seen in this run."""


class SessionLostError(OrderError):
    """The device holds no session: it was restarted in the middle of one."""

    failure = Failure.LEFT


class KeyRecordError(SecAggError):
    """A key record is missing, duplicated, altered, or not signed by a member of the roster."""

    failure = Failure.IDENTITY


class ThresholdError(SecAggError):
    """Fewer participants than the threshold or the floor of survivors."""


class ModelMismatchError(SecAggError):
    """The content to work on is not the one that the session is bound to."""


class ShareError(SecAggError):
    """A share cannot be opened or does not belong to this session."""


class SurvivorError(SecAggError):
    """The list of survivors is impossible: not a subset, or without this client."""


class AttestationError(SecAggError):
    """Too few valid signatures on the list of survivors that this client signed."""


class VectorError(SecAggError):
    """A vector has the wrong length or type, or holds NaN or infinity."""


class RevealError(SecAggError):
    """A revealed secret does not fit the public key it belongs to, or too few were revealed."""


class FloorError(PolicyError):
    """The server asks for less protection than this device's own policy."""


class OverflowConfigError(ConfigError):
    """The sum of all clients could leave the fixed-point range."""
