"""A passphrase that wraps a data key, by Argon2id."""

import os
import struct
import unicodedata
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from lepton_flwr.crypto.errors import (
    OversizedFieldError,
    PassphraseError,
    TamperedHeaderError,
    WrongKeyError,
    WrongPassphraseError,
)
from lepton_flwr.crypto.private_keys import MIN_PASSPHRASE
from lepton_flwr.crypto.stanza import RECIPIENT_BYTES, Stanza, context
from lepton_flwr.crypto.suites import DATA_KEY_BYTES

ARGON2ID = "argon2id"
# RFC 9106, section 4, second recommended option: 64 MiB, 3 passes, 4 lanes.
MEMORY_KIB, PASSES, LANES = 1 << 16, 3, 4
# More than these a header cannot ask of its reader.
MAX_MEMORY_KIB, MAX_PASSES, MAX_LANES = 1 << 18, 8, 8
_COSTS = struct.Struct(">IBB")
WRAPPED_BYTES = _COSTS.size + DATA_KEY_BYTES + 16
# The wrapping key is fresh with its salt and used once, so a constant nonce repeats for no key.
_NONCE = bytes(12)


class Passphrase:
    """A passphrase, in the place of a recipient or of a decryption key.

    Whoever has the ciphertext can try passphrases without limit; each try costs 64 MiB and three
    passes of Argon2id (RFC 9106). Prefer a public key where nobody has to remember anything.

    Args:
        text: at least 8 characters; NFC of Unicode, so that keyboards make no difference.

    Raises:
        PassphraseError: it is shorter.
    """

    def __init__(self, text: str) -> None:
        normal = unicodedata.normalize("NFC", text)
        if len(normal) < MIN_PASSPHRASE:
            raise PassphraseError(
                f"passphrase of {len(normal)} characters: expected at least {MIN_PASSPHRASE}"
            )
        try:
            self._secret = normal.encode()
        except UnicodeEncodeError:
            raise PassphraseError("passphrase: expected text that has a UTF-8 encoding") from None

    def __repr__(self) -> str:
        return "Passphrase(...)"

    def wrap(self, data_key: bytes, body: bytes) -> Stanza:
        """Wrap a data key under a fresh salt."""
        salt = os.urandom(RECIPIENT_BYTES)
        costs = _COSTS.pack(MEMORY_KIB, PASSES, LANES)
        sealed = self._cipher(salt, costs).encrypt(_NONCE, data_key, context(ARGON2ID, salt, body))
        return Stanza(ARGON2ID, salt, costs + sealed)

    def unwrap(self, stanzas: Sequence[Stanza], body: bytes) -> bytes:
        """Unwrap the data key of the stanza for a passphrase; a header has at most one.

        Raises:
            WrongKeyError: the data was not encrypted for a passphrase.
            WrongPassphraseError: it was for another, or this stanza was altered.
            OversizedFieldError: the header asks for more memory or passes than the format allows.
            TamperedHeaderError: its costs are impossible.
        """
        stanza = next((one for one in stanzas if one.suite == ARGON2ID), None)
        if stanza is None:
            raise WrongKeyError(
                "encrypted for no passphrase: expected the key of one of its recipients"
            )
        costs, sealed = stanza.wrapped[: _COSTS.size], stanza.wrapped[_COSTS.size :]
        try:
            return self._cipher(stanza.recipient, costs).decrypt(
                _NONCE, sealed, context(ARGON2ID, stanza.recipient, body)
            )
        except InvalidTag:
            raise WrongPassphraseError(
                "wrong passphrase, or a tampered header: type it again; it is case-sensitive"
            ) from None

    def _cipher(self, salt: bytes, costs: bytes) -> AESGCM:
        memory, passes, lanes = _COSTS.unpack(costs)
        if memory > MAX_MEMORY_KIB or passes > MAX_PASSES or lanes > MAX_LANES:
            raise OversizedFieldError(
                f"header asks for {memory} KiB, {passes} passes and {lanes} lanes of Argon2id: "
                f"expected at most {MAX_MEMORY_KIB}, {MAX_PASSES} and {MAX_LANES}"
            )
        if passes < 1 or lanes < 1 or memory < 8 * lanes:
            raise TamperedHeaderError(
                f"header asks for {memory} KiB, {passes} passes and {lanes} lanes of Argon2id: "
                f"expected at least 1 pass, 1 lane and 8 KiB for each"
            )
        kdf = Argon2id(
            salt=salt, length=DATA_KEY_BYTES, iterations=passes, lanes=lanes, memory_cost=memory
        )
        return AESGCM(kdf.derive(self._secret))
