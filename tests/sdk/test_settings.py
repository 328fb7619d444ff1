"""Options: each is checked by its name."""

import pytest

from lepton_flwr import LeptonClient
from lepton_flwr.errors import ConfigError
from lepton_flwr.sdk.settings import Settings

WRONG = {
    "participants": (2, 0, 2.5, True, "5"),
    "partition": ("by town", None),
    "alpha": (0, float("nan"), "a"),
    "test_fraction": (0, 0.6, float("nan")),
    "bounds": ([0, 1],),
    "epsilon": (0, -1, float("inf"), float("nan"), "3"),
    "delta": (0, 1, float("nan")),
    "mechanism": ("none", ""),
    "statistics_share": (0, 1),
    "model": ("mlp", (), (0,), (2.5,), 32),
    "rounds": (0, 1.5),
    "local_steps": (0,),
    "learning_rate": (0, float("inf")),
    "sampling_probability": (0, 1.1),
    "l2_norm_clip": (0,),
    "key_store": (7,),
    "encryption": ("aes", "rot13"),
    "ledger": (7,),
    "out": (7,),
    "federation": (7,),
    "seed": (-1, 1.0),
    "progress": (1,),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_option_is_refused_by_its_name_in_one_line(name, value):
    with pytest.raises(ConfigError) as caught:
        Settings(**{name: value})
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_is_told_the_nearest():
    with pytest.raises(ConfigError, match="unknown option epsilom: did you mean epsilon"):
        LeptonClient(epsilom=2.0)


@pytest.mark.parametrize("options", [{"partition": "natural"}, {"by": "town"}])
def test_natural_participants_need_their_column_and_only_they(options):
    with pytest.raises(ConfigError, match='expected partition="natural" with by'):
        Settings(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"partition": "dirichlet"}, {"partition": "natural", "by": "town"}, {"alpha": 0.5},
        {"test_fraction": 0.3}, {"bounds": {"age": [0, 120]}}, {"mechanism": "laplace"},
    ],
)  # fmt: skip
def test_what_divides_or_perturbs_one_table_contradicts_a_federation(options):
    name = min(options)
    with pytest.raises(ConfigError, match=r"with federation: .*|expected mechanism") as caught:
        LeptonClient(federation="clinics/server", **options)
    assert str(caught.value).startswith((name, max(options)))


def test_defaults_are_private():
    settings = Settings()
    assert settings.epsilon == 3.0
    assert settings.mechanism == "training"
    assert settings.store.name == ".lepton"


@pytest.mark.parametrize(
    ("rows", "delta"), [(50, 1e-5), (10_000, 1e-5), (10_001, 1e-6), (1_000_000, 1e-7)]
)
def test_delta_is_at_most_a_tenth_of_one_over_the_rows(rows, delta):
    assert Settings().delta_for(rows) == pytest.approx(delta)
    assert Settings().delta_for(rows) <= 0.1 / rows * (1 + 1e-9)
    assert Settings(delta=1e-3).delta_for(rows) == 1e-3
