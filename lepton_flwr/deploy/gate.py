"""The only door of a server: devices' requests go through, everything else stays outside.

Flower's SuperLink answers devices, operators (`flwr run`, `flwr supernode register`) and its own
apps at one port, and asks only devices who they are: whoever reaches that port could have any code
run on every device. So the SuperLink listens on loopback alone, and this process, at the public
address, passes on the requests of SuperNodes and no others. TLS ends here; the SuperLink checks
each device's signature as without it.
"""

import asyncio
import ipaddress
import resource
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lepton_flwr.crypto.tls import ServerCredentials
from lepton_flwr.deploy.holding import MAX_ASKING_BYTES, Receive, waiting_rooms

ROUTES = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages",
        "push-messages", "get-run", "get-fab", "push-object", "pull-object",
        "confirm-message-received",
    )
)  # fmt: skip
MAX_BODY_BYTES = 64 << 20  # Flower cuts arrays into objects of 5 MB
MAX_HELD_BYTES = 512 << 20  # of all bodies together: nobody has been authenticated yet
MAX_CONNECTIONS = 20_000
MAX_CONNECTIONS_OF_ONE = 4_000  # devices behind one router share its address
MAX_FILES = 65_536
IDLE_SECONDS = 30.0
BODY_SECONDS = 600.0
PART_SECONDS = 1.0
UPSTREAM_SECONDS = 120.0
# Of one connection, not of the message (RFC 9110, 7.6.1), or set anew.
_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te",
        b"trailer", b"transfer-encoding", b"upgrade", b"host", b"content-length",
    }
)  # fmt: skip
# httpx has undone what the SuperLink may have packed; the time is told anew, the server by no name.
_OWN = frozenset({b"content-encoding", b"date", b"server"})

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Gate:
    """An ASGI application that passes devices' requests on to a SuperLink.

    Args:
        port: the SuperLink's, on loopback.
        authority: certificate of the TLS authority, PEM.

    Guarantee: a request reaches the SuperLink only as a POST to one of `ROUTES`, without a query,
    and with a body of at most `MAX_BODY_BYTES`. No more than `MAX_HELD_BYTES` of bodies are held at
    a time; what would exceed that is answered 503. The connection of a request that is refused is
    closed, its body unread. Whoever is held has been authenticated by the SuperLink, and is again
    whenever the SuperLink is asked.
    """

    def __init__(self, port: int, authority: Path) -> None:
        import httpx

        self._held = 0
        self._waiting = waiting_rooms()
        self._client = httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{port}",
            verify=ssl.create_default_context(cafile=authority),
            timeout=UPSTREAM_SECONDS,
            trust_env=False,
            limits=httpx.Limits(max_connections=200),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["raw_path"].decode("latin-1")
        if path not in ROUTES or scope["query_string"]:
            await _refuse(send, 404)
            return
        if scope["method"] != "POST":
            await _refuse(send, 405)
            return
        with self._holding() as hold:
            try:
                body = await asyncio.wait_for(_read(receive, hold), BODY_SECONDS)
            except TimeoutError:
                await _refuse(send, 408)
            except _FullError:
                await _refuse(send, 503)  # Flower's devices try again
            else:
                if body is None:
                    await _refuse(send, 413)
                else:
                    await self._pass_on(path, scope, body, receive, send)

    async def _pass_on(
        self, path: str, scope: Scope, body: bytes, receive: Receive, send: Send
    ) -> None:
        import httpx

        headers = [(name, value) for name, value in scope["headers"] if name not in _HOP]

        async def ask() -> httpx.Response:
            return await self._client.post(path, content=body, headers=headers)

        waiting = self._waiting.get(path) if len(body) <= MAX_ASKING_BYTES else None
        try:
            first = await ask()
            answer: httpx.Response | None = first
            if waiting is not None and waiting.is_nothing(first):
                answer = await waiting.hold(first, ask, receive)
        except httpx.HTTPError:
            await _reply(send, 502)  # Flower's devices try again
            return
        if answer is None:
            return
        kept = [
            (name, value) for name, value in answer.headers.raw if name.lower() not in _HOP | _OWN
        ]
        # At 500 a SuperNode gives up, though its process stays; at 503 it tries again.
        status = 503 if answer.status_code == 500 else answer.status_code
        await _reply(send, status, answer.content, kept)

    @contextmanager
    def _holding(self) -> Iterator[Callable[[int], None]]:
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if self._held + size > MAX_HELD_BYTES:
                raise _FullError
            held += size
            self._held += size

        try:
            yield hold
        finally:
            self._held -= held

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.shutdown":
                await self._client.aclose()
            await send({"type": f"{event['type']}.complete"})
            if event["type"] == "lifespan.shutdown":
                return


class _FullError(Exception):
    """Too many bytes are held."""


async def _read(receive: Receive, hold: Callable[[int], None]) -> bytes | None:
    """The body of a request; None if it is too large or was cut off."""
    parts, size = [], 0
    while True:
        event = await receive()
        if event["type"] != "http.request":
            return None
        hold(len(event.get("body", b"")))
        parts.append(event.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            return None
        if not event.get("more_body", False):
            return b"".join(parts)


async def _refuse(send: Send, status: int) -> None:
    """Answer and hang up: what more there is of the body is not read."""
    await _reply(send, status, headers=[(b"connection", b"close")])


async def _reply(
    send: Send, status: int, body: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    fields = [*(headers or ()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def bounded(protocol: type[Any]) -> type[Any]:
    """A protocol of uvicorn's with bounds that it does not have.

    An address (of IPv6, its network of 64 bits) has at most `MAX_CONNECTIONS_OF_ONE` connections.
    One that asks nothing for `IDLE_SECONDS`, from its beginning or after an answer, is closed, also
    if it sends half a request; so is one that goes on sending after it was refused.
    """
    counts: Counter[str] = Counter()

    class Bounded(protocol):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._origin = _origin(transport.get_extra_info("peername"))
            counts[self._origin] += 1
            self._watch: asyncio.TimerHandle | None = None
            if counts[self._origin] > MAX_CONNECTIONS_OF_ONE:
                transport.abort()
                return
            self._last: object = None
            self._watch = self.loop.call_later(IDLE_SECONDS, self._look)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            counts[self._origin] -= 1
            if not counts[self._origin]:
                del counts[self._origin]
            if self._watch is not None:
                self._watch.cancel()

        def on_response_complete(self) -> None:
            unread = self.cycle is not None and self.cycle.more_body
            super().on_response_complete()
            # TLS would read on until the other end agrees to part; a second is for the answer.
            if unread and self.transport.is_closing():
                self.loop.call_later(PART_SECONDS, self.transport.abort)

        def _look(self) -> None:
            request = self.cycle
            busy = request is not None and not request.response_complete
            if not busy and request is self._last:
                self.transport.abort()
                return
            self._last = self if busy else request
            self._watch = self.loop.call_later(IDLE_SECONDS, self._look)

    return Bounded


def _origin(peer: Sequence[Any] | None) -> str:
    if not peer:
        return ""
    address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def _open_many_files() -> None:
    """Let the process have as many connections as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(folder: str, listen: str, port: str, inner: str) -> None:
    """Serve until SIGTERM.

    Args:
        folder: the server's.
        listen: address of the interface.
        port: where devices come.
        inner: the SuperLink's port on loopback.
    """
    import uvicorn
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    _open_many_files()
    files = ServerCredentials.within(Path(folder))
    uvicorn.run(
        Gate(int(inner), files.authority),
        host=listen,
        port=int(port),
        ssl_certfile=str(files.certificate),
        ssl_keyfile=str(files.key),
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        http=bounded(AutoHTTPProtocol),
        ws="none",
        log_level="warning",
        timeout_graceful_shutdown=1,  # or it would wait for all that it holds
    )


if __name__ == "__main__":
    import sys

    main(*sys.argv[1:])
