from pathlib import Path

import keras
import numpy as np

from lepton_flwr.training.private import PrivateTrainer

PAGE = Path(__file__).parents[2] / "docs" / "private-training.md"


def test_the_example_of_the_page_runs_as_printed(monkeypatch):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (400, 28, 28), np.uint8)
    y = rng.integers(0, 10, 400)
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: ((x, y), (x[:50], y[:50])))
    code = PAGE.read_text().split("```python\n")[1].split("```")[0]
    names = {}
    exec(code, names)  # noqa: S102 - it is ours
    trainer = names["trainer"]
    assert isinstance(trainer, PrivateTrainer)
    assert 2.9 < trainer.epsilon() <= 3.0
