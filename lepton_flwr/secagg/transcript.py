"""What is signed and what names a session: digests over the transcript."""

from collections.abc import Iterable, Sequence

from lepton_flwr.crypto.digest import digest, field
from lepton_flwr.secagg.parameters import SessionConfig

SID_LABEL = "lepton/secagg/sid/v1"
KEYS_LABEL = "lepton/secagg/signed-keys/v1"
ATTEST_LABEL = "lepton/secagg/attestation/v1"


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


def session_id(config: SessionConfig, content_hash: bytes, records: Sequence[bytes]) -> bytes:
    """The sid: run, number, configuration, content and all signed key records, in index order."""
    return digest(
        SID_LABEL,
        field(config.run_id),
        field(config.number),
        config.digest(),
        content_hash,
        *records,
    )


def attestation_digest(sid: bytes, survivors: bytes) -> bytes:
    """What a client signs once: this bitmap of survivors in this session."""
    return digest(ATTEST_LABEL, sid, survivors)


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
    indices = frozenset(i for i in range(8 * len(bitmap)) if bitmap[i // 8] >> (i % 8) & 1)
    return None if any(i >= size for i in indices) else indices
