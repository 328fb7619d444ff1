import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import lepton_flwr
from lepton_flwr.errors import FederationError
from simulations import app_bundle
from simulations.app_bundle import assemble

ROOT = Path(__file__).parents[2]
# The packages under test: the checkout's, or those of an installed wheel.
SITE = Path(lepton_flwr.__path__[0]).parent
PACKAGES = ("lepton_flwr", "strategies", "clients")
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def run(command, folder, **environment):
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **QUIET, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def python_files(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
        if "_app" not in path.parts
    }


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    return assemble(tmp_path_factory.mktemp("app"))


def test_the_app_is_the_packages_and_what_a_bundle_needs(app):
    assert app.name == "lepton-flwr"
    assert python_files(app) == python_files(SITE)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        assert (app / name).read_bytes() == (ROOT / name).read_bytes()
    others = {path for path in app.rglob("*") if path.is_file() and path.suffix != ".py"}
    assert others == {app / name for name in ("pyproject.toml", "README.md", "LICENSE")}


def test_an_incomplete_checkout_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.setattr(app_bundle, "_checkout", lambda: tmp_path)
    with pytest.raises(FederationError, match=r"reinstall lepton-flwr: .*README\.md"):
        assemble(tmp_path)


@pytest.mark.skipif(SITE != ROOT, reason="the tests above have run with the wheel")
def test_an_installed_wheel_assembles_the_same_app(app, tmp_path):
    site, place = tmp_path / "site", tmp_path / "place"
    place.mkdir()
    for package in (*PACKAGES, "simulations"):
        shutil.copytree(ROOT / package, site / package)
    (site / "lepton_flwr" / "_app").mkdir(exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", site / "lepton_flwr" / "_app")
    licenses = site / "lepton_flwr-0.1.0.dist-info" / "licenses"
    licenses.mkdir(parents=True)
    shutil.copy(ROOT / "LICENSE", licenses)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (licenses.parent / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: lepton-flwr\nVersion: 0.1.0\n\n{readme}", encoding="utf-8"
    )
    code = (
        "from pathlib import Path; from simulations.app_bundle import assemble\n"
        "assemble(Path('.').resolve())"
    )
    done = run([sys.executable, "-P", "-c", code], place, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    made = place / "lepton-flwr"
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        assert (made / name).read_bytes() == (app / name).read_bytes()
    assert python_files(made) == python_files(app)


@pytest.mark.slow
def test_flower_builds_a_bundle_from_which_both_apps_load(app, tmp_path):
    (tmp_path / "home").mkdir()
    flwr = str(Path(sys.executable).parent / "flwr")
    done = run([flwr, "build", "--app", str(app)], tmp_path, FLWR_HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stdout + done.stderr
    (bundle,) = tmp_path.glob("*.fab")
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert python_files(tmp_path / "unpacked") == python_files(SITE)
    components = tomllib.loads((app / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    code = "import sys, importlib\nfor name in sys.argv[1:]:\n"
    code += " module, _, attribute = name.partition(':')\n"
    code += " module = importlib.import_module(module)\n"
    code += " print(type(getattr(module, attribute)).__name__, module.__file__)\n"
    names = [components["components"][kind] for kind in ("serverapp", "clientapp")]
    done = run([sys.executable, "-c", code, *names], tmp_path / "unpacked")
    assert done.returncode == 0, done.stderr
    server, client = done.stdout.splitlines()
    assert server.split() == ["ServerApp", str(tmp_path / "unpacked/strategies/server_app.py")]
    assert client.split() == ["ClientApp", str(tmp_path / "unpacked/clients/client_app.py")]
