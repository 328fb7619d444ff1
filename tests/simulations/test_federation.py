"""Real processes, real TLS. A small app stands in for ours where only the launcher is tested."""

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from lepton_flwr.errors import FederationError
from lepton_flwr.runs.settings import resolve
from simulations import loopback
from simulations.federation import launch, up
from simulations.loopback import Federation, environment
from simulations.processes import Processes

ROOT = Path(__file__).parents[2]
MARK = "LEPTON_TEST_MARK"

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "ping-app"
version = "0.1.0"
description = "Asks every node who it is"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "tests"
fab-include = ["/pyproject.toml", "/ping/*.py"]
[tool.flwr.app.components]
serverapp = "ping.server:app"
clientapp = "ping.client:app"
[tool.flwr.app.config]
out = ""
nodes = 0
mode = "ping"
"""
CLIENT = """
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.query("ping")
def ping(message, context):
    found = {key: context.node_config[key] for key in ("lepton-device", "partition-id")}
    return Message(content=RecordDict({"found": ConfigRecord(found)}), reply_to=message)
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
    config = context.run_config
    print("the app has started", flush=True)
    if config["mode"] == "fail":
        raise RuntimeError("on purpose")
    while config["mode"] == "hang":
        time.sleep(0.1)
    nodes = []
    while len(nodes) < config["nodes"]:
        nodes = list(grid.get_node_ids())
        time.sleep(0.1)
    pending = list(grid.push_messages([
        Message(content=RecordDict(), dst_node_id=node, message_type="query.ping")
        for node in nodes
    ]))
    found = []
    while pending:
        for reply in grid.pull_messages(pending):
            pending.remove(reply.metadata.reply_to_message_id)
            found.append(dict(reply.content["found"]))
        time.sleep(0.1)
    Path(config["out"]).write_text(json.dumps(found))
    print(f"{len(found)} nodes have answered", flush=True)
"""


@pytest.fixture
def app(tmp_path):
    folder = tmp_path / "ping-app"
    (folder / "ping").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT)
    for name, text in (("__init__", ""), ("client", CLIENT), ("server", SERVER)):
        (folder / "ping" / f"{name}.py").write_text(text)
    return folder


@pytest.fixture
def temporary(monkeypatch):
    """A temporary folder for the launcher alone, short as sockets want it; empty afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="lt-"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    monkeypatch.undo()
    shutil.rmtree(folder)


@pytest.fixture
def marked(monkeypatch):
    """Finds the processes that descend from this test: they inherit a mark."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)

    def find(name=""):
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode().split("\0")
                own = f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0")
                if own and any(word.endswith(name) for word in words):
                    found.append(int(entry.name))
        return found

    yield find
    for pid in find():  # a failed test must not leave its processes behind
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_every_node_answers_over_tls_with_its_own_configuration(app, tmp_path, temporary, marked):
    console, answer = io.StringIO(), tmp_path / "an answer.json"
    nodes = [{"lepton-device": f"/some where/{i}", "partition-id": i} for i in range(3)]
    launch(app, nodes, {"out": str(answer), "nodes": 3}, tmp_path / "logs", console=console)
    assert sorted(json.loads(answer.read_text()), key=lambda c: c["partition-id"]) == nodes
    assert "3 nodes have answered" in console.getvalue()
    assert "3 nodes have answered" in (tmp_path / "logs" / "run.log").read_text()
    assert marked() == []
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_a_failing_app_is_one_line_and_leaves_nothing(app, tmp_path, temporary, marked):
    with pytest.raises(FederationError, match="finished:failed") as caught:
        launch(app, [{"partition-id": 0}], {"mode": "fail"}, tmp_path / "logs")
    assert "\n" not in str(caught.value)
    assert marked() == []
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_a_node_with_an_unregistered_key_is_refused(tmp_path, marked):
    (tmp_path / "logs").mkdir()
    with Processes(tmp_path / "logs", environment()) as processes:
        federation = Federation(processes, tmp_path)
        federation.start_superlink()
        federation.register([0])
        federation.start_node(0, {"partition-id": 0})
        federation.wait_for_nodes()
        federation.start_node(1, {"partition-id": 1})
        with pytest.raises(FederationError, match=r"node-0001 .* Failed to activate") as caught:
            federation.wait_for_nodes()
        assert not processes.ended("node-0000")
    assert "\n" not in str(caught.value)
    assert marked() == []


@pytest.mark.slow
def test_a_port_in_use_is_one_line(app, tmp_path, temporary, marked, monkeypatch):
    with socket.socket() as taken:
        taken.bind((loopback.HOST, 0))
        taken.listen()
        monkeypatch.setattr(loopback, "free_port", lambda: taken.getsockname()[1])
        with pytest.raises(FederationError, match=r"superlink ended with code .*in use") as caught:
            launch(app, [{"partition-id": 0}], {}, tmp_path / "logs")
    assert "\n" not in str(caught.value)
    assert marked() == []
    assert list(temporary.iterdir()) == []


@contextlib.contextmanager
def launcher(app, folder):
    """A process of its own that launches the hanging app with two nodes."""
    code = (
        "import sys; from pathlib import Path; from simulations.federation import launch\n"
        "app, logs = map(Path, sys.argv[1:])\n"
        "nodes = [{'partition-id': i} for i in range(2)]\n"
        "launch(app, nodes, {'mode': 'hang'}, logs)\n"
    )
    with (folder / "console").open("wb") as console:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(app), str(folder / "logs")],
            cwd=ROOT, stdout=console, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_until(lambda: "the app has started" in (folder / "console").read_text())
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM)],
)
def test_a_stopped_launcher_leaves_nothing(app, tmp_path, temporary, marked, number, code):
    with launcher(app, tmp_path) as process:
        assert len(marked("flwr-serverapp")) == 1
        process.send_signal(number)
        assert process.wait(120) == code
    assert marked() == []
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_a_lost_node_is_named_and_a_lost_superlink_ends_all(app, tmp_path, temporary, marked):
    console = tmp_path / "console"
    with launcher(app, tmp_path) as process:
        os.kill(marked("flower-supernode")[0], signal.SIGKILL)
        wait_until(lambda: "lost: node-000" in console.read_text())
        assert process.poll() is None
        os.kill(marked("flower-superlink")[0], signal.SIGKILL)
        assert process.wait(120) == 1
    assert "FederationError: superlink ended with code -9" in console.read_text()
    assert marked() == []
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_the_real_app_trains_a_round_on_three_nodes(tmp_path, temporary, marked):
    console = io.StringIO()
    folder = up(resolve("smoke", rounds=1), 3, tmp_path, console=console)
    assert folder.parent == tmp_path
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["clients"], summary["rounds"], summary["survivors_min"]) == (3, 1, 3)
    assert {path.name for path in (folder / "logs").iterdir()} >= {
        "run.log", "superlink.log", "node-0000.log", "node-0001.log", "node-0002.log",
    }  # fmt: skip
    assert marked() == []
    assert list(temporary.iterdir()) == []
