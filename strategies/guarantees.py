"""What a run promises, in sentences."""

from collections.abc import Sequence

from lepton_flwr.config import RunConfig
from lepton_flwr.privacy.accounting import Unit
from lepton_flwr.secagg.graph import MAX_COMPLETE
from strategies.budgets import Budgets


def guarantees(
    config: RunConfig, promises: Sequence[str], budgets: Budgets, rounds: int
) -> tuple[str, ...]:
    """Plain sentences, one for each promise, for the whole run.

    Args:
        config: the run.
        promises: what was promised of the records before any training.
        budgets: the server's.
        rounds: rounds that are still to come.
    """
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
        if left_out := budgets.unaccounted(unit):
            other = Unit.CLIENT if unit is Unit.RECORD else Unit.RECORD
            assumptions[unit] += (
                f"{left_out} releases that the ledger accounts per {other.value} only, by earlier "
                "runs or of statistics, are left out",
            )
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
