"""The model of a run: the mean of its later rounds."""

import numpy as np
import pytest

from lepton_flwr.runs.observer import RoundRecord
from lepton_flwr.sdk.learning import Weights


def finish(weights, number, value, status="ok"):
    record = RoundRecord(
        number, status, "" if status == "ok" else "nobody came", 3, 3,
        None, None, None, None, None, 0, 0, 0,
    )  # fmt: skip
    weights.round_finished(record, [np.full((2, 1), value, np.float32), np.array([value])])


def average(weights):
    kernel, bias = weights.average()
    assert kernel.shape == (2, 1)
    assert (kernel == bias[0]).all()
    return float(bias[0])


@pytest.mark.parametrize(("rounds", "mean"), [(1, 1.0), (2, 2.0), (3, 2.5), (4, 3.5), (10, 8.0)])
def test_rounds_of_the_second_half_are_averaged(rounds, mean):
    weights = Weights(rounds)
    for number in range(1, rounds + 1):
        finish(weights, number, float(number))
    assert average(weights) == mean


def test_a_run_that_ends_early_has_its_last_round():
    weights = Weights(10)
    assert not weights.learnt
    for number in (1, 2, 3):
        finish(weights, number, float(number))
    assert weights.learnt
    assert average(weights) == 3.0


def test_skipped_rounds_do_not_count():
    weights = Weights(4)
    finish(weights, 1, 1.0)
    finish(weights, 2, 9.0, "skipped")
    finish(weights, 3, 3.0)
    finish(weights, 4, 9.0, "skipped")
    assert average(weights) == 3.0
    assert weights.reason == "nobody came"
