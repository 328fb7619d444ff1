"""What a device's processes cost: `python -m simulations.benchmarks.messages`.

First the import of the client app by itself: the median of several new processes, without Flower's
own process around it. Then one message of each kind, as the process that answered it has counted:
from its start to its end, of real devices (TLS, node authentication) that train and evaluate the
`smoke` scenario. "peak" is resident memory with what is shared, "private" what is left to the
process alone at its end.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lepton_flwr.runs.settings import resolve
from lepton_flwr.secagg.wire import Exchange
from simulations.federation import up
from simulations.measured import REAL, bundle

ROOT = Path(__file__).parents[2]
NODES = 3  # the fewest of a secure sum
MB = 1e6
IMPORT = """
import json, re, time
wall, cpu = time.perf_counter(), time.process_time()
import clients.client_app
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]
print(json.dumps([wall, cpu, int(peak) * 1024]))
"""


def import_cost(repeats: int) -> tuple[float, float, float]:
    """Importing the client app: seconds, seconds of the processor, bytes; medians."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path]))}
    found = []
    for number in range(repeats + 1):
        done = subprocess.run(
            [sys.executable, "-c", IMPORT], env=variables, capture_output=True, check=True
        )
        if number:  # the first one may have compiled
            found.append(json.loads(done.stdout))
    wall, cpu, peak = (statistics.median(column) for column in zip(*found, strict=True))
    return wall, cpu, peak


def message_costs(folder: Path, rounds: int) -> list[Mapping[str, Any]]:
    """A line for each message of a run with the real clients.

    Args:
        folder: an existing, empty one.
        rounds: how many, each with an evaluation.

    Raises:
        FederationError: see `simulations.federation.up`.
    """
    trace = folder / "trace"
    trace.mkdir()
    up(
        resolve("smoke", rounds=rounds),
        NODES,
        folder,
        console=io.StringIO(),
        app=lambda parent: bundle(parent, client=REAL, server=None),
        run_config={"trace": str(trace)},
    )
    return [json.loads(path.read_text()) for path in trace.glob("*.json")]


def table(lines: Sequence[Mapping[str, Any]]) -> Table:
    """Medians by kind of message."""
    made = Table(box=None, padding=(0, 3, 0, 0))
    made.add_column("message")
    for name in ("seconds", "of the processor", "peak, MB", "private, MB", "messages"):
        made.add_column(name, justify="right")
    for purpose in ("train", "evaluate"):
        for step in Exchange:
            kind = (purpose, str(step))
            found = [line for line in lines if (line["purpose"], line["exchange"]) == kind]
            if not found:
                continue
            name = purpose if step == Exchange.WORK else f"{step} ({purpose})"
            columns = [
                f"{statistics.median(line['ended'] - line['started'] for line in found):.2f}",
                f"{statistics.median(line['cpu'] for line in found):.2f}",
                f"{statistics.median(line['peak'] for line in found) / MB:.0f}",
                f"{statistics.median(line['private'] for line in found) / MB:.0f}",
                f"{len(found)}",
            ]
            made.add_row(name, *columns)
    return made


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="new processes that import")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--import-only", action="store_true", help="leave the messages out")
    options = parser.parse_args()
    # With it, which containers for builds often have, an app is compiled anew for each message.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    console = Console(width=100)
    wall, cpu, peak = import_cost(options.repeats)
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    console.print(f"{os.cpu_count()} cores, load {load}")
    console.print(
        f"import of clients.client_app: {wall:.2f} s, {cpu:.2f} s of the processor, "
        f"{peak / MB:.0f} MB (asked: 1 s, 150 MB)"
    )
    if options.import_only:
        return
    with tempfile.TemporaryDirectory(prefix="lepton-messages-") as name:
        lines = message_costs(Path(name).resolve(), options.rounds)
    console.print(table(lines))


if __name__ == "__main__":
    main()
