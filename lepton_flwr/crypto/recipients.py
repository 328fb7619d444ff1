"""For whom data is encrypted: public keys, and the private keys that open it."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from lepton_flwr._files import write_atomic
from lepton_flwr._validate import choice
from lepton_flwr.crypto.digest import digest
from lepton_flwr.crypto.envelope import seal, unseal
from lepton_flwr.crypto.errors import RecipientError, TamperedHeaderError, WrongKeyError
from lepton_flwr.crypto.files import KeyFileError, read_private, write_private
from lepton_flwr.crypto.header import MAGIC
from lepton_flwr.crypto.passphrase import Passphrase
from lepton_flwr.crypto.stanza import Stanza, context
from lepton_flwr.crypto.suites import KEY_SUITES

SUITES = tuple(KEY_SUITES)
_PUBLIC_WORD = "lepton-recipient"
_PRIVATE_WORD = "lepton-decryption-key"
_KEY_PURPOSE = "lepton/decryption-key/v1"
_FINGERPRINT_LABEL = "lepton/recipient/v1"


@dataclass(frozen=True)
class Recipient:
    """A public key that data can be encrypted for.

    Args:
        suite: one of `SUITES`.
        public: raw bytes (ML-KEM's before X25519's), or DER for RSA.

    Raises:
        ConfigError: the suite is none of them.
        RecipientError: the bytes are no public key of the suite, or an unsafe one.
    """

    suite: str
    public: bytes

    def __post_init__(self) -> None:
        choice("suite", self.suite, SUITES)
        try:
            KEY_SUITES[self.suite].wrap(self.public, b"", b"")
        except ValueError:
            raise RecipientError(
                f"public key of {len(self.public)} bytes: expected one of suite {self.suite}"
            ) from None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over suite and key, 64 hexadecimal digits: what people compare."""
        return self._digest().hex()

    def to_text(self) -> str:
        """One line: a word, the suite, the key in base64, the fingerprint."""
        key = base64.b64encode(self.public).decode()
        return f"{_PUBLIC_WORD} {self.suite} {key} {self.fingerprint}\n"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what `to_text` wrote.

        Raises:
            RecipientError: it is malformed, or the fingerprint is another key's.
        """
        words = text.split()
        if len(words) != 4 or words[0] != _PUBLIC_WORD or words[1] not in SUITES:
            raise RecipientError(
                f"recipient: expected one line {_PUBLIC_WORD!r}, suite, key and fingerprint"
            )
        _, suite, key, fingerprint = words
        recipient = cls(suite, _from_base64(key))
        if recipient.fingerprint != fingerprint:
            raise RecipientError("recipient: expected the key's own fingerprint; copy it again")
        return recipient

    def save(self, path: Path) -> None:
        """Write `to_text` to a file, in place of what is there.

        Raises:
            OutputError: it cannot be written.
        """
        write_atomic(path, self.to_text().encode())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            RecipientError: it cannot be read or is malformed.
        """
        try:
            text = path.read_text(encoding="ascii")
        except OSError as error:
            raise RecipientError(f"{path.name}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise RecipientError(f"{path.name}: expected the text of a recipient") from None
        return cls.from_text(text)

    def wrap(self, data_key: bytes, body: bytes) -> Stanza:
        """Wrap a data key for this recipient; `seal` and `encrypt_file` call it."""
        name = self._digest()
        bound = context(self.suite, name, body)
        return Stanza(self.suite, name, KEY_SUITES[self.suite].wrap(self.public, data_key, bound))

    def _digest(self) -> bytes:
        return digest(_FINGERPRINT_LABEL, self.suite.encode(), self.public)


@dataclass(frozen=True)
class DecryptionKey:
    """A private key, which opens what was encrypted for its recipient.

    Args:
        suite: one of `SUITES`.
        private: raw bytes (ML-KEM's seed before X25519's key), or PKCS #8 in DER for RSA.

    Raises:
        ConfigError: the suite is none of them.
        KeyFileError: the bytes are no private key of the suite.
    """

    suite: str
    private: bytes = field(repr=False)
    recipient: Recipient = field(init=False)

    def __post_init__(self) -> None:
        choice("suite", self.suite, SUITES)
        try:
            public = KEY_SUITES[self.suite].public(self.private)
        except ValueError:
            raise KeyFileError(
                f"private key of {len(self.private)} bytes: expected one of suite {self.suite}"
            ) from None
        object.__setattr__(self, "recipient", Recipient(self.suite, public))

    @classmethod
    def generate(cls, suite: str = "x25519") -> Self:
        """A fresh key.

        Raises:
            ConfigError: the suite is none of `SUITES`.
        """
        return cls(suite, KEY_SUITES[choice("suite", suite, SUITES)].generate())

    def save(self, path: Path, passphrase: str | None = None) -> None:
        """Write the key to a new file, mode 0600.

        Args:
            path: the file.
            passphrase: what encrypts it (see `Passphrase`); None leaves it readable for its owner.

        Raises:
            KeyFileError: the file exists or cannot be created.
            PassphraseError: the passphrase is too short.
        """
        key = base64.b64encode(self.private).decode()
        content = f"{_PRIVATE_WORD} {self.suite} {key}\n".encode()
        if passphrase is not None:
            content = seal(content, [Passphrase(passphrase)], purpose=_KEY_PURPOSE)
        write_private(path, content)

    @staticmethod
    def needs_passphrase(path: Path) -> bool:
        """Whether the key in a file is encrypted.

        Raises:
            KeyFileError: the file is missing or open to other users.
        """
        return read_private(path).startswith(MAGIC)

    @classmethod
    def load(cls, path: Path, passphrase: str | None = None) -> Self:
        """Read what `save` wrote; the passphrase is used only if the file is encrypted.

        Raises:
            KeyFileError: the file is missing, malformed, open to other users, or needs a
                passphrase.
            WrongPassphraseError: the passphrase is another.
            EnvelopeError: the encrypted file is damaged.
        """
        content = read_private(path)
        if content.startswith(MAGIC):
            if passphrase is None:
                raise KeyFileError(f"{path.name}: expected its passphrase, which encrypts it")
            content = unseal(content, Passphrase(passphrase), purpose=_KEY_PURPOSE)
        try:
            word, suite, key = content.decode("ascii").split()
            private = _from_base64(key)
        except (ValueError, RecipientError):
            word, suite, private = "", "", b""
        if word != _PRIVATE_WORD or suite not in SUITES:
            raise KeyFileError(
                f"{path.name}: expected a decryption key, as `lepton encryption-key new` makes it"
            )
        return cls(suite, private)

    def unwrap(self, stanzas: Sequence[Stanza], body: bytes) -> bytes:
        """Unwrap the data key of this key's stanza; `unseal` and `decrypt_file` call it.

        Raises:
            WrongKeyError: none is for this key.
            TamperedHeaderError: it was altered.
        """
        recipient = bytes.fromhex(self.recipient.fingerprint)
        for stanza in stanzas:
            if (stanza.suite, stanza.recipient) == (self.suite, recipient):
                break
        else:
            raise WrongKeyError(
                f"not encrypted for key {self.recipient.fingerprint[:16]}: expected the key of one "
                f"whom it names (`lepton inspect` lists them)"
            )
        bound = context(self.suite, recipient, body)
        data_key = KEY_SUITES[self.suite].unwrap(self.private, stanza.wrapped, bound)
        if data_key is None:
            raise TamperedHeaderError(
                "tampered header: the data key for this recipient cannot be unwrapped"
            )
        return data_key


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RecipientError("key: expected base64") from None
