"""A client mod that gives any Flower ClientApp secure aggregation: `ClientApp(mods=[...])`.

It answers four of the five exchanges itself and wraps the app's own train or evaluate function for
the one in the middle. What leaves the device is a masked vector; anything else is refused.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import numpy as np
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    RecordDict,
)
from flwr.clientapp.typing import ClientAppCallable

from clients.refusal import refusal
from lepton_flwr.crypto import digest as digests
from lepton_flwr.errors import PolicyError
from lepton_flwr.privacy.clipping import CLIP_BY_LAYER, clip_by_layer, clip_l2
from lepton_flwr.secagg import version
from lepton_flwr.secagg.client import ClientSession
from lepton_flwr.secagg.content import content_digest
from lepton_flwr.secagg.errors import (
    MessageError,
    ModelMismatchError,
    OrderError,
    SessionLostError,
    VectorError,
)
from lepton_flwr.secagg.floors import ClientFloors
from lepton_flwr.secagg.messages import (
    Fields,
    KeyRequest,
    KeyRoster,
    RevealRequest,
    SurvivorRequest,
    WorkRequest,
)
from lepton_flwr.secagg.parameters import SessionConfig
from lepton_flwr.secagg.roles import Members, Signer
from lepton_flwr.secagg.wire import (
    EXCHANGE,
    MASKED,
    NUM_EXAMPLES,
    RECORD,
    UNCLIPPED,
    UPDATE,
    Exchange,
    purpose_of,
)

LAST_NUMBER = "last-number"
_DIGEST = "digest"
_LABEL = "lepton/secagg/kept/v1"
# The record in which the app finds what this device has agreed to.
SESSION = "secure-session"


class Participant(Protocol):
    """What secure aggregation needs of a device: local configuration, never the server's."""

    @property
    def identity(self) -> Signer:
        """Its long-term key."""

    @property
    def roster(self) -> Members:
        """Who may take part."""

    @property
    def floors(self) -> ClientFloors:
        """What it requires of a session."""


class SecureAggregationMod:
    """Secure aggregation for a ClientApp whose functions follow Flower's Message API.

    Args:
        open_participant: from Flower's context to this device's configuration.

    Guarantee: of the app's reply the server gets a masked vector, never arrays, metrics, example
    counts or the text of an exception; see `ClientSession` for what it takes to unmask a sum.
    """

    def __init__(self, open_participant: Callable[[Context], Participant]) -> None:
        self._open_participant = open_participant

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Answer one message; an error becomes a reply that names its class and no data."""
        try:
            return self._answer(message, context, call_next)
        except Exception as error:
            _Store(context).erase()
            return refusal(message, error)

    def _answer(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        record = message.content.config_records.get(RECORD)
        if record is None:
            raise PolicyError("this device answers within secure aggregation only")
        fields = dict(record)
        exchange = fields.pop(EXCHANGE, None)
        participant = self._open_participant(context)
        store = _Store(context)
        if exchange == Exchange.KEYS:
            return _reply(message, self._open_session(message, fields, participant, store))
        session = store.load(participant)
        purpose = purpose_of(message.metadata.message_type)
        if purpose != session.config.purpose:
            raise OrderError(f"a {purpose} message in a session to {session.config.purpose}")
        if exchange == Exchange.WORK:
            participation = session.start(WorkRequest.from_fields(fields), _digest_of(message))
            vector = session.mask(_work(session.config, message, context, call_next))
            store.save(session)
            content = RecordDict(
                {MASKED: ArrayRecord([vector]), RECORD: ConfigRecord(participation.to_fields())}
            )
            return Message(content, reply_to=message)
        answer: Fields
        if exchange == Exchange.SHARES:
            answer = session.share(KeyRoster.from_fields(fields)).to_fields()
        elif exchange == Exchange.ATTEST:
            answer = session.attest(SurvivorRequest.from_fields(fields)).to_fields()
        elif exchange == Exchange.REVEAL:
            answer = session.reveal(RevealRequest.from_fields(fields)).to_fields()
            store.erase()
            return _reply(message, answer)
        else:
            raise MessageError("unknown exchange: is the server of another version?")
        store.save(session)
        return _reply(message, answer)

    @staticmethod
    def _open_session(
        message: Message, fields: Fields, participant: Participant, store: "_Store"
    ) -> Fields:
        said = {key: fields.pop(key, None) for key in version.own()}
        version.check_server(said)
        request = KeyRequest.from_fields(fields)
        if request.config.run_id != str(message.metadata.run_id):
            raise MessageError("the session is for another run")
        session, keys = ClientSession.open(
            request,
            participant.identity,
            participant.roster,
            participant.floors,
            store.last_number,
        )
        store.open(session)
        return {**keys.to_fields(), **version.own()}


class _Store:
    """The run's session in Flower's context, which lasts from message to message."""

    def __init__(self, context: Context) -> None:
        self._state = context.state
        self._key = f"{RECORD}.{context.run_id}"

    @property
    def last_number(self) -> int:
        return cast(int, self._record().get(LAST_NUMBER, 0))

    def open(self, session: ClientSession) -> None:
        self._write(session.config.number, session.to_fields())

    def save(self, session: ClientSession) -> None:
        self._write(self.last_number, session.to_fields())

    def load(self, participant: Participant) -> ClientSession:
        """Take the session out: if what follows fails, it is gone."""
        fields = self._record()
        fields.pop(LAST_NUMBER, None)
        kept = fields.pop(_DIGEST, None)
        if not fields:
            raise SessionLostError("no session is open: it ended, or this device was restarted")
        self.erase()
        if kept != _digest(fields):
            raise SessionLostError("the session that this device kept was damaged: it is lost")
        return ClientSession.from_fields(
            fields, participant.identity, participant.roster, participant.floors
        )

    def erase(self) -> None:
        """Forget the session and its secrets; its number stays taken."""
        self._write(self.last_number, {})

    def _record(self) -> dict[str, Any]:
        return dict(self._state.config_records.get(self._key, {}))

    def _write(self, last_number: int, fields: Fields) -> None:
        # With one wrong bit in a key its masks do not cancel, and nobody sees it in the sum.
        digest = {_DIGEST: _digest(fields)} if fields else {}
        self._state[self._key] = ConfigRecord({LAST_NUMBER: last_number, **fields, **digest})


def _digest(fields: Fields) -> bytes:
    """Of a session at rest, 32 bytes; it guards against faults, not against who can write it."""
    return digests.digest(_LABEL, digests.field(repr(sorted(fields.items()))))


def _reply(message: Message, fields: Fields) -> Message:
    return Message(RecordDict({RECORD: ConfigRecord(fields)}), reply_to=message)


def _content(message: Message) -> dict[str, Any]:
    return {name: record for name, record in message.content.items() if name != RECORD}


def _digest_of(message: Message) -> bytes:
    return content_digest(_content(message))


def _work(
    config: SessionConfig, message: Message, context: Context, call_next: ClientAppCallable
) -> np.ndarray:
    """Run the app on the content and encode what it answers."""
    before = [
        array for record in message.content.array_records.values() for array in _numpy(record)
    ]
    by_layer = any(
        record.get(CLIP_BY_LAYER) is True for record in message.content.config_records.values()
    )
    agreed = ConfigRecord(
        {
            "number": config.number,
            "min-survivors": config.min_survivors,
            "num-clients": config.layout.num_clients,
            "l2-norm-clip": config.l2_norm_clip,
        }
    )
    message.content = RecordDict({**_content(message), SESSION: agreed})
    reply = call_next(message, context)
    if reply.has_error():
        raise MessageError("the client's app answered with an error; see the log on the device")
    metrics: dict[str, Any] = {}
    for record in reply.content.metric_records.values():
        metrics.update(record)
    values: dict[str, np.ndarray | float] = {}
    names = {part.name for part in config.layout.segments}
    if UPDATE in names:
        clip = config.l2_norm_clip
        values[UPDATE], scaled = _update(before, reply.content, clip, by_layer)
        metrics[UNCLIPPED] = int(not scaled)  # known here alone, whatever the app says
    for part in config.layout.segments:
        if part.name != UPDATE and part.name in metrics:
            values[part.name] = np.asarray(metrics[part.name], dtype=np.float64)
    weight = 1 if config.layout.max_weight == 1 else _weight(metrics)
    return config.layout.encode(values, weight)


def _weight(metrics: Mapping[str, Any]) -> int:
    weight = metrics.get(NUM_EXAMPLES)
    if not isinstance(weight, int | float) or not 0 <= weight < 2**53 or weight != int(weight):
        raise VectorError(f"the app's {NUM_EXAMPLES} is missing or not a whole number >= 0")
    return int(weight)


def _update(
    before: list[np.ndarray], content: RecordDict, l2_norm_clip: float, by_layer: bool
) -> tuple[np.ndarray, bool]:
    """The update as it is sent, and whether clipping scaled it."""
    after = [array for record in content.array_records.values() for array in _numpy(record)]
    if [array.shape for array in after] != [array.shape for array in before]:
        raise ModelMismatchError("the app's arrays do not have the shapes of the model it was sent")
    layers = [
        np.asarray(new, np.float64).reshape(-1) - np.asarray(old, np.float64).reshape(-1)
        for new, old in zip(after, before, strict=True)
    ]
    if l2_norm_clip == 0:
        return np.concatenate(layers), False
    if by_layer:
        return clip_by_layer(layers, l2_norm_clip)
    difference, _, scaled = clip_l2(np.concatenate(layers), l2_norm_clip)
    return difference, scaled


def _numpy(record: ArrayRecord) -> list[np.ndarray]:
    return [array.numpy() for array in record.values()]
