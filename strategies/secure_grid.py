"""A Flower grid on which train and evaluate messages come back as one secure sum.

To the strategy on top it looks like a federation with a single client that answers with the mean:
any strategy that is linear in the clients' replies works on it unchanged.
"""

import itertools
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from lepton_flwr import _validate as check
from lepton_flwr.crypto.stream import StreamCipher
from lepton_flwr.errors import ConfigError, FederationError
from lepton_flwr.privacy.adaptive import AdaptiveClip
from lepton_flwr.privacy.mechanism import ClientLevelGaussian
from lepton_flwr.privacy.noise import GaussianNoise
from lepton_flwr.secagg.encoding import Decoded, Kind, Layout, Segment
from lepton_flwr.secagg.errors import VectorError
from lepton_flwr.secagg.graph import MAX_CLIENTS
from lepton_flwr.secagg.parameters import SessionConfig
from lepton_flwr.secagg.roles import Members
from lepton_flwr.secagg.wire import NUM_EXAMPLES, UNCLIPPED, UPDATE
from strategies.exchange import Patience
from strategies.secure_session import SecureSession, SessionReport, attempts
from strategies.watcher import Watcher


@dataclass(frozen=True)
class ClientPrivacy:
    """Client-level privacy by noise on the decrypted sum.

    Attributes:
        l2_norm_clip: bound of one client's update; the client clips.
        noise_multiplier: noise standard deviation over the sensitivity of the sum.
        sampling_probability: chance of each client to be asked in a round, drawn here from the
            operating system's generator (Poisson sampling).
        population: clients of the federation; a round with more of them is refused.
        adaptive: moves `l2_norm_clip`, which is then that of the first round; None keeps it.
    """

    l2_norm_clip: float
    noise_multiplier: float
    sampling_probability: float
    population: int
    adaptive: AdaptiveClip | None = None

    def __post_init__(self) -> None:
        check.finite("l2_norm_clip", self.l2_norm_clip, above=0)
        check.finite("noise_multiplier", self.noise_multiplier, above=0)
        check.finite("sampling_probability", self.sampling_probability, above=0, at_most=1)
        check.integer("population", self.population, at_least=3)

    @property
    def expected_cohort(self) -> float:
        """What the noised sum is divided by: a public constant, unlike the survivors' number."""
        return self.sampling_probability * self.population

    def sample(self, messages: Sequence[Message]) -> list[Message]:
        """Keep each client's message with the sampling probability.

        Raises:
            FederationError: more clients than the accounting assumes.
        """
        if len(messages) > self.population:
            raise FederationError(
                f"{len(messages)} clients: client-level privacy was accounted for a population of "
                f"{self.population}; restart with the new number of clients"
            )
        if self.sampling_probability == 1.0:
            return list(messages)
        below = int(self.sampling_probability * 2**64)
        return [message for message in messages if secrets.randbits(64) < below]


@dataclass(frozen=True)
class SecureSettings:
    """How replies are summed.

    Attributes:
        min_survivors: fewest clients whose sum is revealed; the protocol's threshold may be more.
        update_bound: largest absolute coordinate of an update, where no client privacy bounds it.
        max_examples: largest weight of one client; 1 weighs all alike.
        timeout: seconds that each exchange waits at most.
        straggler_factor: see `Patience`.
        straggler_grace: see `Patience`.
        retries: how often a session that asked nobody to work is opened anew.
        cipher: of the masks.
        train_metrics: what a train reply's metrics add to the sum beside the update.
        evaluate_metrics: the same for evaluate replies.
        client_privacy: client-level privacy of the updates, or None.
    """

    min_survivors: int = 3
    update_bound: float = 16.0
    max_examples: int = 65_536
    timeout: float = 600.0
    straggler_factor: float = 0.0
    straggler_grace: float = 0.0
    retries: int = 0
    cipher: StreamCipher = StreamCipher.AES
    train_metrics: tuple[Segment, ...] = ()
    evaluate_metrics: tuple[Segment, ...] = ()
    client_privacy: ClientPrivacy | None = None


class SecureGrid(Grid):
    """Wraps a grid; see the module.

    Args:
        grid: the federation's.
        members: the roster.
        settings: how replies are summed.
        before_session: called before a session, also before it is charged, to bring `members` up to
            date; what it raises ends the run.
        before_train: called before any training message is sent, to charge the budget; what it
            raises ends the run.
        on_session: called after each session with its report and what it decoded to, if anything.
        watcher: hears of replies and failures as they come.
        numbers: gives each session its number; greater than every one given before in this run,
            also by a server that was ended. None counts from 1.
        stop: when set, the run ends with `RunInterruptedError`.

    Guarantee: the strategy, its logs and whoever reads them see sums and their number of clients.
    With client privacy, the update handed on is one Gaussian mechanism per client.
    """

    def __init__(
        self,
        grid: Grid,
        members: Members,
        settings: SecureSettings,
        *,
        before_session: Callable[[], None] | None = None,
        before_train: Callable[[], None] | None = None,
        on_session: Callable[[SessionReport, Decoded | None], None] | None = None,
        watcher: Watcher | None = None,
        numbers: Callable[[], int] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._grid = grid
        self._members = members
        self._settings = settings
        self._before_session = before_session
        self._before_train = before_train
        self._on_session = on_session
        self._watcher = watcher or Watcher()
        self._numbers = numbers or itertools.count(1).__next__
        self._stop = stop
        privacy = settings.client_privacy
        self._clip = 0.0 if privacy is None else privacy.l2_norm_clip

    @property
    def l2_norm_clip(self) -> float:
        """To which the next round's updates are clipped; 0 without client-level privacy."""
        return self._clip

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Run one session over the messages.

        Returns:
            One reply with the mean, or none if the round is skipped.

        Raises:
            ConfigError: the messages are neither train nor evaluate messages, or differ.
            FederationError: too few or too many clients for a session.
            RunInterruptedError: the operator stopped the run.
        """
        messages = list(messages)
        if not messages:
            return []
        types = {message.metadata.message_type for message in messages}
        purpose = min(types).partition(".")[0]
        if len(types) != 1 or purpose not in ("train", "evaluate"):
            raise ConfigError(f"messages of {sorted(types)}: expected one kind, train or evaluate")
        if any(message.content is not messages[0].content for message in messages):
            raise ConfigError("messages with different content: a sum needs one model for all")
        privacy = self._settings.client_privacy
        if self._before_session is not None:
            self._before_session()
        if purpose == "train":
            if self._before_train is not None:
                self._before_train()
            if privacy is not None:
                messages = privacy.sample(messages)
        floor = self._settings.min_survivors
        if len(messages) < floor:
            report = SessionReport(purpose, len(messages))
            report.skipped = f"{len(messages)} clients in the cohort: expected at least {floor}"
            return self._finish(report, None)
        if len(messages) > MAX_CLIENTS:
            raise FederationError(f"{len(messages)} clients: expected at most {MAX_CLIENTS}")
        return self._sum(messages, purpose, min(timeout or np.inf, self._settings.timeout))

    def _sum(self, messages: list[Message], purpose: str, timeout: float) -> list[Message]:
        found = self._session(messages, purpose, timeout)
        if found is None:
            return []
        config, report, total = found
        lifted = config.layout.lift(total)
        privacy = self._settings.client_privacy
        if purpose == "train" and privacy is not None:
            self._noise(privacy, config, lifted)
        try:
            decoded = config.layout.decode(lifted)
        except VectorError as error:
            report.skipped = str(error)
            return self._finish(report, None)
        if UPDATE in decoded.means and privacy is not None:
            decoded.means[UPDATE] *= decoded.weight / privacy.expected_cohort
        self._finish(report, decoded)
        return [Message(_content(messages[0].content, decoded), reply_to=messages[0])]

    def _session(
        self, messages: list[Message], purpose: str, timeout: float
    ) -> tuple[SessionConfig, SessionReport, np.ndarray] | None:
        """A session that gives a sum, or None; one that asked nobody to work is opened anew."""
        settings = self._settings
        patience = Patience(timeout, settings.straggler_factor, settings.straggler_grace)

        def open_session() -> SecureSession:
            return SecureSession(
                self._grid,
                self._config(messages, purpose),
                messages,
                self._members,
                patience=patience,
                watcher=self._watcher,
                stop=self._stop,
            )

        for session, total in attempts(
            open_session, settings.retries, watcher=self._watcher, stop=self._stop
        ):
            if total is not None:
                return session.config, session.report, total
            self._finish(session.report, None)
        return None

    def _config(self, messages: list[Message], purpose: str) -> SessionConfig:
        settings, privacy = self._settings, self._settings.client_privacy
        segments = settings.train_metrics if purpose == "train" else settings.evaluate_metrics
        clip = 0.0
        if purpose == "train":
            clip = self._clip
            arrays = _arrays(messages[0].content)
            size = sum(int(np.prod(array.shape)) for array in arrays.values())
            update = Segment(UPDATE, Kind.MEAN, size, clip or settings.update_bound)
            segments = (update, *segments)
            if privacy is not None and privacy.adaptive is not None:
                segments = (*segments, Segment(UNCLIPPED, Kind.COUNT, 1, 1))
        weighted = purpose == "evaluate" or privacy is None
        count = len(messages)
        return SessionConfig(
            run_id=str(messages[0].metadata.run_id),
            number=self._numbers(),
            purpose=purpose,
            layout=Layout(segments, count, settings.max_examples if weighted else 1),
            min_survivors=settings.min_survivors,
            l2_norm_clip=clip,
            cipher=settings.cipher,
        )

    def _noise(self, privacy: ClientPrivacy, config: SessionConfig, lifted: np.ndarray) -> None:
        """Noise the sum in place; one Gaussian mechanism, also where the bound is adapted."""
        layout, multiplier, adaptive = config.layout, privacy.noise_multiplier, privacy.adaptive
        (update,) = (part for part in layout.segments if part.name == UPDATE)
        mechanism = ClientLevelGaussian(
            l2_norm_clip=config.l2_norm_clip,
            noise_multiplier=adaptive.update_multiplier(multiplier) if adaptive else multiplier,
            scale=layout.scale(update),
        )
        where = layout.slice(UPDATE)
        lifted[where] = mechanism.release(lifted[where])
        if adaptive is not None:
            place = layout.slice(UNCLIPPED)
            stddev = adaptive.count_multiplier(multiplier)
            lifted[place] += GaussianNoise().rounded(1, stddev)
            (noised,) = lifted[place].tolist()
            self._clip = adaptive.next_clip(self._clip, noised, privacy.expected_cohort)

    def _finish(self, report: SessionReport, decoded: Decoded | None) -> list[Message]:
        if self._on_session is not None:
            self._on_session(report, decoded)
        return []

    def set_run(self, run: Any) -> None:
        """As the wrapped grid."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """As the wrapped grid."""
        return self._grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """As the wrapped grid."""
        return self._grid.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """As the wrapped grid."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Any:
        """As the wrapped grid."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:  # noqa: ARG002
        """Refused: a single client's reply would come back."""
        raise ConfigError("push_messages: within secure aggregation only send_and_receive answers")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:  # noqa: ARG002
        """Refused, as `push_messages`."""
        raise ConfigError("pull_messages: within secure aggregation only send_and_receive answers")


def _arrays(content: RecordDict) -> ArrayRecord:
    if len(content.array_records) != 1:
        raise ConfigError(f"{len(content.array_records)} array records: expected one, the model")
    (record,) = content.array_records.values()
    return record


def _content(request: RecordDict, decoded: Decoded) -> RecordDict:
    """The reply of the one client that the strategy sees."""
    metrics: dict[str, Any] = {NUM_EXAMPLES: max(decoded.weight, 1)}
    records: dict[str, Any] = {}
    for name, values in {**decoded.means, **decoded.sums}.items():
        if name == UPDATE:
            ((key, model),) = request.array_records.items()
            records[key] = _add(model, values)
        elif values.size == 1:
            # Histograms are for `on_session`: strategies average metrics and log them.
            metrics[name] = values.item()
    return RecordDict({**records, "metrics": MetricRecord(metrics)})


def _add(model: ArrayRecord, update: np.ndarray) -> ArrayRecord:
    """The model plus the mean update, in the model's shapes and types."""
    arrays, start = {}, 0
    for key, array in model.items():
        old = array.numpy()
        step = update[start : start + old.size].reshape(old.shape)
        arrays[key] = Array((old.astype(np.float64) + step).astype(old.dtype))
        start += old.size
    return ArrayRecord(arrays)
