"""A poll of a federation's nodes, from what is asked on disk to the answers beside it."""

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from flwr.serverapp import Grid

from lepton_flwr.config import RunConfig
from lepton_flwr.errors import LeptonError
from lepton_flwr.inference.folder import PollFolder
from lepton_flwr.inference.poll import Poll
from lepton_flwr.privacy.ledger import Ledger
from lepton_flwr.secagg.roles import Members
from lepton_flwr.training.models import ModelSpec, build
from strategies.budgets import LEDGER_FILE
from strategies.calibration import with_floor, with_noise
from strategies.federate import table_fields, task_of
from strategies.nodes import await_nodes
from strategies.voting import FlowerVoters
from strategies.watcher import Watcher


@dataclass(frozen=True)
class Asker:
    """What the server knows of a poll beside Flower's grid.

    Attributes:
        config: how each node trains its local model; see `as_poll`. `clients` is set.
        model: what they train.
        members: the roster.
        ledgers: folder of the server's ledger, made if missing.
        population: names all records together in that ledger, 32 bytes.
        renew: brings `members` up to date.
    """

    config: RunConfig
    model: ModelSpec
    members: Members
    ledgers: Path
    population: bytes
    renew: Callable[[], None] | None = None


def as_poll(config: RunConfig) -> RunConfig:
    """A run's settings as those of a local model: its rounds one after the other on one node.

    Client-level privacy is that of the votes, and off here.
    """
    train = replace(config.train, local_steps=config.rounds * config.train.local_steps)
    dp = replace(config.dp, client=replace(config.dp.client, enabled=False))
    return with_noise(replace(config, rounds=1, train=train, dp=dp))


def ask(
    grid: Grid,
    asker: Asker,
    folder: PollFolder,
    *,
    stop: threading.Event | None = None,
    watcher: Watcher | None = None,
) -> None:
    """Ask what the folder holds, and leave the answers, or why there are none, in it.

    **Guarantee**: that of `Poll`: what is written is within the limits of the ledger, which is
    charged before anybody is asked.

    Raises:
        BudgetError: the server's ledger does not allow it; nobody was asked.
        FederationError: too few nodes came.
        ThresholdError: too few nodes answered.
        LedgerError: the ledger cannot be trusted.
        DataError: the folder or the rows cannot be used.
        OutputError: a file cannot be written.
    """
    try:
        _ask(grid, asker, folder, stop, watcher)
    except LeptonError as error:
        folder.fail(error)
        raise


def _ask(
    grid: Grid,
    asker: Asker,
    folder: PollFolder,
    stop: threading.Event | None,
    watcher: Watcher | None,
) -> None:
    request, queries = folder.asked()
    config = with_floor(asker.config)
    await_nodes(grid, config.clients or 0, stop)
    if asker.renew is not None:
        asker.renew()
    voters = FlowerVoters(
        grid,
        asker.members,
        task_of(config, asker.model),
        build(asker.model, config.seed).get_weights(),
        fields=table_fields(config, folder.preprocessor()),
        min_survivors=config.secagg.min_survivors,
        timeout=config.secagg.timeout,
        watcher=watcher,
        stop=stop,
    )
    asker.ledgers.mkdir(mode=0o700, parents=True, exist_ok=True)
    with Ledger(asker.ledgers / LEDGER_FILE) as ledger:
        poll = Poll(
            voters,
            asker.model.num_classes,
            ledger=ledger,
            dataset=ledger.dataset(asker.population),
            limits=request.limits,
            delta=request.delta,
            name=f"poll {folder.path.name} {secrets.token_hex(8)}",
        )
        count = len(queries)
        folder.answer(
            poll.averages(queries, request.averages(count))
            if request.probabilities
            else poll.labels(queries, request.votes(count))
        )
