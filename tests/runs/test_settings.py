from pathlib import Path

import pytest

from lepton_flwr.config import RunConfig
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.errors import ConfigError
from lepton_flwr.runs import settings
from lepton_flwr.runs.settings import resolve


@pytest.fixture(autouse=True)
def _defaults(monkeypatch):
    known = {
        "transport": {"rounds": 11, "train": {"local_steps": 40}},
        "smoke": {"rounds": 2, "train": {"local_steps": 5, "learning_rate": 0.3}},
    }
    monkeypatch.setattr(settings, "scenario_defaults", known.__getitem__)


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_the_default_scenario_brings_its_settings():
    config = resolve()
    assert (config.scenario, config.rounds, config.train.local_steps) == ("transport", 11, 40)


def test_later_layers_win_key_by_key(tmp_path):
    path = toml(tmp_path, "rounds = 3\nseed = 8\n[train]\nlocal_steps = 6\n")
    config = resolve("smoke", config=path, rounds=4, assignments=["rounds=5"])
    assert config.rounds == 5
    assert resolve("smoke", config=path, rounds=4).rounds == 4
    assert resolve("smoke", config=path).rounds == 3
    assert (config.seed, config.train.local_steps, config.train.learning_rate) == (8, 6, 0.3)


@pytest.mark.parametrize(
    ("argument", "assignments", "expected"),
    [(None, [], "smoke"), ("transport", [], "transport"), (None, ["scenario=transport"], None)],
)
def test_the_scenario_comes_from_the_last_layer_that_names_one(
    tmp_path, argument, assignments, expected
):
    path = toml(tmp_path, 'scenario = "smoke"\n')
    config = resolve(argument, config=path, assignments=assignments)
    assert config.scenario == (expected or "transport")
    assert config.rounds == {"smoke": 2, "transport": 11}[config.scenario]


def test_a_resolved_configuration_repeats_itself(tmp_path):
    import tomli_w

    first = resolve("smoke", clients=7, epsilon=1.5, client_epsilon=6, seed=3)
    assert resolve(config=toml(tmp_path, tomli_w.dumps(first.to_dict()))) == first


def test_an_epsilon_option_turns_privacy_on_and_calibrates(tmp_path):
    path = toml(
        tmp_path,
        "[dp.record]\nenabled = false\nnoise_multiplier = 0.1\n[dp.client]\nnoise_multiplier = 9\n",
    )
    record = resolve(config=path, epsilon=2).dp.record
    assert (record.enabled, record.epsilon, record.noise_multiplier) == (True, 2.0, 0.0)
    client = resolve(config=path, client_epsilon=5).dp.client
    assert (client.enabled, client.epsilon, client.noise_multiplier) == (True, 5.0, 0.0)


def test_no_dp_turns_both_levels_off(tmp_path):
    config = resolve(config=toml(tmp_path, "[dp.client]\nenabled = true\n"), no_dp=True)
    assert not config.dp.record.enabled
    assert not config.dp.client.enabled


@pytest.mark.parametrize("option", ["epsilon", "client_epsilon"])
def test_no_dp_contradicts_an_epsilon(option):
    with pytest.raises(ConfigError, match="contradict"):
        resolve(no_dp=True, **{option: 3.0})


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf")])
def test_an_epsilon_that_is_no_budget_is_refused(epsilon):
    with pytest.raises(ConfigError, match=r"dp\.record\.epsilon"):
        resolve(epsilon=epsilon)


@pytest.mark.parametrize(
    ("text", "message"),
    [("rouns = 3", "did you mean rounds"), ("rounds = ", "not TOML"), ("dp = 3", "dp=3")],
)
def test_a_typing_error_in_the_file_is_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        resolve(config=toml(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        resolve(config=tmp_path / "absent.toml")


def test_defaults_alone_are_a_run_config():
    assert isinstance(resolve("smoke"), RunConfig)


def test_a_csv_file_chooses_its_scenario_and_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "scenario_defaults", lambda name: {"rounds": 4})
    monkeypatch.chdir(tmp_path)
    config = resolve(csv=Path("t.csv"), label="y", by="site", rounds=3)
    assert (config.scenario, config.rounds) == ("csv", 3)
    assert (config.data.path, config.data.label, config.data.by) == (
        str(tmp_path / "t.csv"), "y", "site",
    )  # fmt: skip
    # What was written down repeats it, and an option changes it.
    path = toml(tmp_path, f'scenario = "csv"\n[data]\npath = "{tmp_path}/t.csv"\nlabel = "y"\n')
    assert resolve(config=path).data.label == "y"
    assert resolve(config=path, label="z").data.label == "z"


def test_a_csv_file_with_another_scenario_is_refused():
    with pytest.raises(ConfigError, match="--csv with scenario smoke"):
        resolve("smoke", csv=Path("t.csv"))


def test_recipients_are_read_into_the_configuration_itself(tmp_path):
    recipient = DecryptionKey.generate().recipient
    recipient.save(tmp_path / "alice.key.pub")
    config = resolve("smoke", model_to=[tmp_path / "alice.key.pub"])
    assert config.output.model_to == (recipient.to_text().strip(),)
    assert RunConfig.build(config.to_dict()) == config
    assert resolve("smoke").output.model_to == ()


def test_what_is_no_recipient_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"alice\.pub"):
        resolve("smoke", model_to=[tmp_path / "alice.pub"])
    with pytest.raises(ConfigError, match="recipient"):
        resolve("smoke", config=toml(tmp_path, '[output]\nmodel_to = ["alice"]'))
    with pytest.raises(ConfigError, match="list of recipients"):
        resolve("smoke", config=toml(tmp_path, "[output]\nmodel_to = [1]"))
