"""A run that loses a device in every round: `python -m simulations.benchmarks.resilience`.

A server and devices as their owners start them (`lepton server run`, `lepton device run`: TLS, node
authentication, the gate) on this machine. In every round a device is killed (SIGKILL, with all that
it runs) in an exchange that changes from round to round, and started anew; the server is killed
`--server-kills` times, started anew, and goes on by `lepton server resume`. Afterwards the ledgers
are held against what was released, and the model against that of a quiet run of the same
configuration, which is simulated: the same app and rows, without the network.
"""

import argparse
import contextlib
import csv
import json
import os
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console
from rich.table import Table

from lepton_flwr.config import RunConfig
from lepton_flwr.config_tables import read_toml
from lepton_flwr.data import scenarios
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.errors import FederationError
from lepton_flwr.privacy.ledger import LEDGER_FILE, Entry, Ledger
from lepton_flwr.runs import journal
from lepton_flwr.runs.settings import resolve
from lepton_flwr.secagg.wire import Exchange
from simulations.loopback import environment, free_port
from simulations.processes import Processes, having, termination_as_exit
from strategies.budgets import LEDGER_FILE as SERVER_LEDGER
from strategies.calibration import with_noise
from strategies.preparation import with_data

WAIT_SECONDS = 900.0  # the machine may have other work
SERVER, RUN, MARK, WHO = "server", "train", "LEPTON_RESILIENCE", "LEPTON_RESILIENCE_WHO"
STATUS, CONFIG_FILE = "status.json", "config.toml"
EXCHANGES = tuple(Exchange)
# Few devices have all rows of a natural client; a killed device is not waited for long.
DEFAULTS = (
    "data.partition=iid", "secagg.min_survivors=4",
    "secagg.straggler_factor=2", "secagg.straggler_grace=20",
)  # fmt: skip


class Federation:
    """Server, devices and a run, by name; `processes` starts them and ends all of them.

    Args:
        folder: an existing, empty one.
        processes: where to start them.
        config: the run.
        data: the devices' rows.
        settings: lines to add to each `device.toml`.
    """

    def __init__(
        self,
        folder: Path,
        processes: Processes,
        config: RunConfig,
        data: FederatedData,
        settings: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self._processes = processes
        self._config = config
        self._mark = uuid.uuid4().hex
        self.server = folder / "fed" / "server"
        record, secagg = config.dp.record, config.secagg
        self._lepton(
            "init", "federation", "init", folder / "fed", "--nodes", len(data.clients),
            "--address", f"localhost:{free_port()}", "--min-survivors", secagg.min_survivors,
            "--max-record-epsilon", record.epsilon,
        )  # fmt: skip
        processes.finish("init")
        self.devices = sorted((folder / "fed" / "devices").iterdir())
        for device, rows in zip(self.devices, data.clients, strict=True):
            rows.save(device / "data.npz")
            with (device / "device.toml").open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in settings)

    def start_server(self) -> None:
        """Start the server; returns when it is up."""
        (self.server / STATUS).unlink(missing_ok=True)
        self._lepton(SERVER, "server", "run", self.server)
        self.wait(lambda: _is_up(self.server), SERVER)
        self.wait((self.server / "nodes.json").exists, SERVER)  # devices are known

    def start_device(self, device: Path) -> None:
        """Start a device, as its supervisor does after it was killed."""
        (device / STATUS).unlink(missing_ok=True)
        self._lepton(device.name, "device", "run", device)

    def train(self) -> Path:
        """Start the run; its folder."""
        config, out = self._folder / "config.toml", self.server / "runs"
        config.write_text(tomli_w.dumps(self._config.to_dict()), encoding="utf-8")
        self._lepton(RUN, "server", "train", self.server, "--config", config)
        return Path(self.wait(lambda: next(out.iterdir(), None) if out.exists() else None, RUN))

    def resume(self, run: Path) -> None:
        """Go on with the run."""
        self.wait(lambda: self._processes.ended(RUN))
        self._lepton(RUN, "server", "resume", run, "--server", self.server)

    def kill(self, name: str) -> None:
        """Kill it and all that it has started, as a loss of power would."""
        while pids := list(having({MARK: self._mark, WHO: name})):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._processes.ended(name)  # reaps it

    def finish(self) -> None:
        """Wait for the run's end.

        Raises:
            FederationError: it failed.
        """
        self.wait(lambda: self._processes.ended(RUN))
        if self._processes.code(RUN) != 0:
            raise self._processes.failure(RUN)

    def wait(self, condition: Callable[[], Any], *names: str) -> Any:
        """What the condition gives, while the processes of these names run.

        Raises:
            FederationError: one of them ended, or it takes too long.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while not (found := condition()):
            for name in names:
                if self._processes.ended(name):
                    raise self._processes.failure(name)
            if time.monotonic() > deadline:
                raise FederationError(f"nothing within {WAIT_SECONDS:g} s of a run's next step")
            time.sleep(0.1)
        return found

    def _lepton(self, name: str, *arguments: object) -> None:
        command = [sys.executable, "-m", "lepton_flwr.cli", *map(str, arguments)]
        self._processes.start(name, command, {MARK: self._mark, WHO: name}, append=True)


def disturb(federation: Federation, rounds: int, server_kills: int, console: Console) -> Path:
    """Run all rounds, and kill somebody in each of them.

    Returns:
        The run's folder.
    """
    federation.start_server()
    for device in federation.devices:
        federation.start_device(device)
    for device in federation.devices:
        federation.wait(partial(_is_up, device), device.name)
    run = federation.train()
    of_server = {round((n + 1) * rounds / (server_kills + 1)) for n in range(server_kills)}
    for number in range(1, rounds + 1):
        exchange = EXCHANGES[number % len(EXCHANGES)]
        federation.wait(partial(_began, run, number, exchange), RUN)
        victim = SERVER if number in of_server else None
        device = federation.devices[number % len(federation.devices)]
        federation.kill(victim or device.name)
        if victim:
            federation.start_server()
            federation.resume(run)
        else:
            federation.start_device(device)
        federation.wait(partial(_of_round, run, "round", number), RUN)
        row = _of_round(run, "round", number)[-1]
        console.print(
            f"round {number}: killed {victim or device.name} in {exchange}: {row['status']}, "
            f"{row['survivors']} of {row['participants']} in the sum, "
            f"epsilon {row['epsilon_record']:.4g}, {sum(row['seconds'].values()):.0f} s",
            highlight=False,
            soft_wrap=True,
        )
    federation.finish()
    return run


def quiet(folder: Path, processes: Processes, config: Path) -> Path:
    """The same configuration, simulated, with nobody killed; the run's folder."""
    out = folder / "quiet"
    command = [sys.executable, "-m", "lepton_flwr.cli", "simulate", "--config", str(config)]
    processes.start("quiet", [*command, "--out", str(out)])
    while not processes.ended("quiet"):
        time.sleep(0.5)
    if processes.code("quiet") != 0:
        raise processes.failure("quiet")
    return next(out.iterdir())


def account(federation: Federation, run: Path) -> list[tuple[str, object, object, bool]]:
    """What was released against what was charged: claim, released, charged, whether it holds."""
    rows = _metrics(run)
    with Ledger(federation.server / "ledger" / SERVER_LEDGER) as ledger:
        server = ledger.history()
        (scope,) = {(charge.unit, charge.dataset) for entry in server for charge in entry.charges}
        config = RunConfig.build(read_toml(run / CONFIG_FILE))
        epsilon = ledger.spent(*scope, config.dp.delta)
    devices: list[list[Entry]] = []
    for device in federation.devices:
        with Ledger(device / LEDGER_FILE) as ledger:
            devices.append(ledger.history())
    begun = {int(event["round"]) for event in journal.read(run / journal.JOURNAL_FILE)[0]
             if event["event"] == "charged"}  # fmt: skip
    charged = sum(map(len, devices))
    summed = sum(int(row["survivors"]) for row in rows)
    last = float(rows[-1]["epsilon_record"])
    return [
        ("rounds charged by the server", len(begun), len(server), len(server) >= len(begun)),
        ("epsilon in metrics.csv", f"{last:.6g}", f"{epsilon:.6g}", last >= epsilon * (1 - 1e-9)),
        ("updates in sums, charged by devices", summed, charged, charged >= summed),
        (
            "rounds of one device",
            f"at most {len(begun)}",
            " ".join(str(len(entries)) for entries in devices),
            max(map(len, devices)) <= len(begun),
        ),
    ]


def main() -> None:
    """Print each round as it ends, then the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", nargs="?", default="credit")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--server-kills", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], help="a setting of the run")
    parser.add_argument("--device", action="append", default=[], help="a line of device.toml")
    parser.add_argument("--logs", type=Path, help="folder for what every process prints")
    arguments = parser.parse_args()
    console = Console()
    chosen = resolve(
        arguments.scenario,
        clients=arguments.devices,
        rounds=arguments.rounds,
        assignments=(*DEFAULTS, f"evaluate_every={arguments.rounds}", *arguments.set),
    )
    data = scenarios.get(chosen.scenario).load(chosen)
    if not isinstance(data, FederatedData):
        raise SystemExit(f"{chosen.scenario}: expected a scenario whose rows need no statistics")
    config = with_noise(with_data(chosen, data))
    with tempfile.TemporaryDirectory(prefix="lr-") as name, termination_as_exit():
        folder = Path(name)
        logs = arguments.logs or folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        root = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        with Processes(logs, {**environment(), "PYTHONPATH": paths}) as processes:
            federation = Federation(folder, processes, config, data, arguments.device)
            run = disturb(federation, config.rounds, arguments.server_kills, console)
            claims = account(federation, run)
        with Processes(logs, {**environment(), "PYTHONPATH": paths}) as processes:
            calm = _metrics(quiet(folder, processes, folder / "config.toml"))
        rows = _metrics(run)
    skipped = Counter(row["reason"] for row in rows if row["status"] != "ok")
    table = Table("", "disturbed", "quiet (simulated)")
    table.add_row("rounds", str(len(rows)), str(len(calm)))
    table.add_row("rounds skipped", str(skipped.total()), "0")
    table.add_row("epsilon per record", rows[-1]["epsilon_record"], calm[-1]["epsilon_record"])
    table.add_row("final AUC", rows[-1]["auc"], calm[-1]["auc"])
    console.print(table)
    for reason, count in skipped.items():
        console.print(f"skipped {count}: {reason}", highlight=False)
    table = Table("", "released", "charged", "none undercounted")
    for claim, released, charged, holds in claims:
        table.add_row(claim, str(released), str(charged), "yes" if holds else "NO")
    console.print(table)
    if not all(holds for *_, holds in claims):
        raise SystemExit("a budget was undercounted")


def _is_up(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / STATUS).read_bytes())["state"] == "running")
    except (OSError, ValueError):
        return False


def _of_round(run: Path, event: str, number: int) -> list[dict[str, Any]]:
    path = run / journal.JOURNAL_FILE
    found = journal.read(path)[0] if path.exists() else []
    return [e for e in found if e["event"] == event and e.get("round") == number]


def _began(run: Path, number: int, exchange: Exchange) -> bool:
    """Whether an exchange of a round's training is on: the one before it is over."""
    place = EXCHANGES.index(exchange)
    if place == 0:
        return bool(_of_round(run, "charged", number))
    before = str(EXCHANGES[place - 1])
    over = _of_round(run, "exchange", number)
    return any((e["purpose"], e["phase"]) == ("train", before) for e in over)


def _metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
