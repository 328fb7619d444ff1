"""Statistics of a simulation: charged to the server and to each device, in training's account."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from lepton_flwr.config import RunConfig
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.data.preprocessing import PREPROCESSOR_FILE, Preprocessor
from lepton_flwr.data.scenarios import get
from lepton_flwr.device import Device
from lepton_flwr.errors import ConfigError, DataError
from lepton_flwr.privacy import losses
from lepton_flwr.privacy.accounting import BudgetError
from lepton_flwr.privacy.events import SampledGaussian, Unbounded, Unit
from lepton_flwr.privacy.ledger import Ledger
from lepton_flwr.provision import provision
from lepton_flwr.runs.artifacts import read_preprocessor
from strategies.budgets import Budgets
from strategies.calibration import with_noise, with_statistics
from strategies.preparation import (
    DEVICES,
    prepare,
    prepare_again,
    run_name,
    spending_policy,
)

SITES = 3


@pytest.fixture
def csv(tmp_path) -> Path:
    """So many records that noise hides no column of them: then each costs all its releases."""
    rng = np.random.default_rng(0)
    rows = [
        f"{rng.uniform(20, 90):.3f},{rng.choice(['a', 'b', ''])},site{i % SITES},{i % 2}"
        for i in range(3600)
    ]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["age,plan,site,ill", *rows]) + "\n")
    return path


@pytest.fixture
def run(csv, tmp_path):
    def start(name="one", ledgers=None, **tables):
        base = {"scenario": "csv", "rounds": 2, "data": {"path": str(csv), "by": "site"}}
        config = RunConfig.build(get("csv").defaults, base, tables)
        folder = tmp_path / name
        folder.mkdir()
        return prepare(config, folder, ledgers or folder / "ledgers")

    return start


def entries(path: Path):
    with Ledger(path) as ledger:
        return ledger.history()


@pytest.mark.slow
def test_each_statistic_is_charged_to_the_server_and_to_every_device(run, tmp_path):
    made = run()
    record = made.config.dp.record
    event = SampledGaussian(record.statistics_noise_multiplier, 1.0, 1)
    assert record.statistics_releases == 3
    server = entries(tmp_path / "one" / "ledgers" / "server.db")
    assert [[c.event for c in e.charges] for e in server] == [[event]] * 3
    devices = sorted((tmp_path / "one" / "ledgers" / DEVICES).glob("*.db"))
    assert len(devices) == SITES
    for path in devices:
        charged = entries(path)
        assert all(entry.committed for entry in charged)
        assert [[(c.unit, c.event) for c in e.charges] for e in charged] == [
            [(Unit.RECORD, event), (Unit.CLIENT, Unbounded())]
        ] * 3


@pytest.mark.slow
def test_training_and_statistics_together_stay_within_epsilon_and_nearly_reach_it(run):
    config = run().config
    record, train = config.dp.record, config.train
    training = SampledGaussian(
        record.noise_multiplier, train.sampling_probability, train.local_steps
    )
    statistics = SampledGaussian(record.statistics_noise_multiplier, 1.0, 1)
    both = losses.epsilon([(training, config.rounds), (statistics, 3)], config.dp.delta)
    assert 0.98 * record.epsilon < both <= record.epsilon
    alone = losses.epsilon([(statistics, 3)], config.dp.delta)
    assert 0.98 * 0.3 * record.epsilon < alone <= 0.3 * record.epsilon
    # Without statistics the same epsilon needs less noise.
    without = with_noise(with_statistics(_recalibrated(config), 0)).dp.record
    assert without.noise_multiplier < record.noise_multiplier


def _recalibrated(config: RunConfig) -> RunConfig:
    return RunConfig.build(config.to_dict(), {"dp": {"record": {"noise_multiplier": 0.0}}})


def test_the_statement_names_statistics_and_does_not_count_them_as_an_earlier_run(run, tmp_path):
    made = run()
    ledgers = tmp_path / "one" / "ledgers"
    named = made.data.population
    with contextlib.closing(Budgets.open(ledgers, made.config, made.run, named)) as budgets:
        statement = budgets.statement(Unit.RECORD, 2, ())
    assert statement.epsilon_before == 0
    assert statement.epsilon <= 3
    assert "3 Gaussian releases of statistics for preprocessing" in statement.sentence()
    # Another run on the same ledger does.
    with contextlib.closing(Budgets.open(ledgers, made.config, "other", named)) as budgets:
        assert budgets.statement(Unit.RECORD, 2, ()).epsilon_before > 0


@pytest.mark.slow
def test_the_same_records_have_one_account_whatever_noise_their_statistics_had(run, tmp_path):
    """Statistics made anew give other features, and no fresh budget."""
    kept = tmp_path / "kept"
    loose = {"dp": {"record": {"epsilon": 3.0, "statistics_share": 0.7}}}
    first = run("one", kept, **loose)
    before = {path.name for path in (kept / DEVICES).glob("*.db")}
    with pytest.raises(BudgetError, match="the ledger allows no round"):
        run("two", kept, **loose)
    (kept / "server.db").unlink()  # a server that forgot: the devices have not
    (kept / "server.head").unlink()
    with pytest.raises(BudgetError, match="the budget per record does not allow"):
        run("three", kept, **loose)
    assert {path.name for path in (kept / DEVICES).glob("*.db")} == before
    folders = provision(
        tmp_path / "devices", first.data.clients, min_survivors=2,
        spending=spending_policy(first.config), ledgers=kept / DEVICES,
    )  # fmt: skip
    used = {Path(Device.open(folder).policy.spending.ledger).name for folder in folders}
    assert used == before
    for folder in folders:
        device = Device.open(folder)
        with device.ledger() as ledger:
            dataset = ledger.dataset(device.data_digest())
            assert ledger.spent(Unit.RECORD, dataset, 1e-5) > 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{"seed": 2}, {"clients": 4}, {"data": {"test_fraction": 0.4}}],
)
def test_the_same_records_have_one_account_however_they_are_divided(run, tmp_path, csv, change):
    table = [line.split(",") for line in csv.read_text().splitlines()]
    csv.write_text("".join(f"{age},{plan},{ill}\n" for age, plan, _, ill in table))
    loose = {"dp": {"record": {"statistics_share": 0.7}}, "data": {"by": "", "partition": "iid"}}
    run("one", tmp_path / "kept", **loose)
    data = loose["data"] | change.get("data", {})
    with pytest.raises(BudgetError, match="the ledger allows no round"):
        run("two", tmp_path / "kept", **(loose | change | {"data": data}))


def test_the_preprocessor_is_saved_and_is_what_made_the_features(run, tmp_path, csv):
    made = run()
    saved = Preprocessor.load(tmp_path / "one" / PREPROCESSOR_FILE)
    assert saved == made.data.preprocessor
    assert saved.private
    assert made.config.model.input_shape == (len(saved.feature_names),)
    assert json.loads((tmp_path / "one" / PREPROCESSOR_FILE).read_text())["releases"] == 3


def test_without_privacy_statistics_are_exact_and_cost_no_epsilon(run, tmp_path):
    made = run(dp={"record": {"enabled": False}})
    assert not made.data.preprocessor.private
    assert made.config.dp.record.statistics_releases == 0
    assert entries(tmp_path / "one" / "ledgers" / "server.db") == []


@pytest.mark.slow
def test_a_configuration_with_statistics_repeats_with_the_same_noise(run):
    first = run("one").config
    again = run("two", **{k: v for k, v in first.to_dict().items() if k in ("dp", "train")}).config
    assert again.dp == first.dp


def test_a_named_population_has_an_account_of_its_own(run, tmp_path):
    made = run()
    for name in (b"a" * 32, b"b" * 32):
        with contextlib.closing(
            Budgets.open(tmp_path / "named", made.config, "run", population=name)
        ) as budgets:
            assert budgets.epsilon(Unit.RECORD) == 0
            with budgets.statistics():
                pass
            assert budgets.epsilon(Unit.RECORD) > 0


def test_public_ranges_for_all_columns_need_no_statistics(run, csv, tmp_path):
    csv.write_text("age,site,ill\n" + "".join(f"{i % 70},s{i % 3},{i % 2}\n" for i in range(300)))
    made = run(data={"ranges": {"age": [0, 100]}})
    assert not made.data.preprocessor.private
    assert made.data.preprocessor.releases == 0
    assert made.config.dp.record.statistics_releases == 0
    assert not (tmp_path / "one" / "ledgers").exists()


def test_a_failure_leaves_no_empty_folder(run, tmp_path):
    with pytest.raises(ConfigError):
        run(data={"label": "absent"})
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize("ranges", [{}, {"ranges": {"age": [0, 120]}, "kinds": {"plan": "ignore"}}])
def test_what_made_the_features_is_kept_with_the_names_of_the_classes(run, tmp_path, ranges):
    made = run(dp={"record": {"enabled": False}}, data=ranges)
    assert (made.config.model.label, made.config.model.classes) == ("ill", ("0", "1"))
    kept = Preprocessor.load(tmp_path / "one" / PREPROCESSOR_FILE)
    table = {"age": np.array([55.0]), "plan": np.array(["a"])}
    assert kept.transform(table).shape == (1, *made.data.input_shape)
    if ranges:
        assert kept.transform({"age": np.array([120.0, 0.0, 60.0])}).tolist() == [[1], [-1], [0]]


def test_a_run_for_recipients_leaves_no_preprocessor_in_clear(run, tmp_path):
    key = DecryptionKey.generate()
    text = key.recipient.to_text().strip()
    run(dp={"record": {"enabled": False}}, output={"model_to": [text]})
    folder = tmp_path / "one"
    assert [path.name for path in folder.glob("*.json*")] == [f"{PREPROCESSOR_FILE}.lepton"]
    assert read_preprocessor(folder, lambda: key) is not None


OFF = {"record": {"enabled": False}}


def test_a_run_that_goes_on_has_the_data_that_it_began_with(run, tmp_path, monkeypatch):
    made = run(dp=OFF)
    monkeypatch.setattr("strategies.preparation.fit", None)  # nothing is asked again
    again = prepare_again(made.config, tmp_path / "one")
    assert len(again.clients) == SITES
    for one, two in zip(made.data.clients, again.clients, strict=True):
        for name in ("x_train", "y_train", "x_test", "y_test"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_a_run_without_its_preprocessor_does_not_go_on(run, tmp_path):
    made = run(dp=OFF)
    (tmp_path / "one" / PREPROCESSOR_FILE).unlink()
    with pytest.raises(DataError, match="would spend again"):
        prepare_again(made.config, tmp_path / "one")


def test_two_runs_have_two_names_in_the_ledgers_wherever_their_folders_are(tmp_path):
    config = RunConfig(scenario="csv")
    assert len({run_name(config, tmp_path / "one") for _ in range(100)}) == 100
