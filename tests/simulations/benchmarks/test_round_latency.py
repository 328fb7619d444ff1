import pytest
from rich.console import Console

from lepton_flwr.secagg.wire import Exchange
from simulations.benchmarks.round_latency import phases, tables

STEPS = [str(step) for step in Exchange]


def lines():
    """Two rounds of three devices; the first is slow, as a first one is."""
    exchanges, messages, at = [], [], 100.0
    for length in (9.0, 2.0):
        for step in STEPS:
            exchanges.append({"exchange": step, "began": at, "ended": at + length})
            messages += [
                {
                    "purpose": "train", "exchange": step, "node": str(node), "started": at + 0.25,
                    "began": at + 0.75, "imported": at + 1.0, "asked": at + 1.0,
                    "answered": at + 1.5, "ended": at + 1.75, "cpu": 0.5, "peak": 8e6,
                    "private": 4e6,
                }
                for node in range(3)
            ]  # fmt: skip
            at += length
    return exchanges, messages


def text(*made):
    console = Console(width=120)
    with console.capture() as capture:
        for one in made:
            console.print(one)
    return capture.get()


def test_what_a_message_waits_for_adds_up_to_its_exchange():
    exchanges, messages = lines()
    parts = phases(exchanges[-1], messages[-1])
    assert sum(parts.values()) == pytest.approx(2.0)
    assert min(parts.values()) >= 0.25


def test_the_first_round_does_not_count():
    shown = text(*tables(*lines()))
    assert [line.split()[-1] for line in shown.splitlines()[1:7]] == ["2.00"] * 5 + ["10.00"]
    assert "9.00" not in shown
