"""Masks: one cipher stream for each pair of clients and one of a client's own, modulo 2^32."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from math import ceil

import numpy as np

from lepton_flwr.crypto.stream import BLOCK_BYTES, CipherStream, StreamCipher

CHUNK = 1 << 15  # coordinates: vector part and stream part stay in the cache together
_PER_BLOCK = BLOCK_BYTES // 4  # coordinates


def add_streams(
    vector: np.ndarray,
    masks: Iterable[tuple[bytes, int]],
    cipher: StreamCipher = StreamCipher.AES,
    num_threads: int = 1,
) -> None:
    """Add cipher streams to a vector in place, modulo 2^32.

    Args:
        vector: uint32, shape (d,), contiguous.
        masks: (32-byte key, sign) pairs; sign +1 adds the key's stream, -1 subtracts it.
        cipher: of the streams.
        num_threads: most threads, each with a part of the vector: the cipher and the addition
            release the interpreter.
    """
    masks = list(masks)
    chunks = ceil(vector.size / CHUNK)
    size = CHUNK * ceil(chunks / max(1, min(num_threads, chunks)))
    starts = range(0, vector.size, size)
    if len(starts) <= 1:
        _add(vector, masks, cipher, 0)
        return
    with ThreadPoolExecutor(len(starts)) as pool:
        parts = [
            pool.submit(_add, vector[i : i + size], masks, cipher, i // _PER_BLOCK) for i in starts
        ]
        for part in parts:
            part.result()


def _add(
    vector: np.ndarray, masks: list[tuple[bytes, int]], cipher: StreamCipher, block: int
) -> None:
    streams = [(CipherStream(key, block, cipher), sign) for key, sign in masks]
    part = np.empty(min(CHUNK, vector.size), dtype=np.uint32)
    for start in range(0, vector.size, CHUNK):
        target = vector[start : start + CHUNK]
        mask = part[: target.size]
        view = mask.data.cast("B")
        for stream, sign in streams:
            stream.read_into(view)
            if sign > 0:
                np.add(target, mask, out=target)
            else:
                np.subtract(target, mask, out=target)
