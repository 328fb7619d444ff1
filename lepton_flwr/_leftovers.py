"""Folders that live as long as the process that made them, even if that is killed."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lepton_flwr._files import output_errors

_SUFFIX = ".lock"


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Remove `folder` after the body, and now those beside it whose processes are gone.

    The body makes the folder. A lock beside it, which the system takes off a process that ends in
    any way, tells the next one that comes here to remove it.

    **Guarantee**: only folders are removed that were held here and whose lock nobody holds.

    Args:
        folder: a new one, in a folder that nobody but this user can write to.

    Raises:
        OutputError: the lock cannot be made, or one of a process that is gone not be removed.
    """
    _clear(folder.parent)
    path = folder.with_name(folder.name + _SUFFIX)
    with output_errors(path):
        handle = _locked(path)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        path.unlink(missing_ok=True)
        os.close(handle)


def _locked(path: Path) -> int:
    """Make the lock: it is seen with its lock or not at all."""
    # Named so that whoever comes next clears it away, if this process is killed before the end.
    beside = path.with_name(f".{path.stem}.{os.getpid()}{_SUFFIX}")
    while True:
        handle = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            beside.rename(path)
        except FileNotFoundError:  # another process was before the lock, and cleared it away
            os.close(handle)
        except BaseException:
            os.close(handle)
            raise
        else:
            return handle


def _clear(parent: Path) -> None:
    for path in parent.glob(f"*{_SUFFIX}"):
        try:
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # another process has just removed it
            continue
        try:
            with output_errors(path), contextlib.suppress(BlockingIOError):  # somebody holds it
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.with_name(path.name.removesuffix(_SUFFIX)), ignore_errors=True)
                path.unlink(missing_ok=True)
        finally:
            os.close(handle)
