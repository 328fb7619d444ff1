import math

import pytest

from lepton_flwr.errors import ConfigError
from lepton_flwr.inference.request import Request
from lepton_flwr.privacy import losses
from lepton_flwr.privacy.events import Unit
from lepton_flwr.privacy.ledger import Limit
from lepton_flwr.privacy.votes import ConfidentGNMax, GNMax, MeanProbabilities, Plurality


@pytest.mark.parametrize("queries", [1, 7, 200])
@pytest.mark.parametrize("epsilon", [0.3, 2.0, 9.0])
def test_all_answers_together_cost_no_more_than_was_asked_for(epsilon, queries):
    def cost(*events):
        return losses.epsilon([(event, 1) for event in events], 1e-5)

    plain = Request(epsilon).votes(queries)
    assert isinstance(plain, GNMax)
    confident = Request(epsilon, threshold=3.0).votes(queries)
    assert isinstance(confident, ConfidentGNMax)
    means = Request(epsilon, probabilities=True).averages(queries)
    for spent in (
        cost(plain.event(queries)),
        cost(confident.event(queries), confident.answer.event(queries)),
        cost(means.event(queries)),
    ):
        assert 0.998 * epsilon < spent <= epsilon


def test_without_an_epsilon_answers_are_exact_and_nothing_limits_them():
    exact = Request(None)
    assert exact.votes(3) == Plurality()
    assert exact.averages(3) == MeanProbabilities(0.0)
    assert exact.limits == {}


def test_both_units_are_limited_by_the_cost_if_nothing_else_is_said():
    assert Request(2.0, 1e-6).limits == dict.fromkeys(Unit, (Limit(2.0, 1e-6),))
    assert Request(2.0, limit=5.0).limits == dict.fromkeys(Unit, (Limit(5.0, 1e-5),))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"epsilon": 0.0}, "epsilon=0.0"),
        ({"epsilon": math.nan}, "epsilon=nan"),
        ({"epsilon": math.inf}, "epsilon=inf"),
        ({"delta": 0.0}, "delta=0"),
        ({"delta": 1.0}, "delta=1"),
        ({"limit": 1.0}, "limit=1: expected at least the 2 of the answers"),
        ({"limit": math.inf}, "limit=inf"),
        ({"threshold": -1.0}, "threshold=-1"),
        ({"threshold": 2.0, "probabilities": True}, "contradict"),
        ({"epsilon": None, "threshold": 2.0}, "without privacy"),
        ({"epsilon": None, "limit": 2.0}, "without privacy"),
        ({"probabilities": 1}, "expected true or false"),
    ],
)
def test_what_contradicts_itself_is_refused(fields, told):
    with pytest.raises(ConfigError, match=told):
        Request(**{"epsilon": 2.0, **fields})


@pytest.mark.parametrize("change", [{"limits": 2}, {"epsilon": "2"}, {"threshold": None}])
def test_only_what_was_written_is_read(change):
    whole = Request(2.0, limit=3.0, threshold=1.5).to_plain()
    assert Request.from_plain(whole) == Request(2.0, limit=3.0, threshold=1.5)
    with pytest.raises(ConfigError, match="expected"):
        Request.from_plain({**whole, **change})
    with pytest.raises(ConfigError, match="expected"):
        Request.from_plain({"epsilon": 2.0})
