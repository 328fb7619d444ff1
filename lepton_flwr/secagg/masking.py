"""Masks: one cipher stream for each pair of clients and one of a client's own, modulo 2^32."""

from collections.abc import Iterable

import numpy as np

from lepton_flwr.crypto.stream import CipherStream

CHUNK = 1 << 15  # coordinates: vector part and stream part stay in the cache together


def add_streams(vector: np.ndarray, masks: Iterable[tuple[bytes, int]]) -> None:
    """Add cipher streams to a vector in place, modulo 2^32.

    Args:
        vector: uint32, shape (d,), contiguous.
        masks: (32-byte key, sign) pairs; sign +1 adds the key's stream, -1 subtracts it.
    """
    streams = [(CipherStream(key), sign) for key, sign in masks]
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
