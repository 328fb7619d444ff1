"""A federation without processes: the real client mod behind a grid that calls it directly."""

import logging
import pickle
import sys
import types
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from clients.client_app import app as client_app
from clients.secagg_mod import SecureAggregationMod
from lepton_flwr.crypto.authority import Authority
from lepton_flwr.crypto.identity import Identity, Roster
from lepton_flwr.data.federated import ClientData
from lepton_flwr.device import simulated_root
from lepton_flwr.provision import provision
from lepton_flwr.secagg.floors import ClientFloors
from lepton_flwr.secagg.wire import EXCHANGE, RECORD, Exchange
from lepton_flwr.training.models import ModelSpec
from lepton_flwr.training.task import Task

RUN_ID = 2**63 + 11
MEMBERS = 131  # enough for a ring
EXCHANGES = list(Exchange)


@pytest.fixture(autouse=True)
def task_identity():
    former = (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, 1, 1
    yield
    TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = former


@dataclass
class Participant:
    identity: Identity
    roster: Roster
    floors: ClientFloors


@dataclass
class DirectGrid(Grid):
    """Calls the ClientApp at once; every message and reply is pickled, as on a wire.

    Attributes:
        apps: one ClientApp for each node.
        gone: node to the exchange (0 to 4) from which on it does not answer, in `lost_round`.
        tamper: applied to every reply.
    """

    apps: dict[int, ClientApp]
    gone: dict[int, int] = field(default_factory=dict)
    lost_sessions: Callable[[int], bool] = lambda number: True
    tamper: Callable[[Message], Message] = lambda reply: reply
    requests: list[Message] = field(default_factory=list)
    replies: list[Message] = field(default_factory=list)
    contexts: dict[int, Context] = field(default_factory=dict)
    waiting: dict[str, Message] = field(default_factory=dict)
    number: int = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid.uuid4())
            ids.append(message.metadata.message_id)
            self.requests.append(message)
            reply = self.answer(pickle.loads(pickle.dumps(message)))  # noqa: S301
            if reply is not None:
                reply = self.tamper(pickle.loads(pickle.dumps(reply)))  # noqa: S301
                self.replies.append(reply)
                self.waiting[message.metadata.message_id] = reply
        return ids

    def answer(self, message: Message) -> Message | None:
        node = message.metadata.dst_node_id
        record = message.content.config_records.get(RECORD, {})
        exchange = EXCHANGES.index(record[EXCHANGE])
        self.number = int(record.get("number", self.number))
        if self.gone.get(node, 9) <= exchange and self.lost_sessions(self.number):
            return None
        context = self.contexts.setdefault(
            node, Context(RUN_ID, node, {"partition-id": node}, RecordDict(), {})
        )
        return self.apps[node](message, context)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self.waiting.pop(i) for i in list(message_ids) if i in self.waiting]

    def get_node_ids(self) -> Iterable[int]:
        return list(self.apps)

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
        """As Flower's: for strategies without secure aggregation."""
        replies = []
        for message in messages:
            copy = pickle.loads(pickle.dumps(message))  # noqa: S301
            node = message.metadata.dst_node_id
            context = self.contexts.setdefault(
                node, Context(RUN_ID, node, {"partition-id": node}, RecordDict(), {})
            )
            replies.append(self.apps[node](copy, context))
        return replies

    def set_run(self, run: Any) -> None: ...

    @property
    def run(self) -> Any:
        return None

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError


def client(partition: int, mods: list[Any]) -> ClientApp:
    """A client with deterministic updates, different for each partition and round."""
    app = ClientApp(mods=mods)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        rounds = message.content["config"]["server-round"]
        rng = np.random.default_rng([partition, rounds])
        arrays = [
            (array + rng.normal(0, 0.1, array.shape)).astype(array.dtype)
            for array in message.content["arrays"].to_numpy_ndarrays()
        ]
        metrics = MetricRecord({"num-examples": 100 + 37 * partition, "train-loss": partition / 8})
        return Message(
            RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message
        )

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 10 + partition, "correct": 3 + partition})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


@pytest.fixture
def failing_client() -> Callable[[Exception], Callable[[int, list[Any]], ClientApp]]:
    """Clients of which that of partition 2 fails at its work with an error."""

    def with_error(error: Exception) -> Callable[[int, list[Any]], ClientApp]:
        def make(partition: int, mods: list[Any]) -> ClientApp:
            if partition != 2:
                return client(partition, mods)
            app = ClientApp(mods=mods)

            @app.train()
            def train(message: Message, context: Context) -> Message:
                raise error

            return app

        return make

    return with_error


@pytest.fixture(scope="session")
def members() -> tuple[list[Identity], Roster]:
    authority = Authority.create("tests")
    return (
        [authority.issue(f"device-{i}") for i in range(MEMBERS)],
        Roster.of_authority(authority.certificate_pem),
    )


@pytest.fixture
def grid(members) -> Callable[..., DirectGrid]:
    identities, roster = members

    def make(
        clients: int = 6,
        secure: bool = True,
        floors: ClientFloors | None = None,
        app: Callable[[int, list[Any]], ClientApp] = client,
    ) -> DirectGrid:
        apps = {}
        for i in range(clients):
            participant = Participant(identities[i], roster, floors or ClientFloors())
            mods = [SecureAggregationMod(lambda context, p=participant: p)] if secure else []
            apps[100 + i] = app(i, mods)
        return DirectGrid(apps)

    return make


@pytest.fixture
def initial() -> ArrayRecord:
    rng = np.random.default_rng(5)
    shapes = [(7, 4), (4,), (4, 1), (1,)]
    return ArrayRecord([rng.normal(0, 0.5, shape).astype(np.float32) for shape in shapes])


@pytest.fixture
def device_app() -> Callable[[Message, Context], Message]:
    """The real ClientApp as Flower runs it: what it raises becomes an error reply."""

    def answer(message: Message, context: Context) -> Message:
        try:
            return client_app(message, context)
        except ValueError as error:
            return Message(Error(2, f"ValueError: {error}"), reply_to=message)

    return answer


@pytest.fixture
def task() -> Task:
    """Private training of a linear model of two features and two classes."""
    return Task(
        model=ModelSpec("mlp", (2,), 2, ()),
        optimizer="sgd",
        learning_rate=0.1,
        local_steps=5,
        sampling_probability=0.1,
        noise_multiplier=1.5,
        l2_norm_clip=1.0,
        engine="vectorized",
        seed=1,
    )


@pytest.fixture
def keras_task(monkeypatch) -> types.ModuleType:
    """Stands for the clients' module that trains; what a test does not set is missing."""
    fake = types.ModuleType("clients.keras_task")
    monkeypatch.setitem(sys.modules, "clients.keras_task", fake)
    monkeypatch.setattr("clients.keras_task", fake, raising=False)
    return fake


@dataclass
class VotingDevices:
    """Devices that are ready to vote.

    Attributes:
        folders: of each.
        grid: reaches them; on it `replies` and `requests`.
        trained: number of each whose model was trained.
    """

    folders: list[Path]
    grid: DirectGrid
    trained: list[int]

    @property
    def roster(self) -> Roster:
        return Roster.of_authority((self.folders[0] / "roster.pem").read_bytes())

    def allow(self, text: str, devices: int | None = None) -> None:
        """Replace policies, all or the first few."""
        for folder in self.folders[:devices]:
            (folder / "policy.toml").write_text(text)


@pytest.fixture
def voting_devices(grid, device_app, keras_task, tmp_path, monkeypatch):
    """Makes devices of given votes, int (devices, queries); training is replaced."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def make(votes: np.ndarray, num_classes: int) -> VotingDevices:
        rows = [
            ClientData(
                np.full((6, 2), number, np.float32),
                np.zeros(6, np.int32),
                np.zeros((1, 2), np.float32),
                np.zeros(1, np.int32),
            )
            for number in range(len(votes))
        ]
        folders = provision(
            simulated_root(RUN_ID),
            rows,
            min_survivors=3,
            actions=["train", "evaluate", "evaluate.vote"],
        )
        direct = grid(clients=len(votes), app=lambda partition, mods: device_app)
        direct.apps = dict.fromkeys(range(len(votes)), device_app)
        made = VotingDevices(folders, direct, [])

        def train(task, weights, data, server_round):
            made.trained.append(int(data.x_train[0, 0]))
            return [weight + data.x_train[0, 0] for weight in weights]

        def probabilities(task, weights, rows):
            own = round(float(weights[0][0, 0]))
            return np.eye(num_classes)[votes[own, : len(rows)]]

        keras_task.train, keras_task.probabilities = train, probabilities
        return made

    return make
