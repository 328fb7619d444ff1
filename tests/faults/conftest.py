"""A real federation of eight devices; `make_stage` of tests/conftest.py makes smaller ones."""

import pytest


@pytest.fixture
def stage(make_stage):
    """Of eight devices."""
    return make_stage()
