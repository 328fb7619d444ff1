"""Encrypted files, of any size in constant memory."""

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lepton_flwr._files import replace
from lepton_flwr.crypto import body as bodies
from lepton_flwr.crypto.errors import DigestError, EnvelopeError
from lepton_flwr.crypto.header import VERSION, Body, Header
from lepton_flwr.crypto.passphrase import ARGON2ID
from lepton_flwr.crypto.stanza import Opener, Sealer
from lepton_flwr.crypto.suites import DATA_KEY_BYTES
from lepton_flwr.errors import DataError, OutputError

FILE_PURPOSE = "lepton/file/v1"

# Takes the bytes of plaintext that are done and how many there are in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FileRecipient:
    """One that an encrypted file names.

    Attributes:
        suite: one of `SUITES`, or "argon2id" for a passphrase.
        fingerprint: 64 hexadecimal digits; None for a passphrase.
    """

    suite: str
    fingerprint: str | None


@dataclass(frozen=True)
class EncryptedFile:
    """What an encrypted file says of itself, which nobody has to be believed without the key.

    Attributes:
        version: of the format.
        purpose: what it was encrypted for.
        recipients: whose keys open it.
        chunk_bytes: plaintext in a chunk.
        plaintext_bytes: length of the plaintext.
        header_bytes: length of the header.
        file_bytes: length of all.
    """

    version: int
    purpose: str
    recipients: tuple[FileRecipient, ...]
    chunk_bytes: int
    plaintext_bytes: int
    header_bytes: int
    file_bytes: int

    @classmethod
    def of(cls, header: Header) -> Self:
        """What a header says."""
        return cls(
            VERSION,
            header.body.purpose,
            tuple(
                FileRecipient(suite, None if suite == ARGON2ID else recipient.hex())
                for suite, recipient, _ in header.stanzas
            ),
            1 << header.body.chunk_bits,
            header.body.plaintext_bytes,
            len(header.encoded),
            len(header.encoded) + bodies.sealed_bytes(header.body),
        )


def encrypt_file(
    source: Path,
    target: Path,
    recipients: Iterable[Sealer],
    *,
    purpose: str = FILE_PURPOSE,
    overwrite: bool = False,
    digest: bool = False,
    progress: Progress | None = None,
) -> str | None:
    """Encrypt a file for recipients, each of which can open the result alone.

    Args:
        source: a regular file, which nothing writes to meanwhile. It stays.
        target: the encrypted file; it appears whole or not at all.
        recipients: 1 to 64 of `Recipient`, at most one of them a `Passphrase`.
        purpose: what the file is, 1 to 64 bytes in UTF-8; visible.
        overwrite: replace a target that exists.
        digest: compute the plaintext's SHA-256.
        progress: told of bytes done and in all, after each chunk.

    Returns:
        SHA-256 of the plaintext, 64 hexadecimal digits, or None without `digest`.

    Raises:
        DataError: the source cannot be read or is no regular file.
        SourceChangedError: it changed meanwhile.
        OutputError: the target exists or cannot be written.
        RecipientError: no recipients, too many, or one twice.

    Guarantee: as of `seal`.
    """
    with _opened(source) as (file, length):
        data_key = os.urandom(DATA_KEY_BYTES)
        body = Body(bodies.CHUNK_BITS, length, purpose)
        header = Header.create(body, data_key, recipients)
        watch = _Watch(length, digest, progress)

        def write(out: io.FileIO) -> None:
            bodies.write(out, memoryview(header.encoded))
            started = os.fstat(file.fileno()).st_mtime_ns
            bodies.encrypt(file, out, body, data_key, watch)
            if os.fstat(file.fileno()).st_mtime_ns != started:
                raise bodies.changed(body)

        _replace(target, write, 0o666, overwrite)
    return watch.sha256()


def decrypt_file(
    source: Path,
    target: Path,
    key: Opener,
    *,
    purpose: str = FILE_PURPOSE,
    overwrite: bool = False,
    digest: bool = False,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> str | None:
    """Decrypt a file.

    Args:
        source: what `encrypt_file` or `rewrap_file` wrote.
        target: the plaintext, mode 0600. It appears once all of it is verified, or not at all;
            until then it is in a hidden file beside it, mode 0600, removed on failure.
        key: a `DecryptionKey` or a `Passphrase` of one of the recipients.
        purpose: the purpose that it was encrypted for.
        overwrite: replace a target that exists.
        digest: compute the plaintext's SHA-256.
        sha256: what that has to be, 64 hexadecimal digits.
        progress: told of bytes done and in all, after each chunk.

    Returns:
        SHA-256 of the plaintext, 64 hexadecimal digits, or None without `digest` and `sha256`.

    Raises:
        EnvelopeError: the subclass says why; see `lepton_flwr.crypto.errors`.
        DigestError: the plaintext is not the expected one.
        DataError: the source cannot be read or is no regular file.
        OutputError: the target exists or cannot be written.
    """
    with _opened(source) as (file, length):
        header = Header.read(file)
        bodies.check_length(header.body, length - len(header.encoded))
        data_key = header.open(key, purpose)
        watch = _Watch(header.body.plaintext_bytes, digest or sha256 is not None, progress)

        def write(out: io.FileIO) -> None:
            bodies.decrypt(file, out, header.body, data_key, watch)
            if sha256 is not None and watch.sha256() != sha256.lower():
                raise DigestError("plaintext of another SHA-256 than expected: another file?")

        _replace(target, write, 0o600, overwrite)
    return watch.sha256()


def rewrap_file(
    path: Path,
    key: Opener,
    recipients: Iterable[Sealer],
    *,
    progress: Progress | None = None,
) -> None:
    """Encrypt a file's data key for other recipients, in place of those that it has.

    The encrypted body is copied as it is, and the file replaced at once. A former recipient cannot
    open it by its key any more, but can by a copy of the former file or of its data key.

    Args:
        path: what `encrypt_file` or `rewrap_file` wrote.
        key: a `DecryptionKey` or a `Passphrase` of one of its recipients.
        recipients: all that shall be able to open it from now on.
        progress: told of bytes done and in all, after each chunk.

    Raises:
        EnvelopeError: it cannot be opened.
        DataError: it cannot be read or is no regular file.
        OutputError: it cannot be written; it stays as it was.
        RecipientError: no recipients, too many, or one twice.
    """
    with _opened(path) as (file, length):
        header = Header.read(file)
        bodies.check_length(header.body, length - len(header.encoded))
        new = header.rewrap(key, recipients)
        watch = _Watch(header.body.plaintext_bytes, False, progress)

        def write(out: io.FileIO) -> None:
            bodies.write(out, memoryview(new.encoded))
            bodies.copy(file, out, new.body, watch)

        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        _replace(path, write, mode, overwrite=True)


def inspect(path: Path) -> EncryptedFile:
    """What an encrypted file says of itself, without a key and so without proof.

    Raises:
        EnvelopeError: it is none, or is cut off.
        DataError: it cannot be read or is no regular file.
    """
    with _opened(path) as (file, length):
        header = Header.read(file)
        bodies.check_length(header.body, length - len(header.encoded))
    return EncryptedFile.of(header)


class _Watch:
    """Sees the chunks pass by."""

    def __init__(self, length: int, digest: bool, progress: Progress | None) -> None:
        self._length, self._done, self._progress = length, 0, progress
        self._hash = hashlib.sha256() if digest else None

    def __call__(self, chunk: memoryview) -> None:
        if self._hash is not None:
            self._hash.update(chunk)
        self._done += len(chunk)
        if self._progress is not None:
            self._progress(self._done, self._length)

    def sha256(self) -> str | None:
        return None if self._hash is None else self._hash.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[io.FileIO, int]]:
    try:
        file = open(path, "rb", buffering=0, opener=_without_waiting)  # noqa: SIM115 - see below
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}") from None
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: expected a regular file, which has a length")
        try:
            yield file, status.st_size
        except EnvelopeError as error:
            raise type(error)(f"{path.name}: {error}") from error


def _without_waiting(path: str, flags: int) -> int:
    # A pipe would wait for who writes to it.
    return os.open(path, flags | os.O_NONBLOCK)


def _replace(target: Path, write: Callable[[io.FileIO], None], mode: int, overwrite: bool) -> None:
    if not overwrite and os.path.lexists(target):
        raise OutputError(f"{target}: exists; choose another name, or --force replaces it")

    def make(beside: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(beside, flags, mode), "wb", buffering=0) as out:
            write(out)

    replace(target, make)
