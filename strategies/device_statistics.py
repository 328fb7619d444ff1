"""Statistics of raw tables that devices hold, asked in secure sums before the first round."""

import contextlib
import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from logging import INFO
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from lepton_flwr.config import ModelConfig, RunConfig
from lepton_flwr.crypto.stream import StreamCipher
from lepton_flwr.data import wire
from lepton_flwr.data.preprocessing import PREPROCESSOR_FILE, Options, Preprocessor, num_releases
from lepton_flwr.data.preprocessing.asked import to_json
from lepton_flwr.data.preprocessing.fit import by_bounds
from lepton_flwr.data.preprocessing.questions import MAX_ROWS, Question
from lepton_flwr.data.preprocessing.whole import WholeNumbers
from lepton_flwr.data.table_spec import TableSpec
from lepton_flwr.errors import ConfigError, DataError, FederationError
from lepton_flwr.failures import counted
from lepton_flwr.runs.artifacts import GetKey, read_preprocessor, recipients_of, write_preprocessor
from lepton_flwr.secagg.parameters import SessionConfig
from lepton_flwr.secagg.roles import Members
from lepton_flwr.secagg.wire import STATISTICS, STATISTICS_ACTION
from strategies.budgets import Budgets
from strategies.calibration import with_floor, with_noise, with_statistics
from strategies.exchange import Patience
from strategies.nodes import await_nodes
from strategies.preparation import fit_charged
from strategies.secure_session import SecureSession, attempts
from strategies.watcher import Watcher

DIGEST = "preprocessor"  # the setting of a run's checkpoints that names its statistics


class StatisticsError(FederationError):
    """Too few devices answered a question; what was asked stays charged."""


@dataclass(frozen=True)
class Asked:
    """What a run on raw tables starts from.

    Attributes:
        config: with the noise, and the features' number as the model's input.
        preprocessor: what makes features at every device.
        sessions: numbers of sessions, from 1, that are used up.
    """

    config: RunConfig
    preprocessor: Preprocessor
    sessions: int

    @property
    def settings(self) -> dict[str, str]:
        """What the run's checkpoints keep of it."""
        return {DIGEST: _digest(self.preprocessor)}


class DeviceTables:
    """Asks the devices of a federation and adds up their answers securely; give it to `fit`.

    A device answers if its policy names the action "query.statistics", and charges its ledger
    before it draws the noise of each answer.

    **Guarantee**: the server gets the sum over at least `min_survivors` devices, each of whose
    answers is noised in full by itself.

    Args:
        grid: the federation's.
        members: the roster.
        config: the run; `secagg.min_survivors` is set.
        spec: what the tables hold.
        renew: brings `members` up to date before each session.
        watcher: hears of replies and failures as they come.
        stop: when set, the question ends with `RunInterruptedError`.

    Attributes:
        sessions: how many have been opened.
    """

    def __init__(
        self,
        grid: Grid,
        members: Members,
        config: RunConfig,
        spec: TableSpec,
        *,
        renew: Callable[[], None] | None = None,
        watcher: Watcher | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._grid = grid
        self._members = members
        self._secagg = config.secagg
        self._spec = spec
        self._renew = renew
        self._watcher = watcher or Watcher()
        self._stop = stop
        self._questions = 0
        self.sessions = 0

    def __call__(self, question: Question) -> tuple[list[int], int]:
        """The sums in units of 1 / grid, exact, and the number of devices in them.

        Raises:
            StatisticsError: too few devices answered.
            RunInterruptedError: the operator stopped the run.
        """
        self._questions += 1
        if self._renew is not None:
            self._renew()
        nodes = list(self._grid.get_node_ids())
        floor, secagg = self._secagg.min_survivors, self._secagg
        if len(nodes) < floor:
            raise StatisticsError(
                f"question {self._questions} to the devices' tables: {len(nodes)} devices: "
                f"expected at least {floor}"
            )
        config = {**wire.spec_fields(self._spec), wire.QUESTION: to_json(question)}
        content = RecordDict({"config": ConfigRecord(dict(config))})
        messages = [Message(content, node, STATISTICS_ACTION) for node in nodes]
        coding = WholeNumbers(question.size, question.bound, len(nodes))

        def open_session() -> SecureSession:
            self.sessions += 1
            session = SessionConfig(
                str(messages[0].metadata.run_id),
                self.sessions,
                STATISTICS,
                coding.layout,
                floor,
                cipher=StreamCipher(secagg.cipher),
            )
            return SecureSession(
                self._grid,
                session,
                messages,
                self._members,
                patience=Patience(secagg.timeout, secagg.straggler_factor, secagg.straggler_grace),
                watcher=self._watcher,
                stop=self._stop,
            )

        for session, total in attempts(
            open_session, secagg.retries, watcher=self._watcher, stop=self._stop
        ):
            report = session.report
            if total is not None:
                log(INFO, "Statistics: question %d answered by %d of %d devices",
                    self._questions, report.survivors, report.participants)  # fmt: skip
                return coding.decode(total.astype(np.uint32))
        lost = counted(report.failures)
        raise StatisticsError(
            f"question {self._questions} to the devices' tables: {report.skipped}"
            + (f"; lost: {lost}" if lost else "")
            + "; nothing was trained: start the run anew; answers that were given stay charged"
        )


def ask_devices(
    grid: Grid,
    config: RunConfig,
    members: Members,
    *,
    folder: Path,
    ledgers: Path,
    run: str,
    population: bytes,
    renew: Callable[[], None] | None = None,
    stop: threading.Event | None = None,
) -> Asked:
    """Fit the preprocessor of a run on the raw tables of devices, and write it to its folder.

    Args:
        grid: the federation's.
        config: the run; `table` and `clients` are set.
        members: the roster.
        folder: the run's; it gets the preprocessor, encrypted as the model will be.
        ledgers: folder of the server's.
        run: the run's name in it.
        population: names the devices' records together in it.
        renew: see `DeviceTables`.
        stop: likewise.

    **Guarantee**: with record-level privacy every question is charged to the server's ledger before
    it is asked, and by each device to its own before its answer is noised. If this raises, the
    folder has no preprocessor.

    Raises:
        ConfigError: client-level privacy, and a column without public bounds.
        DataError: no column holds enough records beside the noise.
        StatisticsError: too few devices answered.
        FederationError: too few devices came.
        BudgetError: the ledger does not allow the statistics and a round.
        OutputError: the folder cannot be written.
    """
    if config.table is None:
        raise ConfigError("table: expected what the devices' tables hold")
    spec, options = TableSpec.of(config.table), Options.of(config.data)
    public, sessions = by_bounds(spec.schema), 0
    config = with_floor(config)
    if public is not None:
        preprocessor, config = public, with_statistics(config, 0)
    else:
        _check_unit(config, spec)
        config = with_noise(with_statistics(config, num_releases(spec.schema, options)))
        with contextlib.closing(Budgets.open(ledgers, config, run, population)) as budgets:
            budgets.check_statistics()
            await_nodes(grid, config.clients or 0, stop)
            tables = DeviceTables(grid, members, config, spec, renew=renew, stop=stop)
            preprocessor = fit_charged(
                tables, budgets, config, spec.schema, options=options, most_rows=MAX_ROWS
            )
            sessions = tables.sessions
    write_preprocessor(folder, preprocessor, recipients_of(config))
    features = len(preprocessor.feature_names)
    model = ModelConfig((features,), len(spec.classes), spec.label, spec.classes)
    return Asked(replace(config, model=model), preprocessor, sessions)


def asked_before(
    folder: Path, settings: Mapping[str, Any], key: GetKey | None = None
) -> Preprocessor:
    """The statistics of a run that goes on: those that were charged when it began.

    Args:
        folder: the run's.
        settings: of its checkpoints.
        key: called for the key of one of its recipients, if they are encrypted.

    Raises:
        ConfigError: they are encrypted, and there is no key.
        EnvelopeError: the key is another's, or the envelope was altered.
        DataError: they are missing or damaged, or others.
    """
    preprocessor = read_preprocessor(folder, key)
    if preprocessor is None or _digest(preprocessor) != settings.get(DIGEST):
        what = "no" if preprocessor is None else "not the run's"
        raise DataError(
            f"{folder}: {what} {PREPROCESSOR_FILE}: restore it: fitting it again would spend again"
        )
    return preprocessor


def _check_unit(config: RunConfig, spec: TableSpec) -> None:
    if not config.dp.client.enabled:
        return
    bare = [column.name for column in spec.schema.columns if not column.bounded]
    raise ConfigError(
        f"column {bare[0]!r} has no public bounds, which client-level privacy needs: give every "
        f'column {{ kind = "number", low = LOW, high = HIGH }} in {wire.TABLE}.columns'
    )


def _digest(preprocessor: Preprocessor) -> str:
    return hashlib.sha256(preprocessor.to_json().encode()).hexdigest()
