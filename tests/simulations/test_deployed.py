"""A round on real devices gives what a simulated one does."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lepton_flwr.deploy.warm import FLOWER_VERSIONS
from simulations.benchmarks.round_latency import SIZE, measure
from simulations.measured.client import fixed_update, fixed_weight
from simulations.measured.server import MODEL_FILE

ROOT = Path(__file__).parents[2]
NODES = 3
SIMULATE = """
import sys
import numpy as np
from simulations.measured.simulated import simulate

nodes, rounds, size = map(int, sys.argv[2:])
np.savez(sys.argv[1], *simulate(nodes, rounds, size))
"""


def load(path):
    with np.load(path) as file:
        return [file[name] for name in file.files]


@pytest.mark.slow
def test_the_model_of_deployed_rounds_is_that_of_simulated_ones_bit_for_bit(tmp_path, monkeypatch):
    """Processes, TLS, gate, chunks of messages, and a warm launcher change nothing.

    Fixed updates, no noise. Two rounds: the second starts from the first one's model.
    """
    warm = importlib.metadata.version("flwr") in FLOWER_VERSIONS
    settings = dict.fromkeys((0, 1), 'warm = "flower"\n') if warm else {}
    deployed, simulated = tmp_path / "deployed", tmp_path / "simulated.npz"
    deployed.mkdir()
    monkeypatch.delenv("FLWR_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    _, messages = measure(deployed, NODES, 2, settings)
    done = subprocess.run(
        [sys.executable, "-c", SIMULATE, str(simulated), str(NODES), "2", str(SIZE)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ours, theirs = load(deployed / "out" / MODEL_FILE), load(simulated)
    assert [array.dtype for array in ours] == [np.float32] * 2 + [np.float64] * 2
    assert [array.shape for array in ours] == [array.shape for array in theirs]
    assert [array.tobytes() for array in ours] == [array.tobytes() for array in theirs]

    # And it is the weighted mean of the updates, to the resolution of the secure sum.
    weights = np.array([fixed_weight(number) for number in range(NODES)])
    shapes = [array.shape for array in ours[:2]]
    expected = [np.zeros(shape) for shape in shapes]
    for server_round in (1, 2):
        for number in range(NODES):
            share = weights[number] / weights.sum()
            update = fixed_update(number, server_round, shapes)
            expected = [a + share * b for a, b in zip(expected, update, strict=True)]
    for array, total in zip(ours[:2], expected, strict=True):
        np.testing.assert_allclose(array, total, atol=1e-5)

    # A process for each message, and those of warm devices are forks of a launcher.
    assert len(messages) == NODES * 2 * 5
    launched = {message["node"] for message in messages if "forkserver.py" in message["parent"]}
    assert len(launched) == (2 if warm else 0)
    for message in messages:
        program = "forkserver.py" if message["node"] in launched else "flower-superexec"
        assert program in message["parent"], json.dumps(message)
    # All that Flower keeps of the run's app lies in the device's own folder.
    for device in (deployed / "fed" / "devices").iterdir():
        assert list((device / "flower" / "apps").rglob("*.py")), device
    assert not (tmp_path / "home" / ".flwr" / "apps").exists()
