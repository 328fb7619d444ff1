"""A recipient's entry in the header of encrypted data: the data key, wrapped for one of them."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from lepton_flwr.crypto.digest import digest

RECIPIENT_BYTES = 32
_CONTEXT_LABEL = "lepton/envelope/stanza/v1"


class Stanza(NamedTuple):
    """The data key for one recipient.

    Attributes:
        suite: how it is wrapped: a suite of public keys, or `ARGON2ID`.
        recipient: 32 bytes: fingerprint of the public key, or salt of the passphrase.
        wrapped: the wrapped key, with the costs before it for a passphrase.
    """

    suite: str
    recipient: bytes
    wrapped: bytes


class Sealer(Protocol):
    """What data can be encrypted for: a `Recipient` or a `Passphrase`."""

    def wrap(self, data_key: bytes, body: bytes) -> Stanza:
        """Wrap a data key of 32 bytes, bound to `body`, the header's part about the body."""


class Opener(Protocol):
    """What data can be decrypted with: a `DecryptionKey` or a `Passphrase`."""

    def unwrap(self, stanzas: Sequence[Stanza], body: bytes) -> bytes:
        """Find this key's stanza and unwrap the data key.

        Raises:
            EnvelopeError: there is none, or it cannot be unwrapped.
        """


def context(suite: str, recipient: bytes, body: bytes) -> bytes:
    """What a wrapped key is bound to: 32 bytes over suite, recipient and `body`."""
    return digest(_CONTEXT_LABEL, suite.encode(), recipient, body)
