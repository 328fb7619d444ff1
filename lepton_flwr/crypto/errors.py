"""What can be wrong with encrypted data, its keys and its recipients."""

from lepton_flwr.crypto.files import KeyFileError
from lepton_flwr.errors import ConfigError, DataError, PrivacyError


class EnvelopeError(PrivacyError):
    """Encrypted data cannot be opened; nothing of its plaintext has been given out."""


class NotAnEnvelopeError(EnvelopeError):
    """The bytes do not begin as encrypted data of lepton do."""


class UnsupportedVersionError(EnvelopeError):
    """A later version of the format, or one that never was."""


class OversizedFieldError(EnvelopeError):
    """A length, count or cost in the header is beyond what the format allows."""


class TruncatedError(EnvelopeError):
    """The end is missing."""


class TrailingBytesError(EnvelopeError):
    """There are bytes after the end."""


class TamperedHeaderError(EnvelopeError):
    """The header is malformed, or is not the one that was written with this body."""


class TamperedChunkError(EnvelopeError):
    """A chunk is damaged, in another place than it was, or another body's."""


class PurposeError(EnvelopeError):
    """The data was encrypted for another purpose."""


class WrongKeyError(EnvelopeError):
    """The data was not encrypted for this key."""


class WrongPassphraseError(EnvelopeError):
    """The passphrase is not the one that it was encrypted with."""


class DigestError(EnvelopeError):
    """The plaintext is intact, but not the one that was expected."""


class RecipientError(ConfigError):
    """A recipient's public key is malformed, unfit, or named twice."""


class PassphraseError(KeyFileError):
    """A passphrase is missing, wrong for a key, or too short to protect anything."""


class SourceChangedError(DataError):
    """A file changed while it was being encrypted."""
