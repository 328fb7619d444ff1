"""The header of encrypted data: what its body is, and the data key wrapped for each recipient.

    magic 8 | version 2 | length 4 | body part | stanzas | authentication tag 32

Numbers are big-endian. The tag is HMAC-SHA256 of all before it under a key derived from the data
key. The body part binds every stanza and derives the body's key; it stays when data is re-wrapped.
"""

import hmac
import io
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lepton_flwr.crypto.digest import digest
from lepton_flwr.crypto.errors import (
    NotAnEnvelopeError,
    OversizedFieldError,
    PurposeError,
    RecipientError,
    TamperedHeaderError,
    TruncatedError,
    UnsupportedVersionError,
)
from lepton_flwr.crypto.passphrase import ARGON2ID, WRAPPED_BYTES
from lepton_flwr.crypto.stanza import RECIPIENT_BYTES, Opener, Sealer, Stanza
from lepton_flwr.crypto.suites import KEY_SUITES
from lepton_flwr.errors import ConfigError

# Unbuffered, or in memory: chunks go through no further buffer.
Stream = io.FileIO | io.BytesIO

MAGIC = b"\x89lepton\n"
VERSION = 1
MAX_HEADER_BYTES = 1 << 17
MAX_PURPOSE_BYTES = 64
MAX_STANZAS = 64
# A chunk is held in memory, and a body has at most 2^32 of them.
MIN_CHUNK_BITS, MAX_CHUNK_BITS = 10, 20
MAX_CHUNKS = 1 << 32

_PREFIX = struct.Struct(">8sHI")
_BODY = struct.Struct(">BQB")  # chunk bits, plaintext bytes, bytes of the purpose
_TAG_BYTES = 32
_TAG_KEY_LABEL = "lepton/envelope/header-key/v1"
_WRAPPED_BYTES = {
    **{name: suite.wrapped_bytes for name, suite in KEY_SUITES.items()},
    ARGON2ID: WRAPPED_BYTES,
}
# A suite's number in a file; once given it is never used for another.
_CODES = {"x25519": 1, "x25519-mlkem768": 2, "rsa-3072": 3, ARGON2ID: 4}
_NAMES = {code: name for name, code in _CODES.items()}


@dataclass(frozen=True)
class Body:
    """The part of a header about the body.

    Attributes:
        chunk_bits: a chunk holds 2^chunk_bits bytes of plaintext, the last one fewer.
        plaintext_bytes: length of the plaintext.
        purpose: what the data is for, 1 to 64 bytes in UTF-8.
    """

    chunk_bits: int
    plaintext_bytes: int
    purpose: str

    @property
    def num_chunks(self) -> int:
        """Chunks of the body: at least one."""
        return max(1, -(-self.plaintext_bytes >> self.chunk_bits))

    def encode(self) -> bytes:
        """As it stands in the header.

        Raises:
            ConfigError: the purpose is empty or too long.
            OversizedFieldError: the plaintext is too long for the format.
        """
        try:
            purpose = self.purpose.encode()
        except UnicodeEncodeError:
            purpose = b""
        if not 1 <= len(purpose) <= MAX_PURPOSE_BYTES:
            raise ConfigError(
                f"purpose of {len(purpose)} bytes: expected 1 to {MAX_PURPOSE_BYTES} in UTF-8"
            )
        self.check()
        return _BODY.pack(self.chunk_bits, self.plaintext_bytes, len(purpose)) + purpose

    def check(self) -> None:
        """Refuse sizes beyond the format's.

        Raises:
            OversizedFieldError: they are.
        """
        if not MIN_CHUNK_BITS <= self.chunk_bits <= MAX_CHUNK_BITS:
            raise OversizedFieldError(
                f"chunks of 2^{self.chunk_bits} bytes: expected 2^{MIN_CHUNK_BITS} to "
                f"2^{MAX_CHUNK_BITS}"
            )
        if self.num_chunks > MAX_CHUNKS:
            raise OversizedFieldError(
                f"plaintext of {self.plaintext_bytes} bytes: expected at most {MAX_CHUNKS} chunks "
                f"of 2^{self.chunk_bits}"
            )


@dataclass(frozen=True)
class Header:
    """A header as it was read, or as it will be written.

    Attributes:
        body: its part about the body.
        stanzas: the wrapped data key, for each recipient.
        encoded: all of its bytes.
    """

    body: Body
    stanzas: tuple[Stanza, ...]
    encoded: bytes

    @classmethod
    def create(cls, body: Body, data_key: bytes, recipients: Iterable[Sealer]) -> Self:
        """Wrap a data key for all recipients.

        Raises:
            RecipientError: there are none, too many, one twice, or more than one passphrase.
        """
        if not isinstance(recipients, Iterable):
            raise RecipientError("recipients: expected a list of them")
        sealers = list(recipients)
        if not 1 <= len(sealers) <= MAX_STANZAS:
            raise RecipientError(f"{len(sealers)} recipients: expected 1 to {MAX_STANZAS}")
        part = body.encode()
        stanzas = tuple(sealer.wrap(data_key, part) for sealer in sealers)
        if not _are_distinct(stanzas):
            raise RecipientError("recipient named twice: expected each once, and one passphrase")
        text = part + bytes([len(stanzas)])
        for suite, recipient, wrapped in stanzas:
            text += bytes([_CODES[suite]]) + recipient + len(wrapped).to_bytes(2, "big") + wrapped
        text = _PREFIX.pack(MAGIC, VERSION, len(text) + _TAG_BYTES) + text
        return cls(body, stanzas, text + _tag(data_key, part, text))

    @classmethod
    def read(cls, source: Stream) -> Self:
        """Read a header, and nothing after it.

        What it says is not to be trusted before `open` has returned. Memory is bounded by 128 KiB.

        Raises:
            NotAnEnvelopeError, UnsupportedVersionError, OversizedFieldError, TruncatedError,
            TamperedHeaderError: see these.
        """
        prefix = _read(source, _PREFIX.size)
        if prefix[: len(MAGIC)] != MAGIC[: len(prefix)] or not prefix:
            raise NotAnEnvelopeError("not encrypted by lepton: expected an envelope or its file")
        if len(prefix) < _PREFIX.size:
            raise TruncatedError(f"header of {len(prefix)} bytes: expected at least {_PREFIX.size}")
        _, version, length = _PREFIX.unpack(prefix)
        if version != VERSION:
            raise UnsupportedVersionError(
                f"version {version} of the format: expected {VERSION}; use a newer lepton-flwr"
            )
        if length > MAX_HEADER_BYTES:
            raise OversizedFieldError(
                f"header of {length} bytes: expected at most {MAX_HEADER_BYTES}"
            )
        rest = _read(source, length)
        if len(rest) < length:
            raise TruncatedError(f"header of {len(rest)} bytes: expected {length}")
        fields = _Fields(rest)
        chunk_bits, plaintext_bytes, purpose_bytes = _BODY.unpack(fields.take(_BODY.size))
        if purpose_bytes > MAX_PURPOSE_BYTES:
            raise OversizedFieldError(
                f"purpose of {purpose_bytes} bytes: expected at most {MAX_PURPOSE_BYTES}"
            )
        if purpose_bytes < 1:
            raise TamperedHeaderError("purpose of 0 bytes in the header: expected at least 1")
        try:
            body = Body(chunk_bits, plaintext_bytes, fields.take(purpose_bytes).decode())
        except UnicodeDecodeError:
            raise TamperedHeaderError("purpose in the header: expected UTF-8") from None
        body.check()
        (count,) = fields.take(1)
        if count > MAX_STANZAS:
            raise OversizedFieldError(f"{count} recipients: expected at most {MAX_STANZAS}")
        stanzas = tuple(fields.stanza() for _ in range(count))
        if not _are_distinct(stanzas):
            raise TamperedHeaderError("header names a recipient twice: expected each once")
        fields.take(_TAG_BYTES)
        fields.end()
        return cls(body, stanzas, prefix + rest)

    def open(self, key: Opener, purpose: str) -> bytes:
        """Unwrap the data key and authenticate the whole header by it.

        Returns:
            The data key, 32 bytes.

        Raises:
            PurposeError: the data is for another purpose.
            WrongKeyError, WrongPassphraseError: it was not encrypted for this key.
            TamperedHeaderError: the header is not the one that was written.
        """
        if self.body.purpose != purpose:
            raise PurposeError(f"encrypted for purpose {self.body.purpose!r}: expected {purpose!r}")
        part = self.body.encode()
        data_key = key.unwrap(self.stanzas, part)
        text, tag = self.encoded[:-_TAG_BYTES], self.encoded[-_TAG_BYTES:]
        if not hmac.compare_digest(tag, _tag(data_key, part, text)):
            raise TamperedHeaderError("tampered header: expected the one that was written")
        return data_key

    def rewrap(self, key: Opener, recipients: Iterable[Sealer]) -> Self:
        """A header with the same data key and body for other recipients."""
        data_key = self.open(key, self.body.purpose)
        return type(self).create(self.body, data_key, recipients)


class _Fields:
    """Takes a header apart."""

    def __init__(self, text: bytes) -> None:
        self._text, self._at = text, 0

    def take(self, length: int) -> bytes:
        taken = self._text[self._at : self._at + length]
        if len(taken) < length:
            raise TamperedHeaderError("malformed header: its length contradicts its fields")
        self._at += length
        return taken

    def stanza(self) -> Stanza:
        (code,) = self.take(1)
        recipient = self.take(RECIPIENT_BYTES)
        wrapped_bytes = int.from_bytes(self.take(2), "big")
        suite = _NAMES.get(code)
        if suite is None:
            raise UnsupportedVersionError(
                f"suite {code} for a recipient: expected 1 to {len(_NAMES)}; use a newer "
                f"lepton-flwr"
            )
        if wrapped_bytes != _WRAPPED_BYTES[suite]:
            raise TamperedHeaderError(
                f"wrapped key of {wrapped_bytes} bytes for {suite}: expected "
                f"{_WRAPPED_BYTES[suite]}"
            )
        return Stanza(suite, recipient, self.take(wrapped_bytes))

    def end(self) -> None:
        if self._at != len(self._text):
            raise TamperedHeaderError("malformed header: its length contradicts its fields")


def _are_distinct(stanzas: Sequence[Stanza]) -> bool:
    passphrases = sum(one.suite == ARGON2ID for one in stanzas)
    return passphrases <= 1 and len({one.recipient for one in stanzas}) == len(stanzas)


def _tag(data_key: bytes, part: bytes, text: bytes) -> bytes:
    key = derive(data_key, _TAG_KEY_LABEL, part, _TAG_BYTES)
    return hmac.digest(key, text, "sha256")


def derive(data_key: bytes, label: str, part: bytes, length: int) -> bytes:
    """HKDF-SHA256 (RFC 5869) of a data key, for one label and one body."""
    return HKDF(hashes.SHA256(), length, None, digest(label, part)).derive(data_key)


def _read(source: Stream, length: int) -> bytes:
    parts = b""
    while len(parts) < length and (part := source.read(length - len(parts))):
        parts += part
    return parts
