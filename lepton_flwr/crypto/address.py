"""The address of a server: host and port."""

import ipaddress
import re
from typing import NamedTuple, Self

from lepton_flwr.errors import ConfigError

_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")


class Address(NamedTuple):
    """Where a server listens.

    Attributes:
        host: a DNS name, or an IPv4 or IPv6 address without brackets.
        port: 1 to 65,535.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `HOST:PORT`; an IPv6 address stands in brackets.

        Raises:
            ConfigError: it is anything else.
        """
        host, _, port = text.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if (
            not re.fullmatch("[0-9]{1,5}", port)
            or not 1 <= int(port) <= 65535
            or not (_is_ip(bare, 6) if bare != host else _is_ip(bare, 4) or _is_name(bare))
        ):
            raise ConfigError(
                f"address={text!r}: expected HOST:PORT, as server.example:8000, 192.0.2.1:8000 or "
                "[2001:db8::1]:8000"
            )
        return cls(bare, int(port))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def _is_name(text: str) -> bool:
    labels = text.split(".")
    return len(text) <= 253 and not labels[-1].isdigit() and bool(_NAME.fullmatch(text))
