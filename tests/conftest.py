"""What tests of several folders share."""

import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def make_stage():
    """From a number of devices to a real federation of them (tests/faults/stage.py).

    Nothing that it started is left afterwards.
    """
    from stage import Stage

    roots, stages = [], []

    def make(devices=8, **options):
        roots.append(Path(tempfile.mkdtemp(prefix="lt-")))  # short, as sockets want it
        stages.append(Stage(roots[-1], devices, **options))
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()
    for root in roots:
        shutil.rmtree(root)
