"""A real federation on this machine, as its owners start it, and what breaks it.

`lepton federation init` makes the folders; `lepton server run`, `lepton device run`, `lepton server
train` and `lepton server resume` run. Everything that a stage starts, and every process that those
start, carries the stage's mark in its environment, and its own name (`server`, `train`, the
device's): what is killed is found by that and by nothing else.
"""

import contextlib
import csv
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from lepton_flwr.config import RunConfig
from lepton_flwr.config_tables import read_toml
from lepton_flwr.crypto.address import Address
from lepton_flwr.data.federated import ClientData
from lepton_flwr.deploy.server import FLOWER_HOME
from lepton_flwr.deploy.status import RUNNING, Status
from lepton_flwr.deploy.warm import FLOWER_VERSIONS
from lepton_flwr.privacy.events import SampledGaussian
from lepton_flwr.privacy.ledger import LEDGER_FILE, Entry, Ledger
from lepton_flwr.privacy.losses import epsilon
from lepton_flwr.runs import journal
from lepton_flwr.runs.checkpoint import (
    FOLDER,
    STATE_FILE,
    Checkpoint,
    CheckpointBusyError,
    Checkpoints,
)
from lepton_flwr.secagg.wire import Exchange
from simulations.loopback import environment, free_port
from simulations.processes import having

ROOT = Path(__file__).parents[2]
LIGHT = Path(__file__).with_name("light_app.py")
MARK, WHO, HOLD = "LEPTON_TEST_MARK", "LEPTON_TEST_WHO", "LEPTON_TEST_HOLD"
DEVICE_LINE = "LEPTON_TEST_DEVICE_LINE"  # a line for every device.toml, of whoever runs the tests
EXCHANGES = tuple(Exchange)
# Where nobody is to be cut off, however slow the machine is.
PATIENT = {"secagg": {"straggler_grace": 240.0}}
SERVER, TRAIN = "server", "train"
WIDTH = 3  # features of a light device's rows
PATIENCE = 300.0


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE, why=lambda: ""):
    """Poll until the condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {why()}"
        time.sleep(0.1)
    return found


def state(folder):
    """What `status.json` of a device's or server's folder says; empty if there is none."""
    status = Status.read(folder)
    return status.state if status else ""


def keep_warm(device):
    """Let a device fork its processes, TensorFlow loaded: half of the work where many train."""
    if importlib.metadata.version("flwr") in FLOWER_VERSIONS:
        with (device / "device.toml").open("a") as settings:
            settings.write('warm = "tensorflow"\n')


def rows(number, examples=4):
    """Rows of device `number`, of which the light task makes the update 2**-number."""
    x = np.full((examples, WIDTH), 0.5**number, np.float32)
    y = np.arange(examples, dtype=np.int32) % 2
    return ClientData(x, y, x, y)


class Stage:
    """The folders of a federation, and what runs of them.

    Args:
        root: an existing folder with a short path, as sockets want it.
        devices: number of devices.
        host: where devices reach the server.
        init: further arguments of `lepton federation init`.
    """

    def __init__(self, root: Path, devices: int = 8, host: str = "localhost", init: Sequence = ()):
        self.mark = uuid.uuid4().hex
        self.root = root
        self.variables = {**environment(), MARK: self.mark, "PYTHONPATH": str(ROOT)}
        self.address = Address(host, free_port())
        self.started: list[subprocess.Popen] = []
        self.fed = root / "fed"
        try:
            made = self.lepton(
                "federation", "init", self.fed, "--nodes", devices, "--address", self.address, *init
            )
            assert made.wait(PATIENCE) == 0, self.output(made)
        except BaseException:
            self.close()
            raise
        self.server = self.fed / "server"
        self.devices = sorted((self.fed / "devices").iterdir())
        for number, device in enumerate(self.devices, 1):
            rows(number).save(device / "data.npz")
            with (device / "device.toml").open("a") as file:
                file.write(os.environ.get(DEVICE_LINE, "") + "\n")
        self.running: dict[str, subprocess.Popen] = {}

    # Starting

    def start(self, command, who="", **variables):
        """Start a command in the background."""
        log = (self.root / f"{len(self.started)}.out").open("wb")
        with log:
            process = subprocess.Popen(
                list(map(str, command)),
                env={**self.variables, WHO: who, **variables},
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.started.append(process)
        return process

    def lepton(self, *arguments, who="", prefix=(), **variables):
        """Start `lepton`, after `prefix` (such as `ip netns exec NAME`)."""
        command = [*prefix, sys.executable, "-m", "lepton_flwr.cli", *arguments]
        return self.start(command, who, **variables)

    def output(self, process):
        """All that a started process has printed."""
        return (self.root / f"{self.started.index(process)}.out").read_text(errors="replace")

    def start_server(self, prefix=()):
        """`lepton server run`; returns when devices can join."""
        process = self.lepton("server", "run", self.server, who=SERVER, prefix=prefix)
        self.running[SERVER] = process
        self.wait_for_state(self.server, process)
        return process

    def start_devices(self, folders=None, prefix=(), wait=True, **variables):
        """`lepton device run` of all devices, or of these; returns when they have joined."""
        folders = list(self.devices if folders is None else folders)
        for folder in folders:
            self.running[folder.name] = self.lepton(
                "device", "run", folder, who=folder.name, prefix=prefix,
                **{HOLD: str(self.hold_file(folder)), **variables},
            )  # fmt: skip
        if wait:
            for folder in folders:
                self.wait_for_state(folder, self.running[folder.name])

    def wait_for_state(self, folder, process, wanted=RUNNING):
        """Until `process`, which runs the folder, says so in its status."""

        def there():
            assert process.poll() is None, self.output(process)
            status = Status.read(folder)
            return status and status.pid == process.pid and status.state == wanted

        wait_until(there, why=lambda: f"{folder.name} {Status.read(folder)}")

    # Running

    def train(self, settings=None, *, arguments=(), out=None, **top):
        """`lepton server train` of the light app (light_app.py), and its run.

        Args:
            settings: tables of the configuration that differ from the ones below.
            arguments: further ones of the command.
            out: where its runs are, if `arguments` say so.
            top: settings at the configuration's top.
        """
        config = {
            "scenario": "smoke",
            "clients": len(self.devices),
            "rounds": 3,
            "evaluate_every": 10_000,
            "model": {"input_shape": [WIDTH], "num_classes": 2},
            # Such noise that a round costs little: what is to be seen is whether it is counted.
            "dp": {"record": {"noise_multiplier": 4.0, "epsilon": 2.5}},
            # A device that was killed is not waited for much longer than the others took.
            "secagg": {
                "timeout": 300.0,
                "straggler_factor": 3.0,
                "straggler_grace": 30.0,
                "max_examples": 8,
            },
            **top,
        }
        for key, values in (settings or {}).items():
            config[key] = {**config.get(key, {}), **values}
        path = self.root / f"run-{len(self.started)}.toml"
        path.write_text(tomli_w.dumps(config))
        out = out or self.server / "runs"
        before = _inside(out)
        process = self._light("server", "train", self.server, "--config", path, *arguments)

        def there():
            assert process.poll() is None, self.output(process)
            return _inside(out) - before

        (folder,) = wait_until(there)
        return process, Run(folder)

    def resume(self, run):
        """`lepton server resume` of the light app."""
        return self._light("server", "resume", run.folder, "--server", self.server)

    def _light(self, *arguments):
        return self.start([sys.executable, LIGHT, *arguments], TRAIN)

    def flwr(self, *arguments):
        """The output of a command of Flower's on the SuperLink."""
        variables = {**self.variables, "FLWR_HOME": str(self.server / FLOWER_HOME)}
        command = ["flwr", *map(str, arguments)]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
        return done.stdout

    # Holding a device within an exchange

    @staticmethod
    def hold_file(folder):
        """While it names an exchange, the device stays in it; see light/client_app.py."""
        return folder / "hold"

    def hold(self, folder, exchange):
        """Let the device stop when it comes to an exchange; `EXCHANGE:after` is before it answers.

        `train:after` is when its row is in the ledger and its update is ready.
        """
        self.hold_file(folder).with_name("held").unlink(missing_ok=True)
        self.hold_file(folder).write_text(str(exchange))

    def wait_held(self, folder, process=None):
        """Until the device is where `hold` stops it; `process` must run meanwhile."""

        def there():
            assert process is None or process.poll() is None, self.output(process)
            return self.hold_file(folder).with_name("held").exists()

        wait_until(there, why=lambda: f"{folder.name} is not held")

    def release(self, folder):
        """Let it go on."""
        self.hold_file(folder).unlink(missing_ok=True)

    # Killing

    def pids(self, who=None, program=""):
        """Processes of this stage: of `who`, if named, with `program` in their command line."""
        wanted = {MARK: self.mark} if who is None else {MARK: self.mark, WHO: who}
        return list(having(wanted, program))

    def kill(self, who=None, program="", number=signal.SIGKILL):
        """Send a signal to all of them until none is left (SIGKILL), or once (any other)."""
        pids = self.pids(who, program)
        assert pids, f"nothing to kill of {who} {program}"
        while pids:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            for process in self.started:
                process.poll()
            if number != signal.SIGKILL or program:
                return
            pids = self.pids(who, program)

    def restart_device(self, folder, wait=False, **variables):
        """What systemd does after a device was killed."""
        self.running[folder.name].wait(PATIENCE)
        self.start_devices([folder], wait=wait, **variables)

    def await_end(self, process):
        """Until `lepton server train` or `resume` has ended, and nothing of its run is left."""
        process.wait(PATIENCE)
        wait_until(lambda: not self.pids(SERVER, "flwr-serverapp"), why=lambda: "the app runs on")

    def stop(self, process, number=signal.SIGTERM):
        """End a started process as its owner would."""
        process.send_signal(number)
        return process.wait(PATIENCE)

    def close(self):
        """End all that runs of this stage."""
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in self.started:
                process.poll()
        for process in self.started:
            process.wait()

    # Reading

    def device_ledger(self, folder) -> list[Entry]:
        """All reservations in a device's ledger; none if there is no ledger."""
        path = folder / LEDGER_FILE
        if not path.exists():
            return []
        with Ledger(path) as ledger:
            return ledger.history()

    def server_ledger(self) -> list[Entry]:
        """All reservations in the server's ledger."""
        with Ledger(self.server / "ledger" / "server.db") as ledger:
            return ledger.history()

    def log(self, folder, name):
        """A log in a device's or server's folder; empty if there is none."""
        path = folder / "logs" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""


@contextlib.contextmanager
def stages():
    """What makes stages; nothing that they started is left afterwards."""
    roots, made = [], []

    def make(devices=8, **options):
        roots.append(Path(tempfile.mkdtemp(prefix="lt-")))  # short, as sockets want it
        made.append(Stage(roots[-1], devices, **options))
        return made[-1]

    try:
        yield make
    finally:
        for stage in made:
            stage.close()
        for root in roots:
            shutil.rmtree(root)


def _inside(folder):
    return set(folder.iterdir()) if folder.exists() else set()


class Run:
    """A run's folder, while it runs and afterwards."""

    def __init__(self, folder: Path):
        self.folder = folder

    def events(self, event="", **values):
        """Its events so far, those of one kind and with these values if named."""
        path = self.folder / journal.JOURNAL_FILE
        found = journal.read(path)[0] if path.exists() else []
        return [
            entry
            for entry in found
            if event in ("", entry["event"])
            and all(entry.get(key) == value for key, value in values.items())
        ]

    def wait_for(self, event, process, **values):
        """Until there is such an event, and it; `process`, which runs the run, must not end."""

        def there():
            found = self.events(event, **values)
            assert found or process.poll() is None, f"no {event} {values}: {self.events()[-3:]}"
            return found

        return wait_until(there, why=lambda: f"{event} {values}: {self.events()[-3:]}")[0]

    def wait_phase(self, round, phase, process):
        """Until an exchange of a round's training is on: the one before it is over."""
        place = EXCHANGES.index(Exchange(phase))
        if place == 0:
            return self.wait_for("charged", process, round=round)
        before = str(EXCHANGES[place - 1])
        return self.wait_for("exchange", process, round=round, phase=before, purpose="train")

    def rounds(self):
        """The rows of `metrics.csv`, as texts."""
        path = self.folder / "metrics.csv"
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    def checkpoint(self) -> tuple[RunConfig, Checkpoint]:
        """Configuration and newest checkpoint of a run that is stopped, once its app has ended."""

        def reopened():
            with contextlib.suppress(CheckpointBusyError):
                return Checkpoints.reopen(self.folder)

        with contextlib.closing(wait_until(reopened)) as checkpoints:
            return checkpoints.config, checkpoints.latest

    def weights(self):
        """The model of the newest round, float64, kernel before bias; also while it runs."""
        with np.load(self.folder / FOLDER / STATE_FILE) as arrays:
            names = sorted(name for name in arrays.files if name.startswith("weights/"))
            return vector([arrays[name] for name in names])

    def lost(self, round):
        """Classes of failures in a round, by exchange and node."""
        return {(e["phase"], e["node"]): e["class"] for e in self.events("failure", round=round)}

    def summary(self):
        """`summary.json` of a run that has ended."""
        return json.loads((self.folder / "summary.json").read_text())


def light_update(folder):
    """What the light task adds to the weights at a device, float64, kernel before bias."""
    data = ClientData.load(folder / "data.npz")
    return np.array([*data.x_train.mean(axis=0), data.y_train.mean()], np.float64)


def vector(weights):
    """A light model's weights, float64, kernel before bias."""
    return np.concatenate([np.asarray(weight, np.float64).reshape(-1) for weight in weights])


def summed(stage, step, survivors):
    """Whose updates are in the sum that moved the model by `step`, exactly: no other sum does.

    Args:
        stage: whose devices have the rows that it gave them.
        step: difference of two rounds' weights, as `Run.weights` has them.
        survivors: number of devices in the sum.
    """
    last = len(stage.devices)
    total = step[:WIDTH] * survivors * 2**last
    (number,) = {round(value) for value in total}
    assert np.abs(total - number).max() < 0.05, total
    assert step[WIDTH] == pytest.approx(0.5, abs=1e-5)  # the mean of everybody's answers
    found = [device for n, device in enumerate(stage.devices, 1) if number >> (last - n) & 1]
    assert len(found) == survivors, (number, survivors)
    return found


def epsilon_of(config_file, rounds):
    """Epsilon per record of so many rounds of a run, computed anew: an uninterrupted run's."""
    config = RunConfig.build(read_toml(config_file))
    record, train = config.dp.record, config.train
    event = SampledGaussian(record.noise_multiplier, train.sampling_probability, train.local_steps)
    return epsilon([(event, rounds)], config.dp.delta)
