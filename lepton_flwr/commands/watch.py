"""`lepton watch`: a run as it goes, from its event log."""

from pathlib import Path
from typing import Annotated

import typer

from lepton_flwr.commands.errors import one_line_errors

POLL_SECONDS = 0.5


def watch(
    run: Annotated[
        Path | None,
        typer.Argument(help="A run's folder. Default: the newest one below `runs`."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the state and end.")] = False,
) -> None:
    """Show a run: round, loss, epsilon against its limit, survivors, whom it waits for.

    It reads `events.jsonl` in the run's folder, of a run that goes on or one that has ended.

    Example: lepton watch runs/20260101-120000-smoke
    """
    with one_line_errors():
        import time

        from rich.console import Console
        from rich.live import Live

        from lepton_flwr.runs.journal import JOURNAL_FILE, JournalError, read
        from lepton_flwr.runs.live import view
        from lepton_flwr.runs.state import RUNNING, RunState

        if run is None:
            found = sorted(Path("runs").glob(f"*/{JOURNAL_FILE}"))
            if not found:
                raise JournalError("no run with an event log below runs: expected a run's folder")
            run = found[-1].parent
        state, console = RunState(), Console()
        path, offset = run / JOURNAL_FILE, 0
        name = run.resolve().name

        def advance() -> None:
            nonlocal offset
            events, offset = read(path, offset)
            for event in events:
                state.apply(event)

        advance()
        if once or not console.is_terminal:
            console.print(view(state, name, time.time()))
            return
        with Live(view(state, name, time.time()), console=console, screen=False) as live:
            while state.status == RUNNING:
                time.sleep(POLL_SECONDS)
                advance()
                live.update(view(state, name, time.time()))
