from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "inference.md"


def test_the_example_of_the_page_runs_as_printed(monkeypatch, tmp_path):
    """Twenty of twenty agree: noise of 2.2 votes turns an answer with a chance below 1e-10."""
    monkeypatch.chdir(tmp_path)
    code = PAGE.read_text().split("```python\n")[1].split("```")[0]
    names = {
        "models": [lambda rows: np.eye(2)[(rows[:, 0] > 0).astype(int)]] * 20,
        "rows": np.array([[1.0, 0.0], [-1.0, 0.0]]),
    }
    exec(code, names)  # noqa: S102 - it is ours
    answers = names["answers"]
    assert answers.labels.tolist() == [1, 0]
    assert answers.participants == 20
    assert 3.9 < answers.epsilon <= 4.0
