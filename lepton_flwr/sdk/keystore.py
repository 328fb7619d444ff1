"""The folder of a client's keys: one for models, and one for each participant's rows."""

import os
import stat
from pathlib import Path

from lepton_flwr.crypto.files import KeyFileError
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.errors import OutputError

MODELS = "models"


class KeyStore:
    """Keys in files of mode 0600, in a folder of mode 0700; each is made when it is first needed.

    Args:
        folder: made if missing.
        suite: of the keys that are made; those that are there stay what they are.

    Raises:
        KeyFileError: the folder belongs to another user, or others can open it.
        OutputError: it cannot be made.
    """

    def __init__(self, folder: Path, suite: str) -> None:
        self.folder = folder
        self._suite = suite
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.lstat()
        except OSError as error:
            raise OutputError(f"{folder}: {error.strerror}: expected a folder for keys") from None
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or mode & 0o077:
            raise KeyFileError(
                f"{folder}: mode {mode:04o}: expected a folder that only its owner can open, for "
                "whoever has its keys can decrypt rows and models; chmod 700 it"
            )

    def key(self, name: str) -> DecryptionKey:
        """Read a key, or make it.

        Raises:
            KeyFileError: its file is malformed, or open to other users.
        """
        path = self.folder / f"{name}.key"
        if not os.path.lexists(path):
            try:
                DecryptionKey.generate(self._suite).save(path)
            except KeyFileError:
                if not os.path.lexists(path):  # else another process was faster
                    raise
        return DecryptionKey.load(path)

    def models(self) -> DecryptionKey:
        """What opens models."""
        return self.key(MODELS)

    def participant(self, number: int) -> DecryptionKey:
        """What opens the rows of a participant."""
        return self.key(f"participant-{number}")
