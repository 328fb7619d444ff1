"""Labelled SHA-256 over fields, each behind its length: no two inputs share an encoding."""

import hashlib

DIGEST_BYTES = 32
_LENGTH_BYTES = 8
_INT_BYTES = 8


def field(value: int | str) -> bytes:
    """Encode a number as 8 big-endian two's-complement bytes, a text as UTF-8.

    A field's type is part of the meaning of its place under the label: a place that held a text
    once must never hold a number.

    Raises:
        ValueError: the number needs more than 64 bits, or the text has no UTF-8 encoding.
    """
    if isinstance(value, str):
        return value.encode("utf-8")
    try:
        return value.to_bytes(_INT_BYTES, "big", signed=True)
    except OverflowError:
        raise ValueError(f"field of {value.bit_length()} bits: expected at most 64") from None


def digest(label: str, *fields: bytes) -> bytes:
    """SHA-256 over the label and the fields.

    Args:
        label: purpose and version, as in "lepton/secagg/sid/v1". One label, one list of fields.
        *fields: what is bound; see `field` for numbers and text.

    Returns:
        32 bytes.

    Guarantee: the hashed text determines the label, the number of fields and every field, since
    each stands behind its 8-byte big-endian length.
    """
    state = hashlib.sha256()
    for part in (label.encode("utf-8"), *fields):
        state.update(len(part).to_bytes(_LENGTH_BYTES, "big"))
        state.update(part)
    return state.digest()
