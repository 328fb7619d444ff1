"""Whoever knocks at the server's public address, without a key or with one that is no good."""

import contextlib
import http.client
import json
import os
import socket
import ssl
import subprocess
from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node
from stage import stages, state, wait_until

from lepton_flwr.crypto.tls import TlsAuthority
from lepton_flwr.deploy.gate import MAX_BODY_BYTES
from lepton_flwr.deploy.nodes import read_nodes
from lepton_flwr.deploy.server import CONNECTION
from lepton_flwr.deploy.status import RUNNING, Status

pytestmark = pytest.mark.slow
PULL, PUSH = "/v1/fleet/pull-messages", "/v1/fleet/push-object"
GATE = "lepton_flwr.deploy.gate"
# A clock that is wrong for one process and its children.
CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *found) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
  int code = real(clock, found);
  const char *skew = getenv("LEPTON_TEST_SKEW");
  if (code == 0 && clock == CLOCK_REALTIME && skew) found->tv_sec += atol(skew);
  return code;
}
time_t time(time_t *found) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (found) *found = now.tv_sec;
  return now.tv_sec;
}
"""


@pytest.fixture(scope="module")
def quiet():
    """A server with one of its two devices; no test of this file changes it."""
    with stages() as make:
        stage = make(2)
        stage.start_server()
        stage.start_devices(stage.devices[:1])
        yield stage


def context(stage):
    return ssl.create_default_context(cafile=stage.server / "ca.crt")


def knock(stage):
    """A connection without TLS."""
    return socket.create_connection((stage.address.host, stage.address.port), timeout=60)


def post(stage, path, body, headers=None):
    """The status of a request."""
    address = stage.address
    connection = http.client.HTTPSConnection(
        address.host, address.port, timeout=60, context=context(stage)
    )
    try:
        connection.request("POST", path, body, headers or {})
        return connection.getresponse().status
    finally:
        connection.close()


def signed(key, at):
    """The headers by which a SuperNode says who it is, as Flower's own client makes them."""
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = at.isoformat()
    signature = key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
    return {
        "content-type": "application/protobuf",
        "flwr-public-key": b64encode(public).decode(),
        "flwr-timestamp": text,
        "flwr-signature": b64encode(signature).decode(),
    }


def online(stage):
    """Names of the nodes that the SuperLink counts as online."""
    listed = json.loads(stage.flwr("supernode", "list", CONNECTION, "--format", "json"))["nodes"]
    names = {node["id"]: name for name, node in read_nodes(stage.server).items()}
    return sorted(names[node["node-id"]] for node in listed if node["status"] == "online")


def send_for_ever(link, part):
    while True:
        link.sendall(part)


def pull(stage, name):
    """The body by which a device asks for its messages."""
    number = int(read_nodes(stage.server)[name]["id"])
    return PullMessagesRequest(node=Node(node_id=number)).SerializeToString()


def own_key(folder):
    return serialization.load_ssh_private_key((folder / "node.key").read_bytes(), None)


def last_error(folder):
    found = Status.read(folder)
    return found.last_error if found else ""


def files_of(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_captured_request_says_nothing_later_nor_elsewhere(quiet):
    there, absent = quiet.devices
    key, body = own_key(there), pull(quiet, there.name)

    def at(minutes=0.0, key=key):
        return signed(key, datetime.now(UTC) + timedelta(minutes=minutes))

    assert post(quiet, PULL, body, at()) == 200  # the others differ by one thing each
    assert post(quiet, PULL, body, at(-5.1)) == 401
    assert post(quiet, PULL, body, at(10)) == 401
    assert post(quiet, PULL, pull(quiet, absent.name), at()) == 401
    assert post(quiet, PULL, body, at(key=ec.generate_private_key(ec.SECP384R1()))) == 401
    assert post(quiet, PULL, body) in (400, 401, 415)
    assert post(quiet, "/v1/control/list-nodes", b"", at()) == 404
    with knock(quiet) as plain:
        fields = "".join(f"{name}: {value}\r\n" for name, value in at().items())
        text = f"POST {PULL} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n{fields}\r\n"
        plain.sendall(text.encode() + body)
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP/" not in plain.recv(1024)
    assert online(quiet) == [there.name]


def test_an_oversized_message_is_not_taken(quiet):
    (gate,) = quiet.pids(program=GATE)
    key, body = own_key(quiet.devices[0]), pull(quiet, quiet.devices[0].name)
    part = bytes(1 << 20)
    with context(quiet).wrap_socket(knock(quiet), server_hostname=quiet.address.host) as link:
        fields = f"host: a\r\ncontent-length: {1 << 40}\r\n\r\n"
        link.sendall(f"POST {PUSH} HTTP/1.1\r\n{fields}".encode())
        for _ in range(MAX_BODY_BYTES // len(part) + 1):
            link.sendall(part)
        assert link.recv(1024).startswith(b"HTTP/1.1 413")
        with pytest.raises((ConnectionError, ssl.SSLError)):  # it hangs up
            send_for_ever(link, part)
    assert quiet.pids(program=GATE) == [gate]
    assert post(quiet, PULL, body, signed(key, datetime.now(UTC))) == 200
    assert state(quiet.devices[0]) == RUNNING
    assert online(quiet) == [quiet.devices[0].name]


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    """Variables of a process whose clock is wrong by so many seconds."""
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(CLOCK)
    command = ["cc", "-shared", "-fPIC", "-o", folder / "clock.so", folder / "clock.c", "-ldl"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a C compiler")
    return lambda seconds: {
        "LD_PRELOAD": str(folder / "clock.so"), "LEPTON_TEST_SKEW": str(seconds)
    }  # fmt: skip


def test_a_device_whose_clock_is_wrong_says_so_and_is_let_in_once_it_is_right(quiet, clock):
    second = quiet.devices[1]
    for skew, said in ((60, "ahead of"), (-900, "behind")):
        quiet.start_devices([second], wait=False, **clock(skew))
        process = quiet.running[second.name]

        wait_until(
            lambda said=said: f"{said} that of the server" in last_error(second),
            why=lambda: last_error(second),
        )
        assert state(second) != RUNNING
        quiet.stop(process)
    slow = quiet.lepton("device", "run", second, **clock(-2 * 3600))  # before its certificate
    assert slow.wait(120) == 3
    assert "not yet valid: check this device's clock" in quiet.output(slow)
    quiet.start_devices([second], **clock(-120))  # a difference that is tolerated
    assert online(quiet) == [folder.name for folder in quiet.devices]
    quiet.stop(quiet.running[second.name])


@pytest.mark.faults
def test_fifty_connections_without_a_certificate_stop_nobody_and_are_closed(make_stage):
    stage = make_stage(3)
    stage.start_server()
    (gate,) = stage.pids(program=GATE)
    before = files_of(gate)
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(knock(stage)) for _ in range(50)]
        for place, link in enumerate(links):
            if place % 3 == 1:  # half of a greeting
                link.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
            elif place % 3 == 2:  # TLS, then half of a request
                links[place] = context(stage).wrap_socket(link, server_hostname="localhost")
                stack.callback(links[place].close)
                links[place].sendall(b"POST /v1/fleet/activate-node HTTP/1.1\r\n")
        wait_until(lambda: files_of(gate) >= before + 50)
        stage.start_devices()
        process, run = stage.train(rounds=20)
        first = run.wait_for("round", process, round=1)
        assert (first["status"], first["survivors"], first["failures"]) == ("ok", 3, {})
        for link in links:
            link.settimeout(120)
            with contextlib.suppress(ConnectionError, ssl.SSLError):  # no timeout is among these
                assert link.recv(1) in (b"", b"\x15")  # nothing, or the beginning of an alert
    stage.stop(process)
    wait_until(lambda: files_of(gate) < before + 25)
    assert stage.pids(program=GATE) == [gate]


@pytest.mark.faults
def test_a_server_certificate_that_expires(make_stage):
    """Devices that knock afterwards refuse it, and come back to one with a new certificate."""
    stage = make_stage(3)
    web = TlsAuthority.load(stage.fed / "authority")
    names, files = [stage.address.host, "127.0.0.1"], ("server.key", "server.pem")

    def install(start, lifetime):
        for name, content in zip(files, web.issue(names, start, lifetime), strict=True):
            (stage.server / name).write_bytes(content)

    day = timedelta(days=1)
    install(datetime.now(UTC) - 2 * day, day)
    refused = stage.lepton("server", "run", stage.server)
    assert refused.wait(120) == 3
    assert "TLS certificate has expired" in stage.output(refused)

    end = datetime.now(UTC) + timedelta(seconds=240)
    install(end - day, day)
    server = stage.start_server()
    stage.start_devices()
    before = stage.pids(program="lepton_flwr.cli device run")
    wait_until(lambda: datetime.now(UTC) > end)
    late = stage.lepton("device", "check", stage.devices[0])
    assert late.wait(120) == 5
    assert "certificate has expired" in stage.output(late)
    wait_until(lambda: "TLS certificate has expired" in last_error(stage.server))
    for folder in stage.devices:
        wait_until(lambda folder=folder: state(folder) != RUNNING)
    stage.stop(server)
    renewed = stage.lepton("keys", "rotate", stage.fed, "--server")
    assert renewed.wait(120) == 0
    stage.start_server()
    for folder in stage.devices:
        wait_until(lambda folder=folder: state(folder) == RUNNING)
    assert stage.pids(program="lepton_flwr.cli device run") == before
    process, run = stage.train(rounds=20)
    run.wait_for("round", process, status="ok", survivors=3)
    stage.stop(process)
