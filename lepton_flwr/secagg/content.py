"""The digest of what a session works on: model, settings and all, whatever the transport."""

from collections.abc import Iterator, Mapping
from typing import Any

from lepton_flwr.crypto.digest import digest, field
from lepton_flwr.secagg.errors import MessageError

CONTENT_LABEL = "lepton/secagg/content/v1"


def content_digest(records: Mapping[str, Mapping[str, Any]]) -> bytes:
    """32 bytes that determine every record.

    Args:
        records: names to records, and each record's names to values: text, bytes, numbers, flat
            lists of them, or arrays (anything with `dtype`, `shape` and its bytes in `data`).

    Raises:
        MessageError: a value of another type.
    """
    fields: list[bytes] = []
    for name in sorted(records):
        record = records[name]
        fields += [field(name), field(len(record))]
        # The order of arrays is part of the model.
        for key, value in record.items():
            fields += [field(key), *_value(value)]
    return digest(CONTENT_LABEL, *fields)


def _value(value: Any) -> Iterator[bytes]:
    if isinstance(value, list):
        yield field(f"list {len(value)}")
        for item in value:
            yield from _value(item)
    elif isinstance(value, str):
        yield from (b"str", field(value))
    elif isinstance(value, bytes):
        yield from (b"bytes", value)
    elif isinstance(value, bool):
        yield from (b"bool", field(int(value)))
    elif isinstance(value, int):
        yield from (b"int", field(str(value)))
    elif isinstance(value, float):
        yield from (b"float", field(value.hex()))
    elif hasattr(value, "dtype") and hasattr(value, "shape"):
        yield from (b"array", field(str(value.dtype)), field(str(tuple(value.shape))))
        yield bytes(value.data)
    else:
        raise MessageError(
            f"a {type(value).__name__} cannot be bound: expected text, bytes, "
            "numbers, lists of them, or arrays"
        )
