"""A question as text between a server and devices, and what a device makes of it.

Whatever the text is, a device parses it to a question of bounded size over columns that it has, or
raises; what the question costs is computed by the device from its parts, and never taken from the
server's word.
"""

import dataclasses
import json
from typing import Any

from lepton_flwr import _validate as check
from lepton_flwr.data.preprocessing.columns import CATEGORY, NUMBER, TableSchema
from lepton_flwr.data.preprocessing.questions import (
    HASH_BITS,
    MAX_ROWS,
    SALT_BYTES,
    Bins,
    Hashes,
    Listed,
    Magnitudes,
    Moments,
    Names,
    Part,
    Question,
    Rows,
)
from lepton_flwr.errors import LeptonError
from lepton_flwr.failures import Failure

VERSION = 1
MAX_TEXT = 2**24
MAX_PARTS = 10_000
MAX_NUMBERS = 2**22  # of an answer
MAX_LIST = 2**16  # edges, prefixes, texts or hashes of one part
MAX_HASH_BITS = 16  # of one part

_KINDS: dict[str, type[Any]] = {
    "rows": Rows, "magnitudes": Magnitudes, "bins": Bins, "moments": Moments,
    "hashes": Hashes, "listed": Listed, "names": Names,
}  # fmt: skip
_NAMES = {part: name for name, part in _KINDS.items()}
_OF_NUMBERS = (Magnitudes, Bins, Moments)


class QuestionError(LeptonError):
    """A question that no honest server asks of this table."""

    failure = Failure.PROTOCOL


def to_json(question: Question) -> str:
    """One line of text; `from_json` is its inverse."""
    parts = []
    for part in question.parts:
        fields = dataclasses.asdict(part)
        if "salt" in fields:
            fields["salt"] = fields["salt"].hex()
        parts.append({"kind": _NAMES[type(part)], **fields})
    return json.dumps(
        {
            "version": VERSION,
            "noise_multiplier": question.noise_multiplier,
            "most_rows": question.most_rows,
            "parts": parts,
        },
        allow_nan=False,
    )


def from_json(text: str, schema: TableSchema) -> Question:
    """Read a question to a table of a schema.

    **Guarantee**: its answer has at most `MAX_NUMBERS` numbers, every part is of a column of its
    kind and the only one of that column, and each record's part of the answer has the norm that the
    question's price assumes. Whether it is answered depends on no row: the most rows that it is for
    are those of every table.

    Raises:
        QuestionError: it is no question, too large, of a newer version, or of other columns.
    """
    try:
        plain = json.loads(text) if len(text) <= MAX_TEXT else None
        if not isinstance(plain, dict) or plain.get("version") != VERSION:
            raise QuestionError(
                f"a question of {len(text):,} letters: expected one of format {VERSION}: is the "
                "server of another version?"
            )
        parts = plain["parts"]
        if not isinstance(parts, list) or not 1 <= len(parts) <= MAX_PARTS:
            raise QuestionError(f"parts: expected a list of 1 to {MAX_PARTS:,}")
        kinds = {column.name: column.kind for column in schema.columns}
        question = Question(
            tuple(_part(part, kinds) for part in parts),
            plain["noise_multiplier"],
            plain["most_rows"],
        )
    except QuestionError:
        raise
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        # Its text may quote what the server sent: the class says enough.
        raise QuestionError(f"a damaged question ({type(error).__name__})") from None
    columns = [getattr(part, "column", None) for part in question.parts]
    if len(set(columns)) != len(columns):
        raise QuestionError("two parts of one column: expected one")
    if question.most_rows != MAX_ROWS:
        raise QuestionError(f"most_rows={question.most_rows}: expected {MAX_ROWS}")
    if question.size > MAX_NUMBERS:
        raise QuestionError(f"an answer of {question.size:,} numbers: expected {MAX_NUMBERS:,}")
    return question


def _part(plain: dict[str, Any], kinds: dict[str, str]) -> Part:
    fields = dict(plain)
    kind = _KINDS[fields.pop("kind")]
    for key, value in fields.items():
        if isinstance(value, list):
            if len(value) > MAX_LIST:
                raise QuestionError(f"{len(value):,} {key}: expected at most {MAX_LIST:,}")
            fields[key] = tuple(value)
    if "salt" in fields:
        fields["salt"] = bytes.fromhex(fields["salt"])
        if len(fields["salt"]) != SALT_BYTES:
            raise QuestionError(f"salt: expected {SALT_BYTES} bytes")
    part: Part = kind(**fields)
    if not isinstance(part, Rows):
        wanted = NUMBER if isinstance(part, _OF_NUMBERS) else CATEGORY
        if kinds.get(part.column) != wanted:
            raise QuestionError(
                f"a part of kind {plain['kind']}: expected a {wanted} of this table"
            )
    _check(part)
    return part


def _check(part: Part) -> None:
    """What the parts do not check themselves, for a fit only asks what it has made."""
    if isinstance(part, Bins):
        for edge in part.edges:
            check.finite("edge", edge)
    elif isinstance(part, Hashes):
        check.integer("bits", part.bits, at_least=1, at_most=MAX_HASH_BITS)
        check.integer("prefix_bits", part.prefix_bits, at_least=0, at_most=HASH_BITS - part.bits)
        _check_numbers(part.prefixes, part.prefix_bits)
    elif isinstance(part, Names):
        _check_numbers(part.hashes, HASH_BITS)
    elif isinstance(part, Listed):
        texts = {value for value in part.values if isinstance(value, str)}
        if len(texts) != len(part.values):
            raise QuestionError("values: expected different texts")


def _check_numbers(numbers: tuple[int, ...], bits: int) -> None:
    if len(set(numbers)) != len(numbers):
        raise QuestionError("hashes: expected each once")
    for number in numbers:
        check.integer("hash", number, at_least=0, at_most=(1 << bits) - 1)
