"""A device's folder: who it is, whom it trusts, what it allows, and its data.

Nothing here ever comes from the server. A folder holds `identity.pem` and `identity.crt` (the
signing key and its certificate), `roster.pem` (the certificate of the authority whose devices it
accepts), `policy.toml` (what a server may ask) and `data.npz`. Anything missing, malformed or
open to changes by other users is refused.
"""

import os
import stat
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lepton_flwr import _validate as check
from lepton_flwr.crypto.authority import Authority
from lepton_flwr.crypto.files import write_private
from lepton_flwr.crypto.identity import Identity, Roster
from lepton_flwr.errors import ConfigError, OutputError, PolicyError
from lepton_flwr.secagg.floors import ClientFloors

if TYPE_CHECKING:
    from lepton_flwr.data.federated import ClientData

FOLDER_KEY = "lepton-device"
PARTITION_KEY = "partition-id"
ROSTER_FILE = "roster.pem"
POLICY_FILE = "policy.toml"
DATA_FILE = "data.npz"


@dataclass(frozen=True)
class Policy:
    """What a device lets a server ask.

    Attributes:
        min_survivors: fewest clients that the device's update may be summed with, itself
            included.
        min_record_noise_multiplier: smallest noise multiplier of record-level privacy that it
            trains with; 0 allows training without.
        evaluate: whether its held-out rows may be evaluated.
        secagg: what it asks of a secure sum beside the survivors; see `ClientFloors`.
    """

    min_survivors: int
    min_record_noise_multiplier: float = 0.0
    evaluate: bool = True
    secagg: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check.integer("min_survivors", self.min_survivors, at_least=2)
        check.finite("min_record_noise_multiplier", self.min_record_noise_multiplier, at_least=0)
        if not isinstance(self.evaluate, bool):
            raise ConfigError(f"evaluate={self.evaluate!r}: expected true or false")
        _ = self.floors  # refused here, not in the middle of a run

    @property
    def floors(self) -> ClientFloors:
        """What it asks of a secure sum."""
        return ClientFloors.from_table(self.secagg, self.min_survivors)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a policy from TOML.

        Raises:
            PolicyError: the file cannot be read, is not TOML, lacks `min_survivors`, has an
                unknown key, or a value is out of its range.
        """
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
            return cls(**table)
        except OSError as error:
            raise PolicyError(f"{path.name}: {error.strerror}: a device needs a policy") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise PolicyError(f"{path.name}: not TOML: {error}") from None
        except ConfigError as error:
            raise PolicyError(f"{path.name}: {error}") from None
        except TypeError:
            raise PolicyError(
                f"{path.name}: keys {', '.join(sorted(table)) or '(none)'}: expected "
                f"min_survivors and, if wanted, {', '.join(list(cls.__dataclass_fields__)[1:])}"
            ) from None


@dataclass(frozen=True)
class Device:
    """An opened device folder.

    Attributes:
        folder: where it is.
        identity: its key and certificate.
        roster: the devices that it accepts.
        policy: what a server may ask.
    """

    folder: Path
    identity: Identity
    roster: Roster
    policy: Policy

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a device's folder.

        Raises:
            PolicyError: the folder, the policy or the roster is missing, malformed, or open to
                changes by other users.
            KeyFileError: the key is missing, malformed, or open to other users.
            CertificateError: a certificate is missing, malformed or of the wrong kind.
        """
        for path in (folder, folder / POLICY_FILE, folder / ROSTER_FILE):
            _check_trusted(path)
        return cls(
            folder,
            Identity.load(folder),
            Roster.of_authority((folder / ROSTER_FILE).read_bytes()),
            Policy.read(folder / POLICY_FILE),
        )

    @classmethod
    def from_node_config(cls, node_config: Mapping[str, Any], run_id: int) -> Self:
        """Open the folder of this Flower node.

        A real device names it in its node configuration (`lepton-device`, an absolute path).
        Without that, only a simulated device has one: below `simulated_root`, by its
        `partition-id`.

        Raises:
            PolicyError: there is no such folder, or not one that this device can trust.
            KeyFileError: as in `open`.
            CertificateError: as in `open`.
        """
        if FOLDER_KEY in node_config:
            folder = Path(str(node_config[FOLDER_KEY]))
            if not folder.is_absolute():
                raise PolicyError(f"{FOLDER_KEY}={str(folder)!r}: expected an absolute path")
            return cls.open(folder)
        partition = node_config.get(PARTITION_KEY)
        root = simulated_root(run_id)
        if type(partition) is not int or not partition >= 0 or not os.path.lexists(root):
            raise PolicyError(
                f"this node has no device folder: start it with --node-config "
                f"'{FOLDER_KEY}=\"/absolute/path\"'"
            )
        folder = node_folder(root, partition)
        for path in (root.parent, root, folder):
            _check_private(path)
        return cls.open(folder)

    def data(self) -> "ClientData":
        """Read the device's data.

        Raises:
            DataError: the file is missing or malformed.
        """
        from lepton_flwr.data.federated import ClientData

        return ClientData.load(self.folder / DATA_FILE)


def simulated_root(run_id: int) -> Path:
    """Where the simulated devices of a run are: below a folder that only this user can open."""
    return Path(tempfile.gettempdir()) / f"lepton-{os.getuid()}" / f"run-{run_id}"


def node_folder(root: Path, number: int) -> Path:
    """The folder of one of `root`'s devices."""
    return root / f"node-{number:04d}"


def provision(root: Path, data: "Sequence[ClientData]", *, min_survivors: int) -> list[Path]:
    """Make device folders that trust each other, on one machine.

    They share an authority whose key is forgotten at once: no device can be added later.

    Args:
        root: the folder to make, mode 0700; its parent is made if missing.
        data: one device's data each.
        min_survivors: what every device's policy says.

    Returns:
        The folders `root/node-0000`, ... in the order of `data`.

    Raises:
        PolicyError: `root` exists and is not empty, or other users could change it.
        OutputError: a folder or file cannot be made.
        ConfigError: `min_survivors` is below 2.
    """
    policy = Policy(min_survivors)
    try:
        root.parent.mkdir(mode=0o700, exist_ok=True)
        root.mkdir(mode=0o700, exist_ok=True)
        # Others must not be able to swap `root` for a folder of theirs while keys are written.
        _check_trusted(root.parent)
        _check_private(root)
        if any(root.iterdir()):
            raise PolicyError(f"{root}: not empty: expected a new folder for the devices")
        authority = Authority.create("lepton devices")
        folders = []
        for number, rows in enumerate(data):
            folder = node_folder(root, number)
            folder.mkdir(mode=0o700)
            authority.issue(folder.name).save(folder)
            write_private(folder / ROSTER_FILE, authority.certificate_pem)
            write_private(
                folder / POLICY_FILE, f"min_survivors = {policy.min_survivors}\n".encode()
            )
            rows.save(folder / DATA_FILE)
            folders.append(folder)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{root}: cannot make the device folders: {error.strerror}") from None
    return folders


def _check_private(path: Path) -> None:
    """Refuse what is not a folder of this user's that nobody else can open."""
    status = _status(path)
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or mode & 0o077:
        raise PolicyError(
            f"{path.name}: mode {mode:04o}, owner {status.st_uid}: expected a folder of user "
            f"{os.getuid()} with mode 0700"
        )


def _check_trusted(path: Path) -> None:
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
