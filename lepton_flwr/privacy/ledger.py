"""The ledger of a data holder: what was released of which data, and what may still be.

A release is reserved before it happens and committed afterwards. What was reserved counts as spent
for ever, committed or not: a crash at any point may count a release that did not happen, and never
misses one that did.
"""

import functools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from lepton_flwr import _validate as check
from lepton_flwr.crypto.digest import digest, field
from lepton_flwr.errors import ConfigError
from lepton_flwr.privacy import events, losses
from lepton_flwr.privacy.accounting import ACCOUNTANT, SMALLEST_DELTA, BudgetError
from lepton_flwr.privacy.chain import Chain, Row
from lepton_flwr.privacy.events import Event, Unit
from lepton_flwr.privacy.ledger_errors import LedgerCorruptError, LedgerError

LEDGER_FILE = "ledger.db"
MOST = 4096  # repetitions that are looked ahead
_DATASET = "lepton/ledger/dataset/v1"
_ALLOWANCE = "lepton/ledger/allowance/v1"
_DAY = 86_400 * 10**9

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Limit:
    """The most that may be spent.

    Attributes:
        epsilon: over all releases together.
        delta: at which epsilon is computed.
        days: only releases of so many days before now count; None counts all.
    """

    epsilon: float
    delta: float
    days: float | None = None

    def __post_init__(self) -> None:
        check.finite("epsilon", self.epsilon, above=0)
        check.finite("delta", self.delta, at_least=SMALLEST_DELTA, below=1)
        if self.days is not None:
            check.finite("days", self.days, above=0)


@dataclass(frozen=True)
class Charge:
    """One release of one data set.

    Attributes:
        unit: whose participation it hides.
        dataset: which data, as `Ledger.dataset` names it.
        event: the release.
    """

    unit: Unit
    dataset: str
    event: Event

    def to_plain(self) -> dict[str, str]:
        """As JSON can hold it."""
        event = events.to_json(self.event)
        return {"unit": self.unit.value, "dataset": self.dataset, "event": event}

    @classmethod
    def from_plain(cls, values: dict[str, str]) -> Self:
        """Inverse of `to_plain`."""
        return cls(Unit(values["unit"]), values["dataset"], events.from_json(values["event"]))


@dataclass(frozen=True)
class Entry:
    """One reservation.

    Attributes:
        number: of its row.
        time: seconds since 1970.
        run: what it was for, as text.
        charges: what it released.
        committed: whether the release is known to have happened.
    """

    number: int
    time: float
    run: str
    charges: tuple[Charge, ...]
    committed: bool


def _locked(method: Callable[Concatenate["Ledger", P], T]) -> Callable[Concatenate["Ledger", P], T]:
    """One thread at a time: what is read from the file is added up once."""

    @functools.wraps(method)
    def locked(self: "Ledger", /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._lock:
            return method(self, *args, **kwargs)

    return locked


class Ledger:
    """An open ledger, shared safely by threads and processes.

    Args:
        path: its file; made if neither it nor its head exists.
        head: where its head is kept; None is beside it, see `Chain`.

    **Guarantee**: `reserve` returns only after the charges are on disk and in the head, and only
    if all releases ever reserved, by whichever process and in whichever run, stay within every
    limit together. A ledger that is damaged, newer, deleted or an older copy raises its named
    error, and nothing may then be released.

    Raises:
        LedgerError: the file cannot be used; see its subclasses.
    """

    def __init__(self, path: Path, head: Path | None = None) -> None:
        self._lock = threading.RLock()
        self._chain = Chain(path, head)
        self._entries: dict[int, tuple[Row, str, tuple[Charge, ...]]] = {}
        self._committed: set[int] = set()
        self._totals: dict[tuple[Unit, str], Counter[Event]] = {}
        self._read = 0

    def close(self) -> None:
        """Close the file."""
        self._chain.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def head(self) -> tuple[int, bytes]:
        """Number and hash of the newest row; a ledger that forgets it was rolled back.

        An empty ledger's is 0 and a hash of its salt, which no other ledger has.
        """
        number = len(self._chain.rows)
        return number, self._chain.hash_of(number) or b""

    def contains(self, head: tuple[int, bytes]) -> bool:
        """Whether an earlier `head` is in this ledger's past."""
        number, row_hash = head
        return self._chain.hash_of(number) == row_hash

    def dataset(self, content_digest: bytes) -> str:
        """This ledger's name of a data set: 32 hex digits, of no use without the ledger's salt.

        Args:
            content_digest: SHA-256 of the data.
        """
        return digest(_DATASET, self._chain.salt, content_digest).hex()[:32]

    @_locked
    def reserve(self, charges: Sequence[Charge], limits: "Limits", run: str = "") -> int:
        """Charge for releases that are about to happen, all of them or none.

        Args:
            charges: the releases.
            limits: for each unit what its releases may spend; a unit without limits is counted
                and never refused.
            run: what it is for.

        Returns:
            The number to `commit`.

        Raises:
            BudgetError: a limit would be exceeded; nothing is charged.
            LedgerError: the ledger cannot be trusted or written; nothing may be released.
        """
        if not charges:
            raise ConfigError("no charge: expected at least one release")
        # Accounting takes time: the first pass, without the lock, fills the caches of the second.
        self._refresh()
        self._check(charges, limits)
        charged = {
            "action": "reserve",
            "run": run,
            "charges": [charge.to_plain() for charge in charges],
        }
        with self._chain.transaction():
            self._refresh()
            for key, value in self._check(charges, limits).items():
                self._chain.keep(key, value)
            number = self._chain.append(json.dumps(charged, sort_keys=True)).number
        self._chain.anchor()
        return number

    @_locked
    def commit(self, number: int) -> None:
        """Note that what was reserved has happened.

        Raises:
            LedgerError: there is no such reservation, or it is committed already.
        """
        # A mark lost with the power leaves a reservation, which counts all the same.
        with self._chain.transaction(durable=False):
            self._refresh()
            if number not in self._entries or number in self._committed:
                raise LedgerError(f"reservation {number}: expected one that is not committed")
            self._chain.append(json.dumps({"action": "commit", "of": number}, sort_keys=True))

    @_locked
    def remaining(self, charges: Sequence[Charge], limits: "Limits") -> int:
        """How many more times, up to 4096, `charges` could be reserved one after the other."""
        self._refresh()
        least = MOST
        for charge in charges:
            for limit in limits.get(charge.unit, ()):
                counts = self._counts(charge, limit)
                before = counts.pop(charge.event, 0)
                least = min(least, max(self._allowance(counts, charge.event, limit) - before, 0))
        return least

    @_locked
    def history(self) -> list[Entry]:
        """All reservations, in order."""
        self._refresh()
        return [
            Entry(number, row.time / 1e9, run, charges, number in self._committed)
            for number, (row, run, charges) in self._entries.items()
        ]

    @_locked
    def spent(
        self, unit: Unit, dataset: str, delta: float, also: Iterable[tuple[Event, int]] = ()
    ) -> float:
        """PLD epsilon of everything reserved, committed or not, and of what is to come `also`."""
        self._refresh()
        return losses.epsilon([*self._totals.get((unit, dataset), {}).items(), *also], delta)

    @_locked
    def unaccounted(self, unit: Unit, dataset: str) -> int:
        """Reservations of a data set that were not charged for a unit; `spent` leaves them out.

        A release that hides single records bounds nothing about all records of one client, and one
        that hides whether a client takes part was not accounted for one of its records.
        """
        self._refresh()
        units = (
            {charge.unit for charge in charges if charge.dataset == dataset}
            for _, _, charges in self._entries.values()
        )
        return sum(bool(found) and unit not in found for found in units)

    @_locked
    def export(self, delta: float) -> dict[str, Any]:
        """Everything in plain values that JSON can hold."""
        entries = self.history()
        scopes = dict.fromkeys((c.unit, c.dataset) for e in entries for c in e.charges)
        number, newest = self.head
        return {
            "ledger": self._chain.path.name,
            "head": {"rows": number, "hash": newest.hex()},
            "accountant": ACCOUNTANT,
            "delta": delta,
            "spent": [
                {
                    "unit": unit.value,
                    "dataset": dataset,
                    # JSON has no infinity: null is no bound.
                    "epsilon": None if (e := self.spent(unit, dataset, delta)) == _INF else e,
                }
                for unit, dataset in scopes
            ],
            "releases": [
                {
                    "number": entry.number,
                    "time": entry.time,
                    "run": entry.run,
                    "committed": entry.committed,
                    "charges": [
                        {**charge.to_plain(), "event": json.loads(events.to_json(charge.event))}
                        for charge in entry.charges
                    ],
                }
                for entry in entries
            ],
        }

    def _refresh(self) -> None:
        self._chain.refresh()
        rows = self._chain.rows
        try:
            for row in rows[self._read :]:
                values = json.loads(row.payload)
                if values["action"] == "commit":
                    self._committed.add(values["of"])
                else:
                    charges = tuple(map(Charge.from_plain, values["charges"]))
                    self._entries[row.number] = row, values["run"], charges
                    for charge in charges:
                        scope = (charge.unit, charge.dataset)
                        self._totals.setdefault(scope, Counter())[charge.event] += 1
                self._read += 1
        except (ValueError, KeyError, TypeError) as error:
            raise LedgerCorruptError(
                f"{self._chain.path.name}: row {self._read + 1}: {type(error).__name__}"
            ) from None

    def _counts(self, charge: Charge, limit: Limit) -> Counter[Event]:
        """How often each event was charged in the scope of a charge and a limit."""
        scope = (charge.unit, charge.dataset)
        if limit.days is None:
            return Counter(self._totals.get(scope, {}))
        since = time.time_ns() - int(limit.days * _DAY)
        return Counter(
            other.event
            for row, _, charges in self._entries.values()
            if row.time >= since
            for other in charges
            if (other.unit, other.dataset) == scope
        )

    def _check(self, charges: Sequence[Charge], limits: "Limits") -> dict[bytes, int]:
        """Refuse what would exceed a limit; return what was computed, to keep."""
        learnt: dict[bytes, int] = {}
        for index, charge in enumerate(charges):
            for limit in limits.get(charge.unit, ()):
                counts = self._counts(charge, limit)
                for other in charges[:index]:
                    if (other.unit, other.dataset) == (charge.unit, charge.dataset):
                        counts[other.event] += 1
                before = counts.pop(charge.event, 0)
                if before + 1 > self._allowance(counts, charge.event, limit, learnt):
                    period = "" if limit.days is None else f" in {limit.days:g} days"
                    raise BudgetError(
                        f"the budget per {charge.unit.value} does not allow another release: "
                        f"expected epsilon of at most {limit.epsilon:g}{period} at delta "
                        f"{limit.delta:g}"
                    )
        return learnt

    def _allowance(
        self,
        others: Counter[Event],
        event: Event,
        limit: Limit,
        learnt: dict[bytes, int] | None = None,
    ) -> int:
        base = tuple(sorted(others.items(), key=repr))
        parts = [f"{events.to_json(other)} {count}" for other, count in base]
        key = digest(
            _ALLOWANCE,
            field(_accounting_version()),
            field(float(limit.epsilon).hex()),
            field(float(limit.delta).hex()),
            field(events.to_json(event)),
            *map(field, parts),
        )
        known = self._chain.memo(key)
        if known is None:
            known = _most(base, event, limit.epsilon, limit.delta)
            if learnt is not None:
                learnt[key] = known
        return known


Limits = Mapping[Unit, Sequence[Limit]]
_INF = float("inf")


@functools.cache
def _accounting_version() -> str:
    return version("dp-accounting")


@functools.lru_cache(maxsize=1024)
def _most(base: tuple[tuple[Event, int], ...], event: Event, epsilon: float, delta: float) -> int:
    """How many times in all `event` may happen beside `base`, up to 4096."""

    def fits(count: int) -> bool:
        return losses.epsilon([*base, (event, count)], delta) <= epsilon

    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= MOST and fits(high):
        low, high = high, 2 * high
    high = min(high, MOST + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def spent_over_time(
    entries: Iterable[Entry], unit: Unit, dataset: str, delta: float
) -> list[tuple[float, float]]:
    """Time (seconds since 1970) and PLD epsilon after each release of one scope."""
    counts: Counter[Event] = Counter()
    points = []
    for entry in entries:
        ours = [c.event for c in entry.charges if (c.unit, c.dataset) == (unit, dataset)]
        if ours:
            counts.update(ours)
            points.append((entry.time, losses.epsilon(counts.items(), delta)))
    return points
