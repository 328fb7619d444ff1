"""What a ledger costs, and that `kill -9` never makes it undercount.

`python -m simulations.benchmarks.ledger [--kills 1000 | --every-line] [--folder FOLDER]`

Beside the ledger stand, in the same run, a forced write of one line to a plain file and an SQLite
insert without hash chain, head and limits. A killed process is a fork of this one, so that it
starts in milliseconds; it tells every reservation and commitment that was reported to it.
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

from lepton_flwr.privacy import chain, head, ledger
from lepton_flwr.privacy.events import Laplace, Unit
from lepton_flwr.privacy.ledger import Charge, Ledger, Limit, Limits

REPEATS = 200
EVENT = Laplace(20.0)
LIMITS: Limits = {Unit.RECORD: (Limit(1e4, 1e-5),)}
_SOURCES = {chain.__file__, head.__file__, ledger.__file__}
_NEW_FOLDER_EVERY = 25


def _release(book: Ledger) -> None:
    charge = Charge(Unit.RECORD, book.dataset(bytes(32)), EVENT)
    book.commit(book.reserve([charge], LIMITS, "benchmark"))


def _timed(work: Callable[[], object]) -> float:
    """Median milliseconds."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * median(times)


def overhead(folder: Path) -> dict[str, float]:
    """Milliseconds of one release, and of what it is compared with."""
    handle = os.open(folder / "plain", os.O_CREAT | os.O_WRONLY)

    def forced_write() -> None:
        os.write(handle, bytes(200))
        os.fsync(handle)

    plain = _timed(forced_write)
    os.close(handle)
    database = sqlite3.connect(folder / "plain.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE rows (payload TEXT)")
    bare = _timed(lambda: database.execute("INSERT INTO rows VALUES (?)", ("x" * 200,)))
    database.close()
    with Ledger(folder / "ledger.db") as book:
        start = time.perf_counter()
        _release(book)
        first = 1e3 * (time.perf_counter() - start)
        release = _timed(lambda: _release(book))

    def reopened() -> None:
        with Ledger(folder / "ledger.db") as book:
            _release(book)

    return {
        "forced write of 200 bytes to a file": plain,
        "SQLite insert, WAL, synchronous=FULL": bare,
        "release: reserve and commit, ledger open": release,
        "the same, ledger opened and all rows checked each time": _timed(reopened),
        "first release of its kind (accounting included)": first,
    }


def _child(path: Path, pipe: int, until_line: int | None, releases: int) -> None:
    """Release until killed, telling what was reported."""
    if until_line is not None:
        left = until_line

        def trace(frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ARG001
            nonlocal left
            if frame.f_code.co_filename not in _SOURCES:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
    book = Ledger(path)
    charge = Charge(Unit.RECORD, book.dataset(bytes(32)), EVENT)
    for _ in range(releases):
        number = book.reserve([charge], LIMITS, "kill")
        os.write(pipe, f"reserved {number}\n".encode())
        book.commit(number)
        os.write(pipe, f"committed {number}\n".encode())
    sys.settrace(None)
    os.write(pipe, b"done\n")


def _killed_once(path: Path, *, line: int | None = None, after: float | None = None) -> str:
    """Fork, let it release and die; return what it told."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            _child(path, writer, line, 2 if after is None else 10**6)
        finally:
            os._exit(0)
    os.close(writer)
    if after is not None:
        time.sleep(after)
        os.kill(process, signal.SIGKILL)
    with os.fdopen(reader) as told:
        text = told.read()
    os.waitpid(process, 0)
    return text


def _check(path: Path, text: str, before: set[int]) -> set[int]:
    """Open what a killed process left, and compare it with what the process was told.

    Returns:
        All reservations.
    """
    with Ledger(path) as book:
        entries = {entry.number: entry.committed for entry in book.history()}
    told = [line.split() for line in text.splitlines() if " " in line]
    reserved = {int(number) for what, number in told if what == "reserved"}
    committed = {int(number) for what, number in told if what == "committed"}
    lost = (before | reserved) - set(entries)
    marks = {number for number in committed if not entries.get(number)}
    extra = set(entries) - before - reserved
    if lost or marks or len(extra) > 1:
        raise SystemExit(
            f"undercounted: {len(lost)} reservations lost, {len(marks)} commitments lost, "
            f"{len(extra)} reservations that nobody was told of (expected at most 1)"
        )
    return set(entries)


def random_kills(folder: Path, kills: int) -> int:
    """Kill as often at random times; return how many releases were reserved."""
    reserved = 0
    (folder / "unharmed").mkdir()
    start = time.monotonic()
    _killed_once(folder / "unharmed" / "ledger.db")
    # Of a process that makes two releases.
    window = min(2 * (time.monotonic() - start), 0.1)
    path, before = folder, set[int]()
    for kill in range(kills):
        if kill % _NEW_FOLDER_EVERY == 0:  # the ledger's making is killed too
            if kill and len(before) < _NEW_FOLDER_EVERY:
                window *= 2  # the machine is slower now
            reserved += len(before)
            path, before = folder / f"kill-{kill}" / "ledger.db", set()
            path.parent.mkdir()
        # SystemRandom: a forked process shares no state with it.
        after = random.SystemRandom().uniform(0.0, window)
        before = _check(path, _killed_once(path, after=after), before)
    return reserved + len(before)


def every_line(folder: Path, stride: int = 1) -> int:
    """Kill before every (`stride`-th) line of the ledger's code that two releases run."""
    line = 1
    while True:
        path = folder / f"line-{line}" / "ledger.db"
        path.parent.mkdir()
        text = _killed_once(path, line=line)
        _check(path, text, set())
        if "done" in text:
            return line
        line += stride


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, or kill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=0, help="kill as often at random times")
    parser.add_argument("--every-line", action="store_true", help="kill before every line once")
    parser.add_argument("--stride", type=int, default=1, help="before every so many lines")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: temporary")
    options = parser.parse_args(arguments)
    ledger._most((), EVENT, 1e4, 1e-5)  # forks inherit what the accounting found
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        if options.every_line:
            lines = every_line(folder, options.stride)
            print(json.dumps({"lines": lines, "undercounted": 0}))
        elif options.kills:
            releases = random_kills(folder, options.kills)
            print(json.dumps({"kills": options.kills, "releases": releases, "undercounted": 0}))
        else:
            ledger._most.cache_clear()
            results = overhead(folder)
            unit = next(iter(results.values()))
            table = Table(box=None, padding=(0, 3, 0, 0))
            for column in ("median of 200", "ms", "forced writes"):
                table.add_column(column, justify="left" if column[0] == "m" else "right")
            for what, value in results.items():
                table.add_row(what, f"{value:.2f}", f"{value / unit:.1f}")
            Console().print(table)


if __name__ == "__main__":
    main()
