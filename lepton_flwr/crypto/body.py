"""The body of encrypted data: AES-256-GCM in chunks, each bound to its place.

The STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár ("Online Authenticated-Encryption
and its Nonce-Reuse Misuse-Resistance", 2015, ePrint 2015/189): the nonce of a chunk is a prefix of
7 bytes, its number in 4, and 1 for the last chunk, else 0. Key and prefix are derived from the data
key, which is used for one body only, so no nonce repeats under a key.
"""

from collections.abc import Callable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lepton_flwr.crypto.errors import (
    SourceChangedError,
    TamperedChunkError,
    TrailingBytesError,
    TruncatedError,
)
from lepton_flwr.crypto.header import Body, Stream, derive

CHUNK_BITS = 19
TAG_BYTES = 16
_KEY_BYTES, _PREFIX_BYTES = 32, 7
_KEY_LABEL = "lepton/envelope/body-key/v1"

# Takes the bytes of a chunk without its tag, which are valid during the call only.
OnChunk = Callable[[memoryview], None]


def sealed_bytes(body: Body) -> int:
    """Length of the encrypted body: the plaintext and a tag of 16 bytes for each chunk."""
    return body.plaintext_bytes + TAG_BYTES * body.num_chunks


def check_length(body: Body, length: int) -> None:
    """Refuse an encrypted body of another length than its header says.

    Raises:
        TruncatedError: it is shorter.
        TrailingBytesError: it is longer.
    """
    expected = sealed_bytes(body)
    if length < expected:
        raise TruncatedError(f"body of {length} bytes: expected {expected}; the end is missing")
    if length > expected:
        raise TrailingBytesError(
            f"body of {length} bytes: expected {expected}; the rest is foreign"
        )


def encrypt(source: Stream, target: Stream, body: Body, data_key: bytes, on_chunk: OnChunk) -> None:
    """Encrypt `body.plaintext_bytes` bytes of `source`, to its end; memory is two chunks.

    Raises:
        SourceChangedError: the source is shorter or longer.
    """
    cipher, nonces = _cipher(body, data_key)
    plain, sealed = _buffers(body)
    for number, length in _chunks(body):
        part = plain[:length]
        if _fill(source, part) < length:
            raise changed(body)
        on_chunk(part)
        cipher.encrypt_into(nonces(number), part, None, sealed[: length + TAG_BYTES])
        write(target, sealed[: length + TAG_BYTES])
    if source.read(1):
        raise changed(body)


def decrypt(source: Stream, target: Stream, body: Body, data_key: bytes, on_chunk: OnChunk) -> None:
    """Decrypt a body, to the end of `source`; memory is two chunks.

    What is in `target` is of no worth until this has returned.

    Raises:
        TamperedChunkError: a chunk is not the one that was written at its place.
        TruncatedError: the end is missing.
        TrailingBytesError: there is more.
    """
    cipher, nonces = _cipher(body, data_key)
    plain, sealed = _buffers(body)
    for number, part in _sealed_chunks(source, body, sealed):
        text = plain[: len(part) - TAG_BYTES]
        try:
            cipher.decrypt_into(nonces(number), part, None, text)
        except InvalidTag:
            raise TamperedChunkError(
                f"chunk {number + 1} of {body.num_chunks} is damaged, or is not the one that was "
                f"written there"
            ) from None
        on_chunk(text)
        write(target, text)


def copy(source: Stream, target: Stream, body: Body, on_chunk: OnChunk) -> None:
    """Copy an encrypted body as it is, to the end of `source`.

    Raises:
        TruncatedError: the end is missing.
        TrailingBytesError: there is more.
    """
    _, sealed = _buffers(body)
    for _, part in _sealed_chunks(source, body, sealed):
        on_chunk(part[:-TAG_BYTES])
        write(target, part)


def _sealed_chunks(
    source: Stream, body: Body, buffer: memoryview
) -> Iterator[tuple[int, memoryview]]:
    for number, length in _chunks(body):
        part = buffer[: length + TAG_BYTES]
        if _fill(source, part) < len(part):
            raise TruncatedError(
                f"body ends within chunk {number + 1} of {body.num_chunks}: the end is missing"
            )
        yield number, part
    if source.read(1):
        raise TrailingBytesError(f"bytes after the last of {body.num_chunks} chunks")


def _buffers(body: Body) -> tuple[memoryview, memoryview]:
    length = min(1 << body.chunk_bits, body.plaintext_bytes)
    return memoryview(bytearray(length)), memoryview(bytearray(length + TAG_BYTES))


def _cipher(body: Body, data_key: bytes) -> tuple[AESGCM, Callable[[int], bytes]]:
    derived = derive(data_key, _KEY_LABEL, body.encode(), _KEY_BYTES + _PREFIX_BYTES)
    key, prefix = derived[:_KEY_BYTES], derived[_KEY_BYTES:]
    last = body.num_chunks - 1

    def nonce(number: int) -> bytes:
        return prefix + number.to_bytes(4, "big") + bytes([number == last])

    return AESGCM(key), nonce


def _chunks(body: Body) -> Iterator[tuple[int, int]]:
    size = 1 << body.chunk_bits
    for number in range(body.num_chunks):
        yield number, min(size, body.plaintext_bytes - number * size)


def changed(body: Body) -> SourceChangedError:
    """The error of a source that something wrote to meanwhile."""
    return SourceChangedError(
        f"the source had {body.plaintext_bytes} bytes and changed while it was read: encrypt it "
        f"when nothing writes to it"
    )


def _fill(source: Stream, buffer: memoryview) -> int:
    filled = 0
    while filled < len(buffer) and (count := source.readinto(buffer[filled:])):
        filled += count
    return filled


def write(target: Stream, content: memoryview) -> None:
    """Write all of `content`, in as many pieces as an unbuffered file takes."""
    while content:
        content = content[target.write(content) :]
