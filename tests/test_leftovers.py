import os
import signal
import subprocess
import sys

import pytest

from lepton_flwr._leftovers import held

HOLD = """
import sys, time
from pathlib import Path
from lepton_flwr._leftovers import held
folder = Path(sys.argv[1])
with held(folder):
    folder.mkdir()
    (folder / "key").write_text("secret")
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start():
    started = []

    def begin(folder):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_a_folder_goes_with_its_block(tmp_path):
    with held(tmp_path / "a"):
        (tmp_path / "a").mkdir()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_process_goes_when_the_next_one_starts(tmp_path, start):
    dead, alive = start(tmp_path / "dead"), start(tmp_path / "alive")
    os.kill(dead.pid, signal.SIGKILL)
    dead.wait()
    assert (tmp_path / "dead" / "key").exists()
    with held(tmp_path / "next"):
        assert not (tmp_path / "dead").exists()
        assert (tmp_path / "alive" / "key").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"alive", "alive.lock"}
    alive.communicate(b"")
    assert list(tmp_path.iterdir()) == []


def test_what_nobody_held_here_stays(tmp_path):
    (tmp_path / "run-1").mkdir()
    outside = tmp_path / "outside"
    (outside / "x").mkdir(parents=True)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "x.lock").symlink_to(outside / "x.lock")
    with held(tmp_path / "below" / "new"):
        assert (tmp_path / "run-1").is_dir()
        assert (outside / "x").is_dir()
