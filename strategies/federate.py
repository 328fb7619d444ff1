"""A whole run on the server: noise calibrated, clients awaited, rounds driven, budgets kept."""

import contextlib
import itertools
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedYogi,
    Strategy,
)

from lepton_flwr.config import RunConfig, TrainConfig
from lepton_flwr.crypto.stream import StreamCipher
from lepton_flwr.data import wire
from lepton_flwr.data.preprocessing import Preprocessor
from lepton_flwr.data.table_spec import TableSpec
from lepton_flwr.privacy.accounting import ACCOUNTANT, BudgetError
from lepton_flwr.privacy.adaptive import AdaptiveClip
from lepton_flwr.privacy.clipping import CLIP_BY_LAYER
from lepton_flwr.privacy.policy import CLIENT_NOISE
from lepton_flwr.runs.checkpoint import Checkpoint, Checkpoints, config_digest
from lepton_flwr.runs.observer import RunEnd, RunObserver, RunStart
from lepton_flwr.secagg.roles import Members
from lepton_flwr.training.models import ModelSpec, build
from lepton_flwr.training.task import Task
from strategies.budgets import Budgets
from strategies.calibration import with_floor, with_noise
from strategies.exchange import RunInterruptedError
from strategies.guarantees import guarantees
from strategies.nodes import MIN_NODES, await_nodes, fewest_nodes
from strategies.optimizer_state import restore, state_of
from strategies.rounds import Rounds, evaluation_segments
from strategies.secure_aggregation import SecureAggregation
from strategies.secure_grid import ClientPrivacy, SecureGrid, SecureSettings


@dataclass(frozen=True)
class Origin:
    """What records are that belong to no scenario.

    Attributes:
        title: in a few words.
        population: names all of them together in the server's ledger, 32 bytes.
        promises: sentences on how their privacy was protected before any training.
    """

    title: str
    population: bytes
    promises: tuple[str, ...] = ()


@dataclass(frozen=True)
class Federation:
    """What the server knows beside Flower's grid.

    Attributes:
        config: the run; `clients` is set.
        model: what to train.
        members: the roster.
        title: the scenario in a few words.
        ledgers: folder of the server's ledger, made if missing.
        run: the run's name in the ledger; empty makes one.
        origin: what the records are, where the scenario does not say it.
        checkpoints: the run's; if they hold one, the run goes on from it. None keeps none.
        renew: brings `members` up to date; see `SecureGrid`.
        preprocessor: what makes features of the devices' raw tables; None where they have features.
        sessions_before: numbers of sessions, from 1, that statistics have used up in this run of
            Flower's.
    """

    config: RunConfig
    model: ModelSpec
    members: Members
    title: str
    ledgers: Path
    run: str = ""
    origin: Origin | None = None
    checkpoints: Checkpoints | None = None
    renew: Callable[[], None] | None = None
    preprocessor: Preprocessor | None = None
    sessions_before: int = 0


def federate(
    grid: Grid,
    federation: Federation,
    observer: RunObserver,
    stop: threading.Event | None = None,
) -> None:
    """Run all rounds, or those that a server before this one has not run.

    Raises:
        FederationError: too few clients came.
        BudgetError: a budget does not allow another round; the rounds before it are kept.
        LedgerError: the server's ledger cannot be trusted.
        ConfigError: no noise reaches the epsilon that was asked for.
        OutputError: a checkpoint cannot be written.
        RunInterruptedError: `stop` was set.
    """
    config = with_noise(with_floor(federation.config))
    checkpoints, ledgers = federation.checkpoints, federation.ledgers
    population = federation.origin.population if federation.origin is not None else None
    with contextlib.ExitStack() as stack:
        latest, run = None, federation.run
        if checkpoints:
            stack.callback(checkpoints.close)
            latest, run = checkpoints.latest, checkpoints.run
        run = run or f"{config.scenario} {secrets.token_hex(8)}"
        budgets = (
            Budgets.reopen(ledgers, config, run, latest.ledger, population)
            if latest
            else Budgets.open(ledgers, config, run, population)
        )
        stack.callback(budgets.close)
        _Server(grid, replace(federation, config=config), budgets, observer, stop).run()


class _Server:
    """One server of a run; another one may have run its first rounds."""

    def __init__(
        self,
        grid: Grid,
        federation: Federation,
        budgets: Budgets,
        observer: RunObserver,
        stop: threading.Event | None,
    ) -> None:
        self._grid = grid
        self._federation = federation
        self._config = config = federation.config
        self._budgets = budgets
        self._observer = observer
        self._stop = stop
        self._checkpoints = federation.checkpoints
        latest = self._checkpoints.latest if self._checkpoints else None
        self._inner = inner_strategy(config.train)
        self._clip = config.dp.client.l2_norm_clip
        self._rounds = Rounds(observer, budgets, latest.records if latest else ())
        self._goes_on = latest is not None
        self._seconds = latest.seconds if latest else 0.0
        numbers = self._checkpoints.next_number if self._checkpoints else None
        self._next_number = numbers or itertools.count(1).__next__
        self._began = time.monotonic()
        if latest:
            self._weights = list(latest.weights)
            self._rounds.roc = latest.roc
            restore(self._inner, latest.optimizer)
            self._clip = latest.l2_norm_clip or self._clip
        else:
            self._weights = build(federation.model, config.seed).get_weights()

    def run(self) -> None:
        """Everything from the start to the end; the observer hears of both."""
        config, privacy = self._config, self._config.dp
        left = config.rounds - max(len(self._rounds.records), self._budgets.charged_before)
        affordable = self._budgets.affordable(max(left, 0))
        origin = self._federation.origin
        promises = origin.promises if origin is not None else ()
        self._observer.run_started(
            RunStart(
                config=config,
                scenario_title=self._federation.title,
                clients=config.clients or 0,
                num_parameters=sum(weight.size for weight in self._weights),
                guarantee=guarantees(config, promises, self._budgets, affordable),
                noise_multiplier_record=privacy.record.noise_multiplier
                if privacy.record.enabled
                else None,
                noise_multiplier_client=privacy.client.noise_multiplier
                if privacy.client.enabled
                else None,
                private_inputs=bool(promises),
                rounds_done=len(self._rounds.records),
            )
        )
        reason = "failed"
        try:
            if self._checkpoints:
                self._checkpoints.begin()
            self._save()
            self._lose_unfinished()
            if len(self._rounds.records) < config.rounds:
                clients = config.clients or 0
                # Going on, a run has been doing without those that have left it since.
                fewest = fewest_nodes(config) if self._goes_on else clients
                await_nodes(self._grid, clients, self._stop, fewest=fewest)
                self._train()
            reason = "finished"
        except RunInterruptedError:
            reason = "interrupted"
            raise
        except BudgetError:
            reason = "budget"
            raise
        finally:
            self._observer.run_ended(RunEnd(reason, self._rounds.roc, privacy.delta, ACCOUNTANT))

    def _lose_unfinished(self) -> None:
        """Rounds that were charged and are in no checkpoint: they stay charged, and are over."""
        while len(self._rounds.records) < self._budgets.charged_before:
            record = self._rounds.lose()
            self._save()
            self._observer.round_finished(record, self._weights)

    def _train(self) -> None:
        config, privacy = self._config, self._config.dp
        strategy = SecureAggregation(
            self._inner,
            self._secure,
            evaluate_every=config.evaluate_every,
            rounds_done=len(self._rounds.records),
        )
        task = ConfigRecord(
            {
                "task": task_of(config, self._federation.model).to_json(),
                CLIP_BY_LAYER: privacy.client.enabled and privacy.client.clip_by_layer,
                CLIENT_NOISE: privacy.client.noise_multiplier if privacy.client.enabled else 0.0,
                **table_fields(config, self._federation.preprocessor),
            }
        )
        strategy.start(
            self._grid,
            ArrayRecord(self._weights),
            num_rounds=config.rounds,
            timeout=config.secagg.timeout,
            train_config=task,
            evaluate_config=ConfigRecord(dict(task)),
            evaluate_fn=self._after_round,
        )

    def _secure(self, grid: Grid) -> SecureGrid:
        self._secured = SecureGrid(
            grid,
            self._federation.members,
            _settings(self._config, self._federation.model, self._clip),
            before_session=self._federation.renew,
            before_train=self._rounds.charge,
            on_session=self._rounds.session,
            watcher=self._rounds,
            numbers=self._number,
            stop=self._stop,
        )
        return self._secured

    def _number(self) -> int:
        return self._federation.sessions_before + self._next_number()

    def _after_round(self, server_round: int, arrays: ArrayRecord) -> None:
        if server_round:
            self._weights = arrays.to_numpy_ndarrays()
            self._clip = self._secured.l2_norm_clip
            record = self._rounds.finish()
            self._save()
            self._observer.round_finished(record, self._weights)

    def _save(self) -> None:
        """On disk before anybody is told that the round is over."""
        if self._checkpoints is None:
            return
        self._checkpoints.save(
            Checkpoint(
                config_digest=config_digest(self._config),
                weights=self._weights,
                optimizer=state_of(self._inner),
                l2_norm_clip=self._clip,
                ledger=self._budgets.head,
                records=tuple(self._rounds.records),
                roc=self._rounds.roc,
                seconds=self._seconds + time.monotonic() - self._began,
            )
        )


def table_fields(config: RunConfig, preprocessor: Preprocessor | None) -> dict[str, str]:
    """What makes features of raw tables: it travels with all work, for who missed the rest."""
    if preprocessor is None or config.table is None:
        return {}
    fields = wire.spec_fields(TableSpec.of(config.table))
    return {**fields, wire.PREPROCESSOR: preprocessor.to_json()}


def _settings(config: RunConfig, model: ModelSpec, l2_norm_clip: float) -> SecureSettings:
    secagg, client = config.secagg, config.dp.client
    return SecureSettings(
        min_survivors=secagg.min_survivors,
        update_bound=secagg.update_bound,
        max_examples=secagg.max_examples,
        timeout=secagg.timeout,
        straggler_factor=secagg.straggler_factor,
        straggler_grace=secagg.straggler_grace,
        retries=secagg.retries,
        cipher=StreamCipher(secagg.cipher),
        evaluate_metrics=evaluation_segments(model, secagg.max_examples),
        client_privacy=ClientPrivacy(
            l2_norm_clip=l2_norm_clip,
            noise_multiplier=client.noise_multiplier,
            sampling_probability=client.sampling_probability,
            population=config.clients or 0,
            adaptive=AdaptiveClip(client.clip_quantile, client.clip_learning_rate)
            if client.adaptive_clip
            else None,
        )
        if client.enabled
        else None,
    )


def task_of(config: RunConfig, model: ModelSpec) -> Task:
    """What a client is asked to train in one round."""
    train, record = config.train, config.dp.record
    return Task(
        model=model,
        optimizer=train.optimizer,
        learning_rate=train.learning_rate,
        local_steps=train.local_steps,
        sampling_probability=train.sampling_probability,
        noise_multiplier=record.noise_multiplier if record.enabled else 0.0,
        l2_norm_clip=record.l2_norm_clip,
        engine=record.engine,
        seed=config.seed,
    )


def inner_strategy(train: TrainConfig) -> Strategy:
    """The Flower strategy that a configuration names."""
    everyone = {
        "fraction_train": 1.0,
        "fraction_evaluate": 1.0,
        "min_train_nodes": MIN_NODES,
        "min_evaluate_nodes": MIN_NODES,
        "min_available_nodes": MIN_NODES,
    }
    if train.strategy == "fedavg":
        return FedAvg(**everyone)
    if train.strategy == "fedavgm":
        return FedAvgM(
            **everyone, server_learning_rate=train.server_learning_rate, server_momentum=0.9
        )
    adaptive = {"fedadam": FedAdam, "fedyogi": FedYogi, "fedadagrad": FedAdagrad}
    return adaptive[train.strategy](**everyone, eta=train.server_learning_rate)
