"""One exchange: send messages, and hand over each reply as it comes."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from lepton_flwr.errors import LeptonError

FIRST_PAUSE, LAST_PAUSE = 0.01, 0.25  # seconds
PAUSE_GROWTH = 1.25  # a pause is about a fifth of the time that nothing has come
PAUSE_SHARE = 2.0  # and so many times what asking in vain took: devices' requests need the server
LONGEST_PAUSE = 0.5  # even then

# Called with the number of replies so far and the nodes that have not answered.
Progress = Callable[[int, Sequence[int]], None]


class RunInterruptedError(LeptonError):
    """The operator stopped the run."""

    exit_code = 130


@dataclass(frozen=True)
class Patience:
    """How long an exchange waits for its slowest clients.

    Attributes:
        timeout: seconds at most.
        factor: as soon as `quorum` clients have answered, the others get so many times what that
            took; 0 waits for the timeout.
        grace: the fewest seconds that those get, from the start.
        quorum: answers that are enough for a sum.
    """

    timeout: float
    factor: float = 0.0
    grace: float = 0.0
    quorum: int = 0

    def after_quorum(self, seconds: float) -> float:
        """Seconds from the start to the deadline, given when the quorum was there."""
        if self.factor == 0:
            return self.timeout
        return min(self.timeout, max(self.grace, self.factor * seconds))


def exchange(
    grid: Grid,
    messages: Sequence[Message],
    *,
    patience: Patience,
    progress: Progress | None = None,
    missing: Callable[[Sequence[int]], None] | None = None,
    stop: threading.Event | None = None,
    at_once: int = 1,
) -> Iterator[tuple[int, Message]]:
    """Send `messages` and yield the replies one at a time, in the order of their coming.

    Replies that come after the deadline are left. With each comes the node that was asked: a reply
    that Flower makes for a node that is gone does not name it.

    Args:
        grid: where to send.
        messages: one for each node.
        patience: the deadline.
        progress: called as replies come.
        missing: called at the end with the nodes that have not answered, if there are any.
        stop: when set, the exchange ends.
        at_once: how many replies may be held at a time; each question for them is a request.

    Raises:
        RunInterruptedError: `stop` was set.
    """
    start = time.monotonic()
    allowed = patience.timeout
    nodes = [message.metadata.dst_node_id for message in messages]
    sent = list(grid.push_messages(messages))
    # A message that could not be sent has no id; one too large for the link leaves none at all.
    sent += [""] * (len(nodes) - len(sent))
    pending: Mapping[str, int] = {i: node for i, node in zip(sent, nodes, strict=True) if i}
    unsent = [node for i, node in zip(sent, nodes, strict=True) if not i]
    pause, done, answers, reached = FIRST_PAUSE, 0, 0, False
    while pending:
        came, asked = set(), 0.0
        ids = iter(list(pending))
        while group := list(itertools.islice(ids, at_once)):
            before = time.monotonic()
            replies = list(grid.pull_messages(group))
            if not replies:
                asked += time.monotonic() - before
            while replies:
                reply = replies.pop(0)
                message_id = reply.metadata.reply_to_message_id
                if message_id not in group or message_id in came:
                    continue
                came.add(message_id)
                done += 1
                answers += not reply.has_error()
                yield pending[message_id], reply
        if came:
            pending = {i: node for i, node in pending.items() if i not in came}
            pause = FIRST_PAUSE
            if not reached and answers >= patience.quorum > 0:
                reached = True
                allowed = patience.after_quorum(time.monotonic() - start)
            if progress is not None:
                progress(done, [*pending.values(), *unsent])
        if stop is not None and stop.is_set():
            raise RunInterruptedError("stopped by the operator")
        if not pending or time.monotonic() - start > allowed:
            break
        time.sleep(max(pause, min(PAUSE_SHARE * asked, LONGEST_PAUSE)))
        pause = min(PAUSE_GROWTH * pause, LAST_PAUSE)
    if missing is not None and (late := [*pending.values(), *unsent]):
        missing(late)
