"""A stream of uniform bits from a keyed cipher: the one generator of masks and noise."""

import os
from enum import StrEnum

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

KEY_BYTES = 32
# Streams may start at any multiple of this: four blocks of AES, one of ChaCha20.
BLOCK_BYTES = 64
_AES_BLOCKS = BLOCK_BYTES // 16
_COUNTER_BYTES = 16
_ZEROS = memoryview(bytes(1 << 18))


class StreamCipher(StrEnum):
    """The cipher of a stream."""

    AES = "aes-256-ctr"  # the faster one where the processor has AES instructions
    CHACHA20 = "chacha20"  # the faster one elsewhere


class CipherStream:
    """The key stream of one key, from counter zero.

    AES-256-CTR counts in 16 big-endian bytes; ChaCha20 (RFC 8439) has a nonce of zeros. The counter
    starts at zero, so a key must never be used for two purposes: derive one key for each. Not safe
    to share between threads, but each may have a stream of its own part.

    Args:
        key: 32 bytes; None takes them from the operating system, which is what anything that
            protects a release uses.
        block: blocks of 64 bytes to leave out at the beginning of the stream.
        cipher: which cipher.

    Raises:
        ValueError: the key is not 32 bytes.
    """

    def __init__(
        self,
        key: bytes | None = None,
        block: int = 0,
        cipher: StreamCipher = StreamCipher.AES,
    ) -> None:
        key = os.urandom(KEY_BYTES) if key is None else key
        if len(key) != KEY_BYTES:
            raise ValueError(f"{len(key)}-byte key: expected {KEY_BYTES} bytes")
        made: Cipher[modes.CTR] | Cipher[None]
        if cipher is StreamCipher.AES:
            counter = (_AES_BLOCKS * block).to_bytes(_COUNTER_BYTES, "big")
            made = Cipher(algorithms.AES(key), modes.CTR(counter))
        else:
            # Four bytes of counter and twelve of nonce, least significant first.
            counter = block.to_bytes(4, "little") + bytes(12)
            made = Cipher(algorithms.ChaCha20(key, counter), None)
        self._encryptor = made.encryptor()

    def read(self, num_bytes: int) -> bytes:
        """The next `num_bytes` bytes of the stream."""
        return self._encryptor.update(bytes(num_bytes))

    def read_into(self, buffer: memoryview) -> None:
        """Fill a writable, contiguous byte buffer with the next bytes of the stream."""
        for start in range(0, len(buffer), len(_ZEROS)):
            part = buffer[start : start + len(_ZEROS)]
            self._encryptor.update_into(_ZEROS[: len(part)], part)

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
