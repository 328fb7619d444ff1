"""Rows as clients hold them: arrays, checked once, and their file."""

import hashlib
import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

import numpy as np

from lepton_flwr import _npz
from lepton_flwr.errors import DataError, OutputError

if TYPE_CHECKING:
    from lepton_flwr.data.preprocessing import Preprocessor

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class ClientData:
    """One client's rows.

    Attributes:
        x_train: features, float32, shape (n, ...), n >= 1.
        y_train: classes from 0, int32, shape (n,).
        x_test: features of the held-out rows, float32, shape (m, ...), m >= 0.
        y_test: their classes, int32, shape (m,).
        records: SHA-256 of the records that these were computed from, where statistics of all
            clients went into that: it names the data in a ledger, whatever the statistics were.
            Not saved.

    Raises:
        DataError: a wrong dtype or shape, no training row, a value that is not finite.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    records: bytes = b""

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            if x.dtype != np.float32 or y.dtype != np.int32:
                raise DataError(
                    f"x_{part} {x.dtype}, y_{part} {y.dtype}: expected float32 and int32"
                )
            if x.ndim < 2 or y.shape != x.shape[:1]:
                raise DataError(
                    f"x_{part} of shape {x.shape}, y_{part} of shape {y.shape}: "
                    "expected (n, ...) and (n,)"
                )
            if not np.isfinite(x).all():
                raise DataError(f"x_{part} holds NaN or infinite values: expected finite ones")
            if (y < 0).any():
                raise DataError(f"y_{part} holds negative classes: expected 0, 1, ...")
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise DataError(
                f"rows of shape {self.x_train.shape[1:]} in x_train and "
                f"{self.x_test.shape[1:]} in x_test: expected the same"
            )
        if len(self.x_train) == 0:
            raise DataError("no training row: expected at least one")

    def save(self, path: Path) -> None:
        """Write all four arrays to one `.npz` file, readable by its owner alone.

        The file appears complete or not at all: it is written beside `path`, flushed to the
        device and renamed.

        Raises:
            OutputError: it cannot be written; an older file at `path` is left as it was.
        """
        try:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}") from None
        try:
            with os.fdopen(handle, "wb") as file:
                self._write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}") from None
        finally:
            Path(name).unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; checksums are verified and nothing is unpickled.

        **Guarantee**: whatever bytes the file has, its arrays take no more memory than it is long.

        Raises:
            DataError: the file is missing, damaged, or holds other arrays.
        """
        try:
            with path.open("rb") as file:
                return cls._read(file, str(path))
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or 'cannot be read'}") from None

    def to_bytes(self) -> bytes:
        """What `save` writes; equal arrays give equal bytes."""
        buffer = io.BytesIO()
        self._write(buffer)
        return buffer.getvalue()

    @property
    def digest(self) -> bytes:
        """What names the rows in a ledger, 32 bytes: `records`, or else SHA-256 of their file."""
        return self.records or hashlib.sha256(self.to_bytes()).digest()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Inverse of `to_bytes`.

        Raises:
            DataError: damaged, or other arrays.
        """
        return cls._read(io.BytesIO(content), "rows")

    def _write(self, file: BinaryIO) -> None:
        np.savez(file, **{array: getattr(self, array) for array in _ARRAYS})

    @classmethod
    def _read(cls, file: BinaryIO, name: str) -> Self:
        try:
            with _npz.opened(file) as archive:
                # A whole read checks the member's CRC before a header of it is trusted.
                arrays = [_npz.array(archive.read(f"{array}.npy")) for array in _ARRAYS]
        except _npz.UNREADABLE:
            raise DataError(
                f"{name}: damaged, or no data file of a client; prepare the data again"
            ) from None
        x_train, y_train, x_test, y_test = arrays
        return cls(x_train, y_train, x_test, y_test)


@dataclass(frozen=True)
class FederatedData:
    """The rows of every client of a simulation.

    Attributes:
        clients: one entry for each.
        names: their names, in the same order.
        num_classes: number of classes, the same for all.
        feature_names: names of the features; empty for images.
        preprocessor: what made the features, where a user's own table was read.
        label: the column that held the classes of such a table.
        classes: their names, in the order of their numbers; public.
        population: names all records together in the server's ledger, however they are divided,
            32 bytes; empty lets the run's settings name them.

    Raises:
        DataError: no client, shapes that differ, a class outside the range.
    """

    clients: tuple[ClientData, ...]
    names: tuple[str, ...]
    num_classes: int
    feature_names: tuple[str, ...]
    preprocessor: "Preprocessor | None" = None
    label: str = ""
    classes: tuple[str, ...] = ()
    population: bytes = b""

    def __post_init__(self) -> None:
        if not self.clients or len(self.names) != len(self.clients):
            raise DataError(
                f"{len(self.clients)} clients and {len(self.names)} names: expected one name each"
            )
        if len(set(self.names)) != len(self.names):
            raise DataError("two clients share a name: expected distinct names")
        for name, client in zip(self.names, self.clients, strict=True):
            if client.x_train.shape[1:] != self.input_shape:
                raise DataError(
                    f"client {name}: rows of shape {client.x_train.shape[1:]}, "
                    f"expected {self.input_shape}"
                )
            top = max(client.y_train.max(), client.y_test.max(initial=0))
            if top >= self.num_classes:
                raise DataError(f"client {name}: a class beyond the {self.num_classes} declared")
        if self.feature_names and self.input_shape != (len(self.feature_names),):
            raise DataError(
                f"{len(self.feature_names)} feature names for rows of shape {self.input_shape}"
            )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return tuple(self.clients[0].x_train.shape[1:])
