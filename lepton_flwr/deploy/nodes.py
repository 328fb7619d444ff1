"""Which devices a SuperLink lets in: exactly those whose public keys lie in the server's folder."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_flwr._files import write_atomic
from lepton_flwr.errors import FederationError
from simulations.processes import Processes

NODES_FILE = "nodes.json"
GONE = ("unregistered", "deleted")


class Nodes:
    """The registered nodes of a SuperLink, kept equal to the keys of a folder.

    Args:
        folder: the server's; `nodes/NAME.pub` are the keys, `nodes.json` what is registered.
        processes: runs Flower's commands.
        connection: name of the SuperLink's connection in Flower's configuration.
        variables: environment of Flower's commands.
    """

    def __init__(
        self, folder: Path, processes: Processes, connection: str, variables: Mapping[str, str]
    ) -> None:
        self._folder = folder
        self._processes = processes
        self._connection = connection
        self._variables = variables
        self._seen: dict[str, str] | None = None

    def changed(self) -> bool:
        """Whether the folder of keys is not what it was at the last `align`."""
        return wanted_nodes(self._folder) != self._seen

    def align(self) -> tuple[int, int]:
        """Register the keys that are new and unregister the nodes that have none.

        A node that somebody else has registered is unregistered as well.

        Returns:
            How many were registered, and how many unregistered.

        Raises:
            FederationError: the SuperLink refuses or does not answer.
            OutputError: `nodes.json` cannot be written.
        """
        wanted = wanted_nodes(self._folder)
        known = read_nodes(self._folder)
        listed = {node["node-id"] for node in self.list() if node["status"] not in GONE}
        kept = {
            name: node
            for name, node in known.items()
            if wanted.get(name) == node["key"] and node["id"] in listed
        }
        gone = listed - {node["id"] for node in kept.values()}
        for number in sorted(gone):
            self._flwr("unregister", "supernode", "unregister", number)
        missing = sorted(set(wanted) - set(kept))
        width = os.cpu_count() or 1
        for start in range(0, len(missing), width):
            batch = missing[start : start + width]
            for name in batch:
                public = str(self._folder / "nodes" / f"{name}.pub")
                self._start(f"register-{name}", "supernode", "register", public, "--name", name)
            for name in batch:
                found = _json(self._processes.finish(f"register-{name}"))
                kept[name] = {"id": str(found["node-id"]), "key": wanted[name]}
                self._processes.log(f"register-{name}").unlink(missing_ok=True)
            self._write(kept)
        self._write(kept)
        self._seen = wanted
        return len(missing), len(gone)

    def list(self) -> list[dict[str, Any]]:
        """What the SuperLink says of its nodes.

        Raises:
            FederationError: it does not answer.
        """
        nodes = self._flwr("nodes", "supernode", "list")["nodes"]
        return list(nodes)

    def _write(self, nodes: Mapping[str, Mapping[str, str]]) -> None:
        text = json.dumps(nodes, indent=1, sort_keys=True)
        write_atomic(self._folder / NODES_FILE, f"{text}\n".encode(), 0o600)

    def _flwr(self, name: str, *arguments: str) -> dict[str, Any]:
        self._start(name, *arguments)
        return _json(self._processes.finish(name))

    def _start(self, name: str, group: str, action: str, *rest: str) -> None:
        options = [*rest[1:]] if rest else []
        first = [rest[0]] if rest else []
        command = ["flwr", group, action, *first, self._connection, *options, "--format", "json"]
        self._processes.start(name, command, self._variables)


def wanted_nodes(folder: Path) -> dict[str, str]:
    """Names of the devices that may join, with the digests of their keys in `nodes/NAME.pub`.

    Raises:
        FederationError: a key cannot be read.
    """
    found = {}
    for path in (folder / "nodes").glob("*.pub"):
        try:
            found[path.stem] = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise FederationError(f"nodes/{path.name}: {error.strerror}") from None
    return found


def read_nodes(folder: Path) -> dict[str, dict[str, str]]:
    """Names of the registered devices, with their `id` at the SuperLink and digest of their `key`.

    Raises:
        FederationError: the file is damaged.
    """
    try:
        table = json.loads((folder / NODES_FILE).read_bytes())
        return {
            str(name): {"id": str(node["id"]), "key": str(node["key"])}
            for name, node in table.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise FederationError(
            f"{NODES_FILE} is damaged: remove it; all devices are registered anew then"
        ) from None


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text[text.index("{") : text.rindex("}") + 1])
        if not found["success"]:
            raise FederationError(f"Flower: {found.get('error-message', 'failed')}")
    except (ValueError, KeyError, TypeError):
        raise FederationError(
            f"Flower's answer is not understood: {text.strip()[:200]!r}"
        ) from None
    return dict(found)
