"""Who is there: what a server's SuperLink knows of its devices, and what each role says itself."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lepton_flwr.crypto.members import DEVICES, SERVER
from lepton_flwr.deploy.nodes import GONE, Nodes, read_nodes, wanted_nodes
from lepton_flwr.deploy.server import CONNECTION, flower_variables
from lepton_flwr.deploy.settings import DEVICE_FILE, SERVER_FILE, DeviceSettings
from lepton_flwr.deploy.status import RUNNING, STOPPED, Status
from lepton_flwr.errors import ConfigError
from simulations.loopback import environment
from simulations.processes import Processes

# A supervisor says something every half minute.
SILENT = timedelta(minutes=2)


@dataclass(frozen=True)
class Row:
    """A device or a server.

    Attributes:
        name: its name.
        state: its own word for it; of a device that is elsewhere, the SuperLink's.
        seen: when it was last heard of, ISO 8601, or `now`.
        version: of lepton-flwr and Flower; empty where not known.
        restarts: since its supervisor was started.
        last_error: empty if there was none, or it is not known here.
    """

    name: str
    state: str
    seen: str
    version: str = ""
    restarts: int = 0
    last_error: str = ""


def overview(folder: Path) -> list[Row]:
    """The state of a federation, as far as this machine knows it.

    Args:
        folder: of a server, of a device, or of a federation with some of them.

    Raises:
        ConfigError: it is none of these.
        FederationError: the server runs, and its SuperLink does not answer.
    """
    folder = folder.resolve()
    if (folder / DEVICE_FILE).exists():
        return [_own(DeviceSettings.read(folder).name, folder)]
    if (folder / SERVER_FILE).exists():
        return list(_server(folder, folder.parent / DEVICES))
    if (folder / SERVER / SERVER_FILE).exists():
        return list(_server(folder / SERVER, folder / DEVICES))
    raise ConfigError(
        f"{folder}: expected the folder of a server, a device or a federation, as `lepton "
        "federation init` made it"
    )


def _server(folder: Path, devices: Path) -> Iterator[Row]:
    own = _own("server", folder)
    yield own
    known = read_nodes(folder)
    names = sorted(set(wanted_nodes(folder)) | set(known))
    listed = _listed(folder) if own.state == RUNNING else {}
    for name in names:
        node = listed.get(known.get(name, {}).get("id", ""), {})
        state = str(node.get("status", "not registered" if listed or not known else "unknown"))
        seen = "now" if state == "online" else str(node.get("offline-at", "N/A"))
        local = Status.read(devices / name)
        if local is None:
            yield Row(name, state, "" if seen == "N/A" else seen)
        else:  # of a device whose folder is on this machine
            said = _own(name, devices / name)
            yield Row(name, state, seen if seen != "N/A" else said.seen, *_rest(said))


def _rest(row: Row) -> tuple[str, int, str]:
    return row.version, row.restarts, row.last_error


def _own(name: str, folder: Path) -> Row:
    status = Status.read(folder)
    if status is None:
        return Row(name, "never started", "")
    state = status.state
    try:
        silent = datetime.now(UTC) - datetime.fromisoformat(status.updated) > SILENT
    except (ValueError, TypeError):
        silent = True
    if state != STOPPED and silent:
        state = "silent"
    error = f"{status.last_error_at} {status.last_error}".strip()
    version = f"{status.version}, flwr {status.flower}"
    return Row(name, state, status.updated, version, status.restarts, error)


def _listed(folder: Path) -> dict[str, dict[str, str]]:
    with (
        tempfile.TemporaryDirectory(prefix="lepton-status-") as logs,
        Processes(Path(logs), environment()) as processes,
    ):
        nodes = Nodes(folder, processes, CONNECTION, flower_variables(folder)).list()
    return {node["node-id"]: node for node in nodes if node["status"] not in GONE}
