"""The script of the README, on a file, with the real simulation."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lepton_flwr import LeptonClient
from lepton_flwr.data.preprocessing import support
from lepton_flwr.sdk import ModelEnvelope, OrderError
from simulations.benchmarks.sdk_tables import TEN_LINES

ROOT = Path(__file__).parents[2]


def test_the_readme_and_the_benchmark_show_the_same_lines():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert TEN_LINES.format(file="customer_data.csv") in text


@pytest.mark.slow
def test_the_ten_lines_of_the_readme_work_on_a_file(tmp_path, table):
    """As a user starts them: a process, a home of its own, nothing else set."""
    (lines,) = re.findall(
        r"```python\n(.*?LeptonClient\(\).*?)```",
        (ROOT / "README.md").read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    table(3000).to_csv(tmp_path / "customer_data.csv", index=False)
    script = f"import matplotlib\nmatplotlib.use('agg')\n{lines}\n" + (
        "plt.savefig('picture.png')\n"
        "model_params.save('model.lepton')\n"
        "import numpy as np\n"
        "np.save('predictions.npy', predictions.text)\n"
        "print('report:', client.report())\n"
    )
    (tmp_path / "script.py").write_text(script)
    process = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "script.py"],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "-differentially private under adding or removing one record" in process.stdout
    assert "round 10/10: AUC" in process.stderr
    assert (tmp_path / "picture.png").stat().st_size > 5000

    frame = pd.read_csv(tmp_path / "customer_data.csv")
    y = frame.iloc[:, -1].to_numpy()
    predictions = np.load(tmp_path / "predictions.npy")
    report = tmp_path / process.stdout.rpartition("report: ")[2].strip()
    assert "differentially private" in report.read_text(encoding="utf-8")
    summary = json.loads((report.parent / "summary.json").read_text())
    assert (summary["status"], summary["clients"], summary["rounds"]) == ("finished", 3, 10)
    assert 2.9 < summary["epsilon_record"] <= 3.0
    left = {path.name for path in report.parent.rglob("*")}
    assert {"model.keras.lepton", "preprocessor.json.lepton"} <= left
    assert not left & {"model.keras", "preprocessor.json"}

    # Another day: the key store opens the kept envelope, and another key store does not.
    client = LeptonClient(key_store=tmp_path / ".lepton")
    client.decrypt_model_params(ModelEnvelope.load(tmp_path / "model.lepton"))
    assert client.predict(frame.iloc[:, :-1].values).text.tolist() == predictions.tolist()
    (age,) = (one for one in client._model.preprocessor.columns if one.name == "column 0")
    # Noise alone widens bounds in one run of a hundred (`support.FAILURE`): then age tells little.
    if age.high - age.low < 150:
        assert 0.75 < (predictions == y).mean() < 0.99

    # And the command line, on the same file: the script gave an array, so columns go by position.
    process = subprocess.run(
        [sys.executable, "-m", "lepton_flwr.cli", "predict", report.parent,
         tmp_path / "customer_data.csv", "--key", tmp_path / ".lepton" / "models.key",
         "--unseen", "other", "--out", tmp_path / "out.csv"],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    found = pd.read_csv(tmp_path / "out.csv", dtype=str, keep_default_na=False)
    assert found["prediction"].tolist() == predictions.tolist()
    assert f"accuracy {(predictions == y).mean():.3f}" in process.stdout


@pytest.mark.slow
def test_perturbed_rows_are_learnt_from_and_the_report_says_so(make, rows, monkeypatch):
    # Else noise alone widens a column's bounds in one run of a hundred, and hides what is in it.
    monkeypatch.setattr(support, "FAILURE", 1e-12)
    client = make(mechanism="gaussian", epsilon=400.0, local_steps=20)
    client.preprocess_data(*rows)
    client.encrypt_data()
    client.add_differential_privacy_noise()
    client.federated_learning()
    with pytest.raises(OrderError, match="federated_learning was called already"):
        client.federated_learning()
    client.decrypt_model_params(client.get_model_params())
    assert (client.predict(rows[0]) == rows[1]).mean() > 0.7
    text = client.report().read_text(encoding="utf-8")
    assert "Perturbed inputs (Gaussian noise)" in text
    assert "Differential privacy was off" not in text
    assert "No differential privacy" not in text
