"""What tests of several folders share."""

import pytest
from hypothesis import HealthCheck, settings

# No run fails by chance, or because the machine is busy: the same examples every time, and no
# clock. `pytest --hypothesis-profile explore` draws others, and more of them.
_UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("gate", derandomize=True, **_UNTIMED)
settings.register_profile("explore", max_examples=1000, **_UNTIMED)
settings.load_profile("gate")


def pytest_collection_modifyitems(config, items):
    """The whole fault suite takes long: only `-m` with its name takes tests of it."""
    if "faults" in config.option.markexpr:
        return
    left = [item for item in items if item.get_closest_marker("faults")]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


@pytest.fixture
def make_stage():
    """From a number of devices to a real federation of them (tests/faults/stage.py)."""
    from stage import stages

    with stages() as make:
        yield make
