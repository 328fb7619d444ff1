"""Where a Flower node's device folder is, and that nobody else can open or change it."""

import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_flwr.errors import PolicyError

FOLDER_KEY = "lepton-device"
PARTITION_KEY = "partition-id"


def find(node_config: Mapping[str, Any], run_id: int) -> Path:
    """The folder of a Flower node.

    A real device names it in its node configuration (`lepton-device`, an absolute path). Without
    that, only a simulated device has one: below `simulated_root`, by its `partition-id`.

    Raises:
        PolicyError: there is none, or a simulated one that others can open.
    """
    if FOLDER_KEY in node_config:
        folder = Path(str(node_config[FOLDER_KEY]))
        if not folder.is_absolute():
            raise PolicyError(f"{FOLDER_KEY}={str(folder)!r}: expected an absolute path")
        return folder
    partition = node_config.get(PARTITION_KEY)
    root = simulated_root(run_id)
    if type(partition) is not int or not partition >= 0 or not os.path.lexists(root):
        raise PolicyError(
            f"this node has no device folder: start it with --node-config "
            f"'{FOLDER_KEY}=\"/absolute/path\"'"
        )
    folder = node_folder(root, partition)
    for path in (root.parent, root, folder):
        check_private(path)
    return folder


def simulated_root(run_id: int) -> Path:
    """Where the simulated devices of a run are: below a folder that only this user can open."""
    return Path(tempfile.gettempdir()) / f"lepton-{os.getuid()}" / f"run-{run_id}"


def node_folder(root: Path, number: int) -> Path:
    """The folder of one of `root`'s devices."""
    return root / f"node-{number:04d}"


def check_private(path: Path) -> None:
    """Refuse what is not a folder of this user's that nobody else can open."""
    status = _status(path)
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or mode & 0o077:
        raise PolicyError(
            f"{path.name}: mode {mode:04o}, owner {status.st_uid}: expected a folder of user "
            f"{os.getuid()} with mode 0700"
        )


def check_trusted(path: Path) -> None:
    """Refuse what another user (but root) could replace or change."""
    status = _status(path)
    mode = stat.S_IMODE(status.st_mode)
    sticky = stat.S_ISDIR(status.st_mode) and mode & stat.S_ISVTX
    if (
        stat.S_ISLNK(status.st_mode)
        or status.st_uid not in (os.getuid(), 0)
        or (mode & 0o022 and not sticky)
    ):
        raise PolicyError(
            f"{path.name}: mode {mode:04o}, owner {status.st_uid}: expected one that only user "
            f"{os.getuid()} or root can change; chmod go-w it"
        )


def _status(path: Path) -> os.stat_result:
    try:
        return path.lstat()
    except OSError as error:
        raise PolicyError(f"{path.name}: {error.strerror}: a device needs it") from None
