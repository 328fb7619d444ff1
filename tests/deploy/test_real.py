"""Real processes: `lepton server run` and `lepton device run`, as their owners start them."""

import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from stage import keep_warm, state, wait_until

from lepton_flwr.crypto.private_keys import protect
from lepton_flwr.data.federated import ClientData
from lepton_flwr.deploy.folders import create
from lepton_flwr.deploy.server import CONNECTION
from lepton_flwr.deploy.status import RUNNING, STOPPED, Status
from lepton_flwr.device import Device
from lepton_flwr.privacy.events import Unit
from lepton_flwr.privacy.ledger import Ledger

SECRET = "a lock of words"  # noqa: S105
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "who-app"
version = "0.1.0"
description = "Asks every device for its name"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "tests"
fab-include = ["/pyproject.toml", "/who/*.py"]
[tool.flwr.app.components]
serverapp = "who.server:app"
clientapp = "who.client:app"
[tool.flwr.app.config]
out = ""
"""
CLIENT = """
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from lepton_flwr.device import Device

app = ClientApp()

@app.query("who")
def who(message, context):
    device = Device.from_node_config(context.node_config, context.run_id)
    device.roster.verify(device.identity.certificate, b"m", device.identity.sign(b"m"))
    found = ConfigRecord({"name": device.folder.name, "key": device.identity.public_key})
    return Message(content=RecordDict({"found": found}), reply_to=message)
"""
SERVER = """
import json
import time
from pathlib import Path
from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    nodes = list(grid.get_node_ids())
    pending = list(grid.push_messages([
        Message(content=RecordDict(), dst_node_id=node, message_type="query.who") for node in nodes
    ]))
    found = {}
    while pending:
        for reply in grid.pull_messages(pending):
            pending.remove(reply.metadata.reply_to_message_id)
            found[reply.content["found"]["name"]] = reply.content["found"]["key"].hex()
        time.sleep(0.1)
    Path(context.run_config["out"]).write_text(json.dumps(found))
"""


def ask(stage, path, authority):
    """The status of a request of somebody without a key."""
    request = urllib.request.Request(f"https://{stage.address}{path}", data=b"", method="POST")
    context = ssl.create_default_context(cafile=authority)
    try:
        with urllib.request.urlopen(request, context=context, timeout=60) as answer:  # noqa: S310
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture
def stage(make_stage):
    return make_stage(3)


@pytest.mark.slow
def test_a_federation_comes_up_answers_lets_nobody_else_in_and_ends(stage):
    protect(stage.devices[0] / "identity.pem", None, SECRET)
    stranger, deceived = stage.root / "stranger", stage.root / "deceived"
    create(stage.root / "other", 2, stage.address)
    # Of another federation, but told the right server: its key is registered nowhere.
    shutil.copytree(stage.root / "other" / "devices" / "device-001", stranger)
    shutil.copy(stage.server / "ca.crt", stranger / "ca.crt")
    # Of another federation and with that one's server certificate: takes ours for an impostor.
    shutil.copytree(stage.root / "other" / "devices" / "device-002", deceived)
    for folder in (stranger, deceived):
        (folder / "data.npz").write_bytes(b"rows")

    server = stage.lepton("server", "run", stage.server)
    wait_until(lambda: "3 registered" in stage.output(server))
    wait_until(lambda: state(stage.server) == RUNNING)
    devices = [
        stage.lepton("device", "run", device, LEPTON_PASSPHRASE=SECRET) for device in stage.devices
    ]
    others = [stage.lepton("device", "run", folder) for folder in (stranger, deceived)]
    wait_until(lambda: all(state(device) == RUNNING for device in stage.devices))

    rows = json.loads(
        subprocess.run(
            [sys.executable, "-m", "lepton_flwr.cli", "federation", "status", "--json",
             stage.root / "fed"],
            env=stage.variables, capture_output=True, check=True,
        ).stdout
    )  # fmt: skip
    assert {row["name"]: row["state"] for row in rows} == {
        "server": RUNNING, "device-001": "online", "device-002": "online", "device-003": "online",
    }  # fmt: skip

    app, out = stage.root / "who-app", stage.root / "found.json"
    (app / "who").mkdir(parents=True)
    (app / "pyproject.toml").write_text(PROJECT)
    for name, text in (("__init__", ""), ("client", CLIENT), ("server", SERVER)):
        (app / "who" / f"{name}.py").write_text(text)
    stage.flwr("run", app, CONNECTION, "--stream", "--run-config", f'out="{out}"')
    found = json.loads(out.read_text())
    assert sorted(found) == ["device-001", "device-002", "device-003"]
    assert len(set(found.values())) == 3

    wait_until(lambda: (Status.read(stranger) or Status()).restarts >= 1)
    assert "Exit Code: 305" in Status.read(stranger).last_error
    wait_until(lambda: (Status.read(deceived) or Status()).last_error)
    assert "is not the one of ca.crt" in Status.read(deceived).last_error
    assert RUNNING not in (state(stranger), state(deceived))
    nodes = json.loads(stage.flwr("supernode", "list", CONNECTION, "--format", "json"))["nodes"]
    assert sorted(node["status"] for node in nodes) == ["online"] * 3

    authority = stage.server / "ca.crt"
    assert ask(stage, "/v1/control/list-nodes", authority) == 404
    assert ask(stage, "/v1/control/start-run", authority) == 404
    assert ask(stage, "/v1/fleet/pull-messages", authority) in (400, 401, 415, 422)

    again = stage.lepton("device", "run", stage.devices[1])
    assert again.wait(300) == 5
    assert "already running" in stage.output(again)

    for process in (*devices, *others, server):
        process.send_signal(signal.SIGTERM)
    for process in (*devices, *others, server):
        assert process.wait(300) == 128 + signal.SIGTERM
    assert stage.pids() == []
    assert {state(device) for device in (*stage.devices, stage.server)} == {STOPPED}


@pytest.mark.slow
def test_a_lost_superlink_and_a_taken_port(stage):
    server = stage.lepton("server", "run", stage.server)
    wait_until(lambda: "3 registered" in stage.output(server))
    before = (stage.server / "nodes.json").read_bytes()
    stage.kill(program="flower-superlink")
    wait_until(lambda: Status.read(stage.server).restarts == 1)
    wait_until(lambda: stage.output(server).count("superlink is up") == 2)
    assert "superlink ended with code -9" in Status.read(stage.server).last_error
    listed = json.loads(stage.flwr("supernode", "list", CONNECTION, "--format", "json"))["nodes"]
    assert len(listed) == 3  # the SuperLink remembers its nodes
    assert (stage.server / "nodes.json").read_bytes() == before
    server.send_signal(signal.SIGINT)
    assert server.wait(300) == 130
    assert stage.pids() == []
    with socket.socket() as taken:
        # A connection of the server's that has ended may hold the port for a minute.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", stage.address.port))
        taken.listen()
        refused = stage.lepton("server", "run", stage.server)
        assert refused.wait(300) == 5
        assert "in use" in stage.output(refused)


POLL = """
scenario = "csv"
rounds = 2
[model]
input_shape = [2]
num_classes = 2
classes = ["below", "above"]
[train]
hidden_units = []
local_steps = 10
sampling_probability = 0.2
"""


@pytest.mark.slow
def test_devices_vote_on_rows_if_their_policies_say_so(stage):
    rng = np.random.default_rng(7)
    for device in stage.devices:
        x = rng.normal(size=(400, 2)).astype(np.float32)
        y = (x.sum(axis=1) > 0).astype(np.int32)
        ClientData(x[:380], y[:380], x[380:], y[380:]).save(device / "data.npz")
        keep_warm(device)

    def allow(devices):
        for device in devices:
            path = device / "policy.toml"
            path.write_text(f'actions = ["evaluate.vote"]\n{path.read_text()}')

    (stage.root / "poll.toml").write_text(POLL)
    (stage.root / "rows.csv").write_text("a,b\n2,2\n-2,-1\n1,3\n-3,0.5\n")
    out = stage.root / "predictions.csv"
    # Noise of .3 votes: three that agree are outvoted by it with a chance below 1e-11.
    asked = ["server", "poll", stage.server, stage.root / "rows.csv", "--epsilon", 100,
             "--config", stage.root / "poll.toml", "--out", out]  # fmt: skip

    early = stage.lepton(*asked)
    assert early.wait(300) == 5
    assert "the server is not running" in stage.output(early)

    server = stage.lepton("server", "run", stage.server)
    wait_until(lambda: state(stage.server) == RUNNING)
    devices = [stage.lepton("device", "run", device) for device in stage.devices]
    wait_until(lambda: all(state(device) == RUNNING for device in stage.devices))

    allow(stage.devices[:2])
    refused = stage.lepton(*asked)
    assert refused.wait(400) == 5
    assert "lost: 1 refused by its policy" in stage.output(refused).splitlines()[-1]
    assert not out.exists()

    allow(stage.devices[2:])
    poll = stage.lepton(*asked, "--limit", 200)  # the one before stays charged
    assert poll.wait(400) == 0, stage.output(poll)
    assert [line.split(",")[0] for line in out.read_text().splitlines()] == [
        "prediction", "above", "below", "above", "below",
    ]  # fmt: skip
    assert "4 of 4 rows answered by 3 participants" in stage.output(poll)
    with Ledger(stage.server / "ledger" / "server.db") as ledger:
        assert [entry.committed for entry in ledger.history()] == [False, True]
    for folder in stage.devices:
        with Device.open(folder).ledger() as ledger:
            (entry,) = ledger.history()
        assert entry.committed
        assert {charge.unit for charge in entry.charges} == {Unit.RECORD, Unit.CLIENT}

    for process in (*devices, server):
        process.send_signal(signal.SIGTERM)
    for process in (*devices, server):
        assert process.wait(300) == 128 + signal.SIGTERM
    assert stage.pids() == []
