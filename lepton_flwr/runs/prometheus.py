"""A run as metrics in Prometheus' text format, for a node exporter's textfile collector."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from lepton_flwr._files import write_atomic
from lepton_flwr.failures import Failure
from lepton_flwr.runs.history import number
from lepton_flwr.runs.journal import Event
from lepton_flwr.runs.observer import PHASES
from lepton_flwr.runs.state import RUNNING, RunState

_WRITES = ("run started", "charged", "round", "run ended")


class PrometheusFile:
    """Rewrites the file as a whole when a run starts, is charged, ends a round, or ends.

    Args:
        path: the file; its name should end in `.prom`.
        run: the run's name, a label of every metric.
        before: the events of servers before this one.

    Raises:
        OutputError: when called, if the file cannot be written.
    """

    def __init__(self, path: Path, run: str, before: Sequence[Event] = ()) -> None:
        self._path = path
        self._run = run
        self._state = RunState()
        for event in before:
            self._state.apply(event)

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        self._state.apply(event)
        if event["event"] in _WRITES:
            # The collector reads whatever ends in .prom: the file beside it must not.
            write_atomic(self._path, text(self._state, self._run).encode(), hidden=True)


def text(state: RunState, run: str) -> str:
    """The file's content."""
    run = _escaped(run)
    lines = []
    for name, kind, meaning, samples in _metrics(state):
        known = [(label, value) for label, value in samples if value is not None]
        if known:
            lines += [f"# HELP lepton_{name} {meaning}", f"# TYPE lepton_{name} {kind}"]
            lines += [
                f'lepton_{name}{{run="{run}"{"," if label else ""}{label}}} {value:.17g}'
                for label, value in known
            ]
    return "\n".join(lines) + "\n"


Samples = list[tuple[str, float | None]]


def _metrics(state: RunState) -> Iterator[tuple[str, str, str, Samples]]:
    last = state.records[-1] if state.records else None
    units = ("record", "client")
    yield "running", "gauge", "1 while the run goes on.", [("", int(state.status == RUNNING))]
    yield "rounds_done", "gauge", "Rounds that ended.", [("", len(state.records))]
    yield "rounds_planned", "gauge", "Rounds of the whole run.", [("", state.rounds)]
    yield "clients", "gauge", "Clients of the federation.", [("", state.start.get("clients"))]
    yield (
        "epsilon", "gauge", "Privacy spent.",
        [(f'unit="{unit}"', number(state.epsilon.get(unit))) for unit in units],
    )  # fmt: skip
    yield (
        "epsilon_limit", "gauge", "The most that may be spent.",
        [(f'unit="{unit}"', state.limit(unit)) for unit in units],
    )  # fmt: skip
    failures = state.all_failures
    yield (
        "client_failures", "gauge", "Clients that sessions lost, by class.",
        [(f'class="{failure}"', failures[failure]) for failure in Failure],
    )  # fmt: skip
    yield "last_event_timestamp_seconds", "gauge", "Newest event.", [("", state.updated)]
    if last is None:
        return
    yield "round_skipped", "gauge", "1 if the last round had no sum.", [("", last.status != "ok")]
    yield "survivors", "gauge", "Clients in the last round's sum.", [("", last.survivors)]
    yield "participants", "gauge", "Clients asked in the last round.", [("", last.participants)]
    for name in ("accuracy", "auc", "loss"):
        value = number(getattr(last, name))
        yield name, "gauge", "On held-out rows, in the last round.", [("", value)]
    yield (
        "phase_seconds", "gauge", "Seconds of the last round, by phase.",
        [(f'phase="{phase}"', last.seconds.get(phase)) for phase in PHASES],
    )  # fmt: skip


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", " ")
