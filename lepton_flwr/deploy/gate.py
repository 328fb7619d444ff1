"""The only door of a server: devices' requests go through, everything else stays outside.

Flower's SuperLink answers devices, operators (`flwr run`, `flwr supernode register`) and its own
apps at one port, and asks only devices who they are: whoever reaches that port could have any code
run on every device. So the SuperLink listens on loopback alone, and this process, at the public
address, passes on the requests of SuperNodes and no others. TLS ends here; the SuperLink checks
each device's signature as without it.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from lepton_flwr.crypto.tls import ServerCredentials

ROUTES = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages",
        "push-messages", "get-run", "get-fab", "push-object", "pull-object",
        "confirm-message-received",
    )
)  # fmt: skip
MAX_BODY_BYTES = 64 << 20  # Flower cuts arrays into objects of 5 MB
MAX_CONNECTIONS = 20_000
BODY_SECONDS = 600.0
UPSTREAM_SECONDS = 120.0
# Of one connection, not of the message (RFC 9110, 7.6.1), or set anew.
_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te",
        b"trailer", b"transfer-encoding", b"upgrade", b"host", b"content-length",
    }
)  # fmt: skip

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Gate:
    """An ASGI application that passes devices' requests on to a SuperLink.

    Args:
        port: the SuperLink's, on loopback.
        authority: certificate of the TLS authority, PEM.

    Guarantee: a request reaches the SuperLink only as a POST to one of `ROUTES`, without a query,
    and with a body of at most `MAX_BODY_BYTES`.
    """

    def __init__(self, port: int, authority: Path) -> None:
        import httpx

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
        import httpx

        path = scope["raw_path"].decode("latin-1")
        if path not in ROUTES or scope["query_string"]:
            await _reply(send, 404)
            return
        if scope["method"] != "POST":
            await _reply(send, 405)
            return
        try:
            body = await asyncio.wait_for(_read(receive), BODY_SECONDS)
        except TimeoutError:
            await _reply(send, 408)
            return
        if body is None:
            await _reply(send, 413)
            return
        headers = [(name, value) for name, value in scope["headers"] if name not in _HOP]
        try:
            answer = await self._client.post(path, content=body, headers=headers)
        except httpx.HTTPError:
            await _reply(send, 502)  # Flower's devices try again
            return
        kept = [
            (name, value)
            for name, value in answer.headers.raw
            # httpx has undone what the SuperLink may have packed.
            if name.lower() not in _HOP and name.lower() != b"content-encoding"
        ]
        await _reply(send, answer.status_code, answer.content, kept)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.shutdown":
                await self._client.aclose()
            await send({"type": f"{event['type']}.complete"})
            if event["type"] == "lifespan.shutdown":
                return


async def _read(receive: Receive) -> bytes | None:
    """The body of a request; None if it is too large or was cut off."""
    parts, size = [], 0
    while True:
        event = await receive()
        if event["type"] != "http.request":
            return None
        parts.append(event.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            return None
        if not event.get("more_body", False):
            return b"".join(parts)


async def _reply(
    send: Send, status: int, body: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    fields = [*(headers or ()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def main(folder: str, listen: str, port: str, inner: str) -> None:
    """Serve until SIGTERM.

    Args:
        folder: the server's.
        listen: address of the interface.
        port: where devices come.
        inner: the SuperLink's port on loopback.
    """
    import uvicorn

    files = ServerCredentials.within(Path(folder))
    uvicorn.run(
        Gate(int(inner), files.authority),
        host=listen,
        port=int(port),
        ssl_certfile=str(files.certificate),
        ssl_keyfile=str(files.key),
        access_log=False,
        server_header=False,
        date_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        ws="none",
        log_level="warning",
    )


if __name__ == "__main__":
    import sys

    main(*sys.argv[1:])
