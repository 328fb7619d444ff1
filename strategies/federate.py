"""A whole run on the server: noise calibrated, clients awaited, rounds driven, budgets kept."""

import contextlib
import threading
import time
from dataclasses import dataclass, replace
from datetime import datetime
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
from lepton_flwr.errors import FederationError
from lepton_flwr.privacy.accounting import ACCOUNTANT, BudgetError, Unit, calibrate
from lepton_flwr.privacy.adaptive import AdaptiveClip
from lepton_flwr.privacy.clipping import CLIP_BY_LAYER
from lepton_flwr.privacy.policy import CLIENT_NOISE
from lepton_flwr.runs.observer import RunEnd, RunObserver, RunStart
from lepton_flwr.secagg.graph import MAX_COMPLETE, default_floor
from lepton_flwr.secagg.roles import Members
from lepton_flwr.training.models import ModelSpec, build
from lepton_flwr.training.task import Task
from strategies.budgets import Budgets, statistics_event
from strategies.exchange import RunInterruptedError
from strategies.rounds import Rounds, evaluation_segments
from strategies.secure_aggregation import SecureAggregation
from strategies.secure_grid import ClientPrivacy, SecureGrid, SecureSettings

NODES_TIMEOUT = 120.0


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
    """

    config: RunConfig
    model: ModelSpec
    members: Members
    title: str
    ledgers: Path
    run: str = ""
    origin: Origin | None = None


def federate(
    grid: Grid,
    federation: Federation,
    observer: RunObserver,
    stop: threading.Event | None = None,
) -> None:
    """Run all rounds.

    Raises:
        FederationError: too few clients came.
        BudgetError: a budget does not allow another round; the rounds before it are kept.
        LedgerError: the server's ledger cannot be trusted.
        ConfigError: no noise reaches the epsilon that was asked for.
        RunInterruptedError: `stop` was set.
    """
    config = with_noise(with_floor(federation.config))
    with contextlib.closing(
        Budgets.open(
            federation.ledgers,
            config,
            federation.run or f"{config.scenario} {datetime.now():%F %T}",
            federation.origin.population if federation.origin is not None else None,
        )
    ) as budgets:
        _federate(grid, replace(federation, config=config), budgets, observer, stop)


def _federate(
    grid: Grid,
    federation: Federation,
    budgets: Budgets,
    observer: RunObserver,
    stop: threading.Event | None,
) -> None:
    config, privacy = federation.config, federation.config.dp
    clients = config.clients or 0
    affordable = budgets.affordable(config.rounds)
    rounds = Rounds(observer, budgets)
    weights = build(federation.model, config.seed).get_weights()
    observer.run_started(
        RunStart(
            config=config,
            scenario_title=federation.title,
            clients=clients,
            num_parameters=sum(weight.size for weight in weights),
            guarantee=_guarantees(federation, budgets, affordable),
            noise_multiplier_record=privacy.record.noise_multiplier
            if privacy.record.enabled
            else None,
            noise_multiplier_client=privacy.client.noise_multiplier
            if privacy.client.enabled
            else None,
            private_inputs=bool(federation.origin is not None and federation.origin.promises),
        )
    )
    reason = "failed"
    try:
        _await_nodes(grid, clients, stop)
        strategy = SecureAggregation(
            _inner(config.train),
            lambda inner: SecureGrid(
                inner,
                federation.members,
                _settings(config, federation.model),
                before_train=rounds.charge,
                on_session=rounds.session,
                progress=rounds.progress,
                stop=stop,
            ),
            evaluate_every=config.evaluate_every,
        )
        task = ConfigRecord(
            {
                "task": _task(config, federation.model).to_json(),
                CLIP_BY_LAYER: privacy.client.enabled and privacy.client.clip_by_layer,
                CLIENT_NOISE: privacy.client.noise_multiplier if privacy.client.enabled else 0.0,
            }
        )

        def after_round(server_round: int, arrays: ArrayRecord) -> None:
            if server_round:
                rounds.finish(arrays.to_numpy_ndarrays())

        strategy.start(
            grid,
            ArrayRecord(weights),
            num_rounds=config.rounds,
            timeout=config.secagg.timeout,
            train_config=task,
            evaluate_config=ConfigRecord(dict(task)),
            evaluate_fn=after_round,
        )
        reason = "finished"
    except RunInterruptedError:
        reason = "interrupted"
        raise
    except BudgetError:
        reason = "budget"
        raise
    finally:
        observer.run_ended(RunEnd(reason, rounds.roc, privacy.delta, ACCOUNTANT))


def with_floor(config: RunConfig) -> RunConfig:
    """Fill in the fewest survivors, which the devices' policies name too."""
    if config.secagg.min_survivors:
        return config
    client = config.dp.client
    probability = client.sampling_probability if client.enabled else 1.0
    floor = default_floor(config.clients or 0, probability)
    return replace(config, secagg=replace(config.secagg, min_survivors=floor))


def with_statistics(config: RunConfig, releases: int) -> RunConfig:
    """Fill in how many statistics preprocessing needs, and the noise of each.

    By themselves they spend `statistics_share` of epsilon at most.
    """
    record = config.dp.record
    if not record.enabled:
        releases = 0
    noise = record.statistics_noise_multiplier if releases else 0.0
    if releases and noise == 0:
        share = record.epsilon * record.statistics_share
        noise = calibrate(share, config.dp.delta, 1.0, releases)
    record = replace(record, statistics_releases=releases, statistics_noise_multiplier=noise)
    return replace(config, dp=replace(config.dp, record=record))


def with_noise(config: RunConfig) -> RunConfig:
    """Fill in the noise multipliers that are to be calibrated.

    What statistics of preprocessing release comes out of the same epsilon.
    """
    dp, train = config.dp, config.train
    record, client = dp.record, dp.client
    if record.enabled and record.noise_multiplier == 0:
        steps = config.rounds * train.local_steps
        statistics = statistics_event(config)
        noise = calibrate(
            record.epsilon,
            dp.delta,
            train.sampling_probability,
            steps,
            also=[(statistics, record.statistics_releases)] if statistics else (),
        )
        record = replace(record, noise_multiplier=noise)
    if client.enabled and client.noise_multiplier == 0:
        noise = calibrate(client.epsilon, dp.delta, client.sampling_probability, config.rounds)
        client = replace(client, noise_multiplier=noise)
    return replace(config, dp=replace(dp, record=record, client=client))


def _settings(config: RunConfig, model: ModelSpec) -> SecureSettings:
    secagg, client = config.secagg, config.dp.client
    return SecureSettings(
        min_survivors=secagg.min_survivors,
        update_bound=secagg.update_bound,
        max_examples=secagg.max_examples,
        timeout=secagg.timeout,
        cipher=StreamCipher(secagg.cipher),
        evaluate_metrics=evaluation_segments(model, secagg.max_examples),
        client_privacy=ClientPrivacy(
            l2_norm_clip=client.l2_norm_clip,
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


def _task(config: RunConfig, model: ModelSpec) -> Task:
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


def _inner(train: TrainConfig) -> Strategy:
    everyone = {
        "fraction_train": 1.0,
        "fraction_evaluate": 1.0,
        "min_train_nodes": 3,
        "min_evaluate_nodes": 3,
        "min_available_nodes": 3,
    }
    if train.strategy == "fedavg":
        return FedAvg(**everyone)
    if train.strategy == "fedavgm":
        return FedAvgM(
            **everyone, server_learning_rate=train.server_learning_rate, server_momentum=0.9
        )
    adaptive = {"fedadam": FedAdam, "fedyogi": FedYogi, "fedadagrad": FedAdagrad}
    return adaptive[train.strategy](**everyone, eta=train.server_learning_rate)


def _await_nodes(grid: Grid, clients: int, stop: threading.Event | None) -> None:
    deadline = time.monotonic() + NODES_TIMEOUT
    while (count := len(list(grid.get_node_ids()))) < clients:
        if stop is not None and stop.is_set():
            raise RunInterruptedError("stopped by the operator")
        if time.monotonic() > deadline:
            raise FederationError(
                f"{count} of {clients} clients came within {NODES_TIMEOUT:.0f} s: start the "
                "others, or set clients to their number"
            )
        time.sleep(0.1)


def _guarantees(federation: Federation, budgets: Budgets, rounds: int) -> tuple[str, ...]:
    """Plain sentences, one for each promise, for the whole run."""
    config = federation.config
    promises = federation.origin.promises if federation.origin is not None else ()
    clients = config.clients or 0
    share = "a third" if clients <= MAX_COMPLETE else "a tenth"
    sentences = [
        "Secure aggregation: the server learns sums over at least "
        f"{config.secagg.min_survivors} of {clients} clients, "
        "and how many they are; never one client's update, example count or metric, as long as "
        f"fewer than {share} of the clients work with it."
    ]
    assumptions: dict[Unit, tuple[str, ...]] = {
        Unit.RECORD: (
            "the numbers of rows of the clients are public",
            "held-out rows, which only evaluation reads, are not part of the records",
        ),
        Unit.CLIENT: (
            "what is published is the model, not the evaluation figures",
            "the server adds the noise and keeps the sum and the cohort to itself",
        ),
    }
    if config.dp.client.adaptive_clip:
        assumptions[Unit.CLIENT] += (
            "the clip norm follows the noised share of unclipped updates, which epsilon covers",
        )
    if config.dp.record.statistics_releases:
        assumptions[Unit.RECORD] += (
            "the columns' names and kinds and the list of classes are public",
        )
    for unit in budgets.budgets:
        statement = budgets.statement(unit, rounds, assumptions[unit])
        level = "Record" if unit is Unit.RECORD else "Client"
        sentences.append(f"{level}-level privacy: {statement.sentence()}")
    sentences += promises
    if not budgets.budgets and not promises:
        sentences.append(
            "No differential privacy: what the model has learnt of single records or clients is "
            "not bounded."
        )
    return tuple(sentences)
