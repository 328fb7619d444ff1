"""Rows of participants as ciphertext, each with the key that opens it."""

import hashlib
from dataclasses import dataclass, field
from typing import Self

from lepton_flwr.crypto.envelope import seal, unseal
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.data.federated import ClientData

PURPOSE = "lepton/rows/v1"


@dataclass(frozen=True)
class SealedClient:
    """One participant's rows, encrypted for itself.

    Attributes:
        content: the envelope.
        key: the participant's own.
        records: SHA-256 of the records that the rows were computed from: names them in ledgers.
            Empty lets the rows name themselves.
    """

    content: bytes = field(repr=False)
    key: DecryptionKey
    records: bytes = field(default=b"", repr=False)

    @classmethod
    def seal(cls, rows: ClientData, key: DecryptionKey) -> Self:
        """Encrypt rows."""
        content = seal(rows.to_bytes(), [key.recipient], purpose=PURPOSE)
        return cls(content, key, rows.records)

    def open(self) -> ClientData:
        """Decrypt them.

        Raises:
            EnvelopeError: the key is another, or the envelope was altered.
        """
        return open_rows(self.content, self.key)

    @property
    def digest(self) -> bytes:
        """What names the rows in a ledger, 32 bytes, however they are encrypted.

        Raises:
            EnvelopeError: as in `open`.
        """
        return self.records or rows_digest(self.content, self.key)


@dataclass(frozen=True)
class SealedData:
    """What a simulation must know of participants whose rows it does not see.

    Attributes:
        clients: one entry for each.
        input_shape: shape of one row.
        num_classes: number of classes; public.
        label: the column that held the classes.
        classes: their names, in the order of their numbers; public.
    """

    clients: tuple[SealedClient, ...]
    input_shape: tuple[int, ...]
    num_classes: int
    label: str = ""
    classes: tuple[str, ...] = ()


def open_rows(content: bytes, key: DecryptionKey) -> ClientData:
    """Decrypt what `SealedClient.seal` encrypted.

    Raises:
        EnvelopeError: the key is another, or the envelope was altered.
    """
    return ClientData.from_bytes(unseal(content, key, purpose=PURPOSE))


def rows_digest(content: bytes, key: DecryptionKey) -> bytes:
    """SHA-256 of the file that was encrypted: the same in every envelope of it.

    Raises:
        EnvelopeError: the key is another, or the envelope was altered.
    """
    return hashlib.sha256(unseal(content, key, purpose=PURPOSE)).digest()
