"""A run's state as a terminal view: `lepton watch`."""

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lepton_flwr.failures import Failure, counted
from lepton_flwr.runs.observer import PHASES, RoundRecord
from lepton_flwr.runs.progress import waited_for
from lepton_flwr.runs.state import RUNNING, RunState
from lepton_flwr.runs.text import UNKNOWN, decimal, duration, one_line, plain, spent

SHOWN = 12  # newest rounds in the table


def view(state: RunState, name: str, now: float) -> RenderableType:
    """Everything on one screen.

    Args:
        state: the run's.
        name: of its folder.
        now: seconds since 1970.
    """
    parts: list[RenderableType] = [Text(_title(state, name), style="bold")]
    if state.rounds:
        bar = ProgressBar(total=state.rounds, completed=len(state.records), width=60)
        parts.append(Padding(bar, (0, 0, 0, 0)))
    parts.append(_facts(state, now))
    if state.records:
        parts.append(_rounds(state))
    return Group(*parts)


def _title(state: RunState, name: str) -> str:
    text = f"{name}: {len(state.records)} of {state.rounds} rounds, {state.status}"
    if title := state.start.get("title"):
        text += f" - {title}, {state.start.get('clients')} clients"
    return one_line(text)


def _facts(state: RunState, now: float) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()

    def add(name: str, value: str) -> None:
        table.add_row(name, Text(one_line(value)))

    for unit in ("record", "client"):
        epsilon, limit = state.epsilon.get(unit), state.limit(unit)
        if limit is not None:
            delta = plain(state.start.get("delta"))
            add(f"epsilon per {unit}", f"{spent(epsilon)} of {plain(limit)} (delta {delta})")
    if state.status == RUNNING:
        where = f"round {min(state.round, state.rounds)}"
        if state.phase:
            where += f", {state.phase}: {state.done} of {state.total} clients"
        add("now", where)
        if state.total > state.done:
            add("waiting for", waited_for(state.total - state.done, state.nodes, shown=3))
    if state.failures:
        add("failed this round", _counted(state.failures))
    if failed := _counted(state.all_failures):
        add("failed in all", failed)
    if state.records:
        seconds = state.records[-1].seconds
        known = [f"{phase} {duration(seconds[phase])}" for phase in PHASES if phase in seconds]
        add("last round", ", ".join(known))
    add("time", duration(max(state.updated - state.began, 0.0)))
    if state.status == RUNNING:
        add("last event", f"{duration(max(now - state.updated, 0.0))} ago")
    return table


def _counted(failures: "dict[str, int]") -> str:
    return counted({failure: failures.get(failure, 0) for failure in Failure})


def _rounds(state: RunState) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("round", "loss", "accuracy", "AUC", "epsilon", "in the sum", "lost", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    for record in state.records[-SHOWN:]:
        table.add_row(*_cells(record), style="" if record.status == "ok" else "yellow")
    return table


def _cells(record: RoundRecord) -> list[str]:
    levels = (record.epsilon_record, record.epsilon_client)
    epsilons = [spent(value) for value in levels if value is not None]
    return [
        str(record.round),
        decimal(record.loss),
        decimal(record.accuracy),
        decimal(record.auc),
        " / ".join(epsilons) or UNKNOWN,
        f"{record.survivors} of {record.participants}" if record.status == "ok" else "skipped",
        str(sum(record.failures.values()) or ""),
        duration(sum(record.seconds.values())),
    ]
