"""What tests of several folders share."""

import pytest
from hypothesis import HealthCheck, settings

# The same examples every time, however slow the machine is: a test does not fail by chance.
settings.register_profile(
    "lepton", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("lepton")


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
