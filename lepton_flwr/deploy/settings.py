"""The small files that say which role a folder plays, and where its server is."""

import ipaddress
import json
import tomllib
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lepton_flwr.crypto.address import Address
from lepton_flwr.errors import ConfigError

DEVICE_FILE = "device.toml"
SERVER_FILE = "server.toml"
# What the warm launcher keeps loaded.
WARM_FLOWER, WARM_TENSORFLOW = "flower", "tensorflow"


@dataclass(frozen=True)
class DeviceSettings:
    """`device.toml`.

    Attributes:
        name: the device's name.
        server: where it reaches the server.
        warm: what the warm launcher keeps loaded, `WARM_FLOWER` or `WARM_TENSORFLOW`; empty starts
            a process for every message without it.
    """

    name: str
    server: Address
    warm: str = ""

    def __post_init__(self) -> None:
        known = (WARM_FLOWER, WARM_TENSORFLOW)
        if self.warm and self.warm not in known:
            raise ConfigError(
                f"{DEVICE_FILE}: warm={self.warm!r}: expected one of {', '.join(known)}, or no "
                "such line for none"
            )

    def to_toml(self) -> str:
        """The file's text."""
        warm = f"warm = {json.dumps(self.warm)}\n" if self.warm else ""
        return f"name = {json.dumps(self.name)}\nserver = {json.dumps(str(self.server))}\n{warm}"

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the file of a device's folder.

        Raises:
            ConfigError: it is missing or malformed.
        """
        table = _read(folder / DEVICE_FILE, {"name", "server"}, "device", {"warm"})
        if table.get("warm") == "":
            raise ConfigError(f"{DEVICE_FILE}: warm is empty: leave the line out for none")
        return cls(table["name"], Address.parse(table["server"]), table.get("warm", ""))


@dataclass(frozen=True)
class ServerSettings:
    """`server.toml`.

    Attributes:
        address: where devices reach the server.
        listen: IP address of the interface that it listens on, at the port of `address`.
    """

    address: Address
    listen: str

    def to_toml(self) -> str:
        """The file's text."""
        return (
            f"address = {json.dumps(str(self.address))}  # where devices reach the server\n"
            f"listen = {json.dumps(self.listen)}  # the interface; 0.0.0.0 and :: are all\n"
        )

    @classmethod
    def of_address(cls, address: Address) -> Self:
        """Listen on this machine alone for an address of it, else on all interfaces."""
        if address.host in ("localhost", "127.0.0.1", "::1"):
            return cls(address, "::1" if address.host == "::1" else "127.0.0.1")
        return cls(address, "::" if ":" in address.host else "0.0.0.0")  # noqa: S104

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the file of a server's folder.

        Raises:
            ConfigError: it is missing or malformed.
        """
        table = _read(folder / SERVER_FILE, {"address", "listen"}, "server")
        try:
            ipaddress.ip_address(table["listen"])
        except ValueError:
            raise ConfigError(
                f"{SERVER_FILE}: listen={table['listen']!r}: expected an IP address"
            ) from None
        return cls(Address.parse(table["address"]), table["listen"])


def _read(
    path: Path, keys: set[str], role: str, optional: Set[str] = frozenset()
) -> dict[str, str]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}: expected the folder of a {role}, as `lepton federation "
            "init` made it"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name}: not TOML: {error}") from None
    texts = all(isinstance(value, str) for value in table.values())
    if not texts or not keys <= set(table) <= keys | optional:
        also = f" and, if wanted, {', '.join(sorted(optional))}" if optional else ""
        raise ConfigError(f"{path.name}: expected the texts {', '.join(sorted(keys))}{also}")
    return table
