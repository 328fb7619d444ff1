"""What the protocol needs of identities and rosters, whoever provides them."""

from typing import Protocol


class Signer(Protocol):
    """A client's long-term key."""

    @property
    def certificate(self) -> bytes:
        """Device certificate (DER) or public key."""

    @property
    def public_key(self) -> bytes:
        """32 bytes, the client's name among the members."""

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes."""


class Members(Protocol):
    """This client's own list of who may take part; never the server's."""

    def verify(self, credential: bytes, message: bytes, signature: bytes) -> bytes:
        """The member's 32-byte public key, or raise a `PrivacyError`."""
