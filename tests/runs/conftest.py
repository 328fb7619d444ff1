"""Synthetic runs: what renderers draw is not their concern."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from lepton_flwr.config import RunConfig
from lepton_flwr.runs.history import History
from lepton_flwr.runs.observer import RoundRecord, RunEnd, RunStart

HOSTILE = '17 of 29 answered <script>alert("x")</script> {{ 7 * 7 }} [red]\x1b[2J\n& more'


def make_record(number: int, rounds: int = 10, **changes: object) -> RoundRecord:
    values: dict[str, object] = {
        "round": number,
        "status": "ok",
        "reason": "",
        "participants": 29,
        "survivors": 28,
        "accuracy": 0.70 + 0.01 * number / rounds,
        "auc": 0.60 + 0.1 * number / rounds,
        "loss": 0.7 - 0.1 * number / rounds,
        "epsilon_record": 3 * math.sqrt(number / rounds),
        "epsilon_client": None,
        "bytes_up": 11_000 + number,
        "bytes_down": 14_000,
        "saturated": 0,
        "seconds": {"keys": 0.1, "train": 2.0, "evaluate": 0.5},
    }
    return RoundRecord(**{**values, **changes})


def make_start(rounds: int = 10, *, record: bool = True, client: bool = False) -> RunStart:
    dp = {"record": {"enabled": record}, "client": {"enabled": client}}
    config = RunConfig.build({"scenario": "smoke", "rounds": rounds, "dp": dp})
    sentence = "The server learns only sums over at least 20 clients."
    return RunStart(config, "Tumours <b>benign</b> or not", 29, 1345, (sentence,), 1.02, None)


def make_end(reason: str = "finished", *, roc: bool = True) -> RunEnd:
    curve = [(0.0, 0.0), (0.2, 0.6), (1.0, 1.0)] if roc else None
    return RunEnd(reason, curve, 1e-5, "PLD")


class Runs:
    """Everything above, as one fixture."""

    hostile = HOSTILE
    record = staticmethod(make_record)
    start = staticmethod(make_start)
    end = staticmethod(make_end)
    weights = (np.zeros((2, 3), np.float32), np.ones(3, np.float32))

    @staticmethod
    def history(
        rounds: int = 10,
        *,
        change: Callable[[RoundRecord], RoundRecord] = lambda record: record,
        reason: str = "finished",
        roc: bool = True,
        record: bool = True,
        client: bool = False,
    ) -> History:
        records = [change(make_record(i, rounds)) for i in range(1, rounds + 1)]
        start = make_start(max(rounds, 1), record=record, client=client)
        return History(start, records, make_end(reason, roc=roc), 33.2)


@pytest.fixture
def runs() -> type[Runs]:
    return Runs
