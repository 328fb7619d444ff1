import asyncio
import importlib
import resource

import httpx
import pytest
import uvicorn
from uvicorn.server import ServerState

from lepton_flwr.deploy import gate as module
from lepton_flwr.deploy.gate import MAX_BODY_BYTES, ROUTES, Gate

PULL = "/v1/fleet/pull-messages"


@pytest.fixture
def door(authority):
    """A gate before a server that notes what reaches it."""
    gate, reached = Gate(1, authority), []

    def answer(request):
        reached.append(
            (request.method, request.url.raw_path, dict(request.headers), request.read())
        )
        headers = {
            "content-type": "application/protobuf", "connection": "close", "x-own": "kept",
            "date": "Thu, 01 Jan 1970 00:00:00 GMT", "server": "superlink",
        }  # fmt: skip
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
    assert not {b"date", b"server"} & set(answered)  # uvicorn adds its own time


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


@pytest.mark.parametrize(
    ("path", "method", "parts"),
    [("/", "POST", (b"a",)), (PULL, "GET", (b"a",)), (PULL, "POST", (b"12345678901",))],
)
def test_after_a_refusal_nothing_more_is_read(door, monkeypatch, path, method, parts):
    gate, _ = door
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 10)
    assert ask(gate, path, method, parts=parts)[2][b"connection"] == b"close"


def test_no_more_is_held_than_the_bound_and_what_was_held_is_let_go(door, monkeypatch):
    gate, reached = door
    monkeypatch.setattr(module, "MAX_HELD_BYTES", 10)

    async def main():
        late, answers = asyncio.Event(), {}

        async def request(name, parts):
            events = [{"type": "http.request", "body": part, "more_body": True} for part in parts]

            async def receive():
                if events:
                    return events.pop(0)
                await late.wait()
                return {"type": "http.request", "more_body": False}

            async def send(event):
                answers.setdefault(name, event.get("status"))

            scope = {
                "type": "http", "method": "POST", "raw_path": PULL.encode(), "query_string": b"",
                "headers": [],
            }  # fmt: skip
            await gate(scope, receive, send)

        first = asyncio.create_task(request("first", [b"123456"]))
        await asyncio.sleep(0)
        await request("second", [b"123", b"45"])
        late.set()
        await first
        await request("third", [b"1234567890"])
        return answers

    assert asyncio.run(main()) == {"second": 503, "first": 207, "third": 207}
    assert len(reached) == 2
    assert gate._held == 0


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_an_address_has_so_many_connections_and_none_that_asks_nothing(monkeypatch, http):
    monkeypatch.setattr(module, "MAX_CONNECTIONS_OF_ONE", 2)
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.2)
    implementation = importlib.import_module(f"uvicorn.protocols.http.{http}_impl")
    names = {"httptools": "HttpToolsProtocol", "h11": "H11Protocol"}
    protocol = module.bounded(getattr(implementation, names[http]))
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

    async def main():
        asked, may_answer = [], asyncio.Event()

        async def app(scope, receive, send):
            asked.append(scope)
            await may_answer.wait()
            await module._reply(send, 200)

        config = uvicorn.Config(
            app, http=protocol, ws="none", lifespan="off", log_level="critical",
            timeout_keep_alive=1000,
        )  # fmt: skip
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]

        async def client(text):
            """What comes until the connection is closed."""
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(text)
            try:
                return await asyncio.wait_for(reader.read(), 120)
            except ConnectionResetError:
                return b""
            finally:
                writer.close()

        busy = [asyncio.create_task(client(request)) for _ in range(2)]
        while len(asked) < 2:
            await asyncio.sleep(0.01)
        assert await client(request) == b""  # one too many
        await asyncio.sleep(0.7)  # longer than an idle connection may last
        assert not any(task.done() for task in busy)
        may_answer.set()
        for task in busy:
            assert (await task).startswith(b"HTTP/1.1 200")  # and closed once it was idle
        assert len(asked) == 2
        assert (await client(request)).startswith(b"HTTP/1.1 200")  # their places are free again
        for idle in (b"", request[:-2]):
            assert await client(idle) == b""
        assert len(asked) == 3
        server.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ((1024, 524_288), (65_536, 524_288)),
        ((1024, 4096), (4096, 4096)),
        ((1024, resource.RLIM_INFINITY), (65_536, resource.RLIM_INFINITY)),
        ((524_288, 524_288), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_the_gate_takes_the_files_that_it_may_have(monkeypatch, limits, wanted):
    taken = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, values: taken.append(values))
    module._open_many_files()
    assert taken == ([] if wanted is None else [wanted])


def test_connections_are_counted_by_address_and_by_network_of_ipv6():
    origins = [module._origin((address, 1)) for address in (
        "192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "fe80::1%eth0",
    )]  # fmt: skip
    assert origins[0] == origins[1] != origins[2]
    assert origins[3] == origins[4] != origins[5]


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


def test_a_superlink_that_stumbles_makes_no_supernode_give_up(door):
    gate, _ = door
    gate._client = httpx.AsyncClient(
        transport=httpx.MockTransport(lambda _: httpx.Response(500)),
        base_url="https://127.0.0.1:1",
    )
    assert ask(gate, PULL)[0] == 503
