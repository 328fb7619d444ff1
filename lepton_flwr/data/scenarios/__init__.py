"""The scenarios by name. Importing them is light: what reads data is imported when data is read."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from lepton_flwr.data.scenario import Scenario
from lepton_flwr.data.scenarios import (
    ads,
    credit,
    csv,
    customers,
    health,
    image,
    iot,
    smoke,
    transport,
)
from lepton_flwr.errors import ConfigError

_MODULES = (transport, health, credit, ads, customers, iot, image, smoke, csv)

SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {module.SCENARIO.name: module.SCENARIO for module in _MODULES}
)


def get(name: str) -> Scenario:
    """The scenario of that name.

    Raises:
        ConfigError: there is none; the message has the nearest name, or all.
    """
    if name not in SCENARIOS:
        near = difflib.get_close_matches(name, SCENARIOS, 1)
        hint = f"did you mean {near[0]}?" if near else "known: " + ", ".join(SCENARIOS)
        raise ConfigError(f"unknown scenario {name}: {hint}")
    return SCENARIOS[name]
