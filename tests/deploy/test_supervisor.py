import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lepton_flwr.deploy import supervisor
from lepton_flwr.deploy.status import RUNNING, STARTING, WAITING, Status, StatusFile
from lepton_flwr.deploy.supervisor import Backoff, Keeper, LogTail, is_run, keep, only_one
from lepton_flwr.errors import DataError, FederationError
from simulations.processes import Processes


class Program:
    """A component that runs some Python."""

    name = "program"

    def __init__(self, *codes, failing=()):
        self.codes = list(codes)
        self.failing = list(failing)

    def prepare(self):
        if self.failing:
            raise self.failing.pop(0)
        code = self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]
        return [sys.executable, "-Ic", code], {}

    def look(self, added, up):
        for line in added.splitlines():
            up = line == "ready" or (up and line != "lost")
        return up

    def explain(self, code):
        return "a hint" if code == 305 else ""


READY = "import time; print('ready', flush=True); time.sleep(100)"
FAILS = "import sys; sys.exit('ERROR: no luck')"


class Enough(Exception):  # noqa: N818
    pass


def run_until(tmp_path, program, enough, **options):
    said = []
    status = StatusFile(tmp_path)
    deadline = time.monotonic() + 120
    with Processes(tmp_path, dict(os.environ)) as processes:
        keeper = Keeper(program, processes, status, said.append, **options)

        def tick():
            assert time.monotonic() < deadline, said
            if enough(keeper, status.status):
                raise Enough

        with pytest.raises(Enough):
            keep([keeper], status, tick)
        pids = processes.alive()
    assert processes.alive() == set()
    return said, Status.read(tmp_path), pids


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.1)


def test_a_process_that_ends_is_started_again_and_its_error_kept(tmp_path):
    program = Program(FAILS, FAILS, READY)
    said, status, pids = run_until(
        tmp_path, program, lambda keeper, status: keeper.up and status.state == RUNNING
    )
    assert (status.state, status.restarts) == (RUNNING, 2)
    assert "program ended with code 1: ERROR: no luck" in status.last_error
    assert len(pids) == 1
    assert said[-1] == "program is up"
    assert (tmp_path / "program.log").read_text().count("no luck") == 2


def test_what_is_not_ready_is_not_started_and_asked_again(tmp_path):
    program = Program(READY, failing=[DataError("no rows yet"), DataError("still none")])
    said, status, _ = run_until(tmp_path, program, lambda keeper, _: keeper.up)
    assert said[0].startswith("no rows yet; trying again")
    assert (status.restarts, status.last_error) == (0, "still none")


def test_what_comes_after_another_is_started_once_that_is_up_and_outlives_it(tmp_path):
    class First(Program):
        name = "first"

    go = tmp_path / "go"
    slow = f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.02)\n"
    status, said = StatusFile(tmp_path), []
    with Processes(tmp_path, dict(os.environ)) as processes:
        first = Keeper(First(slow + READY), processes, status, said.append)
        second = Keeper(Program(READY), processes, status, said.append, after=first)

        def turns(until):
            deadline = time.monotonic() + 60
            while not until():
                assert time.monotonic() < deadline, said
                first.turn()
                second.turn()
                time.sleep(0.02)

        turns(processes.alive)
        for _ in range(20):
            first.turn()
            second.turn()
        (pid,) = processes.alive()
        go.touch()
        turns(lambda: second.up)
        os.kill(pid, signal.SIGKILL)
        turns(lambda: not first.up)
        assert second.up
        turns(lambda: first.up)
    assert said[:2] == ["first is up", "program is up"]


def test_a_fatal_exit_code_ends_it(tmp_path):
    status = StatusFile(tmp_path)
    with Processes(tmp_path, dict(os.environ)) as processes:
        program = Program("import sys; sys.exit(7)")
        keeper = Keeper(program, processes, status, print, frozenset({7}))
        with pytest.raises(FederationError, match="code 7"):
            keep([keeper], status, lambda: None)
    assert "code 7" in Status.read(tmp_path).last_error


def test_what_is_cut_off_is_not_up_until_it_is_back(tmp_path):
    program = Program(
        "import pathlib, time\n"
        "for number, word in enumerate(('ready', 'lost', 'ready')):\n"
        f" while not pathlib.Path({str(tmp_path)!r}, str(number)).exists(): time.sleep(0.02)\n"
        " print(word, flush=True)\n"
        "time.sleep(100)"
    )

    def enough(keeper, status):
        heard = 2 if status.last_error else int(keeper.up)
        (tmp_path / str(heard)).touch()  # the next word, and not before: two may come at once
        return keeper.up and status.last_error

    said, status, _ = run_until(tmp_path, program, enough)
    assert said == ["program is up", "program is cut off: it goes on trying", "program is up"]
    assert (status.last_error, status.restarts) == ("program was cut off", 0)


def test_flowers_own_exit_code_counts_and_is_explained(tmp_path):
    words = "import sys; sys.exit('ERROR : Exit Code: {} no')"
    program = Program(words.format(305), words.format(302))
    status = StatusFile(tmp_path)
    said = []
    with Processes(tmp_path, dict(os.environ)) as processes:
        keeper = Keeper(program, processes, status, said.append, frozenset({302}))
        with pytest.raises(FederationError, match="Exit Code: 302"):
            keep([keeper], status, lambda: None)
    assert len(said) == 1
    assert "Exit Code: 305" in said[0]
    assert said[0].startswith("a hint (program ended")


KILLED = "import os; os.kill(os.getpid(), 9)"


@pytest.mark.parametrize("before", ["", "print('ERROR: Exit Code: 302', flush=True); "])
def test_a_fatal_code_in_the_log_does_not_count_for_a_process_that_was_killed(tmp_path, before):
    (tmp_path / "program.log").write_text("ERROR : Exit Code: 302 of last week\n")
    program = Program(before + KILLED, READY)
    _, status, _ = run_until(tmp_path, program, lambda keeper, _: keeper.up, fatal=frozenset({302}))
    assert "code -9" in status.last_error
    assert "last week" not in status.last_error


def test_the_error_of_a_process_whose_log_was_cut_is_found(tmp_path):
    log = tmp_path / "p.log"
    log.write_text("x" * 1000)
    with Processes(tmp_path, dict(os.environ)) as processes:
        cut = tmp_path / "cut"
        code = (
            "import pathlib, time\n"
            f"while not pathlib.Path({str(cut)!r}).exists(): time.sleep(0.02)\n"
            "print('ERROR: late')"
        )
        processes.start("p", [sys.executable, "-Ic", code], append=True)
        os.truncate(log, 0)
        cut.touch()
        processes.finish("p")
        assert "ERROR: late" in str(processes.failure("p"))


def test_a_lost_process_is_up_again_without_help(tmp_path):
    pid = tmp_path / "pid"
    told = f"import os; open({str(pid)!r}, 'w').write(str(os.getpid())); {READY}"
    killed = []

    def enough(keeper, status):
        if keeper.up and not killed:
            os.kill(int(pid.read_text()), signal.SIGTERM)
            killed.append(True)
            return False
        return keeper.up and status.restarts == 1

    _, status, _ = run_until(tmp_path, Program(told), enough)
    assert "code -15" in status.last_error


SUPERVISOR = """
import sys
from pathlib import Path
from lepton_flwr.deploy.supervisor import Keeper, keep
from lepton_flwr.deploy.status import StatusFile
from simulations.processes import Processes
from tests_of_supervisor import READY, Program
folder = Path(sys.argv[1])
with Processes(folder, {}) as processes:
    status = StatusFile(folder)
    told = f"import os; print(os.getpid(), flush=True); {READY}"
    keep([Keeper(Program(told), processes, status, print)], status, lambda: None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux'")
def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path):
    shutil.copyfile(__file__, tmp_path / "tests_of_supervisor.py")
    variables = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path)]
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL) as parent:
        log = tmp_path / "program.log"
        wait_until(lambda: log.exists() and "ready" in log.read_text())
        pid = int(log.read_text().split()[0])
        assert os.path.exists(f"/proc/{pid}")
        parent.kill()
    try:
        wait_until(lambda: ended(pid))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_program_that_is_not_there_is_named(tmp_path):
    with (
        Processes(tmp_path, dict(os.environ)) as processes,
        pytest.raises(FederationError, match="cannot start no-such-program"),
    ):
        processes.start("p", ["no-such-program"], tied=True)


def test_pauses_double_to_a_minute_and_start_anew_after_a_good_run(monkeypatch):
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 1.0)
    backoff = Backoff()
    pauses = [backoff.next(0) for _ in range(9)]
    for pause, longest in zip(pauses, (1, 2, 4, 8, 16, 32, 60, 60, 60), strict=True):
        assert 0.75 * longest <= pause <= longest
    assert backoff.next(supervisor.GOOD_SECONDS) <= 1


def test_a_log_is_read_once_and_kept_in_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "MAX_LOG_BYTES", 20)
    path = tmp_path / "a.log"
    path.write_text("before\n")
    with path.open("ab", buffering=0) as log:
        tail = LogTail(path)
        assert tail.read() == ""
        log.write(b"\x1b[92mINFO\x1b[0m one\n")
        assert tail.read() == "INFO one\n"
        assert path.read_bytes() == b""
        assert (tmp_path / "a.log.1").read_text().startswith("before\n")
        log.write(b"two\n")
        assert (tail.read(), path.read_text()) == ("two\n", "two\n")


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_log_is_cut_on_a_full_disk_too(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "MAX_LOG_BYTES", 20)
    path = tmp_path / "a.log"
    path.write_text("")
    tail = LogTail(path)
    path.write_text("a line that is long enough\n")

    def copyfile(_, to):
        to.write_text("half")
        full()

    monkeypatch.setattr(supervisor.shutil, "copyfile", copyfile)
    assert tail.read() == "a line that is long enough\n"
    assert path.read_bytes() == b""
    assert not (tmp_path / "a.log.1").exists()


def test_a_full_disk_ends_nothing_and_the_next_status_is_written_again(tmp_path, monkeypatch):
    status = StatusFile(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        status.failed("a first error")
        status.beat()
        StatusFile(tmp_path)
    assert Status.read(tmp_path).last_error == ""
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
    status.enter(RUNNING)
    assert Status.read(tmp_path).last_error == "a first error"


def test_a_folder_is_run_once_at_a_time(tmp_path):
    with (
        only_one(tmp_path),
        pytest.raises(FederationError, match="already running"),
        only_one(tmp_path),
    ):
        pass
    with only_one(tmp_path):
        pass


def test_a_status_is_read_as_written_and_not_at_all_if_damaged(tmp_path):
    assert Status.read(tmp_path) is None
    status = StatusFile(tmp_path)
    assert Status.read(tmp_path).state == STARTING
    status.failed("one\nline " + "x" * 1000, restart=True)
    status.enter(WAITING)
    found = Status.read(tmp_path)
    assert (found.state, found.restarts, found.pid) == (WAITING, 1, os.getpid())
    assert found.last_error.startswith("one line x")
    assert len(found.last_error) == 400
    assert (tmp_path / "status.json").stat().st_mode & 0o777 == 0o600
    for text in ("", "[]", "{}", '{"state": 1}'):
        (tmp_path / "status.json").write_text(text)
        assert Status.read(tmp_path) is None


def test_who_asks_whether_a_folder_is_run_does_not_run_it(tmp_path):
    assert not is_run(tmp_path)
    with only_one(tmp_path):
        assert is_run(tmp_path)
    assert not is_run(tmp_path)
    with only_one(tmp_path):
        pass
