"""The warm launcher of a device: processes for messages come from a fork, not a new interpreter.

Flower's SuperNode starts `flwr-clientapp`, looked up in PATH, for every message. With the launcher,
another program of that name stands first in that PATH, and asks a fork server for the process.
"""

import importlib.metadata
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lepton_flwr._files import output_errors, write_atomic
from lepton_flwr.deploy import forkrequest, forkserver
from lepton_flwr.deploy.settings import WARM_FLOWER, WARM_TENSORFLOW
from lepton_flwr.errors import FederationError, VersionError

NAME = "warm"
FOLDER = "warm"
# How Flower starts a client process is private to it: versions that were looked at and run.
FLOWER_VERSIONS = ("1.42.0",)
_LIBRARIES = (
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "cryptography.hazmat.primitives.ciphers.aead",
    "cryptography.hazmat.primitives.hpke",
    "cryptography.x509",
    "cryptography.x509.verification",
    "sqlite3",
)
MODULES = {
    WARM_FLOWER: _LIBRARIES,
    WARM_TENSORFLOW: (*_LIBRARIES, "dp_accounting", "tensorflow", "keras"),
}


class LauncherVersionError(VersionError):
    """The warm launcher was not made for the Flower that is installed."""

    exit_code = 5


class LauncherError(FederationError):
    """The warm launcher cannot run here."""


def check_flower() -> None:
    """Refuse a version of Flower whose way to start a client process is not known.

    Raises:
        LauncherVersionError: it is another one.
        LauncherError: this is no Linux.
    """
    found = importlib.metadata.version("flwr")
    if found not in FLOWER_VERSIONS:
        raise LauncherVersionError(
            f"flwr {found}: the warm launcher is made for {', '.join(FLOWER_VERSIONS)}; install "
            "that, or take `warm` out of device.toml"
        )
    if sys.platform != "linux":
        raise LauncherError(
            f"the warm launcher needs Linux, this is {sys.platform}: take `warm` out of device.toml"
        )


class WarmLauncher:
    """The fork server of a device's folder, as a component to keep running.

    Args:
        folder: Flower's own of the device (`FLWR_HOME`), an existing one that only this user can
            open; the launcher's is made in it.
        kept: what is kept loaded, `WARM_FLOWER` or `WARM_TENSORFLOW`.

    **Guarantee**: every message has a process of its own, forked from one that has seen no message,
    holds nothing of the device and runs a single thread; else nothing is forked. No process is
    started in another way in its place.
    """

    name = NAME

    def __init__(self, folder: Path, kept: str) -> None:
        self._home = folder
        self._folder = folder / FOLDER
        self._kept = kept

    def prepare(self) -> tuple[Sequence[str], Mapping[str, str]]:
        """Command and variables of the fork server.

        Raises:
            LauncherVersionError: see `check_flower`, as for the next.
            LauncherError: it cannot run here.
        """
        check_flower()
        program = [sys.executable, "-P", forkserver.__file__]
        # What is forked has this process' variables, and not those of the SuperNode.
        variables = {"FLWR_HOME": str(self._home)}
        return [*program, str(self._folder), *MODULES[self._kept]], variables

    def look(self, added: str, up: bool) -> bool:
        """Whether it forks."""
        return up or "the warm launcher is ready" in added

    def explain(self, _: int) -> str:
        """Nothing: no exit code of it has a meaning."""
        return ""

    def install(self) -> Path:
        """Make the folder that is to stand first in the SuperNode's PATH, and the program in it.

        Raises:
            OutputError: they cannot be written.
        """
        with output_errors(self._folder):
            self._folder.mkdir(mode=0o700, exist_ok=True)
        words = [sys.executable, "-IS", forkrequest.__file__, str(self._folder)]
        text = f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n'
        write_atomic(self._folder / forkserver.COMMAND, text.encode(), 0o700)
        return self._folder
