"""Files that exist in memory only, for writers and readers that ask for a path."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lepton_flwr.errors import OutputError

_FOLDER = Path("/dev/shm")  # noqa: S108 - Linux' file system in memory; the folder in it is new, 0700


def written(write: Callable[[Path], None], name: str) -> bytes:
    """What `write` writes to the path that it is given; the path's name is `name`.

    Guarantee: as long as `write` keeps to that path and its folder, no disk sees the content. Keras
    needs the folder: a model of more than half of the free memory first goes to a file beside it.

    Raises:
        OutputError: there is no file system in memory.
    """
    with _place(name) as (path, descriptor):
        write(path)
        os.lseek(descriptor, 0, os.SEEK_SET)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()


@contextmanager
def readable(content: bytes, name: str) -> Iterator[Path]:
    """A path, named `name`, at which `content` can be read meanwhile; guarantee as of `written`."""
    with _place(name) as (path, descriptor):
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield path


@contextmanager
def _place(name: str) -> Iterator[tuple[Path, int]]:
    # Linux: a file without a disk, under a link of the wanted name in a folder without one.
    if not _FOLDER.is_dir():
        raise OutputError(
            f"{_FOLDER}: not there: expected Linux' file system in memory (tmpfs), or encrypted "
            "models would be on disk in clear meanwhile; mount it"
        )
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        with tempfile.TemporaryDirectory(prefix="lepton-", dir=_FOLDER) as folder:
            path = Path(folder) / name
            path.symlink_to(f"/proc/{os.getpid()}/fd/{descriptor}")
            yield path, descriptor
    finally:
        os.close(descriptor)
