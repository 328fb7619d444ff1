import inspect
import sys
from types import SimpleNamespace

import pytest

from strategies import pauses
from strategies.pauses import shorten_pauses

inflatable = pytest.importorskip("flwr.supercore.inflatable.inflatable_utils")


@pytest.fixture(autouse=True)
def defaults(monkeypatch):
    found = {**inflatable.pull_objects.__kwdefaults__, "initial_backoff": 1}  # as Flower has it
    monkeypatch.setattr(inflatable.pull_objects, "__kwdefaults__", found)
    return found


def test_the_flower_that_is_installed_asks_again_sooner(defaults):
    tries = []

    def pull(name):
        tries.append(name)
        if len(tries) == 1:
            raise inflatable.ObjectUnavailableError(name)
        return b"part"

    assert pauses._DEFAULT in inspect.signature(inflatable.pull_objects).parameters
    assert shorten_pauses()
    assert defaults["initial_backoff"] == pauses.FIRST_PAUSE
    assert inflatable.pull_objects(["a"], pull) == {"a": b"part"}
    assert len(tries) == 2


@pytest.mark.parametrize(
    "other",
    [
        None,
        SimpleNamespace(),
        SimpleNamespace(pull_objects=lambda names: names),
        SimpleNamespace(pull_objects=print),
    ],
)
def test_another_flower_keeps_its_pauses(monkeypatch, other, defaults):
    former = dict(defaults)
    monkeypatch.setitem(sys.modules, pauses._MODULE, other)
    assert not shorten_pauses()
    assert defaults == former
