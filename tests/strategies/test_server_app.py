"""What the server calls the records of its ledger."""

import contextlib
from pathlib import Path

import pytest

from lepton_flwr.config import RunConfig
from lepton_flwr.data.scenarios import get
from lepton_flwr.errors import ConfigError
from strategies import server_app


@pytest.fixture
def started(monkeypatch):
    """Federations that were begun, on devices that are not made."""
    federations = []
    monkeypatch.setattr(server_app, "simulated_devices", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(
        server_app, "federate", lambda _, federation, *__: federations.append(federation)
    )
    return federations


def test_simulated_devices_have_the_account_of_their_records_whatever_the_seed(started):
    for seed in (1, 2):
        config = RunConfig.build(get("smoke").defaults, {"scenario": "smoke", "seed": seed})
        data = get("smoke").load(config)
        server_app.serve(None, 1, server_app.with_data(config, data), data, None, Path())
    one, two = (federation.origin.population for federation in started)
    assert one == two
    assert len(one) == 32


@pytest.mark.parametrize("text", ["x" * 64, "ab", "0" * 63, "00" * 33])
def test_a_name_of_records_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match=f"population of {len(text)} characters: expected 64"):
        server_app._population(text)
    assert server_app._population("00" * 32) == bytes(32)
    assert server_app._population("") == server_app.DEVICES_POPULATION
