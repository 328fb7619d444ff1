"""Registration against a stand-in for `flwr supernode`, which keeps its nodes in a database."""

import os
import sqlite3
import sys
from contextlib import closing

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from lepton_flwr.crypto import tls
from lepton_flwr.deploy import server
from lepton_flwr.deploy.nodes import Nodes, read_nodes, registered_keys, wanted_nodes
from lepton_flwr.deploy.status import StatusFile
from lepton_flwr.errors import FederationError
from simulations.processes import Processes

FLWR = f"""#!{sys.executable} -I
import json, os, sqlite3, sys
from cryptography.hazmat.primitives.serialization import (
    Encoding, PublicFormat, load_ssh_public_key)
book = sqlite3.connect(os.environ["BOOK"])
group, action, *rest = sys.argv[1:]
assert group == "supernode" and rest[-2:] == ["--format", "json"]
if action == "list":
    assert rest[0] == "lepton"
    print("Listing all nodes...")
    print(json.dumps({{"success": True, "nodes": [
        {{"node-id": str(n % 2**64), "status": status}}
        for n, status in book.execute("SELECT node_id, status FROM node")]}}))
elif action == "register":
    key = load_ssh_public_key(open(rest[0], "rb").read())
    key = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert rest[1:4] == ["lepton", "--name", os.path.basename(rest[0])[:-4]]
    (count,) = book.execute("SELECT count(*) FROM node").fetchone()
    try:
        book.execute("INSERT INTO node VALUES (?, 'registered', ?)", (-100 - count, key))
    except sqlite3.IntegrityError:
        sys.exit("Error: Public key already in use")
    print(json.dumps({{"success": True, "node-id": str((-100 - count) % 2**64)}}))
elif action == "unregister":
    assert rest[1] == "lepton"
    number = (int(rest[0]) + 2**63) % 2**64 - 2**63
    book.execute("UPDATE node SET status = 'unregistered' WHERE node_id = ?", (number,))
    print(json.dumps({{"success": True}}))
book.commit()
"""  # noqa: S608
# As in Flower's database; `test_flower_keeps_the_keys_of_unregistered_nodes` holds it to that.
TABLE = "CREATE TABLE node (node_id BIGINT UNIQUE, status VARCHAR, public_key BLOB UNIQUE)"
PAIRS = {name: tls.node_key()[1] for name in ("a", "b", "new b", "c", "stranger")}


def put(tmp_path, name, key=None):
    (tmp_path / "nodes" / f"{name}.pub").write_bytes(PAIRS[key or name])


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    flwr = tmp_path / "bin" / "flwr"
    flwr.parent.mkdir()
    flwr.write_text(FLWR)
    flwr.chmod(0o700)
    (tmp_path / "logs").mkdir()
    (tmp_path / "nodes").mkdir()
    execute(tmp_path, TABLE)
    for name in ("a", "b"):
        put(tmp_path, name)
    book = str(tmp_path / "superlink.db")
    variables = {"PATH": f"{flwr.parent}:{os.environ['PATH']}", "BOOK": book}
    monkeypatch.setenv("PATH", variables["PATH"])
    with Processes(tmp_path / "logs", variables) as processes:
        yield Nodes(tmp_path, processes, "lepton", {})


def execute(tmp_path, command, values=()):
    with closing(sqlite3.connect(tmp_path / "superlink.db")) as book:
        found = book.execute(command, values).fetchall()
        book.commit()
    return found


def let_in(tmp_path):
    """Names of the keys that the stand-in lets in."""
    rows = execute(tmp_path, "SELECT public_key FROM node WHERE status != 'unregistered'")
    names = {pem(key): name for name, key in PAIRS.items()}
    return sorted(names[key] for (key,) in rows)


def pem(key):
    return load_ssh_public_key(key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_the_keys_of_the_folder_are_registered_once(nodes, tmp_path):
    assert nodes.align() == (2, 0)
    assert let_in(tmp_path) == ["a", "b"]
    assert nodes.align() == (0, 0)
    assert sorted(read_nodes(tmp_path)) == ["a", "b"]


def test_it_is_due_once_the_keys_have_stayed_as_they_are_and_again_after_a_while(nodes, tmp_path):
    assert [nodes.due(), nodes.due()] == [False, True]
    nodes.align()
    assert not nodes.due()
    put(tmp_path, "c")
    assert not nodes.due()
    put(tmp_path, "c", "stranger")
    assert [nodes.due(), nodes.due()] == [False, True]
    nodes.align()
    assert not nodes.due()
    nodes._again = 0.0
    assert nodes.due()


def test_a_key_that_is_gone_or_replaced_is_let_in_no_longer(nodes, tmp_path):
    nodes.align()
    (tmp_path / "nodes" / "a.pub").unlink()
    put(tmp_path, "b", "new b")
    assert nodes.align() == (1, 2)
    assert let_in(tmp_path) == ["new b"]


def test_a_stranger_that_somebody_registered_is_put_out(nodes, tmp_path):
    nodes.align()
    key = pem(PAIRS["stranger"])
    execute(tmp_path, "INSERT INTO node VALUES (7, 'online', ?)", (key,))
    assert nodes.align() == (0, 1)
    assert let_in(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("lost", ["nodes.json", "superlink.db"])
def test_a_lost_record_on_either_side_is_mended(nodes, tmp_path, lost):
    nodes.align()
    (tmp_path / lost).unlink()
    if lost == "superlink.db":
        execute(tmp_path, TABLE)
    assert nodes.align() == ((0, 0) if lost == "nodes.json" else (2, 0))
    assert let_in(tmp_path) == ["a", "b"]
    assert sorted(read_nodes(tmp_path)) == ["a", "b"]


def test_a_key_with_another_name_stays_registered(nodes, tmp_path):
    nodes.align()
    (tmp_path / "nodes" / "a.pub").rename(tmp_path / "nodes" / "z.pub")
    assert nodes.align() == (0, 0)
    assert let_in(tmp_path) == ["a", "b"]
    assert sorted(read_nodes(tmp_path)) == ["b", "z"]


def test_a_key_that_is_cut_short_keeps_its_node_and_no_other_from_joining(nodes, tmp_path):
    nodes.align()
    (tmp_path / "nodes" / "a.pub").write_bytes(PAIRS["a"][:50])
    put(tmp_path, "c")
    with pytest.raises(FederationError, match=r"1 registered.*nodes/a.pub is no public key"):
        nodes.align()
    assert let_in(tmp_path) == ["a", "b", "c"]
    put(tmp_path, "a")
    assert nodes.align() == (0, 0)


def test_a_key_that_was_unregistered_once_is_named_and_keeps_no_other_from_joining(nodes, tmp_path):
    nodes.align()
    (tmp_path / "nodes" / "a.pub").unlink()
    nodes.align()
    put(tmp_path, "a")
    put(tmp_path, "c")
    with pytest.raises(FederationError, match=r"1 registered.*nodes/a.pub.*keys rotate FOLDER a"):
        nodes.align()
    assert let_in(tmp_path) == ["b", "c"]
    assert not nodes.due()  # nor is it said again all the time


def test_a_name_that_flower_refuses_is_told_and_keeps_no_other_from_joining(nodes, tmp_path):
    flwr = tmp_path / "bin" / "flwr"
    refusing = 'elif action == "register" and rest[0].endswith("/a.pub"):'
    flwr.write_text(FLWR.replace("elif", f"{refusing}\n    sys.exit('Error: no luck')\nelif", 1))
    with pytest.raises(FederationError, match=r"1 registered.*register-a ended.*no luck"):
        nodes.align()
    assert let_in(tmp_path) == ["b"]
    flwr.write_text(FLWR)
    assert nodes.align() == (1, 0)


def test_two_names_of_one_key_are_refused(nodes, tmp_path):
    put(tmp_path, "c", "a")
    with pytest.raises(FederationError, match=r"nodes/c.pub is the key of nodes/a.pub"):
        nodes.align()
    assert let_in(tmp_path) == ["a", "b"]


def test_a_key_that_is_being_written_or_has_just_gone_is_none(tmp_path):
    folder = tmp_path / "nodes"
    folder.mkdir()
    put(tmp_path, ".partial-1234-a", "a")
    (folder / "b.pub").symlink_to(folder / "nowhere")
    put(tmp_path, "c")
    assert list(wanted_nodes(tmp_path)) == ["c"]


def test_what_cannot_be_read_does_not_end_a_server(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_LOOK_SECONDS", 1000.0)

    class Damaged:
        def due(self):
            raise FederationError("no key")

    status = StatusFile(tmp_path)
    align = server._aligner(Damaged(), lambda: True, status, print)
    align()
    assert status.status.last_error == "no key"
    status.failed("other")
    align()  # not looked at again at once
    assert status.status.last_error == "other"


def test_a_database_that_is_missing_or_another_is_refused(tmp_path):
    with pytest.raises(FederationError, match="cannot be read"):
        registered_keys(tmp_path)
    assert not (tmp_path / "superlink.db").exists()
    execute(tmp_path, "CREATE TABLE other (x)")
    with pytest.raises(FederationError, match="no such table: node"):
        registered_keys(tmp_path)


@pytest.mark.filterwarnings("ignore:No path_separator:DeprecationWarning")
def test_flower_keeps_the_keys_of_unregistered_nodes(tmp_path):
    # Of the running version of Flower, whose database is read.
    from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
    from flwr.superlink.federation import NoOpFederationManager

    state = SqlLinkState(str(tmp_path / "superlink.db"), NoOpFederationManager(), None)
    state.initialize()
    key = pem(PAIRS["a"])
    number = state.create_node("owner", "name", key, 30.0)
    other = state.create_node("owner", "name", pem(PAIRS["b"]), 30.0)
    state.delete_node("owner", number)
    with pytest.raises(ValueError, match="already in use"):
        state.create_node("owner", "name", key, 30.0)
    found = registered_keys(tmp_path)
    (tmp_path / "nodes").mkdir()
    for name in ("a", "b"):
        put(tmp_path, name)
    wanted = wanted_nodes(tmp_path)
    assert found == {wanted["a"]: str(number), wanted["b"]: str(other)}


def test_a_damaged_record_is_refused(tmp_path):
    for text in ("", "[]", '{"a": {}}', '{"a": 3}'):
        (tmp_path / "nodes.json").write_text(text)
        with pytest.raises(FederationError, match="damaged"):
            read_nodes(tmp_path)
