"""Devices with raw tables and a data scientist at their server, as real processes."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stage import keep_warm

from lepton_flwr.crypto.encrypted_file import encrypt_file
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.device import Device
from lepton_flwr.privacy.events import SampledGaussian, Unit

DEVICES = 3
# Two of which have one feature once in a thousand runs: no pair of them decides much.
HEAVY, LIGHT = ("007", "008", "009"), ("8", "9", "10")
SCHEMA = """
label = "ill"
classes = ["no", "yes"]
[columns]
age = { kind = "number", low = 0, high = 120 }
plan = "category"
"""
# The ten lines, at the server; what is printed is checked.
SCRIPT = """
import json
import sys
import pandas as pd
from lepton_flwr import LeptonClient

data = pd.read_csv(sys.argv[1], dtype={"plan": str})
X = data.iloc[:, :-1].values
y = data.iloc[:, -1].values
client = LeptonClient(
    federation=sys.argv[2], key_store=sys.argv[3], rounds=1, local_steps=40, epsilon=8.0
)
client.preprocess_data(X, y)
client.encrypt_data()
client.add_differential_privacy_noise()
client.federated_learning()
model_params = client.get_model_params()
client.decrypt_model_params(model_params)
# With their quotes: three letters stand in ciphertext by chance, once in thousands of runs.
names = [json.dumps(json.dumps(name))[1:-1].encode() for name in ("plan", "age")]
assert all(name in client._model.to_bytes() for name in names)
assert not any(name in model_params for name in names)
predictions = client.predict(X)
print("RIGHT", float((predictions == y).mean()))
print("FOLDER", client.folder)
"""


def table(path, rows, seed):
    """Rows of which old people on heavy plans are ill."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "plan", "ill"])
        for _ in range(rows):
            age, plan = int(rng.integers(0, 120)), str(rng.choice([*HEAVY, *LIGHT]))
            ill = age + (40 if plan in HEAVY else -40) > 60
            writer.writerow([age, plan, "yes" if ill else "no"])


@pytest.fixture
def federation(make_stage, tmp_path):
    """A running server and three running devices with tables, one of them encrypted."""
    (tmp_path / "schema.toml").write_text(SCHEMA)
    stage = make_stage(DEVICES, init=("--schema", tmp_path / "schema.toml"))
    for seed, device in enumerate(stage.devices):
        policy = device / "policy.toml"
        policy.write_text(policy.read_text().replace("epsilon = 3.0", "epsilon = 8.0"))
        (device / "data.npz").unlink()
        table(device / "data.csv", 600, seed)
        keep_warm(device)
    first = stage.devices[0]
    key = DecryptionKey.generate()
    key.save(first / "data.key")
    encrypt_file(first / "data.csv", first / "data.csv.lepton", [key.recipient])
    (first / "data.csv").unlink()
    stage.start_server()
    stage.start_devices()
    return stage.root, stage.server, stage.devices, stage.variables


@pytest.mark.slow
def test_the_ten_lines_learn_from_devices_that_keep_their_tables(federation):
    root, server, devices, variables = federation
    table(root / "mine.csv", 400, 99)
    (root / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, root / "script.py", root / "mine.csv", server, root / "keys"],
        env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line.count(" "))
    folder = Path(said["FOLDER"])
    assert folder.parent == server / "runs"
    assert float(said["RIGHT"]) > 0.7

    # Each device was charged for one question and one round, and lost nothing else.
    for device in map(Device.open, devices):
        with device.ledger() as ledger:
            history = ledger.history()
        first, second = (
            [c.event for c in entry.charges if c.unit is Unit.RECORD] for entry in history
        )
        (statistics,), (training,) = first, second
        assert statistics == SampledGaussian(statistics.noise_multiplier, 1.0, 1)
        assert statistics.noise_multiplier > 0
        assert training.steps_per_round == 40
    assert not (folder / "model.keras").exists()
    assert not (folder / "preprocessor.json").exists()

    # The pipeline travels with the model: a raw CSV, with the key of the one whom it is for.
    out = root / "predictions.csv"
    command = [
        sys.executable, "-m", "lepton_flwr.cli", "predict", folder, root / "mine.csv",
        "--key", root / "keys" / "models.key", "--out", out, "--unseen", "other",
    ]  # fmt: skip
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"accuracy {float(said['RIGHT']):.3f}"[:13] in done.stdout
    assert len(out.read_text().splitlines()) == 401
