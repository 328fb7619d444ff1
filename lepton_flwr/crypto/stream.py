"""A stream of uniform bits from AES-256 in counter mode: the one generator of masks and noise."""

import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

KEY_BYTES = 32
BLOCK_BYTES = 16
_ZEROS = bytes(1 << 18)


class CipherStream:
    """The AES-256-CTR key stream of one key, from counter zero.

    The counter starts at zero, so a key must never be used for two purposes: derive one key for
    each. Not safe to share between threads, but each may have a stream of its own part.

    Args:
        key: 32 bytes; None takes them from the operating system, which is what anything that
            protects a release uses.
        block: blocks of 16 bytes to leave out at the beginning of the stream.

    Raises:
        ValueError: the key is not 32 bytes.
    """

    def __init__(self, key: bytes | None = None, block: int = 0) -> None:
        key = os.urandom(KEY_BYTES) if key is None else key
        if len(key) != KEY_BYTES:
            raise ValueError(f"{len(key)}-byte key: expected {KEY_BYTES} bytes")
        self._encryptor = Cipher(
            algorithms.AES(key), modes.CTR(block.to_bytes(BLOCK_BYTES, "big"))
        ).encryptor()

    def read(self, num_bytes: int) -> bytes:
        """The next `num_bytes` bytes of the stream."""
        return self._encryptor.update(bytes(num_bytes))

    def read_into(self, buffer: memoryview) -> None:
        """Fill a writable, contiguous byte buffer with the next bytes of the stream."""
        for start in range(0, len(buffer), len(_ZEROS)):
            part = buffer[start : start + len(_ZEROS)]
            self._encryptor.update_into(memoryview(_ZEROS)[: len(part)], part)

    def uint32(self, count: int) -> np.ndarray:
        """`count` uniform uint32, little-endian, shape (count,)."""
        out = np.empty(count, dtype="<u4")
        self.read_into(out.data.cast("B"))
        return out

    def uint64(self, count: int) -> np.ndarray:
        """`count` uniform uint64, little-endian, shape (count,)."""
        out = np.empty(count, dtype="<u8")
        self.read_into(out.data.cast("B"))
        return out
