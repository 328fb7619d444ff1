"""Deadlines, with a clock and a grid that only pretend."""

import threading
from types import SimpleNamespace

import pytest

from lepton_flwr.secagg.wire import Exchange
from strategies import exchange as module
from strategies.exchange import Patience, RunInterruptedError, exchange
from strategies.secure_session import replies_at_once


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class TimedGrid:
    """Node n answers at `times[n]`, or never."""

    def __init__(self, clock, times, errors=(), takes=0.0):
        self.clock, self.times, self.errors, self.takes = clock, times, errors, takes
        self.asked = []

    def push_messages(self, messages):
        return [
            None if self.times[m.metadata.dst_node_id] is None else str(m.metadata.dst_node_id)
            for m in messages
        ]

    def pull_messages(self, ids):
        nodes = [int(i) for i in ids]
        self.asked.append(len(nodes))
        self.clock.now += self.takes
        return [
            SimpleNamespace(
                node=n,
                has_error=lambda n=n: n in self.errors,
                metadata=SimpleNamespace(reply_to_message_id=str(n)),
            )
            for n in nodes
            if self.times[n] <= self.clock.now
        ]


@pytest.fixture
def wait(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)

    def run(times, patience, errors=(), *, grid=TimedGrid, takes=0.0, **more):
        messages = [
            SimpleNamespace(metadata=SimpleNamespace(dst_node_id=node))
            for node in range(len(times))
        ]
        late = []
        run.grid = grid = grid(clock, times, errors, takes)
        came = [
            (node, reply.node)
            for node, reply in exchange(
                grid, messages, patience=patience, missing=late.extend, **more
            )
        ]
        assert all(node == of for node, of in came)
        came = [node for node, _ in came]
        return came, late, clock.now

    return run


def test_replies_come_in_the_order_of_their_coming(wait):
    assert wait([0.5, 0.1, 0.3], Patience(9))[:2] == ([1, 2, 0], [])


def test_without_a_factor_the_slowest_has_the_timeout(wait):
    came, late, now = wait([1, 1, 1, 55, 1000], Patience(60, quorum=3))
    assert (came, late) == ([0, 1, 2, 3], [4])
    assert 60 <= now < 61


def test_stragglers_get_a_multiple_of_what_enough_clients_took(wait):
    came, late, now = wait([1, 2, 2, 15, 35], Patience(600, factor=10, quorum=3))
    assert (came, late) == ([0, 1, 2, 3], [4])
    assert 20 <= now < 26


def test_the_grace_is_a_floor_and_the_timeout_a_ceiling(wait):
    assert wait([0, 0, 0, 50], Patience(600, factor=10, grace=60, quorum=3))[1] == []
    _, late, now = wait([100, 100, 100, 1000], Patience(300, factor=10, quorum=3))
    assert late == [3]
    assert now < 360


def test_refusals_are_no_answers_that_are_enough(wait):
    patience = Patience(100, factor=2, quorum=3)
    assert wait([1, 1, 1, 90], patience, errors={2})[1] == []
    _, late, _ = wait([1, 1, 1, 1000, 1000], patience, errors=())
    assert late == [3, 4]


def test_progress_names_who_has_not_answered(wait):
    seen = []
    wait([1, 3, 1000], Patience(5), progress=lambda done, nodes: seen.append((done, list(nodes))))
    assert seen == [(1, [1, 2]), (2, [2])]


def test_a_node_to_which_nothing_could_be_sent_is_missing_and_not_waited_for(wait):
    came, late, now = wait([None, 1], Patience(60))
    assert (came, late) == ([1], [0])
    assert now < 3


def test_an_operator_ends_the_exchange(wait):
    stop = threading.Event()
    stop.set()
    with pytest.raises(RunInterruptedError):
        wait([1000], Patience(60), stop=stop)


@pytest.mark.parametrize("at_once", [1, 2, 5, 100])
def test_no_more_replies_are_held_than_may_be_and_all_come(wait, at_once):
    times = [0.5, 0.1, 0.3, 0.1, 0.5, 0.5, 0.0]
    came, late, _ = wait(times, Patience(9), at_once=at_once)
    assert (sorted(came), late) == (list(range(7)), [])
    assert max(wait.grid.asked) == min(at_once, 7)


def test_large_vectors_are_taken_one_at_a_time_and_small_ones_together():
    assert replies_at_once(Exchange.WORK, 10_000_000) == 1
    assert 1 < replies_at_once(Exchange.WORK, 1_000_000) < replies_at_once(Exchange.WORK, 10)
    assert replies_at_once(Exchange.KEYS, 10_000_000) == replies_at_once(Exchange.WORK, 1)


def test_a_reply_to_something_else_or_a_second_one_is_left(wait):
    class Confused(TimedGrid):
        def pull_messages(self, ids):
            found = super().pull_messages(ids)
            other = SimpleNamespace(
                node=9, has_error=lambda: False, metadata=SimpleNamespace(reply_to_message_id="9")
            )
            return [*found, *found, other]

    assert wait([0.5, 0.1], Patience(9), grid=Confused, at_once=2)[:2] == ([1, 0], [])


def test_a_server_that_is_slow_to_answer_is_asked_less_often(wait):
    # Of ten seconds, no more than a third; a pause is never so long that replies would wait.
    wait([1000], Patience(10), takes=0.2)
    assert sum(wait.grid.asked) * 0.2 < 10 / 3 + 1
    wait([1000], Patience(100), takes=5.0)
    assert sum(wait.grid.asked) * 5.5 > 90
