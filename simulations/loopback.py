"""The processes of a federation on this machine: a SuperLink, SuperNodes, the run of an app."""

import functools
import json
import os
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from lepton_flwr.crypto.tls import create_node_key, create_server_credentials
from lepton_flwr.errors import FederationError
from simulations.flower import Flower
from simulations.processes import Processes

HOST = "127.0.0.1"
SUPERLINK = "superlink"
CONNECTION = "lepton-tls"
START_SECONDS = 120.0
# How often a node asks itself for work. Each time takes 4 ms of a processor, idle or not: Flower's
# default of a second is a second of every exchange, and 0.05 would be 7 % of a core.
POLL_VARIABLE, POLL_SECONDS = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "0.1"
_POLL_SECONDS = 0.1
_NODE_READY = "SuperNode ID:"
_given: deque[int] = deque(maxlen=1000)  # ports

NodeConfig = Mapping[str, str | int]


class Federation:
    """The processes of a federation; use inside the block of its `processes`.

    Args:
        processes: where to start them.
        folder: an existing, private folder for keys and Flower's own files.
    """

    def __init__(self, processes: Processes, folder: Path) -> None:
        self._processes = processes
        self._folder = folder
        self._tls = create_server_credentials(folder)
        self._port = free_port()
        self._nodes: list[str] = []
        self._home("flwr").joinpath("config.toml").write_text(
            f'[superlink.{CONNECTION}]\naddress = "{HOST}:{self._port}"\n'
            f"root-certificates = {json.dumps(str(self._tls.authority))}\n",
            encoding="utf-8",
        )

    def start_superlink(self) -> None:
        """Start the SuperLink and wait until it answers with our certificate.

        Raises:
            FederationError: it ends, or does not answer in time.
        """
        tls = self._tls
        self._processes.start(
            SUPERLINK,
            [
                "flower-superlink",
                "--ssl-ca-certfile", str(tls.authority),
                "--ssl-certfile", str(tls.certificate),
                "--ssl-keyfile", str(tls.key),
                "--enable-supernode-auth",
                "--host", HOST,
                "--port", str(self._port),
                "--disable-runtime-dependency-installation",
            ],
            {"FLWR_HOME": str(self._home(SUPERLINK))},
        )  # fmt: skip
        self._wait(SUPERLINK, self._answers)

    def register(self, numbers: Sequence[int]) -> None:
        """Make these nodes' keys and let the SuperLink know them.

        Raises:
            FederationError: the SuperLink refuses.
        """
        width = os.cpu_count() or 1
        for start in range(0, len(numbers), width):
            batch = numbers[start : start + width]
            names = [f"register-{number:04d}" for number in batch]
            for name, number in zip(names, batch, strict=True):
                self._flwr(name, "supernode", "register", str(self._public(number)), CONNECTION)
            for name in names:
                self._processes.finish(name)

    def start_node(self, number: int, node_config: NodeConfig) -> None:
        """Start a SuperNode; `wait_for_nodes` says whether it came up."""
        name = f"node-{number:04d}"
        self._public(number)
        self._processes.start(
            name,
            [
                "flower-supernode",
                "--root-certificates", str(self._tls.authority),
                "--superlink", f"{HOST}:{self._port}",
                "--host", HOST,
                "--port", str(free_port()),
                "--node-config", _node_config(node_config),
                "--auth-supernode-private-key", str(self._key(number)),
            ],
            {"FLWR_HOME": str(self._home(name))},
        )  # fmt: skip
        self._nodes.append(name)

    def wait_for_nodes(self) -> None:
        """Wait until every started node has joined.

        Raises:
            FederationError: one ends, or does not join in time.
        """
        for name in self._nodes:
            self._wait(name, functools.partial(self._joined, name))

    def run(self, app: Path, run_config: Mapping[str, Any], console: TextIO) -> None:
        """Run an app to its end and copy its log to `console`.

        A node that ends meanwhile is named there and does not end the run: what the loss of a
        client means is the app's to decide.

        Args:
            app: the folder of a Flower app.
            run_config: what overrides the app's own configuration; flat.
            console: where the app's log goes.

        Raises:
            FederationError: the app fails or is stopped, or the SuperLink ends.
        """
        lost: set[str] = set()

        def watch() -> None:
            if self._processes.ended(SUPERLINK):
                raise self._processes.failure(SUPERLINK)
            for node in self._nodes:
                if node not in lost and self._processes.ended(node):
                    lost.add(node)
                    print(f"lost: {self._processes.failure(node)}", file=console, flush=True)

        flower = Flower(self._processes, self._home("flwr"), CONNECTION)
        flower.run(app, run_config, console, watch)

    def _flwr(self, name: str, *arguments: str) -> None:
        home = {"FLWR_HOME": str(self._home("flwr"))}
        self._processes.start(name, ["flwr", *arguments], home)

    def _home(self, name: str) -> Path:
        """A Flower home of its own for each process: they must share nothing but the network."""
        home = self._folder / "homes" / name
        home.mkdir(parents=True, exist_ok=True)
        return home

    def _key(self, number: int) -> Path:
        return self._folder / f"node-{number:04d}.key"

    def _public(self, number: int) -> Path:
        key = self._key(number)
        return key.with_name(f"{key.name}.pub") if key.exists() else create_node_key(key)

    def _joined(self, name: str) -> bool:
        return _NODE_READY in self._processes.output(name)

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self._processes.ended(name):
                raise self._processes.failure(name)
            if time.monotonic() > deadline:
                raise FederationError(
                    f"{name} is not ready after {START_SECONDS:g} s (its log: "
                    f"{self._processes.log(name)})"
                )
            time.sleep(_POLL_SECONDS)

    def _answers(self) -> bool:
        context = ssl.create_default_context(cafile=self._tls.authority)
        try:
            with (
                socket.create_connection((HOST, self._port), timeout=1) as plain,
                context.wrap_socket(plain, server_hostname=HOST),
            ):
                return True
        except OSError:
            return False


def environment(debug: bool = False) -> dict[str, str]:
    """The variables of a federation's processes: this environment, and what Flower needs.

    Who has set how often a node asks itself for work has the last word on it.
    """
    paths = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    found = {
        **os.environ,
        "PATH": os.pathsep.join(paths),  # Flower starts its helpers by name
        "PYTHONUNBUFFERED": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        POLL_VARIABLE: os.environ.get(POLL_VARIABLE, POLL_SECONDS),
        "COLUMNS": "200",  # its messages in boxes are not to be wrapped
        "NO_PROXY": f"{HOST},localhost",
        "no_proxy": f"{HOST},localhost",
    }
    if debug:
        found["FLWR_LOG_LEVEL"] = "DEBUG"
    return found


def free_port() -> int:
    """A TCP port that nobody listens on at this moment, and none that was given lately.

    Whoever got one before may not listen on it yet.
    """
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given.append(port)
            return port


def _node_config(values: NodeConfig) -> str:
    return " ".join(f"{key}={json.dumps(value)}" for key, value in values.items())
