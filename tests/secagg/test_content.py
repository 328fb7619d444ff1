"""The digest of a model and its settings: any change changes it."""

import numpy as np
import pytest

from lepton_flwr.secagg.content import content_digest
from lepton_flwr.secagg.errors import MessageError

MODEL = {
    "arrays": {"w": np.arange(4, dtype=np.float32), "b": np.zeros(2, np.float32)},
    "config": {"rate": 0.5, "rounds": 3, "name": "a", "raw": b"x", "on": True, "units": [1, 2]},
}


def changed(record, **values):
    return {**MODEL, record: {**MODEL[record], **values}}


@pytest.mark.parametrize(
    "other",
    [
        changed("arrays", w=np.array([0, 1, 2, 4], np.float32)),
        changed("arrays", w=np.arange(4, dtype=np.int32)),
        changed("arrays", w=np.arange(4, dtype=np.float32).reshape(2, 2)),
        changed("arrays", v=np.zeros(1)),
        {**MODEL, "arrays": dict(reversed(MODEL["arrays"].items()))},
        {"other": MODEL["arrays"], "config": MODEL["config"]},
        {"arrays": MODEL["arrays"]},
        changed("config", rate=0.25),
        changed("config", rounds=4),
        changed("config", rounds=3.0),
        changed("config", name="b"),
        changed("config", name=b"a"),
        changed("config", raw="x"),
        changed("config", on=1),
        changed("config", on=False),
        changed("config", units=[1, 2, 3]),
        changed("config", units=[2, 1]),
        changed("config", units=[1.0, 2.0]),
    ],
)
def test_any_change_changes_it(other):
    assert content_digest(other) != content_digest(MODEL)


def test_the_same_content_has_the_same_digest():
    copy = {name: dict(record) for name, record in reversed(MODEL.items())}
    assert content_digest(copy) == content_digest(MODEL)


@pytest.mark.parametrize("value", [None, {1}, {"a": 1}])
def test_what_cannot_be_bound_is_refused(value):
    with pytest.raises(MessageError, match=type(value).__name__):
        content_digest(changed("config", name=value))
