"""Registration against a stand-in for `flwr supernode`, which keeps its nodes in a file."""

import json
import os
import sys

import pytest

from lepton_flwr.deploy.nodes import Nodes, read_nodes
from lepton_flwr.errors import FederationError
from simulations.processes import Processes

FLWR = f"""#!{sys.executable} -I
import json, os, sys
path = os.environ["BOOK"]
book = json.load(open(path))
group, action, *rest = sys.argv[1:]
assert group == "supernode" and rest[-2:] == ["--format", "json"]
if action == "list":
    assert rest[0] == "lepton"
    print("Listing all nodes...")
    print(json.dumps({{"success": True, "nodes": [
        {{"node-id": n, "status": v["status"]}} for n, v in book.items()]}}))
elif action == "register":
    key = open(rest[0]).read()
    assert rest[1:4] == ["lepton", "--name", os.path.basename(rest[0])[:-4]]
    if any(v["key"] == key and v["status"] != "unregistered" for v in book.values()):
        sys.exit("Error: Public key already in use")
    n = str(len(book) + 100)
    book[n] = {{"key": key, "status": "registered"}}
    print(json.dumps({{"success": True, "node-id": n}}))
elif action == "unregister":
    assert rest[1] == "lepton"
    book[rest[0]]["status"] = "unregistered"
    print(json.dumps({{"success": True}}))
json.dump(book, open(path + ".new", "w"))
os.replace(path + ".new", path)
"""


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # the stand-in's book is no database
    flwr = tmp_path / "bin" / "flwr"
    flwr.parent.mkdir()
    flwr.write_text(FLWR)
    flwr.chmod(0o700)
    (tmp_path / "book").write_text("{}")
    (tmp_path / "logs").mkdir()
    (tmp_path / "nodes").mkdir()
    for name in ("a", "b"):
        (tmp_path / "nodes" / f"{name}.pub").write_text(f"key of {name}")
    variables = {"PATH": f"{flwr.parent}:{os.environ['PATH']}", "BOOK": str(tmp_path / "book")}
    monkeypatch.setenv("PATH", variables["PATH"])
    with Processes(tmp_path / "logs", variables) as processes:
        yield Nodes(tmp_path, processes, "lepton", {})


def keys(tmp_path):
    """Keys that the stand-in lets in."""
    book = json.loads((tmp_path / "book").read_text())
    return sorted(node["key"] for node in book.values() if node["status"] != "unregistered")


def test_the_keys_of_the_folder_are_registered_once(nodes, tmp_path):
    assert nodes.changed()
    assert nodes.align() == (2, 0)
    assert keys(tmp_path) == ["key of a", "key of b"]
    assert not nodes.changed()
    assert nodes.align() == (0, 0)
    assert sorted(read_nodes(tmp_path)) == ["a", "b"]


def test_a_key_that_is_gone_or_replaced_is_let_in_no_longer(nodes, tmp_path):
    nodes.align()
    (tmp_path / "nodes" / "a.pub").unlink()
    (tmp_path / "nodes" / "b.pub").write_text("new key of b")
    assert nodes.changed()
    assert nodes.align() == (1, 2)
    assert keys(tmp_path) == ["new key of b"]


def test_a_stranger_that_somebody_registered_is_put_out(nodes, tmp_path):
    nodes.align()
    book = json.loads((tmp_path / "book").read_text())
    book["7"] = {"key": "stranger", "status": "online"}
    (tmp_path / "book").write_text(json.dumps(book))
    assert nodes.align() == (0, 1)
    assert keys(tmp_path) == ["key of a", "key of b"]


@pytest.mark.parametrize("lost", ["nodes.json", "book"])
def test_a_lost_record_on_either_side_is_mended(nodes, tmp_path, lost):
    nodes.align()
    if lost == "book":
        (tmp_path / "book").write_text("{}")
    else:
        (tmp_path / "nodes.json").unlink()
    nodes.align()
    assert keys(tmp_path) == ["key of a", "key of b"]
    assert sorted(read_nodes(tmp_path)) == ["a", "b"]


def test_what_flower_refuses_is_one_line(nodes, tmp_path):
    (tmp_path / "nodes" / "c.pub").write_text("key of a")
    with pytest.raises(FederationError, match=r"register-c ended with code 1.*already in use"):
        nodes.align()
    assert nodes.changed()


def test_a_damaged_record_is_refused(tmp_path):
    for text in ("", "[]", '{"a": {}}', '{"a": 3}'):
        (tmp_path / "nodes.json").write_text(text)
        with pytest.raises(FederationError, match="damaged"):
            read_nodes(tmp_path)
