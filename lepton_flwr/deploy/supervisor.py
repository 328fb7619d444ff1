"""Keeping one process running: restarts with growing pauses, its log in bounds, its last error."""

import fcntl
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from lepton_flwr._files import output_errors
from lepton_flwr.deploy.status import RUNNING, STARTING, WAITING, StatusFile
from lepton_flwr.errors import FederationError, LeptonError
from simulations.processes import Processes

LOCK_FILE = ".running"
FIRST_PAUSE, LAST_PAUSE = 1.0, 60.0
# A run that lasts this long was a good one, and the pauses start anew.
GOOD_SECONDS = 300.0
MAX_LOG_BYTES = 16 << 20
_BEAT_SECONDS = 30.0
_FLOWER_CODE = re.compile(r"Exit Code: (\d+)")
_COLOUR = re.compile("\x1b\\[[0-9;]*m")


class Backoff:
    """Pauses that double from a second to a minute, each shortened at random by up to a quarter.

    Many devices that lost the same server do not come back in the same moment.
    """

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE

    def next(self, ran: float) -> float:
        """The pause after a run of `ran` seconds, in seconds."""
        if ran >= GOOD_SECONDS:
            self._pause = FIRST_PAUSE
        pause = self._pause
        self._pause = min(2 * pause, LAST_PAUSE)
        return pause * (1 - secrets.randbelow(250) / 1000)


class LogTail:
    """Reads what is added to a log, and keeps the log in bounds.

    Args:
        path: the log; whoever writes it appends.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = path.stat().st_size if path.exists() else 0

    def read(self) -> str:
        """What was added since the last call, without colours.

        Raises:
            OutputError: the log has become too long and cannot be cut.
        """
        with self._path.open("rb") as log:
            log.seek(self._at)
            found = log.read()
            self._at += len(found)
        if self._at > MAX_LOG_BYTES:
            former = self._path.with_name(f"{self._path.name}.1")
            try:
                shutil.copyfile(self._path, former)
            except OSError:  # a full disk, which cutting the log helps
                former.unlink(missing_ok=True)
            with output_errors(self._path), self._path.open("r+b") as log:
                log.truncate(0)
            self._at = 0
        return _COLOUR.sub("", found.decode(errors="replace"))


class Component(Protocol):
    """A process to keep running."""

    @property
    def name(self) -> str:
        """Names its log."""

    def prepare(self) -> tuple[Sequence[str], Mapping[str, str]]:
        """Command and variables of the next start, or raise a `LeptonError` to wait with it."""

    def look(self, added: str, up: bool) -> bool:
        """Whether it is up now, by what it has printed since the last look, and was `up` then."""

    def explain(self, code: int) -> str:
        """What an exit code of Flower's means here; empty if there is no more to say."""


class Keeper:
    """Keeps a component running; `turn` is to be called often.

    Args:
        component: what to run.
        processes: starts it, and ends it with all the rest.
        status: where its state is written.
        say: tells whoever watches.
        fatal: exit codes, of Flower or of the process, after which trying again is no use.
        after: it is started when that one is up; None waits for nothing.
    """

    def __init__(
        self,
        component: Component,
        processes: Processes,
        status: StatusFile,
        say: Callable[[str], None],
        fatal: frozenset[int] = frozenset(),
        *,
        after: "Keeper | None" = None,
    ) -> None:
        self._component = component
        self._processes = processes
        self._status = status
        self._say = say
        self._fatal = fatal
        self._after = after
        self._backoff = Backoff()
        self._tail: LogTail | None = None
        self._started = 0.0
        self._due = 0.0
        self.up = False

    def turn(self) -> None:
        """Start it if that is due, look at it if it runs, note it if it ended.

        Raises:
            FederationError: it ended with a fatal exit code.
        """
        name = self._component.name
        if self._tail is None:
            if time.monotonic() >= self._due and (self._after is None or self._after.up):
                self._start()
            return
        ended = self._processes.ended(name)  # before reading, so that nothing is missed
        up = self._component.look(self._tail.read(), self.up)
        if up != self.up:
            self.up = up
            self._say(f"{name} is {'up' if up else 'cut off: it goes on trying'}")
            if not up:
                self._status.failed(f"{name} was cut off")
        if ended:
            self._tail = None
            failure = self._processes.failure(name)
            code = exit_code(failure, self._processes.code(name))
            if meaning := self._component.explain(code):
                # The meaning first: a status keeps so many characters only.
                failure = FederationError(f"{meaning} ({failure})")
            if code in self._fatal:
                self._status.failed(str(failure))
                raise failure
            self._wait(failure)

    def _start(self) -> None:
        name = self._component.name
        self._started = time.monotonic()
        try:
            command, variables = self._component.prepare()
            tail = LogTail(self._processes.log(name))
            self._processes.start(name, command, variables, append=True, tied=True)
        except LeptonError as error:
            self._wait(error)
            return
        self._tail = tail

    def _wait(self, error: LeptonError) -> None:
        self.up = False
        pause = self._backoff.next(time.monotonic() - self._started)
        self._due = time.monotonic() + pause
        self._status.failed(str(error), restart=isinstance(error, FederationError))
        self._say(f"{error}; trying again in {pause:.0f} s")


def exit_code(failure: FederationError, code: int | None) -> int:
    """Flower's own exit code, which stands in its last words; else the process' one.

    A process that a signal ended did not say why: then it is the negative number of the signal.
    """
    if code is not None and code < 0:
        return code
    found = _FLOWER_CODE.search(str(failure))
    return int(found[1]) if found else (code or 0)


def keep(keepers: Sequence[Keeper], status: StatusFile, tick: Callable[[], None]) -> None:
    """Take turns until an exception (Ctrl-C, SIGTERM, a fatal error) ends it.

    Args:
        keepers: what is kept running.
        status: where the state is written.
        tick: called at every turn.
    """
    beat = time.monotonic()
    while True:
        for keeper in keepers:
            keeper.turn()
        tick()
        up = all(keeper.up for keeper in keepers)
        state = RUNNING if up else (WAITING if status.status.last_error else STARTING)
        if state != status.status.state:
            status.enter(state)
        elif time.monotonic() - beat > _BEAT_SECONDS:
            status.beat()
            beat = time.monotonic()
        time.sleep(0.1)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Refuse a second process on the same folder.

    Raises:
        FederationError: another one runs.
    """
    with output_errors(folder):
        lock: IO[bytes] = (folder / LOCK_FILE).open("ab")
    with lock:
        for wait in (0.05, 0.05, 0.05, None):  # `is_run` holds it for a moment
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if wait is None:
                    raise FederationError(
                        f"{folder}: already running: expected one process for it"
                    ) from None
                time.sleep(wait)
        yield


def is_run(folder: Path) -> bool:
    """Whether a process is in `only_one` of the folder; one that was killed is not."""
    try:
        lock = (folder / LOCK_FILE).open("rb")
    except OSError:
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
