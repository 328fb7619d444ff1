"""What a round costs without work: `python -m simulations.benchmarks.round_latency --nodes 3`.

A server and devices as their owners start them (`lepton server run`, `lepton device run`: TLS, node
authentication, the gate) on this machine, and clients whose updates are fixed. Rows of the first
table: an exchange from its first request to its last reply. Rows of the second: what one message
waits for, from its request to its reply. All devices share this machine's cores, so more of them
take longer, as they do not where each has a machine of its own.
"""

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from lepton_flwr.crypto.identity import ROSTER_FILE
from lepton_flwr.data.federated import ClientData
from lepton_flwr.errors import FederationError
from lepton_flwr.secagg.wire import Exchange
from simulations.flower import Flower
from simulations.loopback import POLL_VARIABLE, environment, free_port
from simulations.measured import bundle
from simulations.measured.server import TIMES_FILE
from simulations.processes import Processes, termination_as_exit

START_SECONDS = 120.0
END_SECONDS = 120.0
SIZE = 10_000
# How often a SuperExec asks is the server's and the device's to choose; and with the other, which
# containers for builds often have, Python would compile an app anew for each message.
_NOT_OF_AN_OWNER = (POLL_VARIABLE, "PYTHONDONTWRITEBYTECODE")
CONNECTION, FLOWER_HOME = "lepton", "flower"  # of a server's folder

Line = Mapping[str, Any]


def measure(
    folder: Path, nodes: int, rounds: int, settings: Mapping[int, str]
) -> tuple[list[Line], list[Line]]:
    """Run rounds on a federation of this machine.

    Args:
        folder: an existing, empty one.
        nodes: devices, at least 3.
        rounds: how many.
        settings: a line to add to the `device.toml` of a device, by its number from 0.

    Returns:
        A line for each exchange, and one for each message.

    Raises:
        FederationError: the federation does not come up, the run fails, or a message has no line.
    """
    federation, out, logs = folder / "fed", folder / "out", folder / "logs"
    for made in (out / "trace", logs):
        made.mkdir(parents=True)
    lepton = [sys.executable, "-m", "lepton_flwr.cli"]
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    variables = {**environment(), "PYTHONPATH": paths}
    for name in _NOT_OF_AN_OWNER:
        variables.pop(name, None)
    with termination_as_exit(), Processes(logs, variables) as processes:
        address = f"localhost:{free_port()}"
        made_by = ["federation", "init", str(federation), "--nodes", str(nodes)]
        processes.start("init", [*lepton, *made_by, "--address", address])
        processes.finish("init")
        server, devices = federation / "server", sorted((federation / "devices").iterdir())
        rows = np.zeros((4, 2), np.float32), np.zeros(4, np.int32)
        for number, device in enumerate(devices):
            ClientData(*rows, *rows).save(device / "data.npz")
            with (device / "device.toml").open("a", encoding="utf-8") as file:
                file.write(settings.get(number, ""))
        processes.start("server", [*lepton, "server", "run", str(server)])
        _wait(processes, "server", f"{nodes} registered")
        for device in devices:
            processes.start(device.name, [*lepton, "device", "run", str(device)])
        for device in devices:
            _wait(processes, device.name, "supernode is up")
        values = {
            "roster": str(server / ROSTER_FILE),
            "clients": nodes,
            "rounds": rounds,
            "size": SIZE,
            "out": str(out),
            "trace": str(out / "trace"),
        }
        flower = Flower(processes, server / FLOWER_HOME, CONNECTION)
        flower.run(bundle(folder), values, io.StringIO())
        traces = _traces(out / "trace", nodes * rounds * len(Exchange))
    exchanges = json.loads((out / TIMES_FILE).read_text())
    return exchanges, [json.loads(path.read_text()) for path in traces]


def _traces(folder: Path, count: int) -> list[Path]:
    """The files of all messages: the last processes write theirs after the run has ended."""
    deadline = time.monotonic() + END_SECONDS
    while len(found := sorted(folder.glob("*.json"))) < count:
        if time.monotonic() > deadline:
            raise FederationError(
                f"{len(found)} of {count} messages have a file after {END_SECONDS:g} s: a device "
                "did not answer, or still does; read its logs (--keep)"
            )
        time.sleep(0.1)
    return found


def _wait(processes: Processes, name: str, text: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while text not in processes.output(name):
        if processes.ended(name):
            raise processes.failure(name)
        if time.monotonic() > deadline:
            raise FederationError(f"{name} is not ready after {START_SECONDS:g} s")
        time.sleep(0.1)


def phases(exchange: Line, message: Line) -> dict[str, float]:
    """What a message of an exchange waited for, in seconds; their sum is the exchange's time."""
    return {
        "to the device and its process": message["started"] - exchange["began"],
        "process start, Flower's imports, message": message["began"] - message["started"],
        "the app's imports": message["imported"] - message["began"],
        "answer": message["answered"] - message["imported"],
        "reply and the slowest device": exchange["ended"] - message["answered"],
    }


def tables(exchanges: Sequence[Line], messages: Sequence[Line]) -> list[Table]:
    """The two tables: medians over the rounds but the first, which reads all from disk."""
    steps = [str(step) for step in Exchange]
    each = {step: [line for line in exchanges if line["exchange"] == step] for step in steps}
    kept = {step: lines[1:] or lines for step, lines in each.items()}
    first = Table(box=None, padding=(0, 3, 0, 0))
    first.add_column("exchange")
    first.add_column("seconds", justify="right")
    total = [statistics.median(ln["ended"] - ln["began"] for ln in kept[step]) for step in steps]
    for step, seconds in zip(steps, total, strict=True):
        first.add_row(step, f"{seconds:.2f}")
    begun = [line["began"] for line in kept[steps[0]]]
    ended = [line["ended"] for line in kept[steps[-1]]]
    whole = statistics.median(b - a for a, b in zip(begun, ended, strict=True))
    first.add_row("a round, all of it", f"{whole:.2f}")
    second = Table(box=None, padding=(0, 3, 0, 0))
    second.add_column("a message, median over exchanges, rounds and devices")
    second.add_column("seconds", justify="right")
    found = [
        phases(line, message)
        for step in steps
        for line in kept[step]
        for message in messages
        if line["began"] < message["answered"] < line["ended"]
    ]
    for name in found[0]:
        second.add_row(name, f"{statistics.median(one[name] for one in found):.2f}")
    return [first, second]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--warm", choices=("flower", "tensorflow"), help="use the warm launcher")
    parser.add_argument("--keep", type=Path, help="keep folders and logs in this new folder")
    options = parser.parse_args()
    line = f'warm = "{options.warm}"\n' if options.warm else ""
    settings = dict.fromkeys(range(options.nodes), line)
    with tempfile.TemporaryDirectory(prefix="lepton-latency-") as name:
        folder = options.keep or Path(name)
        folder.mkdir(exist_ok=True)
        exchanges, messages = measure(folder.resolve(), options.nodes, options.rounds, settings)
    console = Console(width=100)
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    console.print(
        f"{options.nodes} devices, {options.rounds} rounds, warm launcher: {options.warm or 'off'};"
        f" {os.cpu_count()} cores, load {load}"
    )
    for table in tables(exchanges, messages):
        console.print(table)


if __name__ == "__main__":
    main()
