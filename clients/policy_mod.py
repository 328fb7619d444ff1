"""A client mod that asks the device's policy before anything else is looked at."""

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from clients.refusal import refusal
from lepton_flwr.device import Device
from lepton_flwr.errors import PolicyError


def policy_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Refuse actions and code that the policy does not allow; the reply says why.

    Guarantee: no message of an action that the policy does not name, and none at all while the
    policy does not allow the code that runs, gets further than this.
    """
    try:
        device = Device.from_node_config(context.node_config, context.run_id)
        device.check_code()
        action = message.metadata.message_type
        if action not in device.policy.actions:
            raise PolicyError(
                f"action {action!r}: this device's policy allows {', '.join(device.policy.actions)}"
            )
    except Exception as error:
        return refusal(message, error)
    return call_next(message, context)
