"""What one message costs a device: a ClientApp in a clock, and the file that its process leaves."""

import atexit
import json
import os
import re
import resource
import time
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from lepton_flwr.secagg.wire import EXCHANGE, RECORD

TRACE = "trace"  # key of the run's configuration: the folder of the files; empty leaves none


def now() -> float:
    """Seconds since this machine's start: one clock for all its processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


BEGAN = now()  # when the app's first module was imported


class Traced(ClientApp):
    """Passes messages on to an app; at its end, a device's process writes what that took.

    Args:
        app: what answers.
    """

    def __init__(self, app: ClientApp) -> None:
        super().__init__()
        self._app = app
        self._imported = now()

    def __call__(self, message: Message, context: Context) -> Message:
        """As the app."""
        asked = now()
        kind = message.metadata.message_type.partition(".")[0]
        exchange = message.content.config_records.get(RECORD, {}).get(EXCHANGE, "")
        reply = self._app(message, context)
        answered = now()
        if folder := str(context.run_config.get(TRACE, "")):
            found = {
                "purpose": kind,
                "exchange": str(exchange),
                "node": str(context.node_id),
                "parent": _command(os.getppid()),
                "started": _started(),
                "began": BEGAN,
                "imported": self._imported,
                "asked": asked,
                "answered": answered,
            }
            atexit.register(_write, Path(folder), found)
        return reply


def _write(folder: Path, found: dict[str, object]) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    found |= {
        "ended": now(),
        "cpu": used.ru_utime + used.ru_stime,
        "peak": _peak(),
        "private": _private(),
    }
    path = folder / f"{os.getpid()}-{time.monotonic_ns()}.json"
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(found))
    beside.rename(path)


def _started() -> float:
    """When this process was started, or forked."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def _peak() -> int:
    """Most bytes that were resident; not getrusage's, which counts who started this process."""
    (found,) = re.findall(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(found) * 1024


def _private() -> int:
    """Bytes that are this process' alone."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))
