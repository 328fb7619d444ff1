"""A durable log whose rows are hash-chained, with the newest hash kept in a second file.

Rows are only ever appended. SQLite makes an append atomic and durable (write-ahead log,
`synchronous=FULL`) and serialises the processes that share the file. The second file, the head,
is written after each append that matters and before that append is reported: a log that no longer
contains what the head names is damaged, or an older copy, and is refused.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lepton_flwr.crypto.digest import digest, field
from lepton_flwr.privacy.head import HASH_BYTES, Head, staged
from lepton_flwr.privacy.ledger_errors import (
    LedgerBusyError,
    LedgerCorruptError,
    LedgerError,
    LedgerMissingError,
    LedgerRolledBackError,
    LedgerVersionError,
)

SCHEMA = 1
APPLICATION_ID = 0x4C45504C  # "LEPL"
BUSY_SECONDS = 60.0
_GENESIS = "lepton/ledger/genesis/v1"
_ROW = "lepton/ledger/row/v1"
_MEMO = "lepton/ledger/memo/v1"
_NEW = """
CREATE TABLE meta (salt BLOB NOT NULL);
CREATE TABLE rows (number INTEGER PRIMARY KEY, time INTEGER NOT NULL, payload TEXT NOT NULL,
                   hash BLOB NOT NULL);
CREATE TABLE memos (key BLOB PRIMARY KEY, value INTEGER NOT NULL, hash BLOB NOT NULL);
"""


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        number: from 1, without gaps.
        time: nanoseconds since 1970, never less than the row before.
        payload: text.
        hash: 32 bytes that determine this row and all before it.
    """

    number: int
    time: int
    payload: str
    hash: bytes


class Chain:
    """An open log; shared by the threads of a process, not by its forks.

    Args:
        path: the SQLite file; made, mode 0600, if neither it nor its head exists.
        head: the head's file; keep it where a copy of `path` that is put back does not bring an
            old head along. None is `path` with the suffix `.head`.

    Raises:
        LedgerError: see its subclasses. Nothing has been changed then.
    """

    def __init__(self, path: Path, head: Path | None = None) -> None:
        self.path = path
        self._head = Head(path.with_suffix(".head") if head is None else head)
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._rows: list[Row] = []
        if not path.exists():
            if self._head.path.exists():
                raise LedgerMissingError(
                    f"{path.name}: not there, but its head is: releases were written to it. "
                    "Restore the ledger, or delete the head too if you accept to lose count"
                )
            _create(path)
        with self._sql():
            self._inode = path.stat().st_ino
            self._database = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self.salt = self._check_kind()
                self._database.execute("PRAGMA journal_mode=WAL")
                with self.transaction():
                    pass
            except BaseException:
                self._database.close()
                raise

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def rows(self) -> list[Row]:
        """All rows known to this object; see `refresh`."""
        return self._rows

    def hash_of(self, number: int) -> bytes | None:
        """Hash of a row; for 0 that of the salt, which no other log has; None for none."""
        if not 0 <= number <= len(self._rows):
            return None
        return self._rows[number - 1].hash if number else self._origin().hash

    def refresh(self) -> list[Row]:
        """Read, check and return what was appended since the last call.

        Raises:
            LedgerError: the log is damaged, deleted, replaced or an older copy.
        """
        with self._lock, self._sql():
            self._check_place()
            # The head first: rows are written before it, so that they hold what it names.
            anchor = self._head.read()
            known = len(self._rows)
            found = self._database.execute(
                "SELECT number, time, payload, hash FROM rows WHERE number > ? ORDER BY number",
                (known,),
            )
            new: list[Row] = []
            last = self._rows[-1] if known else self._origin()
            for values in found:
                row = _row(values)
                if row != _next(last, row.time, row.payload) or row.time < last.time:
                    raise LedgerCorruptError(f"{self.path.name}: row {row.number} was changed")
                new.append(row)
                last = row
            self._compare(anchor, [*self._rows, *new] if new else self._rows)
            self._rows.extend(new)
            return new

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Hold the write lock, on the newest state; what is appended within is kept or not at all.

        Args:
            durable: force it to the disk. Without, it outlives the process at any point, and a
                loss of power may take it back: only for what nobody has to rely on.

        Raises:
            LedgerError: as `refresh`, or another process holds the lock.
        """
        with self._lock, self._sql():
            self._check_place()
            self._database.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._database.execute("BEGIN IMMEDIATE")
            known = len(self._rows)
            try:
                self.refresh()
                known = len(self._rows)
                yield
                self._database.execute("COMMIT")
            except BaseException:
                del self._rows[known:]
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def append(self, payload: str) -> Row:
        """Append a row; within `transaction` only."""
        last = self._rows[-1] if self._rows else self._origin()
        row = _next(last, max(time.time_ns(), last.time), payload)
        self._database.execute(
            "INSERT INTO rows VALUES (?, ?, ?, ?)", (row.number, row.time, row.payload, row.hash)
        )
        self._rows.append(row)
        return row

    def anchor(self) -> None:
        """Write the head; after `transaction`, and before what was appended is relied on.

        Raises:
            LedgerError: the log was deleted or replaced in the meantime.
        """
        with self._lock, self._sql():
            row = self._rows[-1]
            self._head.write(row.number, row.hash)
            self._check_place()

    def memo(self, key: bytes) -> int | None:
        """A number kept under `key`, if it is there and intact."""
        with self._lock, self._sql():
            found = self._database.execute(
                "SELECT value, hash FROM memos WHERE key = ?", (key,)
            ).fetchone()
        if found is None or not isinstance(found[0], int):
            return None
        return found[0] if digest(_MEMO, key, field(found[0])) == found[1] else None

    def keep(self, key: bytes, value: int) -> None:
        """Keep a number under `key`; within `transaction` only."""
        self._database.execute(
            "INSERT OR REPLACE INTO memos VALUES (?, ?, ?)",
            (key, value, digest(_MEMO, key, field(value))),
        )

    def _origin(self) -> Row:
        return Row(0, 0, "", digest(_GENESIS, self.salt))

    def _check_kind(self) -> bytes:
        kind = self._database.execute("PRAGMA application_id").fetchone()[0]
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if kind != APPLICATION_ID:
            raise LedgerCorruptError(f"{self.path.name}: not a ledger")
        if version > SCHEMA:
            raise LedgerVersionError(
                f"{self.path.name}: schema {version}, expected at most {SCHEMA}: a newer version "
                "of lepton-flwr wrote it; upgrade"
            )
        salts = self._database.execute("SELECT salt FROM meta").fetchall()
        if version < 1 or len(salts) != 1 or not isinstance(salts[0][0], bytes):
            raise LedgerCorruptError(f"{self.path.name}: not a ledger")
        return salts[0][0]

    def _check_place(self) -> None:
        if os.getpid() != self._process:
            raise LedgerError(f"{self.path.name}: opened before a fork: open it again")
        try:
            inode = self.path.stat().st_ino
        except FileNotFoundError:
            inode = None
        if inode != self._inode:
            raise LedgerMissingError(f"{self.path.name}: deleted or replaced while in use")

    def _compare(self, anchor: tuple[int, bytes] | None, rows: list[Row]) -> None:
        """Refuse rows that do not contain the head."""
        if anchor is None:
            if rows:
                raise LedgerMissingError(
                    f"{self._head.path.name}: the ledger's head is not there: whether releases are "
                    "missing cannot be told; restore it"
                )
            self._head.create(self._origin().hash)
            return
        number, named = anchor
        if number > len(rows):
            raise LedgerRolledBackError(
                f"{self.path.name}: {len(rows)} rows, but {number} were written: an older copy"
            )
        if named != (rows[number - 1].hash if number else self._origin().hash):
            raise LedgerRolledBackError(
                f"{self.path.name}: not the ledger that its head belongs to, or rewritten"
            )

    @contextlib.contextmanager
    def _sql(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code is None:  # Python's own: text that is not UTF-8, say
                raise LedgerCorruptError(f"{self.path.name}: damaged: {error}") from None
            if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise LedgerBusyError(
                    f"{self.path.name}: another process has held it for {BUSY_SECONDS:g} s"
                ) from None
            raise LedgerError(f"{self.path.name}: {error}: expected a writable ledger") from None
        except sqlite3.DatabaseError as error:
            raise LedgerCorruptError(f"{self.path.name}: damaged: {error}") from None
        except UnicodeDecodeError:  # SQLite tells of a damaged schema in the damaged words
            raise LedgerCorruptError(f"{self.path.name}: damaged: text that is not UTF-8") from None
        except OSError as error:
            raise LedgerError(f"{self.path.name}: {error.strerror}") from None


def _next(last: Row, nanoseconds: int, payload: str) -> Row:
    number = last.number + 1
    fields = field(number), field(nanoseconds), field(payload)
    return Row(number, nanoseconds, payload, digest(_ROW, last.hash, *fields))


def _row(values: tuple[object, ...]) -> Row:
    number, nanoseconds, payload, row_hash = values
    if (
        isinstance(number, int)
        and isinstance(nanoseconds, int)
        and isinstance(payload, str)
        and isinstance(row_hash, bytes)
    ):
        return Row(number, nanoseconds, payload, row_hash)
    raise LedgerCorruptError(f"row {number!r} was changed")


def _create(path: Path) -> None:
    """Make an empty log; whoever else does so at the same time, one of them stays."""
    try:
        with contextlib.suppress(FileExistsError), staged(path) as beside:
            os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            database = sqlite3.connect(beside, isolation_level=None)
            try:
                database.execute(f"PRAGMA application_id={APPLICATION_ID}")
                database.execute(f"PRAGMA user_version={SCHEMA}")
                database.executescript(_NEW)
                database.execute("INSERT INTO meta VALUES (?)", (os.urandom(HASH_BYTES),))
            finally:
                database.close()
            os.link(beside, path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(
            f"{path.name}: cannot be made: {getattr(error, 'strerror', None) or error}"
        ) from None
