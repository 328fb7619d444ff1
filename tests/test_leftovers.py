import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_flwr._leftovers import held
from lepton_flwr.errors import OutputError

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
    with held(tmp_path / "new"):
        assert (tmp_path / "run-1").is_dir()


def test_a_link_to_a_lock_is_none(tmp_path):
    (tmp_path / "x.lock").touch()
    (tmp_path / "below" / "x").mkdir(parents=True)
    (tmp_path / "below" / "x.lock").symlink_to(tmp_path / "x.lock")
    with held(tmp_path / "below" / "new"):
        assert (tmp_path / "below" / "x").is_dir()


def test_a_lock_of_a_process_that_was_killed_while_it_made_it_goes(tmp_path):
    source = HOLD.replace("with held", "Path.rename = lambda *_: os._exit(0)\nwith held")
    command = [sys.executable, "-c", f"import os{source}", str(tmp_path / "run-1")]
    subprocess.run(command, check=True, timeout=120)
    assert len(list(tmp_path.iterdir())) == 1
    with held(tmp_path / "run-2"):
        assert [path.name for path in tmp_path.iterdir()] == ["run-2.lock"]


def test_a_lock_that_another_process_clears_away_while_it_is_made_is_made_again(
    tmp_path, monkeypatch
):
    rename, lost = Path.rename, []

    def cleared(path, target):
        if not lost:
            lost.append(path)
            path.unlink()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", cleared)
    with held(tmp_path / "a"):
        assert [path.name for path in tmp_path.iterdir()] == ["a.lock"]
    assert len(lost) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EIO])
def test_a_lock_that_cannot_be_looked_at_is_an_error_of_ours(tmp_path, monkeypatch, code):
    def fails(*_):
        raise OSError(code, os.strerror(code))

    (tmp_path / "dead.lock").touch()
    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(OutputError, match=os.strerror(code)), held(tmp_path / "a"):
        pass
    assert (tmp_path / "dead.lock").exists()
