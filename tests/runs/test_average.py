"""The model that a run leaves: the last one, or the mean of its second half."""

import numpy as np
import pytest

from lepton_flwr.config import RunConfig
from lepton_flwr.runs.folder import RunFolder


@pytest.mark.parametrize(("average", "left"), [(False, 4.0), (True, 3.5)])
def test_a_run_leaves_the_mean_of_its_second_half_if_it_is_asked_for(tmp_path, runs, average, left):
    found = []
    config = RunConfig.build({"scenario": "csv", "rounds": 4, "train": {"average": average}})
    folder = RunFolder(config, folder=tmp_path, save_model=lambda weights, path: (
        found.append(float(weights[0][0])), path.write_bytes(b"model")
    ))  # fmt: skip
    for number in range(1, 5):
        folder.round_finished(runs.record(number), [np.array([number], np.float32)])
    assert found[0] == 1.0
    assert found[-1] == left
