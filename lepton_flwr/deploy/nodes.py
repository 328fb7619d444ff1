"""Which devices a SuperLink lets in: exactly those whose public keys lie in the server's folder."""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from lepton_flwr._files import write_atomic
from lepton_flwr.errors import FederationError
from simulations.processes import Processes

NODES_FILE, DATABASE = "nodes.json", "superlink.db"
GONE = ("unregistered", "deleted")
ALIGN_SECONDS, RETRY_SECONDS = 300.0, 30.0
# No key: the file is cut short, cannot be read or holds something else.
_UNREADABLE = ""
_TOLD = 3


class Nodes:
    """The registered nodes of a SuperLink, kept equal to the keys of a folder.

    Flower never accepts a key again once its node is unregistered. So a node whose key still lies
    in the folder is never unregistered, whatever its name, and a registered key is taken over.

    Args:
        folder: the server's; `nodes/NAME.pub` are the keys, `nodes.json` what is registered,
            `superlink.db` the SuperLink's database.
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
        self._looked: dict[str, str] | None = None
        self._done: dict[str, str] | None = None
        self._again = 0.0

    def due(self) -> bool:
        """Whether to `align`: the keys have changed, or the last time was long ago.

        Keys that are not as they were at the last look are still being copied: not before the next.

        Raises:
            FederationError: the folder cannot be read.
        """
        wanted = wanted_nodes(self._folder)
        settled, self._looked = wanted == self._looked, wanted
        return settled and (wanted != self._done or time.monotonic() >= self._again)

    def align(self) -> tuple[int, int]:
        """Register the keys that are new and unregister the nodes that have none.

        A node that somebody else has registered is unregistered as well. What cannot be done for
        one name does not keep the others from it.

        Returns:
            How many were registered, and how many unregistered.

        Raises:
            FederationError: the SuperLink does not answer, or something was refused; the rest is
                done.
            OutputError: `nodes.json` cannot be written.
        """
        wanted = wanted_nodes(self._folder)
        self._done, self._again = wanted, time.monotonic() + RETRY_SECONDS
        done = self._align(wanted)
        self._again = time.monotonic() + ALIGN_SECONDS
        return done

    def _align(self, wanted: Mapping[str, str]) -> tuple[int, int]:
        known = read_nodes(self._folder)
        listed = {node["node-id"]: node["status"] not in GONE for node in self.list()}
        numbers = registered_keys(self._folder)
        kept: dict[str, dict[str, str]] = {}
        missing, problems, owners = [], [], dict[str, str]()
        for name, key in sorted(wanted.items()):
            number = numbers.get(key)
            if key == _UNREADABLE:
                problems.append(f"nodes/{name}.pub is no public key of a node: copy it anew")
                if name in known and listed.get(known[name]["id"]):
                    kept[name] = known[name]
            elif key in owners:
                problems.append(f"nodes/{name}.pub is the key of nodes/{owners[key]}.pub")
            elif number is None:
                missing.append(name)
            elif listed.get(number):
                kept[name] = {"id": number, "key": key}
            else:
                problems.append(
                    f"nodes/{name}.pub was unregistered once, and Flower does not accept such a "
                    f"key again: `lepton keys rotate FOLDER {name}` makes a new one"
                )
            owners.setdefault(key, name)
        there = {number for number, alive in listed.items() if alive}
        gone = sorted(there - {node["id"] for node in kept.values()})
        removed = 0
        for number in gone:
            try:
                self._flwr("unregister", "supernode", "unregister", number)
                removed += 1
            except FederationError as error:
                problems.append(str(error))
        added = self._register(missing, wanted, kept, problems)
        if kept != known:
            self._write(kept)
        if problems:
            more = len(problems) - _TOLD
            told = "; ".join(problems[:_TOLD]) + (f"; and {more} more" if more > 0 else "")
            raise FederationError(
                f"devices: {added} registered, {removed} unregistered; but {told}"
            )
        return added, removed

    def _register(
        self,
        names: Sequence[str],
        wanted: Mapping[str, str],
        kept: dict[str, dict[str, str]],
        problems: MutableSequence[str],
    ) -> int:
        width = os.cpu_count() or 1
        added = 0
        for start in range(0, len(names), width):
            batch = names[start : start + width]
            for name in batch:
                public = str(self._folder / "nodes" / f"{name}.pub")
                self._start(f"register-{name}", "supernode", "register", public, "--name", name)
            for name in batch:
                try:
                    found = _json(self._processes.finish(f"register-{name}"))
                except FederationError as error:
                    problems.append(str(error))
                    continue
                kept[name] = {"id": str(found["node-id"]), "key": wanted[name]}
                added += 1
                self._processes.log(f"register-{name}").unlink(missing_ok=True)
            self._write(kept)
        return added

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

    The digest is empty where the file is no public key.

    Raises:
        FederationError: the folder cannot be read.
    """
    try:
        # A name with a dot before it is a file that is being written.
        paths = [path for path in (folder / "nodes").glob("*.pub") if path.name[0] != "."]
    except OSError as error:
        raise FederationError(f"{folder / 'nodes'}: {error.strerror}") from None
    found = {}
    for path in paths:
        try:
            found[path.stem] = _digest(_as_registered(path.read_bytes()))
        except FileNotFoundError:
            continue  # removed since the folder was listed
        except (OSError, ValueError, UnsupportedAlgorithm):
            found[path.stem] = _UNREADABLE
    return found


def registered_keys(folder: Path) -> dict[str, str]:
    """Digests of all keys that a SuperLink has ever registered, with the ids of their nodes.

    Flower's commands do not show keys, so they are read from the SuperLink's database.

    Raises:
        FederationError: the database cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{(folder / DATABASE).as_uri()}?mode=ro", uri=True)) as book:
            rows: Iterable[tuple[int, bytes]] = book.execute(
                "SELECT node_id, public_key FROM node WHERE public_key IS NOT NULL"
            ).fetchall()
    except sqlite3.Error as error:
        raise FederationError(f"{folder / DATABASE}: cannot be read: {error}") from None
    # Ids are unsigned everywhere but in the database.
    return {_digest(bytes(key)): str(number % 2**64) for number, key in rows}


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
            f"{NODES_FILE} is damaged: remove it; a running server writes it anew"
        ) from None


def _as_registered(public: bytes) -> bytes:
    """The form in which Flower's `supernode register` sends a key to the SuperLink."""
    return serialization.load_ssh_public_key(public).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


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
