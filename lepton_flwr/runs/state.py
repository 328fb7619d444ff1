"""Where a run stands, told from its events; the views of a run draw from it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lepton_flwr.runs.journal import JournalError
from lepton_flwr.runs.observer import RoundRecord

RUNNING = "running"


@dataclass
class RunState:
    """A run so far.

    Attributes:
        status: "running", or how it ended.
        start: the values of the newest `run started`.
        records: the rounds that ended.
        round: the round that is on.
        phase: the exchange that is on, or empty.
        done: replies to it so far.
        total: replies that were asked for.
        nodes: some of those that have not answered.
        epsilon: by unit, after the newest charge.
        failures: in the round that is on, by class.
        began: time of the first event, seconds since 1970.
        updated: of the newest.
    """

    status: str = RUNNING
    start: dict[str, Any] = field(default_factory=dict)
    records: list[RoundRecord] = field(default_factory=list)
    round: int = 0
    phase: str = ""
    done: int = 0
    total: int = 0
    nodes: list[str] = field(default_factory=list)
    epsilon: dict[str, float | None] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    began: float = 0.0
    updated: float = 0.0

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take in one event; a kind that is not known changes only the time.

        Raises:
            JournalError: it lacks what its kind has.
        """
        try:
            self._apply(event)
        except (KeyError, TypeError, ValueError) as error:
            raise JournalError(
                f"event {str(event.get('event'))[:40]!r}: {type(error).__name__}: expected one "
                "that this version wrote"
            ) from None

    def _apply(self, event: Mapping[str, Any]) -> None:
        self.updated = float(event["time"])
        self.began = self.began or self.updated
        kind = event["event"]
        if kind == "run started":
            self.start, self.status = dict(event), RUNNING
            del self.records[int(event["rounds_done"]) :]
            self._begin(int(event["rounds_done"]) + 1)
        elif kind == "round started":
            self._begin(int(event["round"]))
        elif kind == "charged":
            self.epsilon = {unit: event[f"epsilon_{unit}"] for unit in ("record", "client")}
        elif kind == "waiting":
            self.phase, self.nodes = str(event["phase"]), [str(node) for node in event["nodes"]]
            self.done, self.total = int(event["done"]), int(event["total"])
        elif kind == "exchange":
            self.phase, self.nodes = str(event["phase"]), []
            self.done, self.total = int(event["answered"]), int(event["asked"])
        elif kind == "failure":
            self.failures[str(event["class"])] += 1
        elif kind == "round":
            values = {key: value for key, value in event.items() if key not in ("time", "event")}
            record = RoundRecord.from_plain(values)
            self.records.append(record)
            self.epsilon = {"record": record.epsilon_record, "client": record.epsilon_client}
            self._begin(record.round + 1)
        elif kind == "run ended":
            self.status, self.phase = str(event["reason"]), ""

    def _begin(self, number: int) -> None:
        self.round, self.phase, self.nodes = number, "", []
        self.done = self.total = 0
        self.failures = Counter()

    @property
    def rounds(self) -> int:
        """Rounds that are planned."""
        return int(self.start.get("rounds", 0))

    @property
    def all_failures(self) -> Counter[str]:
        """Clients lost over the whole run, by class."""
        total = Counter(self.failures)
        for record in self.records:
            total.update(record.failures)
        return total

    def limit(self, unit: str) -> float | None:
        """The most that may be spent per "record" or "client"; None without that level."""
        return self.start.get(f"epsilon_{unit}_limit")
