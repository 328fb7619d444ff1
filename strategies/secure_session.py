"""One secure sum over Flower messages: the five exchanges, driven from the server."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from logging import WARNING
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from lepton_flwr.errors import LeptonError, OutputError, classify
from lepton_flwr.failures import Failure
from lepton_flwr.runs.text import one_line
from lepton_flwr.secagg import version
from lepton_flwr.secagg.content import content_digest
from lepton_flwr.secagg.errors import MessageError
from lepton_flwr.secagg.messages import (
    Attestation,
    Fields,
    KeyRecord,
    Participation,
    Reveal,
    ShareBundle,
)
from lepton_flwr.secagg.parameters import SessionConfig
from lepton_flwr.secagg.roles import Members
from lepton_flwr.secagg.server import ServerSession
from lepton_flwr.secagg.wire import EXCHANGE, MASKED, RECORD, Exchange
from strategies.exchange import Patience, RunInterruptedError, exchange
from strategies.watcher import Watcher

MOST_AT_ONCE = 16  # replies that may be in memory together
MOST_BYTES_AT_ONCE = 2**24  # of their masked vectors
FIRST_BACKOFF = 1.0  # seconds before the first retry; each further one waits twice as long


@dataclass
class SessionReport:
    """What a session did; nothing in it is about one client's data.

    Attributes:
        purpose: "train", "evaluate" or "statistics".
        participants: clients that were asked.
        survivors: clients in the sum; 0 if there is none.
        skipped: why there is no sum, else empty.
        failures: clients that it lost, by class.
        worked: whether any client was asked to work; until then nothing can have been released.
        bytes_up: sent by all clients.
        bytes_down: sent to all clients.
        l2_norm_clip: to which each update was clipped; 0 if none was.
        seconds: by exchange, and "aggregate" for the unmasking.
    """

    purpose: str
    participants: int
    survivors: int = 0
    skipped: str = ""
    failures: Counter[Failure] = field(default_factory=Counter)
    worked: bool = False
    bytes_up: int = 0
    bytes_down: int = 0
    l2_norm_clip: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)


def replies_at_once(step: Exchange, dimension: int) -> int:
    """How many replies may be in memory together, each with a vector of so many uint32 at most."""
    if step is not Exchange.WORK:
        return MOST_AT_ONCE
    size = dimension * np.dtype(np.uint32).itemsize
    return min(max(MOST_BYTES_AT_ONCE // size, 1), MOST_AT_ONCE)


class SecureSession:
    """Runs one session over the messages that a strategy would have sent.

    Args:
        grid: where to send.
        config: the session.
        messages: the strategy's, one for each node, all with the same content.
        members: the roster.
        patience: how long each exchange waits; its quorum is set here.
        watcher: hears of replies and failures as they come.
        stop: when set, the session ends with `RunInterruptedError`.

    Attributes:
        config: the session.
        report: what it did.
    """

    def __init__(
        self,
        grid: Grid,
        config: SessionConfig,
        messages: Sequence[Message],
        members: Members,
        *,
        patience: Patience,
        watcher: Watcher | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._grid = grid
        self._type = messages[0].metadata.message_type
        self._nodes = [message.metadata.dst_node_id for message in messages]
        self._content = dict(messages[0].content.items())
        self._server = ServerSession(config, content_digest(self._content), members)
        self.config = config
        self._patience = patience
        self._watcher = watcher or Watcher()
        self._stop = stop
        self.report = SessionReport(config.purpose, len(messages), l2_norm_clip=config.l2_norm_clip)

    def run(self) -> np.ndarray | None:
        """The sum of the survivors' vectors, uint32 (dimension,), or None if the round is skipped.

        Why it was skipped is in `report.skipped`.
        """
        try:
            return self._exchanges()
        except (RunInterruptedError, OutputError):  # the latter is a watcher's
            raise
        except LeptonError as error:
            self.report.skipped = str(error)
            self.report.survivors = 0
            return None

    def _exchanges(self) -> np.ndarray:
        server = self._server
        keys = {**server.request_keys().to_fields(), **version.own()}
        self._ask(Exchange.KEYS, dict.fromkeys(self._nodes, keys), self._receive_keys)
        rosters = {node: roster.to_fields() for node, roster in server.close_keys().items()}
        self._ask(Exchange.SHARES, rosters, self._receive_shares)
        work = {node: request.to_fields() for node, request in server.close_shares().items()}
        self.report.worked = True
        self._ask(Exchange.WORK, work, self._receive_masked, self._content)
        survivors = {node: request.to_fields() for node, request in server.close_masked().items()}
        self.report.survivors = server.num_survivors
        self._ask(Exchange.ATTEST, survivors, self._receive_attestation)
        reveals = {
            node: request.to_fields() for node, request in server.close_attestations().items()
        }
        self._ask(Exchange.REVEAL, reveals, self._receive_reveal)
        start = time.monotonic()
        total = server.close_reveals()
        self.report.seconds["aggregate"] = time.monotonic() - start
        return total

    def _ask(
        self,
        step: Exchange,
        requests: Mapping[int, Fields],
        receive: Callable[[int, Message], None],
        content: Mapping[str, Any] | None = None,
    ) -> None:
        start = time.monotonic()
        messages = []
        for node, fields in requests.items():
            record = ConfigRecord({EXCHANGE: str(step), **fields})
            body = RecordDict({**(content or {}), RECORD: record})
            self.report.bytes_down += _size(body)
            messages.append(Message(body, node, self._type, ttl=self._patience.timeout))
        total, failed = len(messages), self.report.failures.total()
        self._watcher.waiting(step, 0, total, list(requests))
        quorum = self.config.enough(min(total, self.config.layout.num_clients))
        for node, reply in exchange(
            self._grid,
            messages,
            patience=replace(self._patience, quorum=quorum),
            progress=lambda done, nodes: self._watcher.waiting(step, done, total, nodes),
            missing=lambda nodes: self._missing(step, nodes),
            stop=self._stop,
            at_once=replies_at_once(step, self.config.layout.dimension),
        ):
            self._receive(step, node, reply, receive)
        self.report.seconds[step] = seconds = time.monotonic() - start
        answered = total - (self.report.failures.total() - failed)
        self._watcher.exchanged(self.report.purpose, step, answered, total, seconds)

    def _receive(
        self, step: Exchange, node: int, reply: Message, receive: Callable[[int, Message], None]
    ) -> None:
        """One bad reply costs the round one client."""
        if reply.has_error():
            self._failed(step, node, Failure.of_code(reply.error.code), str(reply.error.reason))
            return
        self.report.bytes_up += _size(reply.content)
        try:
            receive(node, reply)
        except LeptonError as error:
            self._failed(step, node, classify(error), f"{type(error).__name__}: {error}")

    def _missing(self, step: Exchange, nodes: Sequence[int]) -> None:
        """Those that did not answer: gone, where the federation no longer knows them."""
        there = set(self._grid.get_node_ids())
        for node in nodes:
            failure = Failure.TIMEOUT if node in there else Failure.LEFT
            self._failed(step, node, failure, "no answer in time")

    def _failed(self, step: Exchange, node: int, failure: Failure, reason: str) -> None:
        self.report.failures[failure] += 1
        # The class counts; the text is a client's and only for whoever reads the log.
        text = one_line(reason)[:300]
        log(WARNING, "Node %d left the round at %s: %s (%s)", node, step, failure.words, text)
        self._watcher.failed(step, node, failure)

    def _receive_keys(self, node: int, reply: Message) -> None:
        fields = _fields(reply)
        version.check_client({key: fields.pop(key, None) for key in version.own()})
        self._server.receive_keys(node, KeyRecord.from_fields(fields))

    def _receive_shares(self, node: int, reply: Message) -> None:
        self._server.receive_shares(node, ShareBundle.from_fields(_fields(reply)))

    def _receive_masked(self, node: int, reply: Message) -> None:
        record = reply.content.array_records.get(MASKED)
        if record is None or len(record) != 1:
            raise MessageError("a reply without one masked vector")
        (array,) = record.values()
        try:
            vector = array.numpy()
        except Exception:  # the bytes are a client's: numpy may raise anything
            raise MessageError("a masked vector that is not an array") from None
        self._server.receive_masked(node, vector, Participation.from_fields(_fields(reply)))

    def _receive_attestation(self, node: int, reply: Message) -> None:
        self._server.receive_attestation(node, Attestation.from_fields(_fields(reply)))

    def _receive_reveal(self, node: int, reply: Message) -> None:
        self._server.receive_reveal(node, Reveal.from_fields(_fields(reply)))


def attempts(
    open_session: Callable[[], SecureSession],
    retries: int,
    *,
    watcher: Watcher,
    stop: threading.Event | None,
) -> Iterator[tuple[SecureSession, np.ndarray | None]]:
    """Sessions until one gives a sum; one that asked nobody to work is opened anew.

    The cohort stays: one that is drawn again until it answers is no Poisson sample. Nor is a round
    repeated that clients worked for: that would be one more release.

    Args:
        open_session: makes the next one.
        retries: how often one is opened anew, after 1, 2, 4, ... seconds.
        watcher: hears of each retry.
        stop: when set, the wait ends.

    Yields:
        Each session that has ended, and its sum or None.

    Raises:
        RunInterruptedError: `stop` was set.
    """
    for attempt in itertools.count(1):
        session = open_session()
        total = session.run()
        yield session, total
        if total is not None or session.report.worked or attempt > retries:
            return
        seconds = FIRST_BACKOFF * 2 ** (attempt - 1)
        watcher.retrying(attempt, seconds, session.report.skipped)
        if stop is None:
            time.sleep(seconds)
        elif stop.wait(seconds):
            raise RunInterruptedError("stopped by the operator")


def _fields(reply: Message) -> Fields:
    record = reply.content.config_records.get(RECORD)
    if record is None:
        raise MessageError("a reply without a secure aggregation record")
    return dict(record)


def _size(content: RecordDict) -> int:
    return sum(record.count_bytes() for record in content.values())
