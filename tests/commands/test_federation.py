"""`lepton federation init` and `status`, `lepton device check`, without any Flower process."""

import json
import socket
import ssl
import threading

import pytest

from lepton_flwr.commands.errors import say, tell
from lepton_flwr.deploy import train as deploy_train
from lepton_flwr.deploy.status import RUNNING, StatusFile
from lepton_flwr.device import Device
from lepton_flwr.errors import FederationError


@pytest.fixture
def listener():
    """A TCP port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def init(lepton, port, *options):
    address = f"localhost:{port}"
    return lepton("federation", "init", "fed", "--nodes", 2, "--address", address, *options)


def test_one_command_makes_all_folders(lepton, tmp_path):
    code, out, err = init(lepton, 8000, "--min-survivors", 2, "--max-record-epsilon", 1.5)
    assert (code, err) == (0, "")
    assert "stays here, off the server" in out
    policy = Device.open(tmp_path / "fed" / "devices" / "device-002").policy
    assert (policy.min_survivors, policy.spending.max_record_epsilon) == (2, 1.5)
    assert lepton("keys", "issue", "fed", "late")[0] == 0
    assert (tmp_path / "fed" / "devices" / "late" / "lepton.service").exists()


@pytest.mark.parametrize(
    "options", [("--min-survivors", 3), ("--max-record-epsilon", -1), ("--name", "a/b")]
)
def test_a_bad_option_is_one_line_and_leaves_nothing(lepton, tmp_path, options):
    code, _, err = init(lepton, 8000, *options)
    assert code == 2
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_status_tells_who_runs_who_is_silent_and_what_went_wrong(lepton, tmp_path):
    init(lepton, 8000)
    device = tmp_path / "fed" / "devices" / "device-001"
    status = StatusFile(device)
    status.failed("no server at localhost:8000")
    status.enter(RUNNING)
    code, out, err = lepton("federation", "status", device)
    assert (code, err) == (0, "")
    assert "device-001" in out
    assert "no server at localhost:8000" in out
    text = (device / "status.json").read_text()
    old = json.loads(text)
    old["updated"] = "2020-01-01T00:00:00+00:00"
    (device / "status.json").write_text(json.dumps(old))
    rows = json.loads(lepton("federation", "status", "fed", "--json")[1])
    assert {row["name"]: row["state"] for row in rows} == {
        "server": "never started", "device-001": "not registered", "device-002": "not registered",
    }  # fmt: skip
    (row,) = json.loads(lepton("federation", "status", device, "--json")[1])
    assert row["state"] == "silent"
    assert lepton("federation", "status", tmp_path)[0] == 2


def test_what_a_log_says_drives_no_terminal(lepton, tmp_path):
    init(lepton, 8000)
    device = tmp_path / "fed" / "devices" / "device-001"
    hostile = "\x1b]0;title\x07 [bold]loud[/bold] [/no] \x9b31m end"
    status = StatusFile(device)
    status.failed(hostile)
    assert status.status.last_error == "]0;title [bold]loud[/bold] [/no] 31m end"
    found = json.loads((device / "status.json").read_text())
    found["state"] = found["last_error"] = hostile  # by whoever can write there
    (device / "status.json").write_text(json.dumps(found))
    code, out, err = lepton("federation", "status", device)
    assert (code, err) == (0, "")
    assert "[bold]loud[/bold]" in " ".join(out.split())
    assert not set("\x1b\x07\x9b") & set(out)


def test_an_error_and_what_is_said_are_one_line_without_control_characters(capsys):
    say("one\n\x1b[31mtwo")
    tell("three\r\x9bfour")
    assert capsys.readouterr().err == "error: one [31mtwo\nthree four\n"


def test_a_device_is_checked_before_it_starts(lepton, tmp_path, listener):
    init(lepton, listener.getsockname()[1])
    device = tmp_path / "fed" / "devices" / "device-001"
    code, _, err = lepton("device", "check", device)
    assert code == 2
    assert "data.npz is missing" in err
    (device / "data.npz").write_bytes(b"rows")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(tmp_path / "fed/server/server.pem", tmp_path / "fed/server/server.key")

    def serve():
        for _ in range(2):
            plain, _ = listener.accept()
            try:
                with server.wrap_socket(plain, server_side=True) as secure:
                    if secure.recv(4096):  # asked for the time, it tells none
                        secure.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            except OSError:
                plain.close()

    thread = threading.Thread(target=serve)
    thread.start()
    code, out, err = lepton("device", "check", device)
    assert (code, err) == (0, "")
    assert "ready" in out
    # The certificate of another federation's server.
    (tmp_path / "fed").rename(tmp_path / "first")
    init(lepton, listener.getsockname()[1])
    other = tmp_path / "fed" / "devices" / "device-001"
    (other / "data.npz").write_bytes(b"rows")
    code, _, err = lepton("device", "check", other)
    assert code == 5
    assert "is not the one of ca.crt" in err
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture
def deaf():
    """A TCP port of this machine, held so that nobody listens at it."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        yield made


def test_a_server_that_is_not_there_is_one_line(lepton, tmp_path, deaf):
    init(lepton, deaf.getsockname()[1])
    device = tmp_path / "fed" / "devices" / "device-001"
    (device / "data.npz").write_bytes(b"rows")
    code, _, err = lepton("device", "check", device)
    assert code == 5
    assert "no server at localhost" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "command", [("device", "run"), ("device", "check"), ("server", "run"), ("server", "train")]
)
def test_a_folder_of_another_role_is_one_line(lepton, command):
    init(lepton, 8000)
    wrong = "fed/server" if command[0] == "device" else "fed/devices/device-001"
    code, _, err = lepton(*command, wrong)
    assert code == 2
    assert "federation init" in err


@pytest.mark.parametrize(
    ("options", "scenario"),
    [((), "csv"), (("--set", "scenario=health"), "health"), (("smoke",), "smoke")],
)
def test_a_run_is_of_the_scenario_that_was_asked_for(
    lepton, tmp_path, monkeypatch, options, scenario
):
    (tmp_path / "asked.toml").write_text(
        'label = "ill"\nclasses = ["no", "yes"]\n[columns]\nage = "number"\n'
    )
    assert init(lepton, 8000, "--schema", "asked.toml")[0] == 0
    handed = []

    def started(folder, config, out, ledger):
        handed.append(config)
        raise FederationError("no server in this test")

    monkeypatch.setattr(deploy_train, "train", started)
    code, _, err = lepton("server", "train", "fed/server", "--clients", 3, *options)
    assert (code, err) == (5, "error: no server in this test\n")
    (config,) = handed
    assert (config.scenario, config.table is not None) == (scenario, scenario == "csv")
