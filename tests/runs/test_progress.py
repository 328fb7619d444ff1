import io
import json
import sys

import pytest
from rich.console import Console

from lepton_flwr.runs.observer import RunObserver
from lepton_flwr.runs.progress import (
    Observers,
    ProgressBar,
    answering,
    brief,
    describe,
    print_summary,
)


def console(*, terminal: bool, width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width)


def run(bar: RunObserver, runs, rounds: int = 3) -> None:
    bar.run_started(runs.start(rounds))
    for i in range(1, rounds + 1):
        for done in range(5):
            bar.waiting(i, "train", done, 4)
        bar.round_finished(runs.record(i, rounds), runs.weights)
    bar.run_ended(runs.end())


def test_without_a_terminal_there_is_one_plain_line_per_round(runs):
    where = console(terminal=False)
    run(ProgressBar(where), runs)
    lines = where.file.getvalue().splitlines()
    assert len(lines) == 4
    assert "\x1b" not in where.file.getvalue()
    for i, line in enumerate(lines[1:], 1):
        assert line.startswith(f"round {i}/3: AUC 0.")
        assert "epsilon" in line
        assert "survivors 28/29" in line


def test_lines_go_to_standard_error(runs, capsys):
    run(ProgressBar(), runs)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "round 3/3" in captured.err


def test_a_terminal_shows_whom_the_server_waits_for(runs, monkeypatch):
    where = console(terminal=True)
    bar = ProgressBar(where)
    bar.run_started(runs.start(3))
    try:
        bar.waiting(2, "shares", 1, 4, ["17", "18", "19"])
        bar.round_finished(runs.record(2, 3), runs.weights)
        with where.capture() as shown:
            where.print(bar._live.get_renderable())
        text = shown.get()
        assert "round 2/3" in text
        assert "shares" in text
        assert "waiting for 3: 17, 18, +1" in text
    finally:
        bar.run_ended(runs.end("interrupted"))
    assert "\x1b[?25h" in where.file.getvalue()  # the cursor is shown again
    assert "run ended: interrupted" in where.file.getvalue()


def test_a_resumed_run_says_where_it_goes_on(runs):
    where = console(terminal=False, width=200)
    start = runs.start(5)
    ProgressBar(where).run_started(type(start)(**{**vars(start), "rounds_done": 2}))
    assert where.file.getvalue().rstrip().endswith("5 rounds; goes on after round 2")


def test_the_line_of_a_round_counts_lost_clients_by_class(runs):
    text = describe(runs.record(1, failures={"timeout": 2, "data": 1}))
    assert "survivors 28/29, 2 timed out, 1 bad data, 2.6 s" in text


def test_the_bar_fits_eighty_columns(runs):
    record = runs.record(10, epsilon_record=2.981, survivors=128, participants=128)
    bar = "round 100/100".ljust(14) + "-" * 14
    assert len(f"{bar} {brief(record)}") <= 80


def test_foreign_text_neither_drives_the_terminal_nor_is_markup(runs):
    for terminal in (False, True):
        where = console(terminal=terminal, width=200)
        bar = ProgressBar(where)
        bar.run_started(runs.start(3))
        bar.round_finished(runs.record(1, status="skipped", reason=runs.hostile), runs.weights)
        bar.run_ended(runs.end())
        text = where.file.getvalue()
        assert "\x1b[2J" not in text
        assert "[red]" in text
        assert "{{ 7 * 7 }}" in text


def test_what_is_not_known_is_left_out(runs):
    record = runs.record(1, auc=None, loss=None, epsilon_record=None)
    assert describe(record) == "accuracy 0.701, survivors 28/29, 2.6 s"


def test_every_event_reaches_every_observer_in_order(runs):
    heard = []

    class Spy:
        def __init__(self, name):
            self.name = name

        def __getattr__(self, event):
            return lambda *_: heard.append((self.name, event))

    run(Observers([Spy("a"), Spy("b")]), runs, rounds=1)
    assert heard[:2] == [("a", "run_started"), ("b", "run_started")]
    assert heard[-2:] == [("a", "run_ended"), ("b", "run_ended")]
    assert len(heard) == 2 * (1 + 5 + 1 + 1)


def test_the_end_reaches_all_even_if_one_fails(runs):
    heard = []

    class Fails:
        def run_ended(self, end):
            raise KeyboardInterrupt

    class Hears:
        def run_ended(self, end):
            heard.append(end.reason)

    with pytest.raises(KeyboardInterrupt):
        Observers([Fails(), Hears()]).run_ended(runs.end())
    assert heard == ["finished"]


def test_the_summary_is_a_table_and_the_path_of_the_report(tmp_path, runs):
    (tmp_path / "summary.json").write_text(json.dumps(runs.history(4).summary()))
    where = console(terminal=False, width=40)
    print_summary(tmp_path, where)
    text = where.file.getvalue()
    assert "0.700" in text
    assert "epsilon per record" in text
    assert "epsilon per client" not in text
    assert text.splitlines()[-1] == f"report: {tmp_path / 'report.html'}"


def test_drawing_libraries_are_not_needed_for_progress():
    import subprocess

    code = (
        "import sys, lepton_flwr.runs.progress;"
        "sys.exit(bool({'tensorflow', 'matplotlib', 'pandas', 'ray', 'flwr'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_answers_before_a_run_are_shown_on_a_terminal_only():
    for terminal in (True, False):
        where = console(terminal=terminal)
        with answering("statistics", where) as show:
            show(2, 5)
        assert ("2 of 5 answers" in where.file.getvalue()) == terminal
