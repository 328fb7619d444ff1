"""What a run says of its privacy beside the number."""

import contextlib

import pytest

from lepton_flwr.config import RunConfig
from lepton_flwr.privacy.events import SampledGaussian, Unit
from lepton_flwr.privacy.ledger import Charge, Ledger
from strategies.budgets import LEDGER_FILE, Budgets
from strategies.guarantees import guarantees

POPULATION = bytes(range(32))
CONFIG = RunConfig.build(
    {
        "scenario": "smoke",
        "clients": 5,
        "rounds": 2,
        "dp": {
            "record": {"enabled": False},
            "client": {"enabled": True, "noise_multiplier": 5.0},
        },
    }
)


@pytest.mark.parametrize("unit", list(Unit))
def test_a_statement_names_releases_that_its_epsilon_cannot_count(tmp_path, unit):
    with Ledger(tmp_path / LEDGER_FILE) as ledger:
        for population in (POPULATION, bytes(32)):
            charge = Charge(unit, ledger.dataset(population), SampledGaussian(2.0, 1.0, 1))
            ledger.reserve([charge], {}, "earlier, round 1")
    with contextlib.closing(Budgets.open(tmp_path, CONFIG, "run", POPULATION)) as budgets:
        assert budgets.unaccounted(Unit.CLIENT) == (unit is Unit.RECORD)
        (sentence,) = (s for s in guarantees(CONFIG, (), budgets, 2) if s.startswith("Client"))
    left_out = "1 releases that the ledger accounts per record only"
    assert (left_out in sentence) == (unit is Unit.RECORD)
    assert ("that earlier runs had spent" in sentence) == (unit is Unit.CLIENT)
