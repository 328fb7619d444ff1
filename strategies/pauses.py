"""A pause of Flower's that a round of small messages cannot afford."""

import importlib

FIRST_PAUSE = 0.05  # seconds; each further one waits twice as long, up to Flower's own longest
_MODULE, _FUNCTION, _DEFAULT = (
    "flwr.supercore.inflatable.inflatable_utils", "pull_objects", "initial_backoff",
)  # fmt: skip


def shorten_pauses() -> bool:
    """Ask again soon for a part of a reply that its device still sends; Flower waits a second.

    Flower has no setting for it: this is a default of a private function. Where a version of Flower
    has no such function, or no such default, its own pause stays.

    Returns:
        Whether it is shorter now.
    """
    try:
        defaults = getattr(importlib.import_module(_MODULE), _FUNCTION).__kwdefaults__
    except (ImportError, AttributeError):
        return False
    if not defaults or _DEFAULT not in defaults:
        return False
    defaults[_DEFAULT] = FIRST_PAUSE
    return True
