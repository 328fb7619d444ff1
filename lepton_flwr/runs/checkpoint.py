"""A run on disk after every round: all from which it goes on as the same run.

`checkpoint/` in the run's folder holds `run.json` (whose it is and how it was started), `state.npz`
(arrays, and a JSON member for the rest, replaced as a whole) and `session` (the greatest session
number that was given out). No key and nothing of a client is in them. If the run's model is for
chosen recipients only, `state.npz.lepton` takes the place of `state.npz`: an envelope for them, so
that the folder never holds the model in clear, and only who has a key of theirs can go on with the
run. What was spent is in the ledger alone: an older `state.npz` that is put back brings an older
model back, and no budget.
"""

import fcntl
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from lepton_flwr import _files as files
from lepton_flwr import _npz
from lepton_flwr.config import RunConfig
from lepton_flwr.config_tables import read_toml
from lepton_flwr.crypto import digest as digests
from lepton_flwr.crypto.envelope import seal, unseal
from lepton_flwr.crypto.recipients import Recipient
from lepton_flwr.errors import LeptonError
from lepton_flwr.runs.artifacts import SUFFIX, GetKey, recipients_of
from lepton_flwr.runs.observer import RoundRecord

FOLDER, RUN_FILE, STATE_FILE, SESSION_FILE, LOCK_FILE = (
    "checkpoint", "run.json", "state.npz", "session", "lock",
)  # fmt: skip
VERSION = 2
_MEMBER = "state.json"
_WEIGHTS, _OPTIMIZER = "weights/", "optimizer/"
_CONFIG_LABEL = "lepton/checkpoint/config/v1"
_STATE_LABEL = "lepton/checkpoint/state/v1"
_PURPOSE = "lepton/checkpoint/v1"


class CheckpointError(LeptonError):
    """A run cannot go on from its folder."""

    exit_code = 2


class CheckpointMissingError(CheckpointError):
    """There is no checkpoint."""


class CheckpointDamagedError(CheckpointError):
    """It is not what was written."""


class CheckpointVersionError(CheckpointError):
    """Another version of this software wrote it."""


class CheckpointRunError(CheckpointError):
    """It is another run's."""


class CheckpointConfigError(CheckpointError):
    """The run's configuration is not the one that it was written with."""


class CheckpointKeyError(CheckpointError):
    """It is encrypted, and there is no key."""


class CheckpointBusyError(CheckpointError):
    """A process is running this run."""


@dataclass(frozen=True)
class Checkpoint:
    """A run between two rounds.

    Attributes:
        config_digest: of the configuration, see `config_digest`; 32 bytes.
        weights: the global model's arrays in their order, with the server's own dtypes.
        optimizer: the state of the server's optimizer: arrays by name.
        l2_norm_clip: of the next round's updates; 0 without client-level privacy.
        ledger: number and hash of the ledger's newest row.
        records: the rounds so far.
        roc: of the last evaluation, as `RunEnd` has it.
        seconds: of wall-clock time, while a server was running.
    """

    config_digest: bytes
    weights: Sequence[np.ndarray]
    optimizer: Mapping[str, np.ndarray]
    l2_norm_clip: float
    ledger: tuple[int, bytes]
    records: Sequence[RoundRecord] = ()
    roc: list[tuple[float, float]] | None = None
    seconds: float = 0.0

    def to_plain(self) -> dict[str, Any]:
        """All but the arrays, as JSON can hold it."""
        return {
            "config": self.config_digest.hex(),
            "l2_norm_clip": self.l2_norm_clip,
            "ledger": [self.ledger[0], self.ledger[1].hex()],
            "records": [record.to_plain() for record in self.records],
            "roc": self.roc,
            "seconds": self.seconds,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Inverse of `to_plain`, with the arrays by their names in the file."""
        weights = {k.removeprefix(_WEIGHTS): a for k, a in arrays.items() if k.startswith(_WEIGHTS)}
        number, row_hash = plain["ledger"]
        return cls(
            config_digest=bytes.fromhex(plain["config"]),
            weights=[weights[str(index)] for index in range(len(weights))],
            optimizer={
                k.removeprefix(_OPTIMIZER): a for k, a in arrays.items() if k.startswith(_OPTIMIZER)
            },
            l2_norm_clip=float(plain["l2_norm_clip"]),
            ledger=(int(number), bytes.fromhex(row_hash)),
            records=[RoundRecord.from_plain(values) for values in plain["records"]],
            roc=None if plain["roc"] is None else [(float(x), float(y)) for x, y in plain["roc"]],
            seconds=float(plain["seconds"]),
        )

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """By their names in the file."""
        weights = {f"{_WEIGHTS}{index}": array for index, array in enumerate(self.weights)}
        return weights | {f"{_OPTIMIZER}{name}": a for name, a in self.optimizer.items()}


@dataclass
class Checkpoints:
    """The checkpoints of one run; make it with `new` or `reopen`, and close it.

    Guarantee: while it is open no other process has the same run open (Linux, one machine); every
    number of `next_number` is greater than all before it, whatever ended the processes that asked.
    An older `session` that is put back brings its numbers back: within one run of Flower's devices
    refuse them, and each time that a run goes on is another one.

    Attributes:
        folder: the run's.
        run: a name that no other run has.
        settings: how the run was started, plain values; a later server is started likewise.
        recipients: for whom checkpoints are encrypted, as the model is; none leaves them in clear.
        latest: the newest checkpoint; None before the first.
    """

    folder: Path
    run: str
    settings: Mapping[str, Any]
    recipients: Sequence[Recipient] = ()
    latest: Checkpoint | None = None
    _number: int = 0
    _lock: int | None = field(default=None, repr=False)

    @classmethod
    def new(
        cls,
        folder: Path,
        run: str,
        settings: Mapping[str, Any],
        recipients: Sequence[Recipient] = (),
    ) -> Self:
        """Of a run that begins; `begin` makes its files."""
        return cls(folder, run, dict(settings), recipients)

    @classmethod
    def reopen(cls, folder: Path, key: GetKey | None = None) -> Self:
        """Of a run that goes on.

        Args:
            folder: the run's.
            key: called for the key of a recipient, if the run's model is encrypted.

        Raises:
            CheckpointKeyError: it is encrypted, and there is no key.
            EnvelopeError: the key is another's, or the envelope was altered.
            CheckpointMissingError: the run left none.
            CheckpointDamagedError: a file is damaged or missing.
            CheckpointVersionError: another version wrote it.
            CheckpointRunError: `state.npz` is another run's.
            CheckpointConfigError: `config.toml` is not as it was.
            CheckpointBusyError: the run has not ended.
        """
        place = folder / FOLDER
        if not (place / RUN_FILE).exists():
            raise CheckpointMissingError(
                f"{folder}: no {FOLDER}/{RUN_FILE}: expected the folder of a run that has begun"
            )
        about = _json(place / RUN_FILE)
        _check_version(about, RUN_FILE)
        run, settings = about.get("run"), about.get("settings")
        if not isinstance(run, str) or not isinstance(settings, dict):
            raise CheckpointDamagedError(f"{RUN_FILE}: damaged: expected the run's name")
        made = cls(folder, run, settings)
        made._take()
        try:
            made.recipients = recipients_of(made.config)
            made.latest = _load(made._state_file, run, key)
            made._number = _number(place / SESSION_FILE)
            made._check_config()
        except BaseException:
            made.close()
            raise
        return made

    @property
    def config(self) -> RunConfig:
        """The run's configuration, as `config.toml` in its folder says it."""
        return RunConfig.build(read_toml(self.folder / "config.toml"))

    @property
    def rounds_done(self) -> int:
        """Rounds that have ended."""
        return len(self.latest.records) if self.latest else 0

    def begin(self) -> None:
        """Make the files of a new run; of one that goes on they are there.

        Raises:
            OutputError: they cannot be made.
        """
        if self._lock is not None:
            return
        place = self.folder / FOLDER
        with files.output_errors(place):
            place.mkdir()
        self._take()
        about = {"version": VERSION, "run": self.run, "settings": dict(self.settings)}
        files.write_atomic(place / RUN_FILE, json.dumps(about, indent=1).encode())
        files.write_atomic(place / SESSION_FILE, b"0")

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the newest checkpoint.

        **Guarantee**: with recipients, this writes it to no disk but in an envelope that only they
        can open.

        Raises:
            OutputError: it cannot be written; the one before is intact.
        """
        plain = {"version": VERSION, "run": self.run, **checkpoint.to_plain()}
        arrays = checkpoint.arrays
        plain["digest"] = _digest(plain, arrays)

        def write(target: Path | io.BytesIO) -> None:
            with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
                archive.writestr(_MEMBER, json.dumps(plain))

        if self.recipients:
            write(content := io.BytesIO())
            sealed = seal(content.getvalue(), self.recipients, purpose=_PURPOSE)
            files.write_atomic(self._state_file, sealed)
        else:
            files.replace(self._state_file, write)
        self.latest = checkpoint

    def next_number(self) -> int:
        """A session number that this run has never used; on disk before it is returned.

        Raises:
            OutputError: it cannot be written.
        """
        path = self.folder / FOLDER / SESSION_FILE
        files.write_atomic(path, str(self._number + 1).encode())
        self._number += 1
        return self._number

    @property
    def _state_file(self) -> Path:
        suffix = SUFFIX if self.recipients else ""
        return self.folder / FOLDER / (STATE_FILE + suffix)

    def close(self) -> None:
        """Let another process have the run."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take(self) -> None:
        path = self.folder / FOLDER / LOCK_FILE
        with files.output_errors(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise CheckpointBusyError(
                f"{self.folder}: a process is running this run: wait for it, or end it first"
            ) from None
        self._lock = handle

    def _check_config(self) -> None:
        if self.latest is not None and config_digest(self.config) != self.latest.config_digest:
            raise CheckpointConfigError(
                f"{self.folder / 'config.toml'}: not the configuration that the run began with: "
                "restore it, or start a run of its own with `--config`"
            )


def config_digest(config: RunConfig) -> bytes:
    """32 bytes that determine all of a configuration that a run depends on."""
    plain = RunConfig.build({**config.to_dict(), "observe": {}})
    return digests.digest(_CONFIG_LABEL, digests.field(plain.to_json()))


def _digest(plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    parts = [digests.field(json.dumps(plain, sort_keys=True))]
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        parts += [digests.field(f"{name} {array.dtype.str} {array.shape}"), array.tobytes()]
    return digests.digest(_STATE_LABEL, *parts).hex()


def _load(path: Path, run: str, key: GetKey | None) -> Checkpoint:
    if not path.exists():
        raise CheckpointMissingError(
            f"{path}: not there: the run ended before its first checkpoint; start it anew"
        )
    content = _unsealed(path, key) if path.suffix == SUFFIX else None
    try:
        with (
            path.open("rb") if content is None else io.BytesIO(content) as file,
            _npz.opened(file) as archive,
        ):
            plain = json.loads(archive.read(_MEMBER))
            _check_version(plain, path.name)
            arrays = {}
            for name in archive.namelist():
                if name != _MEMBER:
                    arrays[name.removesuffix(".npy")] = _npz.array(archive.read(name))
        said = plain.pop("digest")
        if said != _digest(plain, arrays):
            raise ValueError("its digest differs")
        checkpoint = Checkpoint.from_plain(plain, arrays)
    except _npz.UNREADABLE as error:
        if isinstance(error, LeptonError):
            raise
        raise CheckpointDamagedError(
            f"{path}: damaged ({type(error).__name__}): restore it from a copy; what was spent "
            "stays in the ledger"
        ) from None
    if plain["run"] != run:
        raise CheckpointRunError(
            f"{path}: the checkpoint of run {plain['run']!r}: expected that of {run!r}"
        )
    return checkpoint


def _unsealed(path: Path, key: GetKey | None) -> bytes:
    if key is None:
        raise CheckpointKeyError(
            f"{path}: encrypted, as the run's model is: give the key of one of its recipients "
            "(--model-key)"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointDamagedError(f"{path}: {error.strerror}") from None
    return unseal(content, key(), purpose=_PURPOSE)


def _check_version(plain: Any, name: str) -> None:
    if not isinstance(plain, dict):
        raise CheckpointDamagedError(f"{name}: damaged: expected a JSON object")
    if plain.get("version") != VERSION:
        raise CheckpointVersionError(
            f"{name}: format {plain.get('version')!r}: expected {VERSION}: go on with the version "
            "of lepton-flwr that wrote it"
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        plain = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointDamagedError(f"{path}: damaged ({type(error).__name__})") from None
    if not isinstance(plain, dict):
        raise CheckpointDamagedError(f"{path}: damaged: expected a JSON object")
    return plain


def _number(path: Path) -> int:
    try:
        text = path.read_bytes()
    except OSError:
        text = b""
    if not text.isdigit() or len(text) > 18:
        raise CheckpointDamagedError(
            f"{path}: damaged: expected the greatest session number, which must not repeat"
        )
    return int(text)
