"""A device's SuperNode, supervised: `lepton device run`."""

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lepton_flwr._files import output_errors
from lepton_flwr.crypto import tls
from lepton_flwr.crypto.address import Address
from lepton_flwr.crypto.files import read_private
from lepton_flwr.crypto.members import NODE_KEY_FILE
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.data.wire import SCHEMA_FILE
from lepton_flwr.deploy import supernode as warm_supernode
from lepton_flwr.deploy.probe import try_server
from lepton_flwr.deploy.settings import DeviceSettings
from lepton_flwr.deploy.status import STOPPED, StatusFile
from lepton_flwr.deploy.supervisor import Component, Keeper, keep, only_one
from lepton_flwr.deploy.warm import WarmLauncher, check_flower
from lepton_flwr.device import (
    DATA_FILE,
    DATA_KEY_FILE,
    FOLDER_KEY,
    SEALED_FILE,
    TABLE_FILE,
    Device,
)
from lepton_flwr.errors import DataError, FederationError
from simulations.loopback import environment, free_port
from simulations.processes import Processes, termination_as_exit

SUPERNODE = "supernode"
LOGS, FLOWER_HOME, TRUSTED_FILE = "logs", "flower", "trusted.yaml"
_APPS = "apps"  # of Flower's own folder: where it unpacks runs' bundles
PROBE_SECONDS = 60.0
# Flower's exit codes for a bad key, bad arguments and bad certificates.
FATAL = frozenset({302, 303, 304, 600, 602, 603, 604} | {2})
NOT_ACTIVATED = 305
_JOINED = "SuperNode ID:"
_NOT_LET_IN = (
    "the server does not know this device's node.key, or still counts the device as online, as it "
    "does for about a minute after a sudden end"
)


def run(folder: Path, say: Callable[[str], None]) -> None:
    """Run a device until Ctrl-C or SIGTERM; all that it started has ended then.

    Args:
        folder: the device's, as `lepton federation init` made it, with its rows.
        say: tells whoever watches.

    Raises:
        ConfigError: `device.toml` is missing or malformed.
        DataError: there is neither `data.npz` nor `data.npz.lepton`.
        PolicyError: see `Device.open`, as for the next three.
        KeyFileError: a key.
        CertificateError: a certificate.
        RevocationError: a revocation list.
        FederationError: another process runs this device, or Flower cannot be started at all.
        LauncherVersionError: the warm launcher is wanted, and not for the Flower that is here.
        LauncherError: likewise, and this is no Linux.
    """
    folder = folder.resolve()
    settings = DeviceSettings.read(folder)
    check(folder)
    if settings.warm:
        check_flower()
    (folder / LOGS).mkdir(mode=0o700, exist_ok=True)
    (folder / FLOWER_HOME).mkdir(mode=0o700, exist_ok=True)
    with only_one(folder):
        status = StatusFile(folder)
        components: list[Component] = []
        programs = None
        if settings.warm:
            launcher = WarmLauncher(folder / FLOWER_HOME, settings.warm)
            programs = launcher.install()
            components.append(launcher)
        components.append(_SuperNode(folder, settings.server, programs))
        try:
            with termination_as_exit(), Processes(folder / LOGS, environment()) as processes:
                say(f"{settings.name}: joining {settings.server}")
                keepers: list[Keeper] = []
                for one in components:  # a message that comes before the launcher is up is lost
                    after = keepers[-1] if keepers else None
                    keepers.append(Keeper(one, processes, status, say, FATAL, after=after))
                keep(keepers, status, lambda: None)
        finally:
            status.enter(STOPPED)


def check(folder: Path) -> None:
    """Check all that a device needs, before anything is started.

    Raises:
        DataError: there is neither `data.npz` nor `data.npz.lepton`, nor a raw table that is what
            `schema.toml` says.
        PolicyError: see `Device.open`, as for the next three.
        KeyFileError: a key.
        CertificateError: a certificate.
        RevocationError: a revocation list.
    """
    device = Device.open(folder)
    rows = device.data_file
    read_private(folder / NODE_KEY_FILE)
    if device.has_table:
        _ = device.table  # all of it is read
        return
    if not rows.is_file():
        raise DataError(
            f"{folder / DATA_FILE} is missing: put this device's rows there, NumPy arrays x_train, "
            f"y_train, x_test and y_test, or {SEALED_FILE}, or its table, {TABLE_FILE}, with "
            f"{SCHEMA_FILE} (docs/deploy/device-folder.md)"
        )
    if rows.name == SEALED_FILE:
        DecryptionKey.load(folder / DATA_KEY_FILE)


class _SuperNode:
    """The SuperNode of a device's folder."""

    name = SUPERNODE

    def __init__(self, folder: Path, server: Address, programs: Path | None = None) -> None:
        self._folder = folder
        self._server = server
        self._programs = programs  # where Flower is to look for its own ones first
        self._due: float | None = None  # when to try the server again; None before it has joined

    def prepare(self) -> tuple[Sequence[str], Mapping[str, str]]:
        self._due = None
        folder, authority = self._folder, self._folder / tls.AUTHORITY_FILE
        check(folder)  # it may have ended, or been revoked, since the last start
        try_server(self._server, authority)
        command = [
            *self._program,
            "--root-certificates", str(authority),
            "--superlink", str(self._server),
            "--host", "127.0.0.1",
            "--port", str(free_port()),
            "--node-config", f"{FOLDER_KEY}={json.dumps(str(folder))}",
            "--auth-supernode-private-key", str(folder / NODE_KEY_FILE),
        ]  # fmt: skip
        if (folder / TRUSTED_FILE).exists():
            command += ["--trusted-entities", str(folder / TRUSTED_FILE)]
        variables = {"FLWR_HOME": str(folder / FLOWER_HOME)}
        # Flower takes what stands there for whole, also if a loss of power has cut its unpacking.
        unpacked = folder / FLOWER_HOME / _APPS
        with output_errors(unpacked), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(unpacked)
        if self._programs is not None:
            variables["PATH"] = os.pathsep.join([str(self._programs), environment()["PATH"]])
        return command, variables

    @property
    def _program(self) -> list[str]:
        if self._programs is None:  # no warm launcher
            return [warm_supernode.COMMAND]
        return [sys.executable, "-P", warm_supernode.__file__, warm_supernode.COMMAND]

    def look(self, added: str, up: bool) -> bool:
        if _JOINED in added:
            self._due = time.monotonic() + PROBE_SECONDS
            return True
        # What it prints of lost connections does not tell the server's from those within it.
        if self._due is None or time.monotonic() < self._due:
            return up
        self._due = time.monotonic() + PROBE_SECONDS
        try:
            try_server(self._server, self._folder / tls.AUTHORITY_FILE)
        except FederationError:
            return False
        return True

    def explain(self, code: int) -> str:
        return _NOT_LET_IN if code == NOT_ACTIVATED else ""
