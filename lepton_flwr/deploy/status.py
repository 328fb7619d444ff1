"""What a running device or server says of itself, in a file of its folder."""

import contextlib
import json
import os
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Self

from lepton_flwr import __version__
from lepton_flwr._files import write_atomic
from lepton_flwr.errors import OutputError
from lepton_flwr.runs.text import one_line

STATUS_FILE = "status.json"
STARTING, RUNNING, WAITING, STOPPED = "starting", "running", "waiting to retry", "stopped"
MAX_ERROR = 400


@dataclass(frozen=True)
class Status:
    """What a supervised device or server last said.

    Attributes:
        state: `starting`, `running`, `waiting to retry` or `stopped`.
        since: when that state began, ISO 8601.
        updated: when it last said so; a running one says it every half minute.
        restarts: how often what it runs ended too early, since it was started.
        last_error: the last thing that went wrong; empty if nothing did.
        last_error_at: when, ISO 8601.
        version: of lepton-flwr.
        flower: version of Flower.
        pid: process id of the supervisor.
    """

    state: str = STARTING
    since: str = ""
    updated: str = ""
    restarts: int = 0
    last_error: str = ""
    last_error_at: str = ""
    version: str = ""
    flower: str = ""
    pid: int = 0

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The status in a folder; None if there is none that can be read."""
        try:
            table = json.loads((folder / STATUS_FILE).read_bytes())
            own = cls()
            if {name: type(value) for name, value in table.items()} != {
                name: type(value) for name, value in asdict(own).items()
            }:
                return None
            return replace(own, **table)
        except (OSError, ValueError, AttributeError):
            return None


class StatusFile:
    """Keeps the status of a folder.

    A status that cannot be written (a full disk) is left as it was: it ends nothing.

    Args:
        folder: where `status.json` is written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / STATUS_FILE
        now = _now()
        self.status = Status(
            STARTING, now, now, version=__version__, flower=version("flwr"), pid=os.getpid()
        )
        self._write()

    def enter(self, state: str) -> None:
        """A state begins."""
        if state != self.status.state:
            self.status = replace(self.status, state=state, since=_now())
        self._write()

    def failed(self, reason: str, *, restart: bool = False) -> None:
        """Something went wrong."""
        self.status = replace(
            self.status,
            last_error=one_line(reason)[:MAX_ERROR],
            last_error_at=_now(),
            restarts=self.status.restarts + restart,
        )
        self._write()

    def beat(self) -> None:
        """Still there."""
        self._write()

    def _write(self) -> None:
        self.status = replace(self.status, updated=_now())
        text = f"{json.dumps(asdict(self.status), indent=1)}\n"
        with contextlib.suppress(OutputError):
            write_atomic(self._path, text.encode(), 0o600)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
