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
