import re
from pathlib import Path

from lepton_flwr.crypto import errors
from lepton_flwr.crypto.errors import EnvelopeError

PAGE = (Path(__file__).parents[2] / "docs" / "encryption.md").read_text(encoding="utf-8")


def test_the_example_of_the_page_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(code, {})  # noqa: S102 - it is ours
    assert (tmp_path / "found.csv").read_bytes() == (tmp_path / "rows.csv").read_bytes()


def test_the_page_lists_every_error_of_encrypted_data():
    named = {
        name
        for name, error in vars(errors).items()
        if isinstance(error, type) and issubclass(error, EnvelopeError)
    }
    assert named - {"EnvelopeError"} == set(re.findall(r"`(\w+Error)`", PAGE))
