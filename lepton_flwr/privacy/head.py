"""The head of a hash-chained log: number and hash of its newest row, in a file of its own."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from lepton_flwr.crypto.digest import digest, field
from lepton_flwr.privacy.ledger_errors import LedgerCorruptError

HASH_BYTES = 32
_SLOT = "lepton/ledger/head/v1"
_SLOT_BYTES = 72  # number (8), hash (32), check (32)


class Head:
    """Two slots of fixed size, written in turn: a torn write leaves the other."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, genesis: bytes) -> None:
        """Write the head of an empty log, unless there is one."""
        with contextlib.suppress(FileExistsError), staged(self.path) as beside:
            beside.write_bytes(_slot(0, genesis).ljust(2 * _SLOT_BYTES, b"\0"))
            os.link(beside, self.path)

    def read(self) -> tuple[int, bytes] | None:
        """Number and hash of the newest row that was anchored; None if there is no file."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        slots = [_read_slot(content[i : i + _SLOT_BYTES]) for i in (0, _SLOT_BYTES)]
        valid = [slot for slot in slots if slot is not None]
        if not valid:
            raise LedgerCorruptError(f"{self.path.name}: the ledger's head is damaged")
        return max(valid)

    def write(self, number: int, row_hash: bytes) -> None:
        """Move the head on; one that is further stays."""
        handle = os.open(self.path, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            newest = self.read()
            if newest is None or newest[0] < number:
                # The slot that does not hold the newest: numbers may skip.
                first = _read_slot(os.pread(handle, _SLOT_BYTES, 0))
                at = _SLOT_BYTES if first is not None and first == newest else 0
                os.pwrite(handle, _slot(number, row_hash), at)
        finally:
            os.close(handle)


def _slot(number: int, row_hash: bytes) -> bytes:
    return field(number) + row_hash + digest(_SLOT, field(number), row_hash)


def _read_slot(content: bytes) -> tuple[int, bytes] | None:
    number = int.from_bytes(content[:8], "big", signed=True)
    row_hash = content[8 : 8 + HASH_BYTES]
    valid = len(content) == _SLOT_BYTES and content == _slot(number, row_hash)
    return (number, row_hash) if valid else None


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A name beside `path` that nobody else has; what stands there at the end is removed."""
    beside = path.with_name(f".{path.name}-{os.urandom(8).hex()}")
    try:
        yield beside
    finally:
        beside.unlink(missing_ok=True)
