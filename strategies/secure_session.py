"""One secure sum over Flower messages: the five exchanges, driven from the server."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import WARNING
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from lepton_flwr.errors import LeptonError
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
from strategies.exchange import RunInterruptedError, exchange

Progress = Callable[[str, int, int], None]


@dataclass
class SessionReport:
    """What a session did; nothing in it is about one client.

    Attributes:
        purpose: "train" or "evaluate".
        participants: clients that were asked.
        survivors: clients in the sum; 0 if there is none.
        skipped: why there is no sum, else empty.
        failures: error classes of clients, counted.
        bytes_up: sent by all clients.
        bytes_down: sent to all clients.
        l2_norm_clip: to which each update was clipped; 0 if none was.
        seconds: by exchange, and "aggregate" for the unmasking.
    """

    purpose: str
    participants: int
    survivors: int = 0
    skipped: str = ""
    failures: Counter[str] = field(default_factory=Counter)
    bytes_up: int = 0
    bytes_down: int = 0
    l2_norm_clip: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)


class SecureSession:
    """Runs one session over the messages that a strategy would have sent.

    Args:
        grid: where to send.
        config: the session.
        messages: the strategy's, one for each node, all with the same content.
        members: the roster.
        timeout: seconds that each exchange waits.
        progress: called with the exchange, the replies so far and the number expected.
        stop: when set, the session ends with `RunInterruptedError`.
    """

    def __init__(
        self,
        grid: Grid,
        config: SessionConfig,
        messages: Sequence[Message],
        members: Members,
        *,
        timeout: float,
        progress: Progress | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._grid = grid
        self._type = messages[0].metadata.message_type
        self._nodes = [message.metadata.dst_node_id for message in messages]
        self._content = dict(messages[0].content.items())
        self._server = ServerSession(config, content_digest(self._content), members)
        self._timeout = timeout
        self._progress = progress
        self._stop = stop
        self.report = SessionReport(config.purpose, len(messages), l2_norm_clip=config.l2_norm_clip)

    def run(self) -> np.ndarray | None:
        """The sum of the survivors' vectors, uint32 (dimension,), or None if the round is skipped.

        Why it was skipped is in `report.skipped`.
        """
        try:
            return self._exchanges()
        except RunInterruptedError:
            raise
        except LeptonError as error:
            self.report.skipped = str(error)
            self.report.survivors = 0
            return None

    def _exchanges(self) -> np.ndarray:
        server = self._server
        keys = server.request_keys().to_fields()
        self._ask(Exchange.KEYS, dict.fromkeys(self._nodes, keys), self._receive_keys)
        rosters = {node: roster.to_fields() for node, roster in server.close_keys().items()}
        self._ask(Exchange.SHARES, rosters, self._receive_shares)
        work = {node: request.to_fields() for node, request in server.close_shares().items()}
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
            messages.append(Message(body, node, self._type, ttl=self._timeout))
        if self._progress is not None:
            self._progress(step, 0, len(messages))
        for reply in exchange(
            self._grid,
            messages,
            timeout=self._timeout,
            progress=lambda done: self._progress and self._progress(step, done, len(messages)),
            stop=self._stop,
        ):
            self._receive(reply, receive)
        self.report.seconds[step] = time.monotonic() - start

    def _receive(self, reply: Message, receive: Callable[[int, Message], None]) -> None:
        """One bad reply costs the round one client."""
        if reply.has_error():
            self._failed(str(reply.error.reason))
            return
        self.report.bytes_up += _size(reply.content)
        try:
            receive(reply.metadata.src_node_id, reply)
        except LeptonError as error:
            self._failed(f"{type(error).__name__}: {error}")

    def _failed(self, reason: str) -> None:
        self.report.failures[reason.partition(":")[0][:80]] += 1
        log(WARNING, "A client left the round: %s", reason[:300])

    def _receive_keys(self, node: int, reply: Message) -> None:
        self._server.receive_keys(node, KeyRecord.from_fields(_fields(reply)))

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


def _fields(reply: Message) -> Fields:
    record = reply.content.config_records.get(RECORD)
    if record is None:
        raise MessageError("a reply without a secure aggregation record")
    return dict(record)


def _size(content: RecordDict) -> int:
    return sum(record.count_bytes() for record in content.values())
