"""One exchange: send messages, and hand over each reply as it comes."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from lepton_flwr.errors import LeptonError

FIRST_PAUSE = 0.01
LONGEST_PAUSE = 0.5


class RunInterruptedError(LeptonError):
    """The operator stopped the run."""

    exit_code = 130


def exchange(
    grid: Grid,
    messages: Sequence[Message],
    *,
    timeout: float,
    progress: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Message]:
    """Send `messages` and yield the replies one at a time, in the order of their coming.

    One reply is held at a time. Those that have not come after `timeout` seconds are left.

    Args:
        grid: where to send.
        messages: one for each node.
        timeout: seconds from now.
        progress: called with the number of replies so far.
        stop: when set, the exchange ends.

    Raises:
        RunInterruptedError: `stop` was set.
    """
    deadline = time.monotonic() + timeout
    pending = [message_id for message_id in grid.push_messages(messages) if message_id]
    pause, done = FIRST_PAUSE, 0
    while pending:
        came = set()
        for message_id in pending:
            for reply in grid.pull_messages([message_id]):
                came.add(message_id)
                done += 1
                yield reply
        if came:
            pending = [message_id for message_id in pending if message_id not in came]
            pause = FIRST_PAUSE
            if progress is not None:
                progress(done)
        if stop is not None and stop.is_set():
            raise RunInterruptedError("stopped by the operator")
        if not pending or time.monotonic() > deadline:
            return
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
