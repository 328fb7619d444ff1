"""What the packages and the README say of themselves."""

import re
import tomllib
from pathlib import Path

import pytest

import clients
import lepton_flwr
import simulations
import strategies
from lepton_flwr.data.scenarios import SCENARIOS
from lepton_flwr.device import Device
from simulations.app_bundle import assemble

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def project(tmp_path):
    return tomllib.loads((assemble(tmp_path) / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_is_the_projects(project):
    assert project["project"]["version"] == lepton_flwr.__version__


@pytest.mark.parametrize("package", [lepton_flwr, strategies, clients, simulations])
def test_packages_are_marked_as_typed(package):
    assert (Path(package.__path__[0]) / "py.typed").is_file()


def test_a_device_needs_neither_ray_nor_pandas(project):
    needed = {re.match(r"[\w-]+", text)[0] for text in project["project"]["dependencies"]}
    assert "flwr" in needed
    assert not needed & {"ray", "pandas", "scikit-learn", "matplotlib", "tensorflow-privacy"}
    assert not any("flwr[simulation]" in text for text in project["project"]["dependencies"])


def test_readme_lists_the_scenarios():
    listed = re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE)
    assert listed == list(SCENARIOS)


def test_readme_shows_how_to_make_a_device_folder(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    (code,) = (block for block in blocks if "Authority" in block)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    device = Device.open(tmp_path / "device-7")
    assert device.policy.min_survivors == 5
    assert device.data().x_train.shape == (80, 30)
    certificate, message = device.identity.certificate, b"anything"
    assert device.roster.verify(certificate, message, device.identity.sign(message))
