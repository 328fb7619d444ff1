"""The participants' rows as encrypted files, each of which only its participant's key opens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lepton_flwr._files import output_errors, write_atomic
from lepton_flwr.crypto.errors import EnvelopeError
from lepton_flwr.data.federated import ClientData
from lepton_flwr.data.sealed import SealedClient, SealedData
from lepton_flwr.errors import DataError
from lepton_flwr.sdk.keystore import KeyStore

FOLDER = "rows"


@dataclass(frozen=True)
class EncryptedRows:
    """Where the encrypted rows are, and what may be known of them.

    Attributes:
        folder: holds a file for each participant.
        store: holds their keys.
        digests: names each participant's rows in ledgers.
        input_shape: shape of one row.
        num_classes: of the label.
        num_records: rows that are trained on, of all participants.
    """

    folder: Path
    store: KeyStore
    digests: tuple[bytes, ...]
    input_shape: tuple[int, ...]
    num_classes: int
    num_records: int

    @classmethod
    def write(
        cls,
        clients: Sequence[ClientData],
        digests: Sequence[bytes],
        *,
        num_classes: int,
        folder: Path,
        store: KeyStore,
        progress: Callable[[int, int], None] | None = None,
    ) -> "EncryptedRows":
        """Encrypt rows into `folder`, which is made if missing.

        Raises:
            OutputError: a file cannot be written.
            KeyFileError: a key in the store cannot be used.
        """
        with output_errors(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
        rows = cls(
            folder,
            store,
            tuple(digests),
            tuple(clients[0].x_train.shape[1:]),
            num_classes,
            sum(len(client.y_train) for client in clients),
        )
        for number, client in enumerate(clients):
            rows.replace(number, client)
            if progress is not None:
                progress(number + 1, len(clients))
        return rows

    def replace(self, number: int, client: ClientData) -> None:
        """Encrypt a participant's rows, in place of those that are there."""
        sealed = SealedClient.seal(client, self.store.participant(number), self.digests[number])
        write_atomic(self.path(number), sealed.content)

    def path(self, number: int) -> Path:
        """The file of a participant."""
        return self.folder / f"participant-{number}.lepton"

    def sealed(self, number: int) -> SealedClient:
        """A participant's rows as they are on disk.

        Raises:
            DataError: the file is missing.
            KeyFileError: the participant's key cannot be used.
        """
        try:
            content = self.path(number).read_bytes()
        except OSError as error:
            raise DataError(
                f"{self.path(number)}: {error.strerror}: prepare the data again"
            ) from None
        return SealedClient(content, self.store.participant(number), self.digests[number])

    def open(self, number: int) -> ClientData:
        """Decrypt a participant's rows.

        Raises:
            EnvelopeError: the file was altered, or is not for this participant's key.
        """
        try:
            return self.sealed(number).open()
        except EnvelopeError as error:
            raise type(error)(f"{self.path(number).name}: {error}") from None

    def checked(self) -> SealedData:
        """All of them, still encrypted, after each was opened once and let go.

        Raises:
            EnvelopeError: as in `open`.
        """
        for number in range(len(self.digests)):
            self.open(number)
        clients = tuple(self.sealed(number) for number in range(len(self.digests)))
        return SealedData(clients, self.input_shape, self.num_classes)
