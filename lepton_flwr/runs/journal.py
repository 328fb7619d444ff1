"""What happened in a run, as it happens: `events.jsonl`, one JSON object a line.

Every event has `time` (seconds since 1970), `event` and, within a round, `round`.

| event | says |
|---|---|
| `run started` | scenario, clients, rounds, limits; `rounds_done` is over 0 where a run goes on |
| `round started` | |
| `charged` | epsilon after the round was charged, and the ledger's number of rows |
| `waiting` | replies so far and some of the nodes that have not answered, once a second at most |
| `exchange` | purpose, phase, how many were asked and answered, seconds |
| `failure` | phase, node and class of the failure |
| `retry` | a session that asked nobody to work is opened anew |
| `round` | the round's row of `metrics.csv` |
| `run ended` | how |
"""

import errno
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lepton_flwr._files import output_errors
from lepton_flwr._version import __version__
from lepton_flwr.errors import LeptonError
from lepton_flwr.runs.observer import RoundRecord, RunEnd, RunStart

JOURNAL_FILE = "events.jsonl"
QUIET_SECONDS = 1.0
Event = dict[str, Any]


class JournalError(LeptonError):
    """An event log is missing, or a line of it is not what was written."""

    exit_code = 2


class Journal:
    """Appends events; the system has a line before what follows it happens.

    Args:
        folder: the run's.
        listeners: called with every event after it was written.

    Raises:
        OutputError: from every method, if the log cannot be written.
    """

    def __init__(self, folder: Path, listeners: Sequence[Callable[[Event], None]] = ()) -> None:
        self._path = folder / JOURNAL_FILE
        self._listeners = tuple(listeners)
        self._started = False
        self._said = -math.inf

    def run_started(self, start: RunStart) -> None:
        """Begin the log, or go on with that of the run that goes on."""
        with output_errors(self._path):
            _cut_half_a_line(self._path)
        self._started = True
        dp = start.config.dp
        self._write(
            "run started",
            {
                "version": __version__,
                "scenario": start.config.scenario,
                "title": start.scenario_title,
                "clients": start.clients,
                "rounds": start.config.rounds,
                "rounds_done": start.rounds_done,
                "delta": dp.delta,
                "epsilon_record_limit": dp.record.epsilon if dp.record.enabled else None,
                "epsilon_client_limit": dp.client.epsilon if dp.client.enabled else None,
            },
        )

    def waiting(
        self, round: int, phase: str, done: int, total: int, nodes: Sequence[str] = ()
    ) -> None:
        """Write it if the last was a while ago."""
        if time.monotonic() - self._said < QUIET_SECONDS:
            return
        values = {"phase": phase, "done": done, "total": total, "nodes": list(nodes)}
        self._write("waiting", {"round": round, **values})
        self._said = time.monotonic()

    def noted(self, round: int, event: str, values: Mapping[str, Any]) -> None:
        """Write it."""
        self._write(event, {"round": round, **values})

    def round_finished(self, record: RoundRecord, weights: Sequence[np.ndarray]) -> None:  # noqa: ARG002
        """Write the record."""
        self._write("round", record.to_plain())

    def run_ended(self, end: RunEnd) -> None:
        """Write it, if the run has begun."""
        if self._started:
            self._write("run ended", {"reason": end.reason})

    def _write(self, event: str, values: Mapping[str, Any]) -> None:
        whole = {"time": round(time.time(), 3), "event": event, **_finite(values)}
        with output_errors(self._path), self._path.open("ab", buffering=0) as file:
            line = json.dumps(whole, allow_nan=False).encode() + b"\n"
            before = file.tell()
            if file.write(line) != len(line):
                file.truncate(before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for listener in self._listeners:
            listener(whole)


def read(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """The events after `offset` bytes, and how many bytes that makes; half a line is left.

    Raises:
        JournalError: there is no log, or a line is not an event.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read()
    except OSError as error:
        raise JournalError(
            f"{path}: {error.strerror}: expected the event log of a run, in its folder"
        ) from None
    whole = content[: content.rfind(b"\n") + 1]
    events = []
    for line in whole.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise JournalError(f"{path}: a line is not an event: the log was damaged or edited")
        events.append(event)
    return events, offset + len(whole)


def _cut_half_a_line(path: Path) -> None:
    """A process that was killed may have left one."""
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
