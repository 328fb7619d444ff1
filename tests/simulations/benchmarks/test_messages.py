from rich.console import Console

from lepton_flwr.secagg.wire import Exchange
from simulations.benchmarks.messages import import_cost, table


def line(purpose, exchange, seconds):
    return {
        "purpose": purpose, "exchange": str(exchange), "started": 100.0, "ended": 100.0 + seconds,
        "cpu": seconds / 2, "peak": 8e6, "private": 4e6,
    }  # fmt: skip


def test_every_kind_of_message_has_a_row_of_medians():
    lines = [
        line(purpose, exchange, seconds)
        for purpose in ("train", "evaluate")
        for exchange in Exchange
        for seconds in (1.0, 2.0, 9.0)
    ]
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table(lines))
    rows = capture.get().splitlines()[1:]
    assert len(rows) == 10
    assert all(row.split()[-5:] == ["2.00", "1.00", "8", "4", "3"] for row in rows)
    names = [row.rstrip("0123456789. ") for row in rows]
    assert names[0] == "keys (train)"
    assert (names[2], names[7]) == ("train", "evaluate")


def test_importing_the_app_keeps_what_a_device_is_promised():
    _, cpu, peak = import_cost(1)
    assert cpu > 0
    assert 30e6 < peak < 150e6  # bytes
