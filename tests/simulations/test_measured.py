"""The app for measuring, as Flower loads it out of its bundle."""

import subprocess
import sys
from pathlib import Path

import pytest

from simulations.measured import FIXED, REAL, SERVER, bundle

ROOT = Path(__file__).parents[2]
LOAD = """
import sys
from flwr.supercore.object_ref import load_app
app = load_app(sys.argv[2], RuntimeError, sys.argv[1])
print(type(app).__name__, sys.modules["lepton_flwr"].__file__, "tensorflow" in sys.modules)
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    return bundle(tmp_path_factory.mktemp("app"), client=REAL, server=None)


@pytest.mark.parametrize(("name", "kind"), [(FIXED, "Traced"), (REAL, "Traced")])
def test_its_clients_load_out_of_the_bundle_without_tensorflow(app, name, kind):
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOAD, str(app), name],
        cwd=app.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [kind, str(app / "lepton_flwr" / "__init__.py"), "False"]


def test_its_components_are_those_that_were_asked_for(tmp_path, app):
    text = (app / "pyproject.toml").read_text()
    assert f'clientapp = "{REAL}"' in text
    assert 'serverapp = "strategies.server_app:app"' in text
    fixed = (bundle(tmp_path) / "pyproject.toml").read_text()
    assert f'clientapp = "{FIXED}"' in fixed
    assert f'serverapp = "{SERVER}"' in fixed
    assert '"/measured/*.py"' in fixed
    assert (app / "measured" / "trace.py").is_file()
