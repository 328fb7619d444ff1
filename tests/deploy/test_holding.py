import asyncio
import importlib

import httpx
import pytest

from lepton_flwr.deploy import holding
from lepton_flwr.deploy.gate import ROUTES, Gate
from lepton_flwr.deploy.holding import Waiting, waiting_rooms

PULL, OBJECT = "/v1/fleet/pull-messages", "/v1/fleet/pull-object"
NOTHING, MESSAGE = httpx.Response(200), httpx.Response(200, content=b"message")
NOT_YET = httpx.Response(200, content=b"\x08\x01")


@pytest.fixture
def held(authority):
    """What a device is told whose server has these answers, and how often the server was asked."""

    def hold(answers, *, gone_after=None, path=PULL, body=b"node"):
        gate, asked, sent = Gate(1, authority), [], []
        for waiting in gate._waiting.values():
            waiting.shortest_pause, waiting.looks_per_second = 0.01, 1000.0

        def answer(request):
            asked.append((request.headers.get("flwr-signature"), request.read()))
            return answers[min(len(asked), len(answers)) - 1]

        gate._client = httpx.AsyncClient(
            transport=httpx.MockTransport(answer), base_url="https://127.0.0.1:1"
        )

        async def main():
            events = [{"type": "http.request", "body": body}]

            async def receive():
                if events:
                    return events.pop(0)
                while gone_after is None or len(asked) < gone_after:
                    await asyncio.sleep(0)
                return {"type": "http.disconnect"}

            async def send(event):
                sent.append(event)

            scope = {
                "type": "http", "method": "POST", "raw_path": path.encode(), "query_string": b"",
                "headers": [(b"flwr-signature", b"s")],
            }  # fmt: skip
            await gate(scope, receive, send)

        asyncio.run(main())
        assert set(asked) == {("s", body)}
        assert not any(waiting.sleepers for waiting in gate._waiting.values())
        return [(sent[0]["status"], sent[1]["body"])] if sent else [], len(asked)

    return hold


@pytest.mark.parametrize(("path", "nothing"), [(PULL, NOTHING), (OBJECT, NOT_YET)])
class TestBothRoutes:
    def test_a_device_is_held_until_there_is_something(self, held, path, nothing):
        assert held([nothing, nothing, MESSAGE], path=path) == ([(200, b"message")], 3)
        assert held([MESSAGE], path=path) == ([(200, b"message")], 1)

    def test_a_device_is_not_held_for_ever(self, held, monkeypatch, path, nothing):
        monkeypatch.setattr(holding, "HOLD_SECONDS", 0.05)
        answers, asked = held([nothing], path=path)
        assert answers == [(200, nothing.content)]
        assert asked >= 2

    def test_nothing_is_fetched_for_a_device_that_is_gone(self, held, path, nothing):
        assert held([nothing, nothing, MESSAGE], gone_after=2, path=path) == ([], 2)

    @pytest.mark.parametrize("status", [401, 403, 503])
    def test_nobody_is_held_whom_the_superlink_refuses(self, held, status, path, nothing):
        refusal = httpx.Response(status)
        assert held([refusal], path=path) == ([(status, b"")], 1)
        # Nor any longer, once it does: its node was unregistered meanwhile, say, or its signature
        # is too old by now. It asks again, with another one.
        told = (200, nothing.content) if status == 401 else (status, b"")
        assert held([nothing, refusal, MESSAGE], path=path) == ([told], 2)

    def test_only_small_requests_are_kept_and_sent_again(self, held, path, nothing):
        answers, most = [nothing, MESSAGE], holding.MAX_ASKING_BYTES
        assert held(answers, body=bytes(most), path=path) == ([(200, b"message")], 2)
        assert held(answers, body=bytes(most + 1), path=path) == ([(200, nothing.content)], 1)


def test_only_these_are_held(held):
    for route in ROUTES - {PULL, OBJECT}:
        assert held([NOTHING, MESSAGE], path=route) == ([(200, b"")], 1)
        assert held([NOT_YET, MESSAGE], path=route) == ([(200, NOT_YET.content)], 1)
    assert held([NOT_YET, MESSAGE], path=PULL) == ([(200, NOT_YET.content)], 1)
    assert held([NOTHING, MESSAGE], path=OBJECT) == ([(200, b"")], 1)


def test_those_that_are_held_share_the_looks_at_the_superlink(monkeypatch):
    pauses, wait = [], asyncio.wait

    async def noted(futures, timeout, return_when):
        pauses.append(timeout)
        return await wait(futures, timeout=0, return_when=return_when)

    monkeypatch.setattr(asyncio, "wait", noted)

    async def ask():
        return MESSAGE

    async def main(others):
        waiting = Waiting(b"", 20.0, 0.1, [asyncio.Event() for _ in range(others)])
        await waiting.hold(NOTHING, ask, asyncio.Event().wait)

    for others in (0, 1, 19, 99):
        asyncio.run(main(others))
    assert pauses == [0.1, 0.1, 1.0, 3.0]


@pytest.fixture
def patient(monkeypatch):
    """Nobody looks again before being woken, unless for a reason, however slow the machine is."""
    monkeypatch.setattr(holding, "LONGEST_PAUSE", 1000.0)
    monkeypatch.setattr(holding, "HOLD_SECONDS", 1000.0)


def run_devices(count, found, leave=(), seconds=120.0):
    """Patient devices, and a last one that looks after 0.1 s.

    Returns, in the order of their ends within so many seconds, whether each has an answer.
    """
    ended = {}

    async def device(waiting, number):
        async def ask():
            return MESSAGE if found(number) else NOTHING

        async def receive():
            await asyncio.sleep(0.01 if number in leave else 1000)

        ended[number] = await waiting.hold(NOTHING, ask, receive) is not None

    async def main():
        waiting = Waiting(b"", looks_per_second=1e-9, shortest_pause=0.1)
        tasks = [asyncio.create_task(device(waiting, number)) for number in range(count)]
        await asyncio.sleep(0)
        waiting.looks_per_second = 1e9
        tasks.append(asyncio.create_task(device(waiting, count)))
        await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    return ended


@pytest.mark.usefixtures("patient")
def test_who_finds_something_has_others_look_at_once():
    assert run_devices(20, lambda _: True) == dict.fromkeys(range(21), True)
    assert run_devices(20, lambda number: number < 20, seconds=0.5) == {}  # nobody found anything


@pytest.mark.usefixtures("patient")
def test_a_device_that_is_gone_has_no_answer_and_stops_nobody():
    ended = run_devices(6, lambda _: True, leave={0, 1})
    assert ended == {number: number > 1 for number in range(7)}


@pytest.mark.usefixtures("patient")
def test_who_is_woken_and_gone_at_once_passes_the_turn_on():
    async def main():
        waiting = Waiting(b"", looks_per_second=1e-9, shortest_pause=0.1)
        gone, stays = asyncio.Event(), asyncio.Event()
        answers = []

        async def ask():
            answers.append(1)
            return MESSAGE

        tasks = [
            asyncio.create_task(waiting.hold(NOTHING, ask, event.wait)) for event in (gone, stays)
        ]
        await asyncio.sleep(0.05)
        waiting._wake(1)
        gone.set()
        found = await asyncio.wait_for(asyncio.gather(*tasks), 120)
        assert found == [None, MESSAGE]
        assert len(answers) == 1

    asyncio.run(main())


def test_nothing_is_what_flower_says_for_no_message_and_for_a_part_that_is_still_uploaded():
    rooms = waiting_rooms()
    fleet = importlib.import_module("flwr.proto.fleet_pb2")
    objects = importlib.import_module("flwr.proto.message_pb2")

    def says_nothing(route, message):
        return rooms[route].is_nothing(httpx.Response(200, content=message.SerializeToString()))

    response = fleet.PullMessagesResponse(messages_list=[], message_object_trees=[])
    assert says_nothing(PULL, response)
    response.messages_list.add()
    assert not says_nothing(PULL, response)
    answer = objects.PullObjectResponse
    assert says_nothing(OBJECT, answer(object_found=True, object_available=False))
    assert not says_nothing(OBJECT, answer(object_found=False))
    assert not says_nothing(OBJECT, answer(object_found=True, object_available=True))
    whole = answer(object_found=True, object_available=True, object_content=b"part")
    assert not says_nothing(OBJECT, whole)
