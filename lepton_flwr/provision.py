"""Devices of a simulation: folders that trust each other, on one machine, and their ledgers."""

import contextlib
import hmac
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lepton_flwr._files import output_errors
from lepton_flwr._leftovers import held
from lepton_flwr.crypto.authority import LIFETIME, Authority
from lepton_flwr.crypto.envelope import rewrap
from lepton_flwr.crypto.files import KeyFileError, read_private, write_private
from lepton_flwr.crypto.identity import ROSTER_FILE
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.crypto.revocation import LIST_FILE
from lepton_flwr.data.federated import ClientData
from lepton_flwr.data.sealed import SealedClient
from lepton_flwr.device import (
    ACTIONS,
    DATA_FILE,
    DATA_KEY_FILE,
    POLICY_FILE,
    RECORDS_FILE,
    SEALED_FILE,
    Policy,
    check_private,
    check_trusted,
    node_folder,
    simulated_root,
)
from lepton_flwr.errors import OutputError, PolicyError
from lepton_flwr.privacy.ledger_errors import LedgerCorruptError, LedgerMissingError
from lepton_flwr.privacy.policy import PrivacyPolicy

SALT_FILE, SALT_BYTES = "salt", 32


@contextlib.contextmanager
def simulated_folder(run_id: int) -> Iterator[Path]:
    """Where a run's simulated devices are to be made; it goes with the body or its process.

    Raises:
        PolicyError: other users could change the folder that it is in.
        OutputError: that folder cannot be made, or see `held`.
    """
    root = simulated_root(run_id)
    with output_errors(root.parent):
        root.parent.mkdir(mode=0o700, exist_ok=True)
    check_private(root.parent)
    with held(root):
        yield root


def provision(
    root: Path,
    data: Sequence[ClientData | SealedClient],
    *,
    min_survivors: int,
    spending: PrivacyPolicy | None = None,
    ledgers: Path | None = None,
    actions: Sequence[str] = ACTIONS,
) -> list[Path]:
    """Make device folders that trust each other, on one machine.

    They share an authority whose key is forgotten at once: no device can be added later.

    Args:
        root: the folder to make, mode 0700; its parent is made if missing.
        data: one device's data each; what is encrypted stays so on disk, and gets a key of this
            folder's, which opens no other file.
        min_survivors: what every device's policy says.
        spending: likewise, of what the data may be spent on.
        ledgers: a folder for the devices' ledgers, made if missing; each is named by its data, so
            that the same data finds its ledger again. None keeps them in the devices' folders.
        actions: what every device's policy allows.

    Returns:
        The folders `root/node-0000`, ... in the order of `data`.

    Raises:
        PolicyError: `root` exists and is not empty, or other users could change it.
        OutputError: a folder or file cannot be made.
        ConfigError: `min_survivors` is below 2, or an action is unknown.
        EnvelopeError: encrypted data cannot be opened by its key.
        LedgerError: as in `ledger_files`.
    """
    policy = Policy(min_survivors, actions=actions)
    spending = PrivacyPolicy() if spending is None else spending
    files: list[Path] = []
    if ledgers is not None:
        files = ledger_files(ledgers.resolve(), [rows.digest for rows in data])
    try:
        root.parent.mkdir(mode=0o700, exist_ok=True)
        root.mkdir(mode=0o700, exist_ok=True)
        # Others must not be able to swap `root` for a folder of theirs while keys are written.
        check_trusted(root.parent)
        check_private(root)
        if any(root.iterdir()):
            raise PolicyError(f"{root}: not empty: expected a new folder for the devices")
        authority = Authority.create("lepton devices")
        revoked = authority.sign_revocations(1, lifetime=LIFETIME)  # nobody, and nobody can be
        folders = []
        for number, rows in enumerate(data):
            folder = node_folder(root, number)
            folder.mkdir(mode=0o700)
            authority.issue(folder.name).save(folder)
            write_private(folder / ROSTER_FILE, authority.certificate_pem)
            write_private(folder / LIST_FILE, revoked)
            _place(rows, folder)
            if rows.records:
                write_private(folder / RECORDS_FILE, rows.records.hex().encode())
            own = replace(spending, ledger=str(files[number])) if files else spending
            text = (
                f"min_survivors = {policy.min_survivors}\n"
                f"actions = {json.dumps(list(policy.actions))}\n{own.to_toml()}"
            )
            write_private(folder / POLICY_FILE, text.encode())
            folders.append(folder)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{root}: cannot make the device folders: {error.strerror}") from None
    return folders


def ledger_files(folder: Path, digests: Sequence[bytes]) -> list[Path]:
    """Where the ledgers of simulated devices are, by their data; the folder is made if missing.

    Args:
        folder: that holds them, and the key of their names, `salt`, made with the first of them.
        digests: of the devices' data, in the order of the devices.

    **Guarantee**: the same data finds its ledger again; without the salt nobody can tell from a
    name whose data it is, not even of a guess.

    Raises:
        LedgerMissingError: there are ledgers and no salt, by which they were found.
        LedgerCorruptError: the salt is none.
        KeyFileError: it is open to other users.
        OutputError: the folder cannot be made.
    """
    with output_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    salt = _salt(folder)
    names: Counter[str] = Counter()
    files = []
    for digest in digests:
        name = hmac.digest(salt, digest, "sha256").hex()[:32]
        names[name] += 1  # two devices with the same rows are still two
        files.append(folder / (f"{name}-{names[name]}.db" if names[name] > 1 else f"{name}.db"))
    return files


def _salt(folder: Path) -> bytes:
    path = folder / SALT_FILE
    if not path.exists():
        if any(folder.glob("*.db")) and not path.exists():  # another process may just have made it
            raise LedgerMissingError(
                f"{folder}: ledgers without {SALT_FILE}, by which their data finds them: restore "
                "it, or what was spent would not count"
            )
        with contextlib.suppress(KeyFileError):  # another process was first
            write_private(path, os.urandom(SALT_BYTES))
    salt = read_private(path)
    if len(salt) != SALT_BYTES:
        raise LedgerCorruptError(
            f"{path}: {len(salt)} bytes: expected the {SALT_BYTES} that were written; restore it"
        )
    return salt


def _place(rows: ClientData | SealedClient, folder: Path) -> None:
    """Put a device's data into its folder."""
    if not isinstance(rows, SealedClient):
        rows.save(folder / DATA_FILE)
        return
    # A process that is killed leaves the folder: the participant's own key opens other files too.
    own = DecryptionKey.generate()
    write_private(folder / SEALED_FILE, rewrap(rows.content, rows.key, [own.recipient]))
    own.save(folder / DATA_KEY_FILE)
