"""A federation's server, supervised: a SuperLink on loopback and the gate before it."""

import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from lepton_flwr._files import write_atomic
from lepton_flwr.crypto.certificates import check_time, load_certificate
from lepton_flwr.crypto.files import read_private
from lepton_flwr.crypto.tls import ServerCredentials
from lepton_flwr.deploy.nodes import DATABASE, Nodes
from lepton_flwr.deploy.settings import ServerSettings
from lepton_flwr.deploy.status import STOPPED, StatusFile
from lepton_flwr.deploy.supervisor import Keeper, keep, only_one
from lepton_flwr.errors import FederationError, LeptonError
from simulations.loopback import POLL_VARIABLE, environment, free_port
from simulations.processes import Processes, termination_as_exit

CONNECTION = "lepton"
SUPERLINK, GATE = "superlink", "gate"
LOGS, FLOWER_HOME = "logs", "flower"
# Flower's exit codes for bad arguments, a database of another version, and bad certificates.
FATAL = frozenset({104, 105, 600, 602, 604, 605} | {2})
_LOOK_SECONDS, _CERTIFICATE_SECONDS = 2.0, 30.0
_POLL_SECONDS = "1"
_HOST = "127.0.0.1"


def run(folder: Path, say: Callable[[str], None]) -> None:
    """Run a server until Ctrl-C or SIGTERM; all that it started has ended then.

    Args:
        folder: the server's, as `lepton federation init` made it.
        say: tells whoever watches.

    Raises:
        ConfigError: `server.toml` is missing or malformed.
        KeyFileError: the TLS key is missing or open to other users.
        CertificateError: the TLS certificate is missing, malformed or has expired.
        FederationError: another process runs this server, the port is taken, or Flower cannot be
            started at all.
    """
    folder = folder.resolve()
    settings = ServerSettings.read(folder)
    files = ServerCredentials.within(folder)
    _check_credentials(files)
    with only_one(folder):
        _check_port(settings)
        (folder / LOGS).mkdir(mode=0o700, exist_ok=True)
        (folder / FLOWER_HOME).mkdir(mode=0o700, exist_ok=True)
        status = StatusFile(folder)
        try:
            with termination_as_exit(), Processes(folder / LOGS, environment()) as processes:
                _serve(folder, settings, processes, status, say)
        finally:
            status.enter(STOPPED)


def flower_variables(folder: Path) -> dict[str, str]:
    """What makes Flower's commands find this server's SuperLink."""
    return {"FLWR_HOME": str(folder / FLOWER_HOME)}


def _serve(
    folder: Path,
    settings: ServerSettings,
    processes: Processes,
    status: StatusFile,
    say: Callable[[str], None],
) -> None:
    inner = free_port()
    authority = json.dumps(str(ServerCredentials.within(folder).authority))
    text = (
        f'[superlink.{CONNECTION}]\naddress = "{_HOST}:{inner}"\nroot-certificates = {authority}\n'
    )
    write_atomic(folder / FLOWER_HOME / "config.toml", text.encode(), 0o600)
    superlink = Keeper(_SuperLink(folder, inner), processes, status, say, FATAL)
    gate = Keeper(_Gate(folder, settings, inner), processes, status, say)
    nodes = Nodes(folder, processes, CONNECTION, flower_variables(folder))
    say(f"serving {settings.address} at {settings.listen}")
    align = _aligner(nodes, lambda: superlink.up, status, say)
    watch = _certificate_watch(ServerCredentials.within(folder), status, say)

    def tick() -> None:
        align()
        watch()

    keep([superlink, gate], status, tick)


def _aligner(
    nodes: Nodes, up: Callable[[], bool], status: StatusFile, say: Callable[[str], None]
) -> Callable[[], None]:
    """What looks at the keys now and then; nothing that is wrong with them ends the server."""
    next_look = 0.0

    def align() -> None:
        nonlocal next_look
        if not up() or time.monotonic() < next_look:
            return
        next_look = time.monotonic() + _LOOK_SECONDS
        try:
            if not nodes.due():
                return
            added, removed = nodes.align()
        except LeptonError as error:
            status.failed(str(error))
            say(str(error))
            return
        if added or removed:
            say(f"devices: {added} registered, {removed} unregistered")

    return align


def _certificate_watch(
    files: ServerCredentials, status: StatusFile, say: Callable[[str], None]
) -> Callable[[], None]:
    """What tells, once, that the certificate has ended; devices that are connected stay so."""
    next_look, told = 0.0, False

    def watch() -> None:
        nonlocal next_look, told
        if told or time.monotonic() < next_look:
            return
        next_look = time.monotonic() + _CERTIFICATE_SECONDS
        try:
            _check_credentials(files)
        except LeptonError as error:
            told = True
            status.failed(str(error))
            say(f"{error}; then start this server again: no device that comes now is let in")

    return watch


class _SuperLink:
    """Flower's SuperLink, which listens on loopback alone."""

    name = SUPERLINK

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port

    def prepare(self) -> tuple[Sequence[str], Mapping[str, str]]:
        files = ServerCredentials.within(self._folder)
        _check_credentials(files)
        command = [
            "flower-superlink",
            "--ssl-ca-certfile", str(files.authority),
            "--ssl-certfile", str(files.certificate),
            "--ssl-keyfile", str(files.key),
            "--enable-supernode-auth",
            "--database", str(self._folder / DATABASE),
            "--host", _HOST,
            "--port", str(self._port),
            "--disable-runtime-dependency-installation",
        ]  # fmt: skip
        # How often it asks itself for a run to start, of which there are few.
        poll = {POLL_VARIABLE: os.environ.get(POLL_VARIABLE, _POLL_SECONDS)}
        return command, {**flower_variables(self._folder), **poll}

    def look(self, _: str, up: bool) -> bool:
        authority = ServerCredentials.within(self._folder).authority
        return up or _answers(_HOST, self._port, authority)

    def explain(self, _: int) -> str:
        return ""


class _Gate:
    """The door for devices."""

    name = GATE

    def __init__(self, folder: Path, settings: ServerSettings, inner: int) -> None:
        self._folder = folder
        self._settings = settings
        self._inner = inner

    def prepare(self) -> tuple[Sequence[str], Mapping[str, str]]:
        listen, port = self._settings.listen, str(self._settings.address.port)
        module = "lepton_flwr.deploy.gate"
        command = [
            sys.executable, "-m", module, str(self._folder), listen, port, str(self._inner),
        ]  # fmt: skip
        return command, {}

    def look(self, _: str, up: bool) -> bool:
        listen = self._settings.listen
        host = {"0.0.0.0": _HOST, "::": "::1"}.get(listen, listen)  # noqa: S104
        authority = ServerCredentials.within(self._folder).authority
        return up or _answers(host, self._settings.address.port, authority)

    def explain(self, _: int) -> str:
        return ""


def _answers(host: str, port: int, authority: Path) -> bool:
    context = ssl.create_default_context(cafile=authority)
    context.check_hostname = False  # an address of this machine that the certificate may not name
    try:
        with (
            socket.create_connection((host, port), timeout=1) as plain,
            context.wrap_socket(plain),
        ):
            return True
    except OSError:
        return False


def _check_credentials(files: ServerCredentials) -> None:
    read_private(files.key)
    for what, path in (("TLS certificate", files.certificate), ("TLS authority", files.authority)):
        found = load_certificate(path)
        check_time(what, found.not_valid_before_utc, found.not_valid_after_utc, datetime.now(UTC))


def _check_port(settings: ServerSettings) -> None:
    family = socket.AF_INET6 if ":" in settings.listen else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.listen, settings.address.port))
        except OSError as error:
            raise FederationError(
                f"{settings.listen}, port {settings.address.port}: {error.strerror}: expected a "
                "free port, or change server.toml"
            ) from None
