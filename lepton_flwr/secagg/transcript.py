"""What is signed and what names a session: digests over the transcript."""

import hmac
from collections.abc import Iterable

import numpy as np

from lepton_flwr.crypto.digest import digest, field
from lepton_flwr.secagg.parameters import SessionConfig

SID_LABEL = "lepton/secagg/sid/v2"
KEYS_LABEL = "lepton/secagg/signed-keys/v1"
PARTICIPANTS_LABEL = "lepton/secagg/participants/v1"
SURVIVORS_LABEL = "lepton/secagg/attestation/v2"
LISTS_LABEL = "lepton/secagg/signed-lists/v1"
TAG_BYTES = 16


def keys_digest(
    config: SessionConfig,
    content_hash: bytes,
    mask_public: bytes,
    share_public: bytes,
    nonce: bytes,
) -> bytes:
    """What a client's long-term key signs at the first exchange."""
    return digest(
        KEYS_LABEL,
        field(config.run_id),
        field(config.number),
        config.digest(),
        content_hash,
        share_public,
        mask_public,
        nonce,
    )


def session_id(config: SessionConfig, content_hash: bytes, members: bytes, records: bytes) -> bytes:
    """The sid: run, number, configuration, content, and who takes part with which key record.

    Args:
        config: the session's.
        content_hash: digest of what is worked on.
        members: all long-term public keys, ascending, one after the other.
        records: the digests of their key records, in the same order.
    """
    return digest(
        SID_LABEL,
        field(config.run_id),
        field(config.number),
        config.digest(),
        content_hash,
        members,
        records,
    )


def participants_digest(sid: bytes, participants: bytes) -> bytes:
    """Which clients a client was told to have shared their secrets, as a bitmap."""
    return digest(PARTICIPANTS_LABEL, sid, participants)


def survivors_digest(sid: bytes, survivors: bytes) -> bytes:
    """Whose vectors came, as a bitmap: what a client vouches for, once, to a neighbour."""
    return digest(SURVIVORS_LABEL, sid, survivors)


def lists_digest(sid: bytes, participants: bytes, survivors: bytes) -> bytes:
    """Both lists: what a member of the committee signs, once."""
    return digest(LISTS_LABEL, sid, participants, survivors)


def tag(key: bytes, said: bytes) -> bytes:
    """HMAC-SHA256 of a digest, cut to 16 bytes: one sender's word to one receiver."""
    return hmac.digest(key, said, "sha256")[:TAG_BYTES]


def to_bitmap(indices: Iterable[int], size: int) -> bytes:
    """Indices from 0 to size - 1 as a bitmap, least significant bit first."""
    bits = bytearray((size + 7) // 8)
    for index in indices:
        bits[index // 8] |= 1 << (index % 8)
    return bytes(bits)


def from_bitmap(bitmap: bytes, size: int) -> frozenset[int] | None:
    """The indices of a bitmap; None if it is not one of `size` participants."""
    if len(bitmap) != (size + 7) // 8:
        return None
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
    return None if bits[size:].any() else frozenset(np.flatnonzero(bits).tolist())
