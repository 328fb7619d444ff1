"""The ledger: never undercounts, cannot be overspent, and refuses when it cannot be trusted."""

import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from lepton_flwr.errors import ConfigError, PrivacyError
from lepton_flwr.privacy import chain, head
from lepton_flwr.privacy.accounting import BudgetError
from lepton_flwr.privacy.events import (
    DiscreteGaussian,
    Laplace,
    RandomizedResponse,
    SampledGaussian,
    Unbounded,
    Unit,
    from_json,
    to_json,
)
from lepton_flwr.privacy.ledger import Charge, Ledger, Limit, spent_over_time
from lepton_flwr.privacy.ledger_errors import (
    LedgerBusyError,
    LedgerCorruptError,
    LedgerError,
    LedgerMissingError,
    LedgerRolledBackError,
    LedgerVersionError,
)

TENTH = Laplace(10.0)  # epsilon 0.1, and n of them at most n / 10
DATA, OTHER = bytes(32), b"o" * 32


def limits(epsilon, **details):
    return {Unit.RECORD: (Limit(epsilon, 1e-5, **details),)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def book(path):
    with Ledger(path) as ledger:
        yield ledger


def charge(book, event=TENTH, data=DATA, unit=Unit.RECORD):
    return Charge(unit, book.dataset(data), event)


def spend(book, times=1, epsilon=100.0, **details):
    for _ in range(times):
        book.commit(book.reserve([charge(book, **details)], limits(epsilon), "run"))


def most_within(epsilon, event=TENTH, delta=1e-5):
    from lepton_flwr.privacy import losses

    count = 0
    while losses.epsilon([(event, count + 1)], delta) <= epsilon:
        count += 1
    return count


# What it counts


def test_a_release_is_refused_exactly_when_it_would_exceed_the_limit(book):
    allowed = most_within(0.75)
    assert 7 <= allowed < 12
    assert book.remaining([charge(book)], limits(0.75)) == allowed
    spend(book, allowed, 0.75)
    assert book.spent(Unit.RECORD, book.dataset(DATA), 1e-5) <= 0.75
    with pytest.raises(BudgetError, match=r"at most 0\.75"):
        book.reserve([charge(book)], limits(0.75))
    assert book.remaining([charge(book)], limits(0.75)) == 0
    assert len(book.history()) == allowed


def test_what_is_reserved_and_never_committed_counts_for_ever(path):
    with Ledger(path) as book:
        for _ in range(most_within(0.5)):
            book.reserve([charge(book)], limits(0.5))
    with Ledger(path) as book:
        with pytest.raises(BudgetError):
            book.reserve([charge(book)], limits(0.5))
        assert not any(entry.committed for entry in book.history())


def test_another_data_set_and_another_unit_are_not_affected(book):
    spend(book, most_within(0.5), 0.5)
    spend(book, 1, 0.5, data=OTHER)
    book.reserve([charge(book, unit=Unit.CLIENT)], {Unit.CLIENT: (Limit(0.5, 1e-5),)})
    with pytest.raises(BudgetError):
        spend(book, 1, 0.5)


def test_different_mechanisms_count_together(book):
    gaussian = SampledGaussian(2.0, 0.1, 10)
    spend(book, 5)
    alone = book.spent(Unit.RECORD, book.dataset(DATA), 1e-5)
    spend(book, 1, event=gaussian)
    both = book.spent(Unit.RECORD, book.dataset(DATA), 1e-5)
    assert both > alone
    with pytest.raises(BudgetError):
        book.reserve([charge(book)], limits(both))
    with pytest.raises(BudgetError):
        book.reserve([charge(book, event=gaussian)], limits(both))


def test_several_charges_are_taken_together_or_not_at_all(book):
    allowed = most_within(0.5)
    with pytest.raises(BudgetError):
        book.reserve([charge(book)] * (allowed + 1), limits(0.5))
    assert book.history() == []
    book.reserve([charge(book)] * allowed, limits(0.5))
    with pytest.raises(BudgetError):
        book.reserve([charge(book, data=OTHER), charge(book)], limits(0.5))
    assert book.spent(Unit.RECORD, book.dataset(OTHER), 1e-5) == 0


def test_a_period_forgets_what_is_older_and_the_whole_does_not(book, monkeypatch):
    both = {Unit.RECORD: (Limit(0.5, 1e-5, days=30), Limit(1.2, 1e-5))}
    month, total = most_within(0.5), most_within(1.2)
    start, day = time.time_ns(), 86_400 * 10**9
    for _ in range(month):
        book.reserve([charge(book)], both)
    with pytest.raises(BudgetError, match="in 30 days"):
        book.reserve([charge(book)], both)
    monkeypatch.setattr(time, "time_ns", lambda: start + 31 * day)
    for _ in range(min(month, total - month)):
        book.reserve([charge(book)], both)
    monkeypatch.setattr(time, "time_ns", lambda: start + 62 * day)
    for _ in range(total - min(2 * month, total)):
        book.reserve([charge(book)], both)
    with pytest.raises(BudgetError, match=r"at most 1\.2 at"):
        book.reserve([charge(book)], both)


def test_setting_the_clock_back_does_not_bring_a_period_back(book, monkeypatch):
    start = time.time_ns()
    spend(book, 3)
    monkeypatch.setattr(time, "time_ns", lambda: start - 10**15)
    spend(book, 1)
    times = [entry.time for entry in book.history()]
    assert times == sorted(times)


def test_a_release_without_privacy_fits_no_limit_and_ends_every_budget(book):
    with pytest.raises(BudgetError):
        book.reserve([charge(book, event=Unbounded())], limits(1e6))
    book.reserve([charge(book, event=Unbounded())], {})
    assert math.isinf(book.spent(Unit.RECORD, book.dataset(DATA), 1e-5))
    with pytest.raises(BudgetError):
        book.reserve([charge(book)], limits(1e6))
    assert book.export(1e-5)["spent"][0]["epsilon"] is None


def test_relations_are_not_mixed(book):
    from lepton_flwr.privacy.events import Neighbours

    spend(book, event=SampledGaussian(5.0, 0.5, 1))
    with pytest.raises(ConfigError, match="relations"):
        spend(book, event=SampledGaussian(5.0, 0.5, 1, neighbours=Neighbours.REPLACE_ONE))


def test_what_was_once_computed_is_not_computed_again(path, monkeypatch):
    from lepton_flwr.privacy import ledger as module

    with Ledger(path) as book:
        spend(book, 2, 0.9)
    module._most.cache_clear()
    monkeypatch.setattr(module.losses, "epsilon", lambda *_, **__: pytest.fail("computed"))
    with Ledger(path) as book:
        spend(book, 1, 0.9)


def test_a_kept_allowance_that_was_damaged_is_computed_again(path):
    with Ledger(path) as book:
        spend(book, 1, 0.5)
    with sqlite3.connect(path) as database:
        assert database.execute("UPDATE memos SET value = 4000").rowcount == 1
    database.close()
    with Ledger(path) as book:
        assert book.remaining([charge(book)], limits(0.5)) == most_within(0.5) - 1


def test_committing_twice_or_what_was_not_reserved_is_refused(book):
    number = book.reserve([charge(book)], limits(1.0))
    book.commit(number)
    for wrong in (number, number + 7):
        with pytest.raises(LedgerError, match="reservation"):
            book.commit(wrong)
    with pytest.raises(ConfigError, match="no charge"):
        book.reserve([], limits(1.0))


@pytest.mark.parametrize(
    "event",
    [
        TENTH,
        SampledGaussian(1.0, 0.1, 5, 1e-6, 2.0),
        DiscreteGaussian(3.0),
        RandomizedResponse(0.3, 4),
        Unbounded(),
    ],
)
def test_events_survive_the_file(event, book):
    assert from_json(to_json(event)) == event
    book.reserve([charge(book, event=event)], {})
    assert book.history()[0].charges[0].event == event


@pytest.mark.parametrize("text", ["", "[]", '{"kind":"Laplace"}', '{"kind":"Exec","x":1}', "null"])
def test_what_is_no_event_is_refused(text):
    with pytest.raises(ConfigError, match="accounted"):
        from_json(text)


def test_the_export_is_json_and_tells_everything_but_the_salt(book):
    spend(book, 3)
    book.reserve([charge(book)], limits(5.0), "second")
    told = json.loads(json.dumps(book.export(1e-5), allow_nan=False))
    assert [release["committed"] for release in told["releases"]] == [True] * 3 + [False]
    assert told["releases"][3]["run"] == "second"
    assert told["releases"][0]["charges"][0]["event"] == {"kind": "Laplace", "noise_multiplier": 10}
    assert 0.3 < told["spent"][0]["epsilon"] <= 0.41
    assert book._chain.salt.hex() not in json.dumps(told)
    assert book.dataset(DATA) != DATA.hex()[:32]


def test_spending_over_time_ends_at_what_was_spent(book):
    spend(book, 3)
    points = spent_over_time(book.history(), Unit.RECORD, book.dataset(DATA), 1e-5)
    assert [p[1] for p in points] == sorted(p[1] for p in points)
    assert points[-1][1] == book.spent(Unit.RECORD, book.dataset(DATA), 1e-5)


# When it cannot be trusted


def copy_of(path, to):
    to.mkdir()
    for name in (path.name, f"{path.name}-wal", path.with_suffix(".head").name):
        if (path.parent / name).exists():
            shutil.copy(path.parent / name, to / name)
    return to


def restore(kept, path, *names):
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        (path.parent / name).unlink(missing_ok=True)
    for name in names:
        shutil.copy(kept / name, path.parent / name)


def test_an_older_copy_is_refused(path, tmp_path):
    with Ledger(path) as book:
        spend(book, 2)
    kept = copy_of(path, tmp_path / "copy")
    with Ledger(path) as book:
        spend(book, 1)
    restore(kept, path, path.name)
    with pytest.raises(LedgerRolledBackError, match="older copy"):
        Ledger(path)


def test_an_older_copy_of_both_is_refused_where_the_head_is_kept_elsewhere(path, tmp_path):
    elsewhere = tmp_path / "elsewhere.head"
    with Ledger(path, elsewhere) as book:
        spend(book, 2)
    kept = copy_of(path, tmp_path / "copy")
    with Ledger(path, elsewhere) as book:
        spend(book, 1)
        newest = book.head
    restore(kept, path, path.name)
    with pytest.raises(LedgerRolledBackError):
        Ledger(path, elsewhere)
    # And who remembers the head of one session notices in the next, whatever the files say.
    (tmp_path / "elsewhere.head").unlink()
    (path).unlink()
    with Ledger(path, elsewhere) as fresh:
        assert not fresh.contains(newest)


def test_a_rewritten_history_is_refused(path):
    with Ledger(path) as book:
        spend(book, 3)
    shutil.copy(path.with_suffix(".head"), path.with_suffix(".kept"))
    for name in (path, path.with_suffix(".head")):
        name.unlink()
    with Ledger(path) as book:
        spend(book, 4)
    shutil.copy(path.with_suffix(".kept"), path.with_suffix(".head"))
    with pytest.raises(LedgerRolledBackError, match="rewritten"):
        Ledger(path)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rows SET payload = replace(payload, '10.0', '99.0') WHERE number = 3",
        "UPDATE rows SET time = time + 1 WHERE number = 3",
        "DELETE FROM rows WHERE number = 3",
        "UPDATE rows SET hash = zeroblob(32) WHERE number = 3",
        "UPDATE rows SET payload = 7 WHERE number = 5",
    ],
)
def test_a_changed_row_is_refused(path, statement):
    with Ledger(path) as book:
        spend(book, 4)
    with sqlite3.connect(path) as database:
        assert database.execute(statement).rowcount == 1
    database.close()
    with pytest.raises(LedgerCorruptError):
        Ledger(path)


def test_damaged_bytes_are_refused_or_change_nothing(path, tmp_path):
    with Ledger(path) as book:
        spend(book, 6)
        expected = book.spent(Unit.RECORD, book.dataset(DATA), 1e-5)
    whole = path.read_bytes()
    noticed = 0
    for position in range(0, len(whole), 211):
        damaged = bytearray(whole)
        damaged[position : position + 40] = os.urandom(40)
        path.write_bytes(damaged)
        try:
            with Ledger(path) as book:
                got = book.spent(Unit.RECORD, book.dataset(DATA), 1e-5)
                assert len(book.history()) == 6
                # A damaged salt renames the data: nothing may then be released of the old name.
                assert got == expected
        except LedgerError:
            noticed += 1
    assert noticed > 5


def test_a_schema_that_is_no_text_is_refused(path):
    with Ledger(path) as book:
        spend(book, 1)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"CREATE TABLE", b"CREATE \xcdABLE"))
    with pytest.raises(LedgerError, match="damaged"):
        Ledger(path)


def test_a_file_that_is_no_ledger_is_refused(path):
    for content in (b"", b"hello" * 1000):
        path.write_bytes(content)
        with pytest.raises(LedgerCorruptError):
            Ledger(path)
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE rows (number INTEGER)")
    database.close()
    with pytest.raises(LedgerCorruptError, match="not a ledger"):
        Ledger(path)


def test_a_ledger_from_the_future_is_refused(path):
    Ledger(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=2")
    database.close()
    with pytest.raises(LedgerVersionError, match="upgrade"):
        Ledger(path)


def test_deleting_or_replacing_it_while_in_use_stops_the_next_release(path, tmp_path):
    with Ledger(path) as book:
        spend(book, 1)
        kept = copy_of(path, tmp_path / "copy")
        path.unlink()
        with pytest.raises(LedgerMissingError, match="while in use"):
            book.reserve([charge(book)], limits(5.0))
        shutil.copy(kept / path.name, path)
        with pytest.raises(LedgerMissingError, match="while in use"):
            book.reserve([charge(book)], limits(5.0))


def test_a_ledger_or_a_head_that_is_missing_is_refused(path):
    with Ledger(path) as book:
        spend(book, 1)
    head = path.with_suffix(".head")
    kept = head.read_bytes()
    head.unlink()
    with pytest.raises(LedgerMissingError, match="head"):
        Ledger(path)
    head.write_bytes(b"x" * len(kept))
    with pytest.raises(LedgerCorruptError, match="head"):
        Ledger(path)
    head.write_bytes(kept)
    path.unlink()
    with pytest.raises(LedgerMissingError, match="not there"):
        Ledger(path)


def test_a_torn_write_of_the_head_leaves_the_one_before(path):
    with Ledger(path) as book:
        spend(book, 3)
    anchor = path.with_suffix(".head")
    content = bytearray(anchor.read_bytes())
    newest = head.Head(anchor).read()
    at = 0 if head._read_slot(bytes(content[:72])) == newest else 72
    content[at + 10 : at + 50] = bytes(40)
    anchor.write_bytes(content)
    assert head.Head(anchor).read()[0] == newest[0] - 2  # one reservation earlier
    with Ledger(path) as book:
        spend(book, 1)
        assert len(book.history()) == 4


def test_it_is_refused_after_a_fork(path):
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from lepton_flwr.privacy.ledger import Ledger\n"
        "from lepton_flwr.privacy.ledger_errors import LedgerError\n"
        "book = Ledger(Path(sys.argv[1]))\n"
        "if os.fork() == 0:\n"
        "    try:\n        book.history()\n"
        "    except LedgerError as error:\n        os._exit(7 if 'fork' in str(error) else 1)\n"
        "    os._exit(2)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "7"


def test_a_lock_that_is_held_too_long_and_a_full_disk_have_names(path, book, monkeypatch):
    monkeypatch.setattr(chain, "BUSY_SECONDS", 0.05)
    with Ledger(path) as second:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerBusyError):
            second.reserve([charge(second)], limits(1.0))
        holder.execute("ROLLBACK")
        holder.close()
        second.reserve([charge(second)], limits(1.0))
    book._chain._database.execute("PRAGMA query_only=1")
    with pytest.raises(LedgerError, match="writable"):
        book.reserve([charge(book)], limits(1.0))
    assert issubclass(LedgerError, PrivacyError)


def test_files_are_private_to_their_owner(path, book):
    spend(book, 1)
    assert path.stat().st_mode & 0o777 == 0o600


# Shared, and killed


def test_what_another_process_spends_after_the_first_look_is_seen_under_the_lock(path, book):
    """The first pass, without the lock, sees a budget that is gone when the lock is had."""
    check = book._check
    passes = []

    def overtaken(charges, limits):
        result = check(charges, limits)
        passes.append(charges)
        if len(passes) == 1:
            with Ledger(path) as other:
                spend(other, most_within(0.5), 0.5)
        return result

    book._check = overtaken
    with pytest.raises(BudgetError):
        book.reserve([charge(book)], limits(0.5))
    assert len(book.history()) == most_within(0.5)


def test_threads_cannot_jointly_overspend(path, book):
    allowed = most_within(1.5)
    done = []

    def work():
        while True:
            try:
                done.append(book.reserve([charge(book)], limits(1.5)))
            except BudgetError:
                return

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == len(set(done)) == allowed == len(book.history())


def test_processes_cannot_jointly_overspend(path):
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from lepton_flwr.privacy.accounting import BudgetError\n"
        "from lepton_flwr.privacy.events import Laplace, Unit\n"
        "from lepton_flwr.privacy.ledger import Charge, Ledger, Limit\n"
        "count = 0\n"
        "with Ledger(Path(sys.argv[1])) as book:\n"
        "    charge = Charge(Unit.RECORD, book.dataset(bytes(32)), Laplace(10.0))\n"
        "    try:\n"
        "        while True:\n"
        "            book.commit(book.reserve([charge], {Unit.RECORD: (Limit(4.0, 1e-5),)}))\n"
        "            count += 1\n"
        "    except BudgetError:\n"
        "        print(count)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    counts = [int(process.communicate(timeout=500)[0]) for process in processes]
    assert sum(counts) == most_within(4.0)
    with Ledger(path) as book:
        assert book.spent(Unit.RECORD, book.dataset(DATA), 1e-5) <= 4.0


def kill(tmp_path, *arguments):
    """In a process of its own: it forks."""
    done = subprocess.run(
        [sys.executable, "-m", "simulations.benchmarks.ledger", "--folder", tmp_path, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_killed_before_a_line_of_its_code_it_has_lost_nothing(tmp_path):
    assert kill(tmp_path, "--every-line", "--stride", "61")["lines"] > 300


@pytest.mark.slow
def test_killed_before_many_lines_of_its_code_it_has_lost_nothing(tmp_path):
    # All lines, and a thousand kills: `python -m simulations.benchmarks.ledger`.
    assert kill(tmp_path, "--every-line", "--stride", "5")["lines"] > 300


@pytest.mark.slow
def test_killed_hundreds_of_times_it_has_lost_nothing(tmp_path):
    told = kill(tmp_path, "--kills", "300")
    assert (told["kills"], told["undercounted"]) == (300, 0)
    assert told["releases"] > 100
