import asyncio
import importlib

import httpx
import pytest

from lepton_flwr.crypto.address import Address
from lepton_flwr.crypto.keyring import Keyring
from lepton_flwr.deploy import gate as module
from lepton_flwr.deploy.gate import MAX_BODY_BYTES, ROUTES, Gate

PULL = "/v1/fleet/pull-messages"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gate") / "fed"
    Keyring.create(folder, 1, Address("localhost", 8000))
    return folder / "server" / "ca.crt"


@pytest.fixture
def door(authority):
    """A gate before a server that notes what reaches it."""
    gate, reached = Gate(1, authority), []

    def answer(request):
        reached.append(
            (request.method, request.url.raw_path, dict(request.headers), request.read())
        )
        headers = {"content-type": "application/protobuf", "connection": "close", "x-own": "kept"}
        return httpx.Response(207, content=b"answer", headers=headers)

    gate._client = httpx.AsyncClient(
        transport=httpx.MockTransport(answer), base_url="https://127.0.0.1:1"
    )
    return gate, reached


def ask(gate, path, method="POST", query=b"", parts=(b"body",), headers=()):
    """Send a request by ASGI; the raw path is not cleaned up, as clients' libraries would."""
    events = [
        {"type": "http.request", "body": part, "more_body": at < len(parts) - 1}
        for at, part in enumerate(parts)
    ]
    sent = []

    async def receive():
        return events.pop(0) if events else {"type": "http.disconnect"}

    async def send(event):
        sent.append(event)

    scope = {
        "type": "http", "method": method, "raw_path": path.encode(), "path": path,
        "query_string": query, "headers": list(headers),
    }  # fmt: skip
    asyncio.run(gate(scope, receive, send))
    return sent[0]["status"], sent[1]["body"], dict(sent[0]["headers"])


@pytest.mark.parametrize("route", sorted(ROUTES))
def test_a_devices_request_goes_through_as_it_is_and_its_answer_comes_back(door, route):
    gate, reached = door
    headers = [(b"flwr-signature", b"s"), (b"connection", b"keep-alive"), (b"host", b"outside")]
    status, body, answered = ask(gate, route, parts=(b"bo", b"dy"), headers=headers)
    assert (status, body) == (207, b"answer")
    ((method, path, passed, content),) = reached
    assert (method, path, content) == ("POST", route.encode(), b"body")
    assert passed["flwr-signature"] == "s"
    assert passed["host"] != "outside"
    assert answered[b"x-own"] == b"kept"
    assert answered[b"content-length"] == b"6"


@pytest.mark.parametrize(
    "path",
    [
        "/", "/health", "/docs", "/v1/control/start-run", "/v1/control/register-node",
        "/v1/fleet/register-node", "/v1/fleet/unregister-node", "/v1/runtime/pull-app-messages",
        "/v1/fleet/../control/start-run", "/v1/fleet/pull-messages/../../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run", "/v1/fleet/pull-messages/",
        "//v1/fleet/pull-messages",
        "/V1/FLEET/PULL-MESSAGES", "/v1/fleet/pull-messages%00", "/v1/fleet/pull-messages;a",
    ],
)  # fmt: skip
def test_nothing_else_goes_through(door, path):
    gate, reached = door
    assert ask(gate, path)[0] == 404
    assert reached == []


def test_no_other_method_and_no_query_goes_through(door):
    gate, reached = door
    assert [ask(gate, PULL, method)[0] for method in ("GET", "PUT", "CONNECT")] == [405] * 3
    assert ask(gate, PULL, query=b"a=1")[0] == 404
    assert reached == []


def test_a_body_that_is_too_large_or_cut_off_stays_outside(door, monkeypatch):
    gate, reached = door
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 10)
    assert ask(gate, PULL, parts=(b"12345", b"678901"))[0] == 413
    assert ask(gate, PULL, parts=(b"12345", b"67890"))[0] == 207
    assert ask(gate, PULL, parts=())[0] == 413
    assert len(reached) == 1
    assert MAX_BODY_BYTES > 10 * 5_000_000


def test_a_body_that_never_ends_is_given_up(door, monkeypatch):
    gate, reached = door
    monkeypatch.setattr(module, "BODY_SECONDS", 0.05)

    async def main():
        sent = []

        async def receive():
            await asyncio.sleep(10)

        async def send(event):
            sent.append(event)

        scope = {
            "type": "http", "method": "POST", "raw_path": PULL.encode(), "query_string": b"",
            "headers": [],
        }  # fmt: skip
        await gate(scope, receive, send)
        return sent[0]["status"]

    assert asyncio.run(main()) == 408
    assert reached == []


def test_a_lost_superlink_is_a_gateway_error_that_devices_retry(authority):
    assert ask(Gate(1, authority), PULL)[0] == 502


def test_every_request_that_a_supernode_makes_is_let_through():
    # Of the running version of Flower: a new one that asks for more must not go unnoticed.
    router = importlib.import_module("flwr.superlink.routers.fleet.router").router
    fleet = {route.path for route in router.routes}
    assert fleet >= ROUTES
    # A node registers itself only where nobody authenticates it.
    assert fleet - ROUTES == {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}
