import configparser
import shlex
import subprocess

import pytest

from lepton_flwr.crypto.address import Address
from lepton_flwr.crypto.keyring import Keyring
from lepton_flwr.deploy.device import check
from lepton_flwr.deploy.folders import add_device, create, default_floor
from lepton_flwr.deploy.settings import DeviceSettings, ServerSettings
from lepton_flwr.deploy.status import StatusFile
from lepton_flwr.deploy.train import train
from lepton_flwr.device import Device
from lepton_flwr.errors import ConfigError, DataError, FederationError, OutputError
from lepton_flwr.privacy.policy import PrivacyPolicy
from lepton_flwr.runs.settings import resolve

ADDRESS = Address("fl.example.org", 8000)
COMMON = {"ca.crt", "environment", "lepton.service", "revoked.crl", "roster.pem", "start.sh"}


@pytest.fixture
def folder(tmp_path):
    create(tmp_path / "fed", 3, ADDRESS)
    return tmp_path / "fed"


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_every_folder_holds_what_its_role_needs_and_no_more(folder):
    assert names(folder) == {"authority", "devices", "policy.toml", "server"}
    assert names(folder / "server") == COMMON | {"nodes", "server.key", "server.pem", "server.toml"}
    for device in (folder / "devices").iterdir():
        assert names(device) == COMMON | {
            "device.toml", "identity.crt", "identity.pem", "node.key", "policy.toml",
        }  # fmt: skip
    for path in (folder, *folder.rglob("*")):
        program = path.is_dir() or path.name == "start.sh"
        assert path.stat().st_mode & 0o777 == (0o700 if program else 0o600)


def test_a_device_opens_as_it_was_made_and_says_what_it_lacks(folder):
    device = folder / "devices" / "device-002"
    opened = Device.open(device)
    assert opened.policy.min_survivors == 3
    assert opened.policy.spending == PrivacyPolicy(max_record_epsilon=3.0)
    assert opened.policy.revocation_rules.required
    assert DeviceSettings.read(device) == DeviceSettings("device-002", ADDRESS)
    with pytest.raises(DataError, match=r"data\.npz is missing: put this device's rows there"):
        check(device)
    (device / "data.npz").write_bytes(b"rows")
    check(device)


def test_a_later_device_gets_the_policy_of_the_others(folder):
    policy = folder / "policy.toml"
    policy.write_text(policy.read_text().replace("min_survivors = 3", "min_survivors = 2"))
    made = add_device(folder, "late")
    assert names(made) == names(folder / "devices" / "device-001")
    assert Device.open(made).policy.min_survivors == 2
    with pytest.raises(ConfigError):
        add_device(folder, "late")


def test_a_federation_of_keys_alone_gets_keys_alone(tmp_path):
    Keyring.create(tmp_path / "fed", 1, ADDRESS)
    assert "policy.toml" not in names(add_device(tmp_path / "fed", "late"))


@pytest.mark.parametrize(("nodes", "floor"), [(1, 2), (2, 2), (3, 3), (4, 3), (10, 7), (100, 67)])
def test_the_floor_is_over_two_thirds_of_the_devices(nodes, floor):
    assert default_floor(nodes) == floor


@pytest.mark.parametrize("floor", [1, 4, 0, -1, True])
def test_a_floor_that_cannot_hold_is_refused_and_leaves_nothing(tmp_path, floor):
    with pytest.raises(ConfigError, match="min_survivors"):
        create(tmp_path / "fed", 3, ADDRESS, min_survivors=floor)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused(folder):
    with pytest.raises(OutputError, match="exists"):
        create(folder, 3, ADDRESS)


@pytest.mark.parametrize(
    ("host", "listen"),
    [
        ("fl.example.org", "0.0.0.0"),  # noqa: S104
        ("localhost", "127.0.0.1"),
        ("::1", "::1"),
        ("2001:db8::1", "::"),
    ],
)
def test_a_server_of_this_machine_is_not_open_to_others(tmp_path, host, listen):
    settings = ServerSettings.of_address(Address(host, 8000))
    assert settings.listen == listen
    (tmp_path / "server.toml").write_text(settings.to_toml())
    assert ServerSettings.read(tmp_path) == settings


@pytest.mark.parametrize(
    "text",
    ["", "address = 3\nlisten = '::'", "address = 'a:1'\nlisten = 'all'", "=", "listen = '::'",
     "address = 'a'\nlisten = '::'", "address = 'a:1'\nlisten = '::'\nmore = '1'"],
)  # fmt: skip
def test_malformed_settings_are_refused(tmp_path, text):
    (tmp_path / "server.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"expected|not TOML"):
        ServerSettings.read(tmp_path)


def test_a_folder_of_another_role_is_refused(folder):
    with pytest.raises(ConfigError, match="folder of a device"):
        DeviceSettings.read(folder / "server")
    with pytest.raises(ConfigError, match="folder of a server"):
        ServerSettings.read(folder / "devices" / "device-001")


@pytest.mark.parametrize(("role", "name"), [("server", "server"), ("device", "device-001")])
def test_the_unit_runs_the_folder_as_an_unprivileged_user_and_restarts_it(folder, role, name):
    place = folder / "server" if role == "server" else folder / "devices" / name
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str
    unit.read(place / "lepton.service")
    service = unit["Service"]
    home = f"/var/lib/lepton/{name}"
    assert shlex.split(service["ExecStart"]) == ["/opt/lepton/bin/lepton", role, "run", home]
    assert (service["User"], service["NoNewPrivileges"], service["ReadWritePaths"]) == (
        "lepton", "yes", home,
    )  # fmt: skip
    assert service["Restart"] == "on-failure"
    assert unit["Install"]["WantedBy"] == "multi-user.target"


def test_the_start_script_runs_the_folder_that_it_is_in_with_its_environment(folder, tmp_path):
    fake = tmp_path / "fake"
    fake.write_text('#!/bin/sh\necho "$FLWR_TELEMETRY_ENABLED" "$@"\n')
    fake.chmod(0o700)
    for place, role in (
        (folder / "server", "server"),
        (folder / "devices" / "device-001", "device"),
    ):
        done = subprocess.run(
            [place / "start.sh"], env={"LEPTON": str(fake), "PATH": "/usr/bin:/bin"},
            capture_output=True, text=True, check=True, cwd="/",
        )  # fmt: skip
        assert done.stdout.split() == ["0", role, "run", str(place)]


def test_a_server_that_does_not_run_trains_nobody(folder, tmp_path):
    server = folder / "server"
    for state in ("", "stopped"):
        if state:
            StatusFile(server).enter(state)
        with pytest.raises(FederationError, match="lepton server run"):
            train(server, resolve("smoke"), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
