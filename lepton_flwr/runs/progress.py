"""A run as it goes: a live bar on a terminal, one line per round elsewhere."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from lepton_flwr.failures import Failure, counted
from lepton_flwr.runs.observer import RoundRecord, RunEnd, RunObserver, RunStart
from lepton_flwr.runs.text import decimal, duration, one_line, plain, size, spent


class Observers:
    """Passes every event on to several observers, in order.

    All of them hear the end of a run, even if one of them fails at it.
    """

    def __init__(self, observers: Sequence[RunObserver]) -> None:
        self._observers = tuple(observers)

    def run_started(self, start: RunStart) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.run_started(start)

    def waiting(
        self, round: int, phase: str, done: int, total: int, nodes: Sequence[str] = ()
    ) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.waiting(round, phase, done, total, nodes)

    def noted(self, round: int, event: str, values: Mapping[str, Any]) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.noted(round, event, values)

    def round_finished(self, record: RoundRecord, weights: Sequence[np.ndarray]) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.round_finished(record, weights)

    def run_ended(self, end: RunEnd) -> None:
        """Pass on to all; the first failure is raised afterwards."""
        failures: list[BaseException] = []
        for observer in self._observers:
            try:
                observer.run_ended(end)
            except BaseException as failure:  # Ctrl-C here must not leave the cursor hidden
                failures.append(failure)
        if failures:
            raise failures[0]


@contextmanager
def answering(what: str, console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """Show answers as they come, before a run starts: on a terminal only.

    Yields:
        Takes the answers that came and those expected; every question starts anew.
    """
    console = console if console is not None else Console(stderr=True)
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=14, complete_style="cyan", finished_style="green"),
        TextColumn("{task.completed} of {task.total} answers", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(what, total=None, visible=False)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield show


class ProgressBar:
    """Shows rounds and metrics, and below them which answers the server waits for.

    Args:
        console: where to; None is standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console if console is not None else Console(stderr=True)
        self._live: Progress | None = None
        self._rounds = 1

    def run_started(self, start: RunStart) -> None:
        """Say what is run, and show the bar on a terminal."""
        self._rounds = start.config.rounds
        self._say(
            f"{start.config.scenario}: {start.scenario_title}; {start.clients} clients, "
            f"{start.num_parameters:,} weights, {self._rounds} rounds"
            + (f"; goes on after round {start.rounds_done}" if start.rounds_done else "")
        )
        if self._console.is_terminal:
            self._live = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=14, complete_style="cyan", finished_style="green"),
                TextColumn("{task.fields[text]}", markup=False),
                console=self._console,
                transient=True,
            )
            self._whole = self._live.add_task(
                f"round {start.rounds_done + 1}/{self._rounds}",
                total=self._rounds,
                completed=start.rounds_done,
                text="",
            )
            self._phase = self._live.add_task("starting", total=None, text="")
            self._live.start()

    def waiting(
        self, round: int, phase: str, done: int, total: int, nodes: Sequence[str] = ()
    ) -> None:
        """Move the second line."""
        if self._live is None:
            return
        text = f"{done} of {total} clients"
        if done < total:
            text += f", waiting for {waited_for(total - done, nodes)}"
        self._live.update(self._whole, description=f"round {round}/{self._rounds}")
        self._live.update(self._phase, description=phase, completed=done, total=total, text=text)

    def noted(self, round: int, event: str, values: Mapping[str, Any]) -> None:
        """Nothing of it is shown here."""

    def round_finished(
        self,
        record: RoundRecord,
        weights: Sequence[np.ndarray],  # noqa: ARG002
    ) -> None:
        """Write the round's line and move the bar."""
        self._say(f"round {record.round}/{self._rounds}: {describe(record)}")
        if self._live is not None:
            self._live.update(self._whole, completed=record.round, text=brief(record))

    def run_ended(self, end: RunEnd) -> None:
        """Take the bar away and say how it ended."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if end.reason != "finished":
            self._say(f"run ended: {end.reason}")

    def _say(self, line: str) -> None:
        self._console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)


def waited_for(count: int, nodes: Sequence[str], shown: int = 2) -> str:
    """Who is waited for: "3", "3: 17, 42, +1"."""
    if not nodes or not count:
        return str(count)
    named = [one_line(node) for node in nodes[:shown]]
    more = [f"+{count - len(named)}"] if count > len(named) else []
    return f"{count}: {', '.join([*named, *more])}"


def describe(record: RoundRecord) -> str:
    """A round in one line; what is not known is left out."""
    if record.status != "ok":
        parts = [f"skipped: {record.reason}"]
    else:
        parts = [
            f"{name} {decimal(value)}"
            for name, value in (
                ("AUC", record.auc),
                ("accuracy", record.accuracy),
                ("loss", record.loss),
            )
            if value is not None
        ]
    parts += [
        f"epsilon {spent(value)} per {level}"
        for level, value in (("record", record.epsilon_record), ("client", record.epsilon_client))
        if value is not None
    ]
    parts.append(f"survivors {record.survivors}/{record.participants}")
    if lost := counted({f: record.failures.get(f, 0) for f in Failure}):
        parts.append(lost)
    parts.append(duration(sum(record.seconds.values())))
    return one_line(", ".join(parts))


def brief(record: RoundRecord) -> str:
    """The newest numbers in 50 characters, to stand beside a bar."""
    shown = [
        ("AUC", decimal(record.auc), record.auc),
        ("acc", decimal(record.accuracy), record.accuracy),
        ("loss", decimal(record.loss), record.loss),
        ("eps", spent(record.epsilon_record), record.epsilon_record),
        ("client eps", spent(record.epsilon_client), record.epsilon_client),
    ]
    parts = [f"{name} {text}" for name, text, value in shown if value is not None]
    if record.status != "ok":
        parts = ["skipped"]
    return " ".join([*parts, f"{record.survivors}/{record.participants}"])


def print_summary(folder: Path, console: Console | None = None) -> None:
    """Print a run's summary as a small table, and where its report is."""
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    console = console if console is not None else Console()
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    skipped = summary["rounds_skipped"]
    lines = [
        ("scenario", f"{summary['scenario']}, {summary['clients']} clients"),
        (
            "rounds",
            f"{summary['rounds']} of {summary['rounds_planned']}, {summary['status']}"
            + (f", {len(skipped)} skipped" if skipped else ""),
        ),
        ("AUC", decimal(summary["auc"])),
        ("accuracy", decimal(summary["accuracy"])),
        ("loss", decimal(summary["loss"])),
        *(
            (f"epsilon per {level}", f"{spent(value)} (delta {summary['delta']:g})")
            for level in ("record", "client")
            if (value := summary[f"epsilon_{level}"]) is not None
        ),
        ("fewest in a sum", plain(summary["survivors_min"])),
        (
            "per client",
            f"{size(summary['bytes_up_per_client'])} up, "
            f"{size(summary['bytes_down_per_client'])} down",
        ),
        ("time", duration(summary["seconds"])),
    ]
    for name, value in lines:
        table.add_row(name, one_line(value))
    console.print(table)
    console.print(f"report: {folder / 'report.html'}", markup=False, soft_wrap=True)
