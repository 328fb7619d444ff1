"""A simulation's data made ready to train on; statistics that this needs are charged."""

import contextlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lepton_flwr.config import ModelConfig, RunConfig
from lepton_flwr.data import scenarios
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.data.preprocessing import (
    PREPROCESSOR_FILE,
    Options,
    Preprocessor,
    TableSchema,
    fit,
)
from lepton_flwr.data.preprocessing.fit import Ask
from lepton_flwr.data.preprocessing.in_process import Charge as ChargeParticipant
from lepton_flwr.data.preprocessing.in_process import InProcess
from lepton_flwr.data.preprocessing.questions import Question
from lepton_flwr.data.sealed import SealedData
from lepton_flwr.data.tables import FederatedTables
from lepton_flwr.device import WHOLE
from lepton_flwr.errors import DataError
from lepton_flwr.privacy.events import Event, Unbounded, Unit
from lepton_flwr.privacy.ledger import Charge, Ledger
from lepton_flwr.privacy.policy import PrivacyPolicy
from lepton_flwr.provision import ledger_files
from lepton_flwr.runs.artifacts import (
    GetKey,
    read_preprocessor,
    recipients_of,
    write_preprocessor,
)
from strategies.budgets import Budgets
from strategies.calibration import with_floor, with_noise, with_statistics

# Within a folder of ledgers, those of simulated devices.
DEVICES = "devices"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prepared:
    """What a run starts from.

    Attributes:
        config: with all that the data says.
        data: every client's features.
        run: the run's name in the ledgers.
    """

    config: RunConfig
    data: FederatedData
    run: str


def prepare(
    config: RunConfig, folder: Path, ledgers: Path, progress: Progress | None = None
) -> Prepared:
    """Load a scenario's rows and, where they are tables, preprocess them by federated statistics.

    Args:
        config: the run.
        folder: the run's; gets the preprocessor if there is one, encrypted as the model will be.
            An empty folder is removed if this fails.
        ledgers: of the server and the simulated devices; statistics are charged to both.
        progress: told of participants that have answered a question and of all.

    **Guarantee**: with record-level privacy, every statistic is charged to the server's ledger and
    to that of each client before its noise is drawn, in the same account as the rounds of training
    that follow. The server's is the same for all runs on the same records, whatever their seed,
    number of clients and division.

    Raises:
        ConfigError: the configuration does not fit the scenario.
        DataError: the data cannot be used.
        BudgetError: a ledger does not allow the statistics and a round.
        OutputError: the folder cannot be written.
    """
    run = run_name(config, folder)
    try:
        loaded = scenarios.get(config.scenario).load(config)
        if isinstance(loaded, FederatedData):
            if loaded.preprocessor is not None:
                write_preprocessor(folder, loaded.preprocessor, recipients_of(config))
            return Prepared(with_data(with_statistics(config, 0), loaded), loaded, run)
        config = with_floor(replace(config, clients=len(loaded.clients)))
        config = with_noise(with_statistics(config, loaded.releases))
        preprocessor = ask_statistics(config, loaded, ledgers, run, progress)
        write_preprocessor(folder, preprocessor, recipients_of(config))
        data = loaded.features(preprocessor)
        return Prepared(with_data(config, data), data, run)
    except BaseException:
        with contextlib.suppress(OSError):  # not empty: what was charged stays known
            folder.rmdir()
        raise


def prepare_again(config: RunConfig, folder: Path, key: GetKey | None = None) -> FederatedData:
    """The data of a run that goes on; its statistics are those that were charged when it began.

    Args:
        config: as `prepare` filled it in.
        folder: the run's, with the preprocessor if there is one.
        key: called for the key of one of its recipients, if it is encrypted.

    Raises:
        ConfigError: it is encrypted, and there is no key.
        EnvelopeError: the key is another's, or the envelope was altered.
        DataError: the data or the preprocessor cannot be used.
    """
    loaded = scenarios.get(config.scenario).load(config)
    if isinstance(loaded, FederatedData):
        return loaded
    preprocessor = read_preprocessor(folder, key)
    if preprocessor is None:
        raise DataError(
            f"{folder}: no {PREPROCESSOR_FILE}: restore it: fitting it again would spend again"
        )
    return loaded.features(preprocessor)


def run_name(config: RunConfig, folder: Path) -> str:
    """A name in the ledgers that no other run has, also of another folder of the same name."""
    return f"{config.scenario} {folder.name} {secrets.token_hex(8)}"


def ask_statistics(
    config: RunConfig,
    tables: FederatedTables,
    ledgers: Path,
    run: str,
    progress: Progress | None = None,
) -> Preprocessor:
    """Fit a preprocessor to simulated clients; see `prepare`.

    Args:
        config: the run; `with_statistics` has filled in the noise.
        tables: the clients' records.
        ledgers: as in `prepare`.
        run: the run's name in the ledgers.
        progress: as in `prepare`.
    """
    with (
        contextlib.closing(Budgets.open(ledgers, config, run, tables.population)) as budgets,
        _devices(config, tables, ledgers / DEVICES, run) as charge,
    ):
        budgets.check_statistics()
        return fit_charged(
            InProcess(tables.tables, charge, progress),
            budgets,
            config,
            tables.schema,
            options=tables.options,
            most_rows=max(len(client.y_train) for client in tables.clients),
        )


def fit_charged(
    participants: Ask,
    budgets: Budgets,
    config: RunConfig,
    schema: TableSchema,
    *,
    options: Options,
    most_rows: int,
) -> Preprocessor:
    """Fit a preprocessor by questions, each of which the server's ledger is charged for first.

    Args:
        participants: answer a question, wherever they are.
        budgets: the server's.
        config: the run; `with_statistics` has filled in the noise.
        schema: names and kinds of the columns.
        options: what is fitted.
        most_rows: no participant has more records.
    """

    def ask(question: Question) -> tuple[list[int], int]:
        with budgets.statistics():
            return participants(question)

    return fit(
        ask,
        schema,
        noise_multiplier=config.dp.record.statistics_noise_multiplier,
        options=options,
        most_rows=most_rows,
    )


def with_data(config: RunConfig, data: FederatedData | SealedData) -> RunConfig:
    """Fill in what the data says: the clients, the rows' shape and the classes."""
    model = ModelConfig(data.input_shape, data.num_classes, data.label, data.classes)
    return with_floor(replace(config, clients=len(data.clients), model=model))


def spending_policy(config: RunConfig) -> PrivacyPolicy:
    """The limit of simulated devices: the epsilon per record of their run."""
    record = config.dp.record
    return PrivacyPolicy(
        delta=config.dp.delta, max_record_epsilon=record.epsilon if record.enabled else None
    )


@contextmanager
def _devices(
    config: RunConfig, tables: FederatedTables, folder: Path, run: str
) -> Iterator[ChargeParticipant]:
    """What charges a simulated device, in the ledger that it will train with."""
    files = ledger_files(folder, [client.records for client in tables.clients])
    limits = spending_policy(config).limits
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(Ledger(file)) for file in files]

        @contextmanager
        def charge(participant: int, event: Event) -> Iterator[None]:
            ledger = opened[participant]
            dataset = ledger.dataset(tables.clients[participant].records)
            charges = [
                Charge(Unit.RECORD, dataset, event),
                Charge(Unit.CLIENT, WHOLE, Unbounded()),
            ]
            number = ledger.reserve(charges, limits, f"{run}, statistics")
            yield
            ledger.commit(number)

        yield charge
