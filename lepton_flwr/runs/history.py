"""All that a run folder's renderers draw from, and its summary."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lepton_flwr.failures import Failure
from lepton_flwr.runs.observer import PHASES, RoundRecord, RunEnd, RunStart


@dataclass(frozen=True)
class History:
    """A run that has ended, finished or not.

    Attributes:
        start: what was known before the first round.
        records: the rounds, in order.
        end: how it ended.
        seconds: wall-clock time of the whole run.
    """

    start: RunStart
    records: Sequence[RoundRecord]
    end: RunEnd
    seconds: float

    @property
    def skipped(self) -> list[int]:
        """Numbers of the rounds that left the model unchanged."""
        return [record.round for record in self.records if record.status != "ok"]

    @property
    def phases(self) -> list[str]:
        """Phases that took time: the known ones in their order, then others."""
        seen = {phase for record in self.records for phase, s in record.seconds.items() if s > 0}
        return [p for p in PHASES if p in seen] + sorted(seen - set(PHASES))

    @property
    def epsilon_limits(self) -> tuple[float | None, float | None]:
        """What the run may spend per record and per client; None where that level is off."""
        dp = self.start.config.dp
        return (
            dp.record.epsilon if dp.record.enabled else None,
            dp.client.epsilon if dp.client.enabled else None,
        )

    @property
    def failures(self) -> dict[Failure, int]:
        """Clients that sessions lost over the whole run, by class; only those that occurred."""
        totals = {f: sum(r.failures.get(f, 0) for r in self.records) for f in Failure}
        return {failure: count for failure, count in totals.items() if count}

    def last(self, name: str) -> float | None:
        """The newest known value of a column."""
        values = (number(getattr(record, name)) for record in reversed(self.records))
        return next((value for value in values if value is not None), None)

    def summary(self) -> dict[str, Any]:
        """The run in plain values: what `summary.json` holds. None means not known.

        Bytes are sums over the rounds, for one client on average. `survivors_min` is the fewest
        clients that any released sum was taken over.
        """
        released = [r.survivors for r in self.records if r.status == "ok"]
        start, record = self.start, self.start.config.dp.record
        return {
            "scenario": start.config.scenario,
            "title": start.scenario_title,
            "status": self.end.reason,
            "clients": start.clients,
            "rounds": len(self.records),
            "rounds_planned": start.config.rounds,
            "rounds_skipped": self.skipped,
            "accuracy": self.last("accuracy"),
            "auc": self.last("auc"),
            "loss": self.last("loss"),
            "epsilon_record": self.last("epsilon_record"),
            "epsilon_client": self.last("epsilon_client"),
            "delta": self.end.delta,
            "accountant": self.end.accountant,
            "noise_multiplier_record": start.noise_multiplier_record,
            "noise_multiplier_statistics": record.statistics_noise_multiplier or None,
            "statistics_releases": record.statistics_releases,
            "noise_multiplier_client": start.noise_multiplier_client,
            "num_parameters": start.num_parameters,
            "survivors_min": min(released, default=None),
            "failures": {str(failure): count for failure, count in self.failures.items()},
            "saturated": sum(record.saturated for record in self.records),
            "bytes_up_per_client": sum(record.bytes_up for record in self.records),
            "bytes_down_per_client": sum(record.bytes_down for record in self.records),
            "seconds": round(self.seconds, 3),
            "seconds_by_phase": {
                phase: round(sum(r.seconds.get(phase, 0.0) for r in self.records), 3)
                for phase in self.phases
            },
            "guarantee": list(start.guarantee),
        }


def rows(records: Sequence[RoundRecord]) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of `metrics.csv`: one row per round.

    Seconds are spread over columns by phase, failures by class.
    """
    phases = [*PHASES, *sorted({p for r in records for p in r.seconds} - set(PHASES))]
    spread = ("seconds", "failures")
    names = [name for name in RoundRecord.__dataclass_fields__ if name not in spread]
    seconds = [f"seconds_{phase}" for phase in phases]
    columns = [*names, *seconds, *(f"failed_{failure}" for failure in Failure)]
    table: list[dict[str, Any]] = []
    for record in records:
        row = {name: getattr(record, name) for name in names}
        row |= {f"seconds_{phase}": _milli(record.seconds, phase) for phase in phases}
        row |= {f"failed_{failure}": record.failures.get(failure, 0) for failure in Failure}
        table.append({key: "" if value is None else value for key, value in row.items()})
    return columns, table


def number(value: float | None) -> float | None:
    """A value that can be drawn and written as JSON: finite, or None."""
    return value if value is not None and math.isfinite(value) else None


def _milli(seconds: Mapping[str, float], phase: str) -> float | None:
    return round(seconds[phase], 3) if phase in seconds else None
