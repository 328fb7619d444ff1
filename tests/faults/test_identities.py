"""Devices whose certificate, key or release is not accepted: it costs nobody else a round."""

import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from stage import PATIENCE, state, wait_until

from lepton_flwr._files import write_atomic
from lepton_flwr.crypto.authority import Authority
from lepton_flwr.crypto.certificates import certified_key, load_certificate
from lepton_flwr.crypto.identity import CERTIFICATE_FILE, KEY_FILE
from lepton_flwr.crypto.keyring import Keyring
from lepton_flwr.crypto.revocation import LIST_FILE
from lepton_flwr.deploy.server import CONNECTION
from lepton_flwr.deploy.status import RUNNING, Status

pytestmark = [pytest.mark.slow, pytest.mark.faults]
# So that only the server and the other devices look at its certificate; see light/client_app.py.
BLIND = {"LEPTON_TEST_BLIND": "1"}
DAY = timedelta(days=1)


@pytest.fixture
def stage(make_stage):
    """Three devices are enough for a sum; the first of the four is the one with the fault."""
    made = make_stage(4)
    made.start_server()
    return made


def runs_on(stage, run, process, failures, survivors=3):
    """The next round to end, which the fault costs exactly this."""
    done = len(run.events("round"))
    ended = run.wait_for("round", process, round=done + 1)
    assert (ended["status"], ended["failures"], ended["survivors"]) == ("ok", failures, survivors)
    return ended


def wait_for_word(stage, process, said):
    """Until the run's log, which is some seconds behind its events, says so."""
    wait_until(lambda: said in stage.output(process), why=lambda: stage.output(process)[-3000:])


def expired(authority, folder):
    key = certified_key(load_certificate(folder / CERTIFICATE_FILE))
    return authority.certify(folder.name, key, datetime.now(UTC) - 2 * DAY, DAY)


def of_the_future(authority, folder):
    key = certified_key(load_certificate(folder / CERTIFICATE_FILE))
    return authority.certify(folder.name, key, datetime.now(UTC) + DAY)


def of_another_authority(_, folder):
    key = certified_key(load_certificate(folder / CERTIFICATE_FILE))
    return Authority.create("federation").certify(folder.name, key)


def test_a_device_of_an_older_release(stage):
    first, *others = stage.devices
    stage.start_devices(others)
    stage.start_devices([first], LEPTON_TEST_VERSION="0.0.9")
    process, run = stage.train(rounds=20)
    runs_on(stage, run, process, {"version": 1})
    wait_for_word(stage, process, "upgrade lepton-flwr on the device")
    assert stage.device_ledger(first) == []
    stage.stop(stage.running[first.name])
    stage.start_devices([first])
    run.wait_for("round", process, survivors=4)
    stage.stop(process)


def test_two_nodes_with_one_device_folder(stage):
    """The second is not let in while the first is there; with a key of its own, not into a sum."""
    first = stage.devices[0]
    stage.start_devices()
    before = stage.pids(first.name, "flower-supernode")
    twin = stage.root / "twin"
    shutil.copytree(first, twin, ignore=shutil.ignore_patterns("flower", "logs", ".running"))
    stage.start_devices([twin], wait=False)
    wait_until(lambda: "still counts the device as online" in Status.read(twin).last_error)

    made = stage.lepton("keys", "issue", stage.fed, "device-005")
    assert made.wait(PATIENCE) == 0, stage.output(made)
    fifth = stage.fed / "devices" / "device-005"
    shutil.copy(first / "data.npz", fifth / "data.npz")
    for name in (KEY_FILE, CERTIFICATE_FILE):
        shutil.copy(first / name, fifth / name)
    stage.start_devices([fifth])
    process, run = stage.train(rounds=20, clients=5)
    runs_on(stage, run, process, {"identity": 1}, survivors=4)
    # One of the two was in the sum, and no more than one.
    assert len(stage.device_ledger(first)) + len(stage.device_ledger(fifth)) == 1
    stage.stop(process)
    assert state(twin) != RUNNING
    assert stage.pids(first.name, "flower-supernode") == before


def test_certificates_that_are_not_accepted(stage):
    first, path = stage.devices[0], stage.devices[0] / CERTIFICATE_FILE
    good = path.read_bytes()
    authority = Authority.load(stage.fed / "authority" / "ca-1")
    kinds = {
        "device certificate has expired": expired,
        "device certificate is not yet valid": of_the_future,
        "certificate of another authority": of_another_authority,
    }
    bad = {said: make(authority, first).public_bytes(Encoding.PEM) for said, make in kinds.items()}
    for said, pem in bad.items():  # it does not start with one
        path.write_bytes(pem)
        refused = stage.lepton("device", "run", first)
        assert refused.wait(PATIENCE) == 3
        assert said in stage.output(refused)
    path.write_bytes(good)
    stage.start_devices()
    path.write_bytes(pem)
    process, run = stage.train(rounds=30)
    for said, pem in reversed(bad.items()):  # nor does it take part
        path.write_bytes(pem)
        wait_for_word(stage, process, said)
        run.wait_for("round", process, round=len(run.events("round")) + 1)
    assert stage.device_ledger(first) == []
    assert {(row["status"], row["survivors"]) for row in run.events("round")} == {("ok", 3)}
    assert {row["class"] for row in run.events("failure")} == {"identity"}
    path.write_bytes(good)
    run.wait_for("round", process, survivors=4)  # nothing was restarted
    stage.stop(process)


def test_a_revoked_device(stage):
    """`lepton keys revoke` in a run, with all that it writes delivered."""
    first = stage.devices[0]
    stage.start_devices()
    process, run = stage.train(rounds=20)
    run.wait_for("round", process, survivors=4)
    revoking = stage.lepton("keys", "revoke", stage.fed, first.name)
    assert revoking.wait(PATIENCE) == 0
    # The session that was open may be lost to the lists that reached the other devices within it.
    run.wait_for("round", process, survivors=3)
    # The new list is for the others: this one hears no more than that nobody knows it.
    wait_until(lambda: "does not know this device's node.key" in Status.read(first).last_error)
    assert state(first) != RUNNING
    charged = len(stage.device_ledger(first))
    done = len(run.events("round"))
    run.wait_for("round", process, round=done + 1)
    stage.stop(process)
    late = run.events("round")[done:]
    fields = ("status", "survivors", "participants")
    assert {tuple(row[name] for name in fields) for row in late} == {("ok", 3, 3)}
    assert len(stage.device_ledger(first)) == charged
    nodes = json.loads(stage.flwr("supernode", "list", CONNECTION, "--format", "json"))["nodes"]
    assert sorted(node["status"] for node in nodes) == ["online"] * 3 + ["unregistered"]


def test_a_revoked_device_whose_list_alone_was_delivered(stage, tmp_path):
    """Its SuperNode may still join, and it does not look at the list itself."""
    first, *others = stage.devices
    stage.start_devices(others)
    stage.start_devices([first], **BLIND)
    copy = tmp_path / "fed"
    shutil.copytree(stage.fed / "authority", copy / "authority")
    for folder in (stage.server, *stage.devices):
        (copy / folder.relative_to(stage.fed)).mkdir(parents=True)
    (copy / "server" / "nodes").mkdir()
    Keyring(copy).revoke([first.name])
    for folder in (stage.server, *others):
        write_atomic(folder / LIST_FILE, (copy / "server" / LIST_FILE).read_bytes(), 0o600)
    process, run = stage.train(rounds=20)
    runs_on(stage, run, process, {"identity": 1})
    wait_for_word(stage, process, "has revoked it")
    assert stage.device_ledger(first) == []
    stage.stop(process)


def test_a_device_that_allows_an_older_app_only(stage):
    first = stage.devices[0]
    policy = first / "policy.toml"
    allowed = policy.read_text()
    policy.write_text(f'apps = ["{"0" * 64}"]\n{allowed}')
    stage.start_devices()
    process, run = stage.train(rounds=20)
    runs_on(stage, run, process, {"refused": 1})
    wait_for_word(stage, process, "this device's policy allows other code only")
    assert stage.device_ledger(first) == []
    policy.write_text(allowed)
    run.wait_for("round", process, survivors=4)
    stage.stop(process)
