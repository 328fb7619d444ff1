"""How a device says no: the class of the failure as a code, and at most a sentence beside it."""

from logging import ERROR

from flwr.app import Error, Message
from flwr.common import log

from lepton_flwr.errors import DataError, LeptonError, OutputError, classify

# Their texts may count rows or name files of this device.
_KEPT = (DataError, OutputError)


def refusal(message: Message, error: Exception) -> Message:
    """The reply that tells the server why there is no other.

    Guarantee: of an exception that was not written to be sent, nothing but its class's name leaves
    the device; its text and trace are in the device's own log.
    """
    if isinstance(error, LeptonError) and not isinstance(error, _KEPT):
        reason = f"{type(error).__name__}: {error}"
    else:
        log(ERROR, "Refused for a reason that stays here", exc_info=error)
        reason = f"{type(error).__name__}: see the log on the device"
    return Message(Error(classify(error).code, reason), reply_to=message)
