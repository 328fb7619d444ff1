"""What a server asks, and what every device makes of it: the real ClientApp behind a direct grid.

Training itself is replaced, so that it can be told whether it was reached.
"""

import dataclasses
import logging
import sys

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg

import lepton_flwr.device.device as device_module
from lepton_flwr import code
from lepton_flwr.crypto.authority import Authority
from lepton_flwr.crypto.identity import Roster
from lepton_flwr.data.federated import ClientData
from lepton_flwr.device import Device, simulated_root
from lepton_flwr.privacy import losses
from lepton_flwr.privacy.events import SampledGaussian, Unit
from lepton_flwr.privacy.policy import CLIENT_NOISE, PrivacyPolicy
from lepton_flwr.provision import provision
from strategies.secure_aggregation import SecureAggregation
from strategies.secure_grid import ClientPrivacy, SecureGrid, SecureSettings

RUN_ID = 2**63 + 11
CLIENTS = 4
ROUND = SampledGaussian(1.5, 0.1, 5)
POLICY = "min_survivors = 3\nmin_record_noise_multiplier = 1.2\n"


def epsilon(rounds, event=ROUND):
    return losses.epsilon([(event, rounds)], 1e-5)


class Federation:
    """Four devices, a server that may ask for anything, and a record of what happened."""

    def __init__(self, grid, initial, folders, reached, task):
        self.grid, self.initial, self.folders, self.reached = grid, initial, folders, reached
        self.task = task
        self.roster = Roster.of_authority((folders[0] / "roster.pem").read_bytes())

    def ask(self, task=None, rounds=1, client_noise=None, privacy=None, survivors=3):
        """Returns the reasons of all refusals, by device."""
        self.grid.replies.clear()
        self.grid.contexts.clear()  # what another run leaves in a device is no obstacle
        for context in self.grid.contexts.values():
            context.state.clear()
        config = {"task": (task or self.task).to_json()}
        if client_noise is not None:
            config[CLIENT_NOISE] = client_noise
        strategy = SecureAggregation(
            FedAvg(fraction_evaluate=0.0, min_available_nodes=CLIENTS, min_train_nodes=CLIENTS),
            lambda plain: SecureGrid(
                plain,
                self.roster,
                SecureSettings(
                    min_survivors=survivors, update_bound=1.0, timeout=0.2, client_privacy=privacy
                ),
            ),
        )
        strategy.start(
            self.grid, self.initial, num_rounds=rounds, train_config=ConfigRecord(config)
        )
        return self.reasons()

    def reasons(self):
        found = {}
        for reply in self.grid.replies:
            if reply.has_error():
                found.setdefault(reply.metadata.src_node_id, []).append(reply.error.reason)
        return found

    def ledger(self, device=0):
        return Device.open(self.folders[device]).ledger()


@pytest.fixture
def federation(grid, initial, device_app, task, keras_task, tmp_path, monkeypatch):
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rng = np.random.default_rng(1)
    rows = [
        ClientData(
            rng.normal(size=(6, 2)).astype(np.float32),
            np.zeros(6, np.int32),
            np.zeros((1, 2), np.float32),
            np.zeros(1, np.int32),
        )
        for _ in range(CLIENTS)
    ]
    folders = provision(
        simulated_root(RUN_ID),
        rows,
        min_survivors=3,
        spending=PrivacyPolicy(max_record_epsilon=epsilon(3)),
    )
    reached = {"data": 0, "training": 0}

    def train(task, weights, data, server_round):
        reached["training"] += 1
        return [weight + np.float32(0.01) for weight in weights]

    keras_task.train = train
    read = Device.data

    def data(self):
        reached["data"] += 1
        return read(self)

    monkeypatch.setattr(Device, "data", data)
    direct = grid(clients=CLIENTS, app=lambda partition, mods: device_app)
    direct.apps = dict.fromkeys(range(CLIENTS), device_app)
    made = Federation(direct, initial, folders, reached, task)

    def policy(text):
        for folder in folders:
            (folder / "policy.toml").write_text(text)

    made.policy = policy
    return made


def everyone_refused(federation, reason, found=None):
    found = federation.reasons() if found is None else found
    assert set(found) == set(range(CLIENTS))
    for reasons in found.values():
        assert all(reason in text for text in reasons), reasons
    assert federation.reached == {"data": 0, "training": 0}


def test_an_honest_server_is_answered_and_charged(federation):
    federation.policy(POLICY)
    assert federation.ask(rounds=2) == {}
    assert federation.reached["training"] == 2 * CLIENTS
    for device in range(CLIENTS):
        with federation.ledger(device) as ledger:
            entries = ledger.history()
            assert [entry.committed for entry in entries] == [True, True]
            dataset = ledger.dataset(Device.open(federation.folders[device]).data_digest())
            assert ledger.spent(Unit.RECORD, dataset, 1e-5) == epsilon(2)


def test_less_noise_than_the_policy_asks_for_is_refused_by_every_device(federation):
    federation.policy(POLICY)
    found = federation.ask(dataclasses.replace(federation.task, noise_multiplier=1.19))
    everyone_refused(federation, "PolicyError: noise_multiplier=1.19", found)


def test_training_without_noise_fits_no_limit(federation):
    found = federation.ask(dataclasses.replace(federation.task, noise_multiplier=0.0))
    everyone_refused(federation, "BudgetError: the budget per record", found)


def test_more_rounds_than_the_budget_allows_are_refused_by_every_device(federation):
    found = federation.ask(rounds=5)
    assert federation.reached["training"] == 3 * CLIENTS
    assert {len(reasons) for reasons in found.values()} == {2}
    assert all("BudgetError" in text for reasons in found.values() for text in reasons)


def test_a_new_run_does_not_bring_a_new_budget_and_new_data_does(federation):
    assert federation.ask(rounds=3) == {}
    federation.reached.update(data=0, training=0)
    everyone_refused(federation, "BudgetError", federation.ask())
    rows = Device.open(federation.folders[0]).data()
    fresh = ClientData(rows.x_train + 1, rows.y_train, rows.x_test, rows.y_test)
    for folder in federation.folders:
        fresh.save(folder / "data.npz")
    assert federation.ask() == {}


@pytest.mark.parametrize("more", [{"local_steps": 500}, {"sampling_probability": 1.0}])
def test_a_costlier_round_is_refused_by_every_device(federation, more):
    everyone_refused(
        federation, "BudgetError", federation.ask(dataclasses.replace(federation.task, **more))
    )


@pytest.mark.parametrize("kind", ["train", "evaluate", "query", "train.other", "query.delete"])
def test_without_secure_aggregation_nothing_is_answered(federation, device_app, kind):
    for node in range(CLIENTS):
        content = RecordDict(
            {
                "arrays": federation.initial,
                "config": ConfigRecord({"task": federation.task.to_json(), "server-round": 1}),
            }
        )
        message = Message(content, node, kind)
        message.metadata.__dict__["_message_id"] = str(node)
        context = federation_context(node)
        reply = device_app(message, context)
        assert reply.has_error()
        # Flower itself turns away what no function is registered for.
        known = kind in ("train", "evaluate")
        assert ("PolicyError" if known else "ValueError: No") in reply.error.reason
    assert federation.reached == {"data": 0, "training": 0}


def federation_context(node):
    from flwr.app import Context

    return Context(RUN_ID, node, {"partition-id": node}, RecordDict(), {})


@pytest.mark.parametrize(
    ("policy", "kind", "reason"),
    [
        ("", "query.steal", "ValueError: No query function"),
        ("", "train.other", "ValueError: No train function"),
        ("actions = ['evaluate']\n", "train", "PolicyError: action 'train'"),
        ("actions = []\n", "evaluate", "PolicyError: action 'evaluate'"),
    ],
)
def test_actions_that_the_policy_does_not_name_are_refused_at_the_first_message(
    federation, policy, kind, reason, monkeypatch
):
    federation.policy(POLICY + policy)
    monkeypatch.setattr(
        "strategies.secure_session.Message",
        lambda content, node, type_, ttl: Message(content, node, kind, ttl=ttl),
    )
    found = federation.ask()
    everyone_refused(federation, reason, found)


def test_fewer_survivors_than_the_policy_asks_for_are_refused(federation):
    federation.policy("min_survivors = 4\n")
    everyone_refused(federation, "FloorError", federation.ask(survivors=3))


def test_a_policy_that_is_missing_or_not_understood_fails_closed(federation):
    federation.policy("min_survivors = 3\n[privacy]\nmax_record_epsilom = 3.0\n")
    everyone_refused(federation, "PolicyError: policy.toml", federation.ask())
    for folder in federation.folders:
        (folder / "policy.toml").unlink()
    everyone_refused(federation, "PolicyError: policy.toml", federation.ask())


# Privacy of the device as a whole


CENTRAL = ClientPrivacy(
    l2_norm_clip=0.5, noise_multiplier=4.0, sampling_probability=1.0, population=CLIENTS
)


def test_a_limit_per_client_wants_noise_that_the_server_names(federation):
    one = epsilon(1, SampledGaussian(4.0, 1.0, 1))
    federation.policy(f"min_survivors = 3\n[privacy]\nmax_client_epsilon = {one}\n")
    everyone_refused(federation, "BudgetError: the budget per client", federation.ask())
    assert federation.ask(client_noise=4.0, privacy=CENTRAL) == {}
    federation.reached.update(data=0, training=0)
    found = federation.ask(client_noise=4.0, privacy=CENTRAL)
    everyone_refused(federation, "BudgetError: the budget per client", found)


def test_noise_that_is_named_for_a_sum_without_clipping_is_refused(federation):
    federation.policy("min_survivors = 3\n[privacy]\nmax_client_epsilon = 9.0\n")
    found = federation.ask(client_noise=4.0)
    everyone_refused(federation, "PolicyError: client-noise-multiplier", found)


@pytest.mark.parametrize("noise", [-1.0, float("nan"), float("inf"), "much"])
def test_nonsense_for_noise_is_refused(federation, noise):
    everyone_refused(federation, "MessageError: client-noise", federation.ask(client_noise=noise))


def test_a_period_has_a_limit_of_its_own(federation):
    federation.policy(
        "min_survivors = 3\n[privacy]\nperiod_days = 7\n"
        f"max_record_epsilon_per_period = {epsilon(1)}\nmax_record_epsilon = {epsilon(3)}\n"
    )
    found = federation.ask(rounds=2)
    assert federation.reached["training"] == CLIENTS
    assert all("in 7 days" in text for reasons in found.values() for text in reasons)


# Ledgers that cannot be trusted


def test_a_ledger_deleted_with_its_head_while_a_run_goes_on_is_noticed(federation, monkeypatch):
    rounds = []
    fake = sys.modules["clients.keras_task"]
    train = fake.train

    def deleting(task, weights, data, server_round):
        rounds.append(server_round)
        return train(task, weights, data, server_round)

    fake.train = deleting
    finish = SecureGrid._finish

    def after(self, report, decoded):
        for folder in federation.folders:
            for path in folder.glob("ledger*"):
                path.unlink()
        return finish(self, report, decoded)

    monkeypatch.setattr(SecureGrid, "_finish", after)
    found = federation.ask(rounds=2)
    assert rounds == [1] * CLIENTS
    assert all("LedgerRolledBackError" in text for reasons in found.values() for text in reasons)


def test_a_damaged_ledger_stops_its_device_only(federation):
    assert federation.ask() == {}
    (federation.folders[1] / "ledger.db").write_bytes(b"x" * 9000)
    found = federation.ask()
    assert set(found) == {1}
    assert all("LedgerCorruptError" in text for text in found[1])


def test_training_that_fails_stays_charged(federation):
    def train(*_):
        raise MemoryError

    sys.modules["clients.keras_task"].train = train
    federation.ask(rounds=2)
    with federation.ledger() as ledger:
        assert [entry.committed for entry in ledger.history()] == [False, False]


def test_refusals_reveal_no_data(federation):
    texts = [text for texts in federation.ask(rounds=5).values() for text in texts]
    content = Device.open(federation.folders[0]).data()
    for text in texts:
        assert len(text) < 200
        for value in content.x_train.ravel():
            assert f"{value:.3f}" not in text
        assert str(federation.folders[0]) not in text


# The code that runs


def test_only_code_that_the_policy_names_may_run(federation):
    federation.policy(f"min_survivors = 3\napps = ['{'0' * 64}']\n")
    everyone_refused(federation, "PolicyError: code", federation.ask())
    federation.policy(f"min_survivors = 3\napps = ['{code.code_digest().hex()}']\n")
    assert federation.ask() == {}


def test_code_that_a_named_key_signed_may_run(federation):
    signer, other = (Authority.create("signers").issue(name) for name in ("a", "b"))
    federation.policy(f"min_survivors = 3\napp_signers = ['{signer.public_key.hex()}']\n")
    everyone_refused(federation, "PolicyError: code", federation.ask())
    for wrong in (
        other.sign(code.signed_message(code.code_digest())),
        signer.sign(code.signed_message(bytes(32))),
        b"short",
    ):
        for folder in federation.folders:
            (folder / code.SIGNATURE_FILE).write_bytes(wrong)
        everyone_refused(federation, "PolicyError: code", federation.ask())
    for folder in federation.folders:
        good = signer.sign(code.signed_message(code.code_digest()))
        (folder / code.SIGNATURE_FILE).write_bytes(good)
    assert federation.ask() == {}


def test_the_digest_of_the_code_changes_with_every_file(tmp_path, monkeypatch):
    root = tmp_path / "lepton_flwr"
    for package in code.PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(code, "__file__", str(root / "code.py"))
    seen = set()
    for change in (None, "x = 2\n", "x = 1\n"):
        if change:
            (tmp_path / "clients" / "a.py").write_text(change)
        seen.add(code.code_digest.__wrapped__())
    (tmp_path / "clients" / "b.py").write_text("")
    seen.add(code.code_digest.__wrapped__())
    assert len(seen) == 3
    assert device_module.code_digest is code.code_digest
