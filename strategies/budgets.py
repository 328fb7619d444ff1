"""The server's budgets: per record and per client, over this run and those before it."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lepton_flwr.config import ClientDPConfig, RecordDPConfig, RunConfig
from lepton_flwr.crypto.digest import digest, field
from lepton_flwr.privacy import losses
from lepton_flwr.privacy.accounting import BudgetError, SampledGaussian, Unit
from lepton_flwr.privacy.budget import PrivacyStatement
from lepton_flwr.privacy.ledger import Charge, Ledger, Limit
from lepton_flwr.privacy.ledger_errors import LedgerMissingError, LedgerRolledBackError

LEDGER_FILE = "server.db"
_POPULATION = "lepton/ledger/population/v1"
# The records of all devices that a server ever trained on. A setting of a run, who takes part in it
# and the roster all change while the records stay: none of them is in the name.
DEVICES_POPULATION = digest(_POPULATION, field("devices"))


def population_of(config: RunConfig) -> bytes:
    """A name of the records that a scenario and its settings determine, 32 bytes.

    The same data, held by the same number of clients, is the same population.
    """
    text = field(f"{config.scenario} {config.clients} {config.seed} {config.data}")
    return digest(_POPULATION, text)


def statistics_event(config: RunConfig) -> SampledGaussian | None:
    """One release of the statistics that preprocessing needs; None if it needs none."""
    record = config.dp.record
    if not (record.enabled and record.statistics_releases):
        return None
    return SampledGaussian(record.statistics_noise_multiplier, 1.0, 1)


@dataclass(frozen=True)
class Budget:
    """One level of privacy: what a round releases, and the most that may be spent."""

    mechanism: SampledGaussian
    limit: Limit


class Budgets:
    """Charges rounds to a ledger before they happen.

    Args:
        ledger: the server's, open.
        config: the run, with its noise.
        run: its name in the ledger.
        population: names the records of all clients together, 32 bytes; None lets the scenario
            and its settings name them, which is right only for records that they determine.

    **Guarantee**: the rounds charged here and in every other run on the same ledger and data stay
    within the limits, if a round is not run when `charge` raises.
    """

    def __init__(
        self, ledger: Ledger, config: RunConfig, run: str, population: bytes | None = None
    ) -> None:
        dp, train = config.dp, config.train
        levels: dict[Unit, tuple[RecordDPConfig | ClientDPConfig, float, int]] = {
            Unit.RECORD: (dp.record, train.sampling_probability, train.local_steps),
            Unit.CLIENT: (dp.client, dp.client.sampling_probability, 1),
        }
        self.budgets = {
            unit: Budget(
                SampledGaussian(level.noise_multiplier, q, steps), Limit(level.epsilon, dp.delta)
            )
            for unit, (level, q, steps) in levels.items()
            if level.enabled
        }
        self._ledger = ledger
        self._run = run
        self._statistics = statistics_event(config)
        self._releases = config.dp.record.statistics_releases
        population = population_of(config) if population is None else population
        self._dataset = ledger.dataset(population)
        self._reserved: int | None = None
        # Rounds of this run that servers before this one have charged.
        self.charged_before = 0

    @classmethod
    def open(
        cls, folder: Path, config: RunConfig, run: str, population: bytes | None = None
    ) -> Self:
        """On the ledger in a folder, which is made if missing; close it after use."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(Ledger(folder / LEDGER_FILE), config, run, population)

    @classmethod
    def reopen(
        cls,
        folder: Path,
        config: RunConfig,
        run: str,
        head: tuple[int, bytes],
        population: bytes | None = None,
    ) -> Self:
        """On the ledger that the run began with.

        Args:
            folder: the ledger's.
            config: as it was.
            run: as it was.
            head: what the ledger's newest row was at the run's last checkpoint.
            population: as it was.

        Raises:
            LedgerMissingError: it is not there, though the run began with it.
            LedgerRolledBackError: it does not hold the row: another one, or an older copy.
        """
        path = folder / LEDGER_FILE
        if not path.exists():
            raise LedgerMissingError(
                f"{path}: not there, though the run began with it: restore it; without it nobody "
                "can tell what may still be spent"
            )
        ledger = Ledger(path)
        try:
            if not ledger.contains(head):
                raise LedgerRolledBackError(
                    f"{path}: does not hold what the run had charged: it is another ledger or an "
                    "older copy; restore the newest"
                )
            budgets = cls(ledger, config, run, population)
            budgets.charged_before = budgets._last_charged()
            return budgets
        except BaseException:
            ledger.close()
            raise

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()

    def affordable(self, rounds: int) -> int:
        """How many of `rounds` more rounds the limits allow.

        Raises:
            BudgetError: none, though some are wanted.
        """
        if not self.budgets:
            return rounds
        limits = {unit: (budget.limit,) for unit, budget in self.budgets.items()}
        allowed = min(rounds, self._ledger.remaining(self._charges(), limits))
        if allowed == 0 < rounds:
            spent = ", ".join(
                f"epsilon {self.epsilon(unit):.4g} of {budget.limit.epsilon:g} per {unit.value}"
                for unit, budget in self.budgets.items()
            )
            raise BudgetError(
                f"the ledger allows no round: {spent} spent (delta "
                f"{next(iter(self.budgets.values())).limit.delta:g}); use other data, more noise "
                "or a higher limit"
            )
        return allowed

    @contextmanager
    def statistics(self) -> Iterator[None]:
        """Charge one release of statistics before the body makes it.

        Raises:
            BudgetError: it would exceed the limit.
            LedgerError: the ledger cannot be trusted.
        """
        if self._statistics is None:
            yield
            return
        limits = {Unit.RECORD: (self.budgets[Unit.RECORD].limit,)}
        charge = Charge(Unit.RECORD, self._dataset, self._statistics)
        number = self._ledger.reserve([charge], limits, f"{self._run}, statistics")
        yield
        self._ledger.commit(number)

    def check_statistics(self) -> None:
        """Refuse statistics that leave no room for a round of training.

        Raises:
            BudgetError: they and one round would exceed the limit.
        """
        if self._statistics is None:
            return
        budget = self.budgets[Unit.RECORD]
        also = [(self._statistics, self._releases), (budget.mechanism, 1)]
        after = self._ledger.spent(Unit.RECORD, self._dataset, budget.limit.delta, also)
        if not after <= budget.limit.epsilon:
            raise BudgetError(
                f"the ledger allows no round: statistics and one round would bring epsilon to "
                f"{after:.4g} of {budget.limit.epsilon:g} (delta {budget.limit.delta:g}); use "
                "other data, more noise or a higher limit"
            )

    def charge(self, number: int) -> None:
        """Charge the round that is about to train, at every level or at none.

        Raises:
            BudgetError: it would exceed a limit.
            LedgerError: the ledger cannot be trusted.
        """
        for unit, budget in self.budgets.items():
            after = self.epsilon(unit, 1)
            if not after <= budget.limit.epsilon:
                raise BudgetError(
                    f"round {number} would bring epsilon to {after:.4g}: expected at most "
                    f"{budget.limit.epsilon:g} (delta {budget.limit.delta:g}); more noise or fewer "
                    "rounds"
                )
        if self.budgets:
            limits = {unit: (budget.limit,) for unit, budget in self.budgets.items()}
            self._reserved = self._ledger.reserve(self._charges(), limits, f"{self._label}{number}")

    def _last_charged(self) -> int:
        """The greatest number of a round that was charged under this run's name; 0 for none."""
        label = self._label
        rounds = (entry.run for entry in self._ledger.history() if entry.run.startswith(label))
        return max((int(run.removeprefix(label)) for run in rounds), default=0)

    def settle(self) -> None:
        """The round that was charged has ended."""
        if self._reserved is not None:
            self._ledger.commit(self._reserved)
            self._reserved = None

    def epsilon(self, unit: Unit, more: int = 0) -> float:
        """Spent so far by all runs, and by so many rounds more."""
        budget = self.budgets[unit]
        also = [(budget.mechanism, more)]
        return self._ledger.spent(unit, self._dataset, budget.limit.delta, also)

    @property
    def head(self) -> tuple[int, bytes]:
        """The ledger's newest row: number and hash."""
        return self._ledger.head

    def spent(self, unit: Unit) -> float | None:
        """Spent so far; None if the level is off."""
        return self.epsilon(unit) if unit in self.budgets else None

    def unaccounted(self, unit: Unit) -> int:
        """Releases of these records in the ledger that `epsilon` per `unit` does not cover."""
        return self._ledger.unaccounted(unit, self._dataset)

    def statement(self, unit: Unit, rounds: int, assumptions: tuple[str, ...]) -> PrivacyStatement:
        """What is guaranteed after so many rounds more of this run."""
        budget = self.budgets[unit]
        before = losses.epsilon(
            Counter(
                charge.event
                for entry in self._ledger.history()
                if not entry.run.startswith(f"{self._run}, ")
                for charge in entry.charges
                if (charge.unit, charge.dataset) == (unit, self._dataset)
            ).items(),
            budget.limit.delta,
        )
        return PrivacyStatement(
            unit,
            self.epsilon(unit, rounds),
            budget.limit.delta,
            budget.mechanism,
            self.charged_before + rounds,
            assumptions=assumptions,
            epsilon_before=before,
            statistics=self._statistics if unit is Unit.RECORD else None,
            statistics_releases=self._releases,
        )

    @property
    def _label(self) -> str:
        return f"{self._run}, round "

    def _charges(self) -> list[Charge]:
        return [
            Charge(unit, self._dataset, budget.mechanism) for unit, budget in self.budgets.items()
        ]
