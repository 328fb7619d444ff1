"""Fills in what a configuration leaves open: the floor of survivors, and the noise."""

from dataclasses import replace

from lepton_flwr.config import RunConfig
from lepton_flwr.privacy.accounting import calibrate
from lepton_flwr.secagg.graph import default_floor
from strategies.budgets import statistics_event


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
