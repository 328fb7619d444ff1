"""Files that hold a secret: never readable by others, never replaced in silence."""

import os
import secrets
import stat
from pathlib import Path

from lepton_flwr.errors import PrivacyError
from lepton_flwr.failures import Failure


class KeyFileError(PrivacyError):
    """A file that holds a key is missing, malformed, in the way, or open to other users."""

    failure = Failure.IDENTITY


def write_private(path: Path, content: bytes) -> None:
    """Create `path`, mode 0600, with `content`: it appears whole or not at all.

    Raises:
        KeyFileError: the path exists (a symbolic link counts) or cannot be created.
    """
    beside = path.with_name(f".partial-{secrets.token_hex(4)}-{path.name}")
    try:
        try:
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(beside, path)  # unlike a rename it replaces nothing
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise KeyFileError(f"{path.name}: cannot create the key file: {error.strerror}") from None


def read_private(path: Path) -> bytes:
    """Read a file that only its owner can read or write.

    Raises:
        KeyFileError: it cannot be read, is no regular file, belongs to another user, or its
            mode lets others in.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            _check_owner_only(path, status)
            return file.read()
    except OSError as error:
        raise KeyFileError(f"{path.name}: cannot read the key file: {error.strerror}") from None


def _check_owner_only(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or mode & 0o077:
        raise KeyFileError(
            f"{path.name}: mode {mode:04o}, owner {status.st_uid}: expected a file that only "
            f"user {os.getuid()} can open, or others could sign in this device's name; "
            f"chmod 600 it"
        )
