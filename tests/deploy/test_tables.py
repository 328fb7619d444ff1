"""What devices' raw tables hold: how it gets into folders and runs."""

import pytest

from lepton_flwr.crypto.address import Address
from lepton_flwr.data.table_spec import TableSpec
from lepton_flwr.deploy.device import check
from lepton_flwr.deploy.folders import add_device, create
from lepton_flwr.deploy.tables import schema_of, with_table
from lepton_flwr.device import Device
from lepton_flwr.errors import ConfigError, DataError
from lepton_flwr.runs.settings import resolve

SCHEMA = 'label = "ill"\nclasses = ["no", "yes"]\n[columns]\nage = "number"\n'


@pytest.fixture
def folder(tmp_path):
    create(tmp_path / "fed", 3, Address("localhost", 8000), schema=SCHEMA.encode())
    return tmp_path / "fed"


def test_a_federations_schema_is_in_every_folder_also_of_a_later_device(folder):
    late = add_device(folder, "late")
    places = [folder / "server", late, *sorted((folder / "devices").iterdir())]
    for place in places:
        path = place / "schema.toml"
        assert path.read_text() == SCHEMA
        assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(DataError, match=r"data\.csv: No such file"):
        check(late)
    (late / "data.csv").write_text("age,ill\n3,no\n4,yes\n4,yes\n")
    check(late)
    assert len(Device.open(late).table.y_train) == 1
    (late / "data.csv").write_text("age,ill\nold,no\n4,yes\n")
    with pytest.raises(DataError, match="column 'age': 1 of 2 values"):
        check(late)


def test_a_schema_without_a_table_is_no_device(folder):
    device = folder / "devices" / "device-001"
    (device / "schema.toml").write_text("label = 3")
    (device / "data.csv").write_text("age,ill\n3,no\n4,yes\n")
    with pytest.raises(ConfigError, match=r"schema\.toml"):
        check(device)


def test_a_run_takes_the_servers_schema_unless_it_is_told_otherwise(folder, tmp_path):
    server = folder / "server"
    wanted = TableSpec.read(server / "schema.toml")
    assert schema_of(server, None, None, None) == wanted
    assert schema_of(server, None, "csv", None) == wanted
    assert schema_of(server, None, "smoke", None) is None
    features = tmp_path / "features.toml"
    features.write_text("scenario = 'csv'\n[model]\ninput_shape = [3]\nnum_classes = 2\n")
    assert schema_of(server, None, None, features) is None
    repeated = tmp_path / "repeated.toml"
    repeated.write_text('[table]\nlabel = "a"\nclasses = ["b", "c"]\n')
    assert schema_of(server, None, None, repeated) is None
    with pytest.raises(ConfigError, match="expected one of them"):
        schema_of(server, server / "schema.toml", None, repeated)
    with pytest.raises(ConfigError, match="--schema with scenario smoke"):
        schema_of(server, server / "schema.toml", "smoke", None)
    (server / "schema.toml").unlink()
    assert schema_of(server, None, None, None) is None
    with pytest.raises(ConfigError, match="No such file"):
        schema_of(server, server / "schema.toml", None, None)


@pytest.mark.parametrize(
    "told", ["scenario=health", "model.input_shape=[3]", "data.path=rows.csv", 'table.label="a"']
)
def test_what_is_assigned_counts_before_the_servers_schema(folder, told, tmp_path):
    server = folder / "server"
    assert schema_of(server, None, None, None, ["rounds=3", "scenario=csv"]) is not None
    assert schema_of(server, None, None, None, ["rounds=3", told]) is None
    named = tmp_path / "csv.toml"
    named.write_text("scenario = 'csv'\n")
    assert schema_of(server, None, "csv", named, [told]) is None


@pytest.mark.parametrize("told", ["scenario=health", 'table.label="a"'])
def test_what_is_assigned_contradicts_a_schema_that_is_named(folder, told):
    server = folder / "server"
    with pytest.raises(ConfigError, match="expected one of them"):
        schema_of(server, server / "schema.toml", None, None, [told])


def test_a_run_on_tables_trains_as_the_csv_scenario_does():
    made = with_table(resolve("csv"), TableSpec.from_plain(
        {"label": "ill", "classes": ["no", "yes"], "columns": {"age": "number"}}
    ))  # fmt: skip
    assert made.scenario == "csv"
    assert made.train == resolve("csv").train
    assert resolve("csv").table is None
