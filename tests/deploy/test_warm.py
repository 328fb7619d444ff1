import contextlib
import hashlib
import importlib
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from lepton_flwr.crypto.address import Address
from lepton_flwr.deploy import device, forkrequest, forkserver, supernode, warm
from lepton_flwr.deploy.folders import create
from lepton_flwr.deploy.settings import DeviceSettings
from lepton_flwr.errors import ConfigError

MADE_FOR = importlib.metadata.version("flwr") in warm.FLOWER_VERSIONS
# In place of Flower's process: it says what it is, and what it has got from the fork server.
COMMAND = """
import importlib.metadata, importlib.util, json, os, random, secrets, signal, ssl, sys, threading

spec = importlib.util.spec_from_file_location("forkserver", sys.argv[1])
server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(server)
seen = []

def start_thread(*_):
    threading.Thread(target=threading.Event().wait, daemon=True).start()

def break_children(*_):
    def dup2(*_):
        raise OSError("no")
    os.dup2 = dup2
    print("children cannot begin", flush=True)

signal.signal(signal.SIGUSR1, start_thread)
signal.signal(signal.SIGUSR2, break_children)

def command():
    import numpy
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    seen.append(sys.argv)
    print(json.dumps({
        "pid": os.getpid(), "parent": os.getppid(), "argv": sys.argv, "seen": len(seen),
        "files": len(os.listdir("/proc/self/fd")), "threads": len(os.listdir("/proc/self/task")),
        "own": [name for name in sys.modules if name.split(".")[0] == "lepton_flwr"],
        "variables": sorted(set(server._NO_THREADS) & set(os.environ)),
        "home": os.environ.get("FLWR_HOME"),
        "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "children": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
        "draws": {
            "numpy": numpy.random.random(), "random": random.random(),
            "generator": numpy.random.default_rng().random(),
            "secrets": secrets.token_hex(16), "ssl": ssl.RAND_bytes(16).hex(),
            "x25519": X25519PrivateKey.generate().private_bytes_raw().hex(),
            "aes": AESGCM.generate_key(128).hex(),
        },
    }), flush=True)
    return 0

class Entry:
    def load(self):
        import numpy
        numpy.random.random(), random.random(), secrets.token_hex(16), ssl.RAND_bytes(16)
        return command

importlib.metadata.entry_points = lambda **_: [Entry()]
server.main(server.Path(sys.argv[2]), sys.argv[3:])
"""

# In place of Flower's process: it trains, in a fork or ("cold") without one.
TRAIN = """
import hashlib, importlib.metadata, importlib.util, os, sys

def command():
    import keras, numpy
    keras.utils.set_random_seed(7)
    layers = [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    rows = numpy.arange(256, dtype=numpy.float32).reshape(64, 4) / 256
    model.fit(rows, rows.sum(axis=1), epochs=2, verbose=0)
    weights = b"".join(weight.tobytes() for weight in model.get_weights())
    threads = len(os.listdir("/proc/self/task"))
    print(hashlib.sha256(weights).hexdigest(), threads > 1, flush=True)

if sys.argv[1] == "cold":
    command()
    sys.exit()
spec = importlib.util.spec_from_file_location("forkserver", sys.argv[1])
server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(server)
Entry = type("Entry", (), {"load": lambda self: command})
importlib.metadata.entry_points = lambda **_: [Entry()]
server.main(server.Path(sys.argv[2]), sys.argv[3:])
"""


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="lt-") as name:
        yield Path(name)


@pytest.fixture
def launcher(folder):
    """A fork server with another program than Flower's, and what asks it for a process."""
    log = folder / "warm.log"
    modules = ["numpy", "cryptography.hazmat.primitives.ciphers.aead"]
    words = [sys.executable, "-P", "-c", COMMAND, forkserver.__file__, str(folder), *modules]
    variables = {**os.environ, "FLWR_HOME": "the server's"}
    with log.open("wb") as file:
        server = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=variables)
    deadline = time.monotonic() + 120
    while "is ready" not in log.read_text():
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield server
    server.kill()
    server.wait()


def request(folder, *arguments):
    """As Flower does: the process' output is what comes through the pipe, to its end."""
    return subprocess.run(
        [sys.executable, "-IS", forkrequest.__file__, str(folder), *arguments],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_every_message_has_a_process_of_its_own_that_knows_nothing_of_others(folder, launcher):
    found = []
    for number in range(3):
        done = request(folder, "--token", f"secret {number}\n", "--insecure")
        assert (done.returncode, done.stderr) == (0, "")
        found.append(json.loads(done.stdout))
    for number, one in enumerate(found):
        assert one["argv"] == ["flwr-clientapp", "--token", f"secret {number}\n", "--insecure"]
        assert one["parent"] == launcher.pid
        assert (one["seen"], one["own"], one["variables"]) == (1, [], [])
        assert one["home"] == "the server's"
        assert one["interrupt"]
        assert one["children"]
        assert one["threads"] == 1
        assert one["files"] == found[0]["files"] <= 5  # three, and what lists them
    assert len({one["pid"] for one in found}) == 3
    for name in found[0]["draws"]:
        assert len({one["draws"][name] for one in found}) == 3, name


def test_nothing_is_forked_while_another_thread_runs(folder, launcher):
    launcher.send_signal(signal.SIGUSR1)
    deadline = time.monotonic() + 60
    while len(os.listdir(f"/proc/{launcher.pid}/task")) == 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    done = request(folder, "--insecure")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "LauncherError: the warm launcher has started nothing: refused: 2 threads" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_launcher_whose_libraries_start_threads_does_not_serve(folder):
    (folder / "threaded.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    words = [sys.executable, "-P", "-c", COMMAND, forkserver.__file__, str(folder), "threaded"]
    done = subprocess.run(
        words, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "LauncherError: after its imports 2 threads run" in done.stderr
    assert not (folder / "fork.sock").exists()


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_forked_process_that_cannot_begin_ends_and_does_not_serve(folder, launcher):
    launcher.send_signal(signal.SIGUSR2)  # from now on its children cannot take their outputs
    deadline = time.monotonic() + 60
    while "cannot begin" not in (folder / "warm.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for _ in range(5):
        done = request(folder, "--insecure")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    while children(launcher.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert launcher.poll() is None
    assert "Traceback" not in (folder / "warm.log").read_text()


def test_without_a_launcher_there_is_an_error_and_no_process(folder, monkeypatch):
    monkeypatch.setattr(forkrequest, "PATIENCE_SECONDS", 0.1)
    monkeypatch.chdir(folder)
    assert "does not answer: No such file" in forkrequest.main(str(folder), ["--insecure"])
    gone = forkserver._listen(folder)
    gone.close()
    assert "does not answer: Connection refused" in forkrequest.main(str(folder), ["--insecure"])


def test_a_request_that_is_no_request_is_left(folder, launcher):
    for text in (b"", b"no end", b"x" * (forkserver.MAX_REQUEST + 2)):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(folder / "fork.sock"))
            stranger.sendall(text)
            stranger.shutdown(socket.SHUT_WR)
            assert stranger.recv(100) == b""
    assert request(folder, "--insecure").returncode == 0
    assert "was not understood" in (folder / "warm.log").read_text()


def test_threads_are_counted_as_the_system_counts_them():
    def count():
        found = forkserver.threads()
        return int(found.split()[0]) if found else 1

    before, done = count(), threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    assert count() > 1
    done.set()
    deadline = time.monotonic() + 60
    while count() > before:  # Python has joined it before the system has taken it off the list
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def made(tmp_path):
    create(tmp_path / "fed", 1, Address("localhost", 8000))
    folder = tmp_path / "fed" / "devices" / "device-001"
    (folder / "data.npz").write_bytes(b"rows")
    return folder


def wanted(folder, value):
    with (folder / "device.toml").open("a") as file:
        file.write(f"warm = {value}\n")


def test_another_flower_is_refused_before_anything_starts(made, monkeypatch):
    wanted(made, '"flower"')
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.43.0")
    with pytest.raises(warm.LauncherVersionError, match=r"flwr 1\.43\.0: .* 1\.42\.0; install"):
        device.run(made, print)
    assert not (made / "logs").exists()
    # Nor is anything started by a device that ran when Flower was replaced.
    with pytest.raises(warm.LauncherVersionError):
        warm.WarmLauncher(made, "flower").prepare()


def test_what_the_setting_may_say(made):
    assert DeviceSettings.read(made).warm == ""
    wanted(made, '"tensorflow"')
    settings = DeviceSettings.read(made)
    assert settings.warm == "tensorflow"
    (made / "device.toml").write_text(settings.to_toml())
    assert DeviceSettings.read(made) == settings
    plain = DeviceSettings(settings.name, settings.server).to_toml()
    for value in ("true", '"keras"', '""', "1"):
        (made / "device.toml").write_text(plain)
        wanted(made, value)
        with pytest.raises(ConfigError, match="warm"):
            DeviceSettings.read(made)


def test_a_device_without_the_setting_has_no_launcher(made, monkeypatch):
    names = []

    def keep(keepers, *_):
        names.append([keeper._component.name for keeper in keepers])
        assert keepers[-1]._after is (keepers[0] if len(keepers) == 2 else None)
        programs = keepers[-1]._component._programs
        assert (programs is None) == (len(keepers) == 1)

    monkeypatch.setattr(device, "keep", keep)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.42.0")
    device.run(made, print)
    assert not (made / "flower" / "warm").exists()
    wanted(made, '"flower"')
    device.run(made, print)
    assert names == [["supernode"], ["warm", "supernode"]]
    program = made / "flower" / "warm" / "flwr-clientapp"
    assert program.stat().st_mode & 0o777 == 0o700


def test_flowers_folder_is_the_same_for_what_is_forked_as_for_the_supernode(made, monkeypatch):
    monkeypatch.setattr(device, "try_server", lambda *_: None)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.42.0")
    wanted(made, '"flower"')
    given = []

    def keep(keepers, *_):
        given.extend(keeper._component.prepare()[1] for keeper in keepers)

    monkeypatch.setattr(device, "keep", keep)
    device.run(made, print)
    assert [variables["FLWR_HOME"] for variables in given] == [str(made / "flower")] * 2


def test_the_launchers_program_is_the_first_that_flower_finds(made, monkeypatch):
    monkeypatch.setattr(device, "try_server", lambda *_: None)
    programs = warm.WarmLauncher(made / "with a space", "flower")
    (made / "with a space").mkdir()
    path = programs.install()
    node = device._SuperNode(made, Address("localhost", 8000), path)
    command, variables = node.prepare()
    assert command[:4] == [sys.executable, "-P", supernode.__file__, "flower-supernode"]
    found = shutil.which("flwr-clientapp", path=variables["PATH"])
    assert found == str(path / "flwr-clientapp")
    assert shutil.which("flower-supernode", path=variables["PATH"]) is not None
    listening = forkserver._listen(path)
    done = []

    def answer():
        connection, _ = listening.accept()
        arguments, outputs = forkserver._receive(connection)
        done.append(arguments)
        connection.sendall(b"started: 1")
        connection.close()
        for output in outputs:
            os.close(output)

    thread = threading.Thread(target=answer)
    thread.start()
    subprocess.run([found, "--token", "a b"], check=True, timeout=60)
    thread.join()
    listening.close()
    assert done == [["--token", "a b"]]


@contextlib.contextmanager
def serving(words, log):
    """A fork server that is ready, without the variables by which libraries start no threads."""
    variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    for name in ("OMP_NUM_THREADS", *forkserver._NO_THREADS):
        variables.pop(name, None)
    with log.open("wb") as file:
        server = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=variables)
    try:
        deadline = time.monotonic() + 400
        while "is ready" not in log.read_text():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield server
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
@pytest.mark.skipif(not MADE_FOR, reason="made for another version of Flower")
def test_what_is_forked_is_flowers_own_program(folder):
    command, _ = warm.WarmLauncher(folder, "flower").prepare()
    (folder / "warm").mkdir(mode=0o700)
    with serving(command, folder / "warm.log"):
        done = request(folder / "warm", "--help")
    assert done.returncode == 0
    assert "Run a Flower ClientApp" in done.stdout


@pytest.mark.skipif(not MADE_FOR, reason="made for another version of Flower")
class TestHurry:
    @pytest.fixture
    def flower(self, monkeypatch, folder):
        """Flower's client program and the module that fetches parts, both to be changed."""
        program = importlib.import_module("flwr.supernode.runtime.run_clientapp")
        parts = importlib.import_module("flwr.supercore.inflatable.inflatable_utils")
        monkeypatch.setenv("FLWR_HOME", str(folder))
        monkeypatch.setattr(program, "install_from_fab", program.install_from_fab)
        for pull in (parts.pull_objects, parts.pull_and_inflate_object_from_tree):
            monkeypatch.setattr(pull, "__kwdefaults__", dict(pull.__kwdefaults__))
        return program, parts

    def test_a_bundle_is_unpacked_once_and_another_one_too(self, flower, monkeypatch, folder):
        program, _ = flower
        unpacked = []

        def unpack(bundle, *, skip_prompt):
            assert skip_prompt
            unpacked.append(bundle)
            name = hashlib.sha256(bundle).hexdigest()[:8]
            (folder / "apps" / f"a.b.1.{name}").mkdir(parents=True)
            return folder / "apps" / f"a.b.1.{name}"

        monkeypatch.setattr(program, "install_from_fab", unpack)
        forkserver._hurry()
        paths = [program.install_from_fab(bundle, skip_prompt=True) for bundle in (b"1", b"2") * 2]
        assert unpacked == [b"1", b"2"]
        assert paths[:2] == paths[2:]
        assert paths[0] != paths[1]

    @pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
    def test_what_is_skipped_is_what_flower_itself_would_take(self, flower, folder):
        program, _ = flower
        real = program.install_from_fab
        fab = build_bundle(folder)
        path = real(fab, skip_prompt=True)
        forkserver._hurry()
        (path / "pyproject.toml").write_text("# as it was found")
        assert program.install_from_fab(fab, skip_prompt=True) == path
        assert real(fab, skip_prompt=True) == path
        assert (path / "pyproject.toml").read_text() == "# as it was found"

    def test_a_part_that_is_fetched_still_is_waited_for_as_long_as_flower_would(self, flower):
        _, parts = flower
        longest = parts.pull_objects.__kwdefaults__["max_time"]
        forkserver._hurry()
        assert parts.pull_objects.__kwdefaults__["max_time"] == longest
        tries = []

        def pull(name):
            tries.append(name)
            if len(tries) < 4:
                raise parts.ObjectUnavailableError(name)
            return b"part"

        assert parts.pull_objects(["a"], pull) == {"a": b"part"}
        assert len(tries) == 4

    def test_that_holds_for_what_flowers_client_process_calls(self, flower, monkeypatch):
        from flwr.app import ConfigRecord
        from flwr.supercore.inflatable.inflatable_object import get_object_tree

        program, parts = flower
        forkserver._hurry()
        record, given = ConfigRecord({"a": 1}), []

        def pull_objects(names, pull, **options):
            given.append(options)
            return {name: record.deflate() for name in names}

        monkeypatch.setattr(parts, "pull_objects", pull_objects)
        pull = program.pull_and_inflate_object_from_tree
        assert pull(get_object_tree(record), None, lambda _: None, return_type=ConfigRecord)
        (options,) = given
        assert options["initial_backoff"] == forkserver.FIRST_PAUSE
        assert options["backoff_cap"] == forkserver.LONGEST_PAUSE
        assert options["max_tries_per_object"] is None


@pytest.mark.skipif(not MADE_FOR, reason="made for another version of Flower")
def test_a_supernode_looks_sooner_for_a_reply_and_sleeps_as_long_where_it_asks(monkeypatch):
    program = importlib.import_module(supernode.MODULE)
    monkeypatch.setattr(program, "time", program.time)
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    supernode.hurry()
    replies = [[], [], []]

    class State:
        def get_messages_legacy(self, is_reply):
            if not replies:
                raise StopIteration
            return replies.pop()

    with pytest.raises(StopIteration):
        program._push_messages(State(), None, None, None)
    assert slept == [supernode.PAUSE] * 3
    program.time.sleep(3)
    assert slept[3:] == [3]
    assert program.time.monotonic() > 0


@pytest.mark.slow
@pytest.mark.skipif(not MADE_FOR, reason="made for another version of Flower")
def test_the_supernode_that_is_started_is_flowers_own_program():
    words = [sys.executable, "-P", supernode.__file__, supernode.COMMAND, "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("usage: flower-supernode")


def build_bundle(folder):
    """The bytes of a small app's bundle, as `flwr build` makes them."""
    from flwr.cli.build import build_fab_from_disk

    app = folder / "an-app"
    app.mkdir()
    (app / "client.py").write_text("app = None\n")
    (app / "README.md").write_text("# An app\n")
    (app / "LICENSE").write_text("MIT\n")
    (app / "pyproject.toml").write_text(PROJECT)
    return build_fab_from_disk(app)


PROJECT = """
[project]
name = "an-app"
version = "1.0.0"
description = "An app"
license = "Apache-2.0"
dependencies = ["flwr>=1.41"]

[tool.flwr.app]
publisher = "somebody"
fab-format-version = 0

[tool.flwr.app.components]
serverapp = "client:app"
clientapp = "client:app"
"""


@pytest.mark.slow
def test_tensorflow_starts_no_thread_before_the_fork_and_trains_after_it_as_without(folder):
    kept = warm.MODULES["tensorflow"]
    words = [sys.executable, "-P", "-c", TRAIN, forkserver.__file__, str(folder), *kept]
    with serving(words, folder / "warm.log") as server:
        assert "tensorflow" in Path(f"/proc/{server.pid}/maps").read_text()
        forked = [request(folder, "--insecure").stdout for _ in range(2)]
        assert len(os.listdir(f"/proc/{server.pid}/task")) == 1
    cold = subprocess.run(
        [sys.executable, "-P", "-c", TRAIN, "cold"], capture_output=True, text=True, check=True
    ).stdout
    assert len(cold.split()[0]) == 64
    assert cold.split()[1] == "True"  # training does start threads
    assert forked == [cold, cold]
