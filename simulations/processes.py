"""Child processes that never outlive their parent's `with` block, nor do their own children."""

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Self

from lepton_flwr.errors import FederationError

FINISH_SECONDS = 120.0
GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.05
_MARK = "LEPTON_PROCESSES"
# Becomes the program of its arguments after the first, the id of the parent. 1 is PR_SET_PDEATHSIG,
# which a program keeps; 15 is SIGTERM. A function between fork and exec could hang on a lock.
_TIED = """
import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).prctl(1, 15, 0, 0, 0) != 0:
    sys.exit(f"Error: prctl: {os.strerror(ctypes.get_errno())}")
if os.getppid() != int(sys.argv[1]):
    sys.exit("Error: the parent has ended")
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"Error: cannot start {sys.argv[2]}: {error.strerror}")
"""
_COLOUR = re.compile("\x1b\\[[0-9;]*m")
_ERROR = re.compile(r"ERROR|Error|Errno|Exception")


class Processes:
    """Starts processes and ends them, with all their descendants, on leaving the block.

    Every process gets a session of its own, so that Ctrl-C in a terminal reaches this process
    alone, and a mark in its environment: descendants inherit it, even those that leave their
    group, and are found by it (on Linux; elsewhere only the groups of the started ones are ended).

    Args:
        logs: an existing folder; the output of process `name` goes to `name.log`.
        environment: variables of every process.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        self._mark = f"{_MARK}={uuid.uuid4().hex}"
        self._environment = {**environment, _MARK: self._mark.partition("=")[2]}
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._begins: dict[str, int] = {}  # where in its log the output of a process begins

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with _signals_ignored():
            self._end()

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        append: bool = False,
        tied: bool = False,
    ) -> None:
        """Start a process.

        Args:
            name: unique among those of this object that run.
            command: the program (looked up in the PATH of `environment`) and its arguments.
            environment: variables that this process gets besides the common ones.
            append: keep what its log holds.
            tied: send it SIGTERM when this process or the thread that calls this ends, however
                that ends (on Linux; elsewhere it is as without).

        Raises:
            FederationError: it cannot be started.
        """
        variables = {**self._environment, **(environment or {})}
        if tied and sys.platform == "linux":
            if shutil.which(command[0], path=variables.get("PATH")) is None:
                raise FederationError(f"{name}: cannot start {command[0]}: not found")
            command = [sys.executable, "-Ic", _TIED, str(os.getpid()), *command]
        try:
            with self.log(name).open("ab" if append else "wb") as log:
                self._begins[name] = log.tell()
                self._started[name] = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=variables,
                    start_new_session=True,
                )
        except OSError as error:
            raise FederationError(f"{name}: cannot start {command[0]}: {error.strerror}") from None

    def finish(self, name: str) -> str:
        """Wait for the end of process `name` and return what it printed.

        Raises:
            FederationError: it failed (with its last line) or takes too long.
        """
        try:
            code = self._started[name].wait(FINISH_SECONDS)
        except subprocess.TimeoutExpired:
            raise FederationError(
                f"{name} is not done after {FINISH_SECONDS:g} s (its log: {self.log(name)})"
            ) from None
        if code != 0:
            raise self.failure(name)
        return self.output(name)

    def ended(self, name: str) -> bool:
        """Whether the process has ended."""
        return self._started[name].poll() is not None

    def code(self, name: str) -> int | None:
        """Exit code of the process; None while it runs."""
        return self._started[name].poll()

    def log(self, name: str) -> Path:
        """The file with the output of process `name`."""
        return self._logs / f"{name}.log"

    def output(self, name: str) -> str:
        """What process `name` has printed so far."""
        return self.log(name).read_text(encoding="utf-8", errors="replace")

    def failure(self, name: str) -> FederationError:
        """The error of a process that has ended too early.

        It names the exit code and what the last error in its output says, or else the last line.
        What former processes of this name have left in the log does not count.
        """
        printed = self.log(name).read_bytes()
        begin = self._begins[name]
        if begin > len(printed):
            begin = 0  # the log was cut since
        text = _COLOUR.sub("", printed[begin:].decode(errors="replace"))
        stripped = (line.strip(" │╰╭─╮╯") for line in text.splitlines())
        lines = [line for line in stripped if line] or ["(it printed nothing)"]
        at = next((i for i in reversed(range(len(lines))) if _ERROR.search(lines[i])), -1)
        rest = itertools.takewhile(lambda line: "INFO" not in line, lines[at:])
        reason = " ".join(itertools.islice(rest, 3)) or lines[-1]
        return FederationError(
            f"{name} ended with code {self._started[name].poll()}: {reason} (all of it: "
            f"{self.log(name)})"
        )

    def alive(self) -> set[int]:
        """Ids of the started processes and of their marked descendants that still run."""
        own = {process.pid for process in self._started.values() if process.poll() is None}
        return own | set(self._marked())

    def _end(self) -> None:
        for last, number in ((False, signal.SIGTERM), (True, signal.SIGKILL)):
            deadline = time.monotonic() + GRACE_SECONDS
            signalled: set[int] = set()
            while time.monotonic() < deadline:
                alive = self.alive()
                if not alive:
                    return
                for pid in alive if last else alive - signalled:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                signalled |= alive
                time.sleep(_POLL_SECONDS)

    def _marked(self) -> Iterator[int]:
        name, _, value = self._mark.partition("=")
        return having({name: value})


def having(variables: Mapping[str, str], program: str = "") -> Iterator[int]:
    """Ids of the processes (on Linux) that were started with these environment variables.

    Args:
        variables: all of them.
        program: a part of the command line, if given.
    """
    wanted = {f"{name}={value}".encode() for name, value in variables.items()}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            known = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
            if wanted <= set(known) and program.encode() in command:
                yield int(entry.name)


@contextlib.contextmanager
def termination_as_exit() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack, as Ctrl-C does, so that `with` blocks end.

    The process then ends with the usual code 128 + signal. Only the main thread can do this; in
    others the block runs as it is.
    """

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with _handler(leave, signal.SIGTERM, signal.SIGHUP):
        yield


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    with _handler(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        yield


@contextlib.contextmanager
def _handler(handler: "signal._HANDLER", *numbers: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in former.items():
            signal.signal(number, before)
