"""Which versions work together; each end says its own in the first exchange."""

import re
from collections.abc import Mapping

from lepton_flwr._version import __version__
from lepton_flwr.errors import VersionError

PROTOCOL = "3"  # of the five exchanges; any change of a message or a derivation raises it
APP_KEY, PROTOCOL_KEY = "app-version", "protocol-version"
_RELEASE = re.compile(r"(\d{1,6})\.(\d{1,6})")


def own() -> dict[str, str]:
    """What this end says of itself."""
    return {APP_KEY: __version__, PROTOCOL_KEY: PROTOCOL}


def check_server(said: Mapping[str, object]) -> None:
    """At a device: the server speaks its protocol and is no later release than the device.

    Raises:
        VersionError: it is not; upgrade devices before the server.
    """
    server = _release(said, "the server")
    if server > _parse(__version__):
        raise VersionError(
            f"the server runs release {_text(server)} and this device {__version__}: upgrade "
            "lepton-flwr on the device"
        )


def check_client(said: Mapping[str, object]) -> None:
    """At the server: a device speaks its protocol and is no earlier release than the server.

    Raises:
        VersionError: it is not; upgrade it.
    """
    device = _release(said, "the device")
    if device < _parse(__version__):
        raise VersionError(
            f"the device runs release {_text(device)} and the server {__version__}: upgrade "
            "lepton-flwr on the device"
        )


def _release(said: Mapping[str, object], who: str) -> tuple[int, int]:
    protocol, app = said.get(PROTOCOL_KEY), said.get(APP_KEY)
    if protocol != PROTOCOL:
        came = protocol[:20] if isinstance(protocol, str) and protocol.isdigit() else "unknown"
        raise VersionError(
            f"protocol {came} of {who}: expected {PROTOCOL}, which comes with lepton-flwr "
            f"{__version__}: upgrade the older end"
        )
    if not isinstance(app, str) or not _RELEASE.match(app):
        raise VersionError(f"{who} names no release: expected one such as {__version__}")
    return _parse(app)


def _parse(version: str) -> tuple[int, int]:
    """Major and minor: patch releases work together."""
    match = _RELEASE.match(version)
    if match is None:
        raise VersionError(f"release {version[:20]!r}: expected one such as 0.1.0")
    return int(match[1]), int(match[2])


def _text(release: tuple[int, int]) -> str:
    return f"{release[0]}.{release[1]}"
