import sys

import pytest

from lepton_flwr import cli


@pytest.fixture
def lepton(monkeypatch, capsys, tmp_path):
    """Runs a command in a folder of its own; gives exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("LEPTON_PASSPHRASE", "LEPTON_NEW_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lepton", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run
