"""Measurements of the results: each a command of its own, kept in one file once it is done."""

import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_flwr._files import write_atomic
from lepton_flwr.config import RunConfig
from lepton_flwr.errors import DataError, LeptonError

PAGES = ("health", "credit", "ads", "customers", "iot", "transport")
EPSILONS = (8, 3, 1)
STORE = "measured.json"

Measurement = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """One way to learn: a row of a result page.

    Attributes:
        key: in the file of measurements.
        title: on the page.
        epsilon: of a private run, else None.
    """

    key: str
    title: str
    epsilon: int | None = None

    def command(self, scenario: str, seed: int) -> list[str]:
        """What measures it, as it is shown."""
        if self.key in ("majority", "trees", "network"):
            start = ["python", "-m", "simulations.results", "central", scenario, self.key]
        else:
            privacy = ["--no-dp"] if self.epsilon is None else ["--epsilon", str(self.epsilon)]
            start = ["lepton", "simulate", scenario, *privacy]
        return start if seed == 1 else [*start, "--seed", str(seed)]


WAYS = (
    Way("majority", "always the most frequent answer"),
    Way("trees", "central, gradient boosted trees"),
    Way("network", "central, the same network"),
    Way("federated", "federated, not private"),
    *(Way(f"epsilon-{e}", f"federated, epsilon {e}", e) for e in EPSILONS),
)


KEYS = tuple(way.key for way in WAYS)


class Store:
    """Measurements by scenario, way and seed, in a JSON file that is written after each.

    Raises:
        DataError: the file is there and is no such file.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / STORE
        self._found = self._read()

    def _read(self) -> dict[str, dict[str, dict[str, Measurement]]]:
        if not self.path.exists():
            return {}
        try:
            found: dict[str, dict[str, dict[str, Measurement]]] = json.loads(
                self.path.read_text(encoding="utf-8")
            )
        except ValueError:
            raise DataError(f"{self.path}: no JSON; remove it to measure anew") from None
        return found

    def get(self, scenario: str, way: Way) -> list[Measurement]:
        """The measurements of all seeds, in their order."""
        seeds = self._found.get(scenario, {}).get(way.key, {})
        return [seeds[seed] for seed in sorted(seeds, key=int)]

    def has(self, scenario: str, way: Way, seed: int) -> bool:
        """Whether this was measured."""
        return str(seed) in self._found.get(scenario, {}).get(way.key, {})

    def put(self, scenario: str, way: Way, seed: int, measured: Measurement) -> None:
        """Keep one measurement, beside those that others have added meanwhile."""
        self._found = self._read()
        ways = self._found.setdefault(scenario, {})
        ways.setdefault(way.key, {})[str(seed)] = measured
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._found, indent=1, sort_keys=True, allow_nan=False)
        write_atomic(self.path, f"{text}\n".encode())


def missing(store: Store, scenarios: Sequence[str], seed: int) -> Iterator[tuple[str, Way]]:
    """What has not been measured, in order."""
    for scenario in scenarios:
        for way in WAYS:
            if not store.has(scenario, way, seed):
                yield scenario, way


def measure(scenario: str, way: Way, seed: int, under: Sequence[str] = ()) -> Measurement:
    """Run one command in a process of its own, and read what it left.

    Args:
        scenario: its name.
        way: how to learn.
        seed: of the run.
        under: words before the command, as `nice -n 10`.

    Raises:
        LeptonError: the command fails.
    """
    shown = way.command(scenario, seed)
    with tempfile.TemporaryDirectory(prefix="lepton-results-") as folder:
        if shown[0] == "python":
            printed = _run([*under, sys.executable, *shown[1:]])
            found = json.loads(printed.strip().splitlines()[-1])
        else:
            program = [sys.executable, "-m", "lepton_flwr.cli", *shown[1:], "--out", folder]
            _run([*under, *program])
            found = _read_run(next(Path(folder).iterdir()))
    return {**found, "command": " ".join(shown), "seed": seed}


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LeptonError(f"{' '.join(command)}: ended with {done.returncode}: {last}")
    return done.stdout


_SUMMARY = (
    "accuracy", "auc", "loss", "seconds", "clients", "rounds", "rounds_skipped", "delta",
    "epsilon_record", "noise_multiplier_record", "num_parameters", "survivors_min", "saturated",
    "bytes_up_per_client", "bytes_down_per_client",
)  # fmt: skip


def _read_run(folder: Path) -> Measurement:
    """What the pages need of a run's folder."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    if summary["status"] != "finished":
        raise LeptonError(f"a run ended as {summary['status']}: expected it to finish")
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rounds = list(csv.DictReader(file))
    curve = [[int(r["round"]), float(r["auc"]), float(r["accuracy"])] for r in rounds if r["auc"]]
    return {name: summary[name] for name in _SUMMARY} | {"curve": curve}


def settings(scenario: str) -> RunConfig:
    """The configuration of a scenario with its own defaults."""
    from lepton_flwr.runs.settings import resolve

    return resolve(scenario)
