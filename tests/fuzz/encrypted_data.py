"""Fuzz target: encrypted data that was tampered with, or made by a hostile sender.

Input bytes choose who opens what, and how it was changed: bits flipped, ranges cut, doubled or
inserted, fields of the header set to other numbers, chunks swapped or taken from other data of the
same sender. Whoever opens it must get a named error and no plaintext, unless nothing was changed.
`fuzz.py` beside this file runs it under atheris, `tests/crypto/test_fuzz.py` without.
"""

import functools
import io
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

from choices import Choices, ExhaustedError, require

from lepton_flwr import _files
from lepton_flwr.crypto import body as bodies
from lepton_flwr.crypto import passphrase as passphrases
from lepton_flwr.crypto.encrypted_file import decrypt_file, inspect, rewrap_file
from lepton_flwr.crypto.envelope import rewrap, seal, unseal
from lepton_flwr.crypto.errors import EnvelopeError
from lepton_flwr.crypto.header import Body, Header
from lepton_flwr.crypto.passphrase import Passphrase
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.errors import LeptonError

PURPOSE = "fuzz"
CHUNK = 1 << 10
SEALED_CHUNK = CHUNK + 16
PLAINTEXT = bytes(range(256)) * 12  # three chunks
MAX_MEMORY_KIB = 64
NUMBERS = (0, 1, 2, 9, 10, 20, 21, 63, 64, 65, 127, 255, 256, 1 << 10, 1 << 17, (1 << 17) + 1,
           1 << 18, 1 << 32, (1 << 42) + 1, (1 << 64) - 1)  # fmt: skip


def small() -> ExitStack:
    """Small chunks and cheap passphrases, so that an input takes no second."""
    stack = ExitStack()
    stack.enter_context(mock.patch.object(bodies, "CHUNK_BITS", 10))
    # What forces files to disk takes longer than all the rest.
    stack.enter_context(mock.patch.object(_files, "_sync"))
    costs = {"MEMORY_KIB": 8, "PASSES": 1, "LANES": 1, "MAX_MEMORY_KIB": MAX_MEMORY_KIB}
    stack.enter_context(mock.patch.multiple(passphrases, **costs))
    return stack


class Scene:
    """Two envelopes of one sender for the same two recipients, and where their fields are."""

    def __init__(self) -> None:
        self.key, self.stranger = DecryptionKey.generate(), DecryptionKey.generate()
        self.passphrase = Passphrase("correct horse")
        self.openers = (self.key, self.passphrase, self.stranger, Passphrase("wrong horse"))
        self.recipients = (self.key.recipient, self.passphrase)
        self.honest, self.other = (
            seal(text, self.recipients, purpose=PURPOSE) for text in (PLAINTEXT, PLAINTEXT[::-1])
        )
        self.header = Header.read(io.BytesIO(self.honest))
        self.header_bytes = len(self.header.encoded)
        count = 14 + 10 + len(PURPOSE)
        first = count + 1
        second = first + 35 + 80
        # Where each field of the header is, and its length.
        self.fields = {
            "magic": (0, 8), "version": (8, 2), "length": (10, 4), "chunk-bits": (14, 1),
            "plaintext-bytes": (15, 8), "purpose-bytes": (23, 1), "purpose": (24, len(PURPOSE)),
            "count": (count, 1), "suite": (first, 1), "recipient": (first + 1, 32),
            "wrapped-bytes": (first + 33, 2), "wrapped": (first + 35, 80),
            "second-suite": (second, 1), "salt": (second + 1, 32),
            "memory": (second + 35, 4), "passes": (second + 39, 1), "lanes": (second + 40, 1),
            "wrapped-second": (second + 41, 48), "tag": (self.header_bytes - 32, 32),
        }  # fmt: skip
        self.temporary = tempfile.TemporaryDirectory(prefix="fuzz-")
        self.folder = Path(self.temporary.name)


scene = functools.cache(Scene)


def chunk(number: int) -> slice:
    start = scene().header_bytes + number * SEALED_CHUNK
    return slice(start, start + SEALED_CHUNK)


def flip(source: Choices, text: bytearray) -> None:
    text[source.below(len(text))] ^= 1 << source.below(8)


def truncate(source: Choices, text: bytearray) -> None:
    del text[source.below(len(text)) :]


def append(source: Choices, text: bytearray) -> None:
    text += source.take(1 + source.below(20))


def cut(source: Choices, text: bytearray) -> None:
    start = source.below(len(text))
    del text[start : start + 1 + source.below(len(text))]


def double(source: Choices, text: bytearray) -> None:
    start = source.below(len(text))
    text[start:start] = text[start : start + 1 + source.below(SEALED_CHUNK)]


def set_field(source: Choices, text: bytearray) -> None:
    start, length = list(scene().fields.values())[source.below(len(scene().fields))]
    number = NUMBERS[source.below(len(NUMBERS))] % (1 << 8 * length)
    text[start : start + length] = number.to_bytes(length, "big")


def swap_chunks(source: Choices, text: bytearray) -> None:
    one, other = chunk(source.below(3)), chunk(source.below(3))
    text[one], text[other] = text[other], text[one]


def copy_chunk(source: Choices, text: bytearray) -> None:
    text[chunk(source.below(3))] = text[chunk(source.below(3))]


def foreign_chunk(source: Choices, text: bytearray) -> None:
    number = source.below(3)
    text[chunk(number)] = scene().other[chunk(number)]


def foreign_header(_source: Choices, text: bytearray) -> None:
    text[: scene().header_bytes] = scene().other[: scene().header_bytes]


CHANGES = (flip, truncate, append, cut, double, set_field, swap_chunks, copy_chunk, foreign_chunk,
           foreign_header)  # fmt: skip


def tampered(source: Choices) -> bytes:
    text = bytearray(scene().honest)
    try:
        while text:
            CHANGES[source.below(len(CHANGES))](source, text)
    except ExhaustedError:
        pass
    return bytes(text)


def hostile(source: Choices) -> bytes:
    """What somebody makes who knows the recipients and the format, and follows it or not."""
    bits, length = 10 + source.below(12), NUMBERS[source.below(len(NUMBERS))]
    body = Body(bits, length, PURPOSE)
    data_key = bytes(32)
    try:
        header = Header.create(body, data_key, scene().recipients)
    except EnvelopeError:
        return b""
    target = io.BytesIO()
    real = Body(10 + source.below(3), source.below(4000), PURPOSE)
    other = (real, body)[source.below(2)]
    if other.plaintext_bytes < 1 << 20:
        bodies.encrypt(io.BytesIO(bytes(other.plaintext_bytes)), target, other, data_key, len)
    return header.encoded + target.getvalue()


def by_envelope(text: bytes, key: object) -> bytes:
    return unseal(text, key, purpose=PURPOSE)


def by_file(text: bytes, key: object) -> bytes:
    encrypted, plain = scene().folder / "encrypted", scene().folder / "plain"
    plain.unlink(missing_ok=True)
    encrypted.write_bytes(text)
    try:
        decrypt_file(encrypted, plain, key, purpose=PURPOSE)
    except LeptonError:
        require(os.listdir(scene().folder) == ["encrypted"], "a file was left")
        raise
    return plain.read_bytes()


def by_rewrapping(text: bytes, key: object) -> bytes:
    # The body is not read, so what was done to it comes out when the new envelope is opened.
    return unseal(rewrap(text, key, [scene().key.recipient]), scene().key, purpose=PURPOSE)


def by_rewrapping_file(text: bytes, key: object) -> bytes:
    encrypted = scene().folder / "encrypted"
    encrypted.write_bytes(text)
    try:
        rewrap_file(encrypted, key, [scene().key.recipient])
    except LeptonError:
        require(encrypted.read_bytes() == text, "a file was changed by a failure")
        raise
    inspect(encrypted)
    return unseal(encrypted.read_bytes(), scene().key, purpose=PURPOSE)


OPENINGS = (by_envelope, by_file, by_rewrapping, by_rewrapping_file)


def run(data: bytes) -> str:
    """One input; returns what came of it: the error's name, or "opened"."""
    with small():
        return opened(data)


def opened(data: bytes) -> str:
    source = Choices(data)
    try:
        key = scene().openers[source.below(4)]
        opening = OPENINGS[source.below(len(OPENINGS))]
        made = bool(source.below(2))
        text = hostile(source) if made else tampered(source)
    except ExhaustedError:
        return "empty"
    try:
        plaintext = opening(text, key)
    except EnvelopeError as error:
        return type(error).__name__
    require(key in scene().openers[:2], "a stranger opened it")
    if made:
        length = Header.read(io.BytesIO(text)).body.plaintext_bytes
        require(plaintext == bytes(length), "another plaintext than was encrypted")
    else:
        require(plaintext in (PLAINTEXT, PLAINTEXT[::-1]), "another plaintext than was encrypted")
        require(text in (scene().honest, scene().other), "a change went unnoticed")
    return "opened"
