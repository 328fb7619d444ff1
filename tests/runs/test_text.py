import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_flwr.runs import text


@given(st.floats(0, 1e6))
def test_a_shown_epsilon_never_understates(epsilon):
    shown = float(text.spent(epsilon))
    assert epsilon <= shown <= epsilon + 0.00101


def test_an_epsilon_without_bound_is_not_a_dash():
    assert text.spent(math.inf) == "unbounded"
    assert text.spent(None) == text.UNKNOWN
    assert text.spent(3.0) == "3"
    assert text.spent(2.0001) == "2.001"


@pytest.mark.parametrize(
    ("num_bytes", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (4_013_000, "4.01 MB"),
     (5e12, "5e+03 GB")],
)  # fmt: skip
def test_sizes_have_three_digits(num_bytes, shown):
    assert text.size(num_bytes) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (42, "42 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"),
     (7800, "2 h 10 min")],
)  # fmt: skip
def test_durations_read_naturally(seconds, shown):
    assert text.duration(seconds) == shown


@given(st.text())
def test_foreign_text_becomes_one_printable_line(foreign):
    line = text.one_line(foreign)
    assert line.isprintable()
    assert text.one_line(line) == line
