"""Files that are either the former whole or the new whole, never half of one."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lepton_flwr.errors import OutputError


def write_atomic(path: Path, content: bytes, mode: int = 0o666, *, hidden: bool = False) -> None:
    """Replace `path` by `content`: written beside it, forced to disk, then renamed.

    Args:
        path: the file.
        content: all of it.
        mode: the file's permissions, less those that the umask takes away.
        hidden: give the file beside it another suffix, for those who watch a folder for one.

    Raises:
        OutputError: it cannot be written; what stood at `path` is intact.
    """

    def write(beside: Path) -> None:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)

    replace(path, write, suffix=".partial" if hidden else "")


def replace(path: Path, write: Callable[[Path], None], *, suffix: str = "") -> None:
    """Let `write` make a file beside `path`, force it to disk and rename it to `path`.

    The file beside it keeps the suffix of `path`, from which some writers take their format, or
    has `suffix` after it.

    Raises:
        OutputError: it cannot be written; what stood at `path` is intact.
    """
    # A name of its own for each writer, or one would rename what another has half written.
    beside = path.with_name(f".partial-{secrets.token_hex(4)}-{path.name}{suffix}")
    with output_errors(path):
        try:
            write(beside)
            _sync(beside, os.O_RDONLY)
            os.replace(beside, path)
            _sync(path.parent, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """Make a new folder, mode 0700, that appears with all that the body writes or not at all.

    Yields:
        The folder to write into, beside `path`; it is forced to disk and renamed at the end.

    Raises:
        OutputError: `path` exists, or a file cannot be written.
    """
    partial = path.with_name(f".partial-{path.name}")
    refuse_existing(path)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)  # what a crash left
        partial.mkdir(mode=0o700)
        try:
            yield partial
            for folder, _, files in os.walk(partial):
                for name in files:
                    _sync(Path(folder, name), os.O_RDONLY)
                _sync(Path(folder), os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
            os.rename(partial, path)
            _sync(path.parent, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def refuse_existing(path: Path) -> None:
    """Check that a folder is still to be made.

    Raises:
        OutputError: `path` exists; a symbolic link counts.
    """
    if os.path.lexists(path):
        raise OutputError(f"{path}: exists: expected a new folder; nothing was changed")


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors into one line about `path`.

    Raises:
        OutputError: the body raised an OSError.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError(
            f"{path}: cannot write: {reason}; free some space or choose another folder with --out"
        ) from error


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
