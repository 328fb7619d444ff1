"""What the gate answers late: a SuperNode that is told "nothing yet" sleeps for a second or three.

So its request is kept, and the SuperLink asked again, until there is something or long enough.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

Ask = Callable[[], Awaitable["httpx.Response"]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

# Well before a SuperNode gives up (30 s) or its signature does (300 s).
HOLD_SECONDS = 10.0
MAX_ASKING_BYTES = 4096  # of a request that is kept and sent again: it names a node or an object
LONGEST_PAUSE = 3.0


@dataclass
class Waiting:
    """Those whose requests to one route are held.

    All of them share so many looks at the SuperLink. What they wait for mostly comes for all at
    once, so whoever finds something has the next two look without delay, and so on.

    Attributes:
        nothing: the body that says "nothing yet"; with status 200, which nobody gets whom the
            SuperLink does not know.
        looks_per_second: of all together, as long as nothing is found.
        shortest_pause: between two looks for one.
        sleepers: who waits, in the order of their coming: set to be woken.
    """

    nothing: bytes
    looks_per_second: float
    shortest_pause: float
    sleepers: list[asyncio.Event] = field(default_factory=list)

    def is_nothing(self, answer: "httpx.Response") -> bool:
        """Whether an answer says "nothing yet"."""
        return answer.status_code == 200 and answer.content == self.nothing

    async def hold(
        self, nothing: "httpx.Response", ask: Ask, receive: Receive
    ) -> "httpx.Response | None":
        """Ask until there is something, or long enough.

        What is fetched for a device that is gone is lost to it, so its connection is looked at
        before. A SuperNode that is told 401 ends; while it is held its signature can become too
        old: then it is told that there is nothing, and asks with another one.

        Args:
            nothing: the answer so far.
            ask: sends the request again.
            receive: of ASGI; all that can come is the end of the connection.

        Returns:
            The answer; None if the device is gone.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + HOLD_SECONDS
        gone = asyncio.ensure_future(receive())
        try:
            while True:
                await self._sleep(gone)
                if gone.done():
                    return None
                answer = await ask()
                if answer.status_code == 401:
                    return nothing
                if not self.is_nothing(answer):
                    self._wake(2)
                    return answer
                if loop.time() > until:
                    return answer
        finally:
            gone.cancel()

    async def _sleep(self, gone: "asyncio.Future[Any]") -> None:
        bell = asyncio.Event()
        self.sleepers.append(bell)
        rung = asyncio.ensure_future(bell.wait())
        pause = min(
            max(len(self.sleepers) / self.looks_per_second, self.shortest_pause), LONGEST_PAUSE
        )
        try:
            await asyncio.wait({gone, rung}, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and bell.is_set():
                self._wake(1)  # it was this one's turn
        finally:
            rung.cancel()
            if bell in self.sleepers:
                self.sleepers.remove(bell)

    def _wake(self, count: int) -> None:
        for bell in self.sleepers[:count]:
            bell.set()
        del self.sleepers[:count]


def waiting_rooms() -> Mapping[str, Waiting]:
    """By route: for messages, whose "nothing" has no field, and for the parts of one.

    A part that the server still uploads is "found" and not "available".
    """
    return {
        "/v1/fleet/pull-messages": Waiting(b"", looks_per_second=10.0, shortest_pause=0.1),
        "/v1/fleet/pull-object": Waiting(b"\x08\x01", looks_per_second=20.0, shortest_pause=0.05),
    }
