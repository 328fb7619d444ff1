"""The participants' rows as encrypted files, each of which only its participant's key opens."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from lepton_flwr._files import output_errors, write_atomic
from lepton_flwr.crypto.errors import EnvelopeError
from lepton_flwr.data.federated import ClientData, FederatedData
from lepton_flwr.data.sealed import SealedClient, SealedData
from lepton_flwr.errors import DataError
from lepton_flwr.sdk.keystore import KeyStore


@dataclass(frozen=True)
class EncryptedRows:
    """Where the encrypted rows are, and what may be known of them.

    Attributes:
        folder: holds a file for each participant.
        store: holds their keys.
        about: shape, label and classes; no rows.
        records: names each participant's records in ledgers; empty lets their file name them.
    """

    folder: Path
    store: KeyStore
    about: SealedData
    records: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def write(
        cls,
        data: FederatedData,
        folder: Path,
        store: KeyStore,
        progress: Callable[[int, int], None],
    ) -> "EncryptedRows":
        """Encrypt rows into `folder`, which is made if missing.

        Raises:
            OutputError: a file cannot be written.
            KeyFileError: a key in the store cannot be used.
        """
        with output_errors(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
        about = SealedData((), data.input_shape, data.num_classes, data.label, data.classes)
        rows = cls(folder, store, about, tuple(client.records for client in data.clients))
        for number, client in enumerate(data.clients):
            rows.put(number, client)
            progress(number + 1, len(data.clients))
        return rows

    def put(self, number: int, client: ClientData) -> None:
        """Encrypt a participant's rows, in place of those that are there."""
        sealed = SealedClient.seal(client, self.store.participant(number))
        write_atomic(self.path(number), sealed.content)

    def path(self, number: int) -> Path:
        """The file of a participant."""
        return self.folder / f"participant-{number}.lepton"

    def open(self, number: int) -> ClientData:
        """Decrypt a participant's rows.

        Raises:
            EnvelopeError: the file was altered, or is not for this participant's key.
            DataError: the file is missing.
            KeyFileError: the participant's key cannot be used.
        """
        try:
            return self._sealed(number).open()
        except EnvelopeError as error:
            raise type(error)(f"{self.path(number).name}: {error}") from None

    def checked(self) -> SealedData:
        """All of them, still encrypted, after each was opened once and let go.

        Raises:
            EnvelopeError: as in `open`.
        """
        for number in range(len(self.records)):
            self.open(number)
        return replace(self.about, clients=tuple(map(self._sealed, range(len(self.records)))))

    def _sealed(self, number: int) -> SealedClient:
        try:
            content = self.path(number).read_bytes()
        except OSError as error:
            raise DataError(
                f"{self.path(number)}: {error.strerror}: expected what encrypt_data wrote"
            ) from None
        return SealedClient(content, self.store.participant(number), self.records[number])
