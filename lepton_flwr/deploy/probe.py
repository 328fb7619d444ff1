"""What a device asks of its server before its SuperNode does, to say what is wrong if it is."""

import http.client
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from lepton_flwr.crypto.address import Address
from lepton_flwr.errors import FederationError

CONNECT_SECONDS = 10.0
# How far a device's clock may be from the SuperLink's: it signs every request with the time.
AHEAD_SECONDS, BEHIND_SECONDS = 5.0, 305.0
# How old a time that is told may be: its fraction is cut off, and uvicorn renews it once a second,
# or later where it has much to do.
STALE_SECONDS = 3.0


def try_server(
    address: Address, authority: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> None:
    """Open a TLS connection as a SuperNode will, and compare the clocks.

    Args:
        address: the server's.
        authority: certificate of its TLS authority, PEM.
        now: this device's clock.

    Raises:
        FederationError: there is no server, or one whose certificate is not the authority's, or the
            clocks differ by more than the SuperLink allows.
    """
    try:
        context = ssl.create_default_context(cafile=authority)
        before = now()
        told = _time_of(address, context)
        after = now()
    except ssl.SSLCertVerificationError as error:
        raise FederationError(
            f"the server at {address} is not the one of {authority.name}: {error.verify_message}; "
            "compare ca.crt with the server's, and the clocks"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise FederationError(f"no server at {address}: {reason}") from None
    if told is not None:
        _compare(address, before, told, after)


def _time_of(address: Address, context: ssl.SSLContext) -> datetime | None:
    """The server's time, up to `STALE_SECONDS` ago; None if it does not tell it."""
    connection = http.client.HTTPSConnection(
        address.host, address.port, timeout=CONNECT_SECONDS, context=context
    )
    try:
        connection.request("HEAD", "/")
        text = connection.getresponse().getheader("date") or ""
    finally:
        connection.close()
    try:
        told = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return told if told.tzinfo is not None else told.replace(tzinfo=UTC)


def _compare(address: Address, before: datetime, told: datetime, after: datetime) -> None:
    ahead = (before - told).total_seconds() - STALE_SECONDS  # at least
    behind = (told - after).total_seconds()
    if ahead > AHEAD_SECONDS or behind > BEHIND_SECONDS:
        by = f"{ahead:.0f} s ahead of" if ahead > 0 else f"{behind:.0f} s behind"
        raise FederationError(
            f"this device's clock is {by} that of the server at {address}: expected at most "
            f"{AHEAD_SECONDS:.0f} s ahead or {BEHIND_SECONDS:.0f} s behind; set it right, for "
            "example by chrony or systemd-timesyncd"
        )
