import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from lepton_flwr.errors import FederationError
from simulations import processes as module
from simulations.processes import Processes, termination_as_exit

linux = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="descendants are found in /proc")


def python(code):
    return [sys.executable, "-c", textwrap.dedent(code)]


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def running(pid):
    """Whether the process runs; one that ended but was not waited for does not."""
    done = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()[:1] not in ("", "Z")


STUBBORN = """
    import signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if len(sys.argv) == 1:
        child = subprocess.Popen([sys.executable, "-c", open("/proc/self/cmdline").read()
            .split(chr(0))[2], "child"], start_new_session=True)
        print(child.pid, flush=True)
    else:
        print("stubborn", flush=True)
    time.sleep(1000)
"""


@linux
def test_descendants_end_even_in_another_session_and_deaf_to_sigterm(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 2.0)
    with Processes(tmp_path, os.environ) as processes:
        processes.start("parent", python(STUBBORN))
        wait_until(lambda: "stubborn" in processes.output("parent"))
        pids = processes.alive()
        child = int(next(w for w in processes.output("parent").split() if w.isdigit()))
        assert child in pids
        assert len(pids) == 2
    assert not any(running(pid) for pid in pids)
    assert processes.alive() == set()


@linux
def test_orphans_of_a_process_that_has_ended_end_too(tmp_path):
    code = """
        import subprocess, sys
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"],
            start_new_session=True)
    """
    with Processes(tmp_path, os.environ) as processes:
        processes.start("parent", python(code))
        processes.finish("parent")
        (orphan,) = processes.alive()
        assert running(orphan)
    assert not running(orphan)


def test_processes_of_others_are_left_alone(tmp_path):
    other = subprocess.Popen(python("import time; time.sleep(1000)"))
    try:
        with Processes(tmp_path, os.environ) as processes:
            processes.start("mine", python("import time; time.sleep(1000)"))
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_an_error_in_the_block_ends_the_processes_too(tmp_path):
    def fail():
        with Processes(tmp_path, os.environ) as processes:
            processes.start("mine", python("import time; time.sleep(1000)"))
            pids.extend(processes.alive())
            raise KeyboardInterrupt

    pids = []
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert len(pids) == 1
    assert not running(pids[0])


def test_a_second_interrupt_does_not_stop_the_clean_up(tmp_path):
    former = signal.getsignal(signal.SIGINT)
    with Processes(tmp_path, os.environ) as processes:
        code = f"""
            import os, signal, time
            def interrupt(*_):
                os.kill({os.getpid()}, signal.SIGINT)
                time.sleep(0.2)
                raise SystemExit
            signal.signal(signal.SIGTERM, interrupt)
            print("ready", flush=True)
            time.sleep(1000)
        """
        processes.start("mine", python(code))
        wait_until(lambda: "ready" in processes.output("mine"))
    assert processes.ended("mine")
    assert signal.getsignal(signal.SIGINT) is former


SPEAKING = """
    print("Error: an older one")
    print("│ \\x1b[91mERROR \\x1b[0m: port in use │")
    print("by others")
    print("INFO : goodbye")
    raise SystemExit(3)
"""


def test_a_failure_is_one_line_with_the_code_and_the_last_error(tmp_path):
    with Processes(tmp_path, os.environ) as processes:
        processes.start("mine", python(SPEAKING))
        with pytest.raises(FederationError) as caught:
            processes.finish("mine")
    message = str(caught.value)
    assert message.startswith("mine ended with code 3: ERROR : port in use by others (")
    assert str(tmp_path / "mine.log") in message
    assert "\n" not in message


def test_a_missing_program_is_named(tmp_path):
    with (
        Processes(tmp_path, os.environ) as processes,
        pytest.raises(FederationError, match="cannot start no-such-program: No such file"),
    ):
        processes.start("mine", ["no-such-program"])


def test_a_process_that_takes_too_long_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FINISH_SECONDS", 0.1)
    with Processes(tmp_path, os.environ) as processes:
        processes.start("mine", python("import time; time.sleep(1000)"))
        with pytest.raises(FederationError, match="mine is not done"):
            processes.finish("mine")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_unwinds_the_stack(number):
    former = signal.getsignal(number)

    def end_this_process():
        with termination_as_exit():
            os.kill(os.getpid(), number)
            time.sleep(5)

    with pytest.raises(SystemExit) as caught:
        end_this_process()
    assert caught.value.code == 128 + number
    assert signal.getsignal(number) is former
