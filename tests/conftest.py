"""What tests of several folders share."""

import pytest


@pytest.fixture
def make_stage():
    """From a number of devices to a real federation of them (tests/faults/stage.py)."""
    from stage import stages

    with stages() as make:
        yield make
