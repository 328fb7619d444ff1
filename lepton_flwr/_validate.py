"""Checks of single values, with one style of message: what came, what was expected."""

import math
import sys
from typing import Any

from lepton_flwr.errors import ConfigError

_LARGEST = sys.float_info.max


def finite(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> float:
    """Return `value` as a float if it is a finite number within the bounds.

    Raises:
        ConfigError: it is not a number, not finite, or outside the bounds.
    """
    low = -math.inf if at_least is None else at_least
    high = math.inf if at_most is None else at_most
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if (
        not number
        or not -_LARGEST <= value <= _LARGEST  # not `isfinite`, which fails for large integers
        or not low <= value <= high
        or (above is not None and value <= above)
        or (below is not None and value >= below)
    ):
        bounds = ((">", above), (">=", at_least), ("<", below), ("<=", at_most))
        wanted = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)
        raise ConfigError(f"{name}={value!r}: expected a finite number {wanted}".rstrip())
    return float(value)


def integer(
    name: str, value: Any, *, at_least: int | None = None, at_most: int | None = None
) -> int:
    """Return `value` if it is an int within the bounds.

    Raises:
        ConfigError: it is not an int (a bool is not one), or outside the bounds.
    """
    low = at_least is not None and isinstance(value, int) and value < at_least
    high = at_most is not None and isinstance(value, int) and value > at_most
    if isinstance(value, bool) or not isinstance(value, int) or low or high:
        wanted = "".join(
            [
                f" >= {at_least}" if at_least is not None else "",
                " and" if at_least is not None and at_most is not None else "",
                f" <= {at_most}" if at_most is not None else "",
            ]
        )
        raise ConfigError(f"{name}={value!r}: expected a whole number{wanted}")
    return value


def choice(name: str, value: Any, options: tuple[str, ...]) -> str:
    """Return `value` if it is one of `options`.

    Raises:
        ConfigError: it is not.
    """
    if value not in options:
        raise ConfigError(f"{name}={value!r}: expected one of {', '.join(options)}")
    return str(value)
