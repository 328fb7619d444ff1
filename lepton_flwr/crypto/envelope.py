"""Encrypted bytes in memory, in the format of encrypted files."""

import io
import os
from collections.abc import Iterable

from lepton_flwr.crypto import body as bodies
from lepton_flwr.crypto.header import Body, Header
from lepton_flwr.crypto.stanza import Opener, Sealer
from lepton_flwr.crypto.suites import DATA_KEY_BYTES


def seal(plaintext: bytes, recipients: Iterable[Sealer], *, purpose: str) -> bytes:
    """Encrypt bytes for recipients, each of which can open the result alone.

    Args:
        plaintext: what to encrypt; its length will be visible.
        recipients: 1 to 64 of `Recipient`, at most one of them a `Passphrase`.
        purpose: what the bytes are, 1 to 64 bytes in UTF-8, as "lepton/model/v1"; visible. They
            open for this purpose only.

    Returns:
        The envelope.

    Raises:
        RecipientError: no recipients, too many, or one twice.
        ConfigError: the purpose is empty or too long.

    Guarantee: who has none of the recipients' keys learns no more than the length, the purpose and
    the recipients' fingerprints, and changes nothing unnoticed: AES-256-GCM under a fresh key. It
    does not say who encrypted it: anybody can who has a recipient's public key.
    """
    data_key = os.urandom(DATA_KEY_BYTES)
    body = Body(bodies.CHUNK_BITS, len(plaintext), purpose)
    target = io.BytesIO()
    target.write(Header.create(body, data_key, recipients).encoded)
    bodies.encrypt(io.BytesIO(plaintext), target, body, data_key, _ignore)
    return target.getvalue()


def unseal(envelope: bytes, key: Opener, *, purpose: str) -> bytes:
    """Decrypt an envelope.

    Args:
        envelope: what `seal` or `rewrap` returned.
        key: a `DecryptionKey` or a `Passphrase` of one of its recipients.
        purpose: the purpose that it was sealed for.

    Returns:
        The plaintext, all of it verified.

    Raises:
        EnvelopeError: the subclass says why; see `lepton_flwr.crypto.errors`.
    """
    source, target = io.BytesIO(envelope), io.BytesIO()
    header = Header.read(source)
    bodies.check_length(header.body, len(envelope) - source.tell())
    bodies.decrypt(source, target, header.body, header.open(key, purpose), _ignore)
    return target.getvalue()


def rewrap(envelope: bytes, key: Opener, recipients: Iterable[Sealer]) -> bytes:
    """Encrypt an envelope's data key for other recipients, in place of those that it has.

    The encrypted body stays as it is, byte for byte. A former recipient cannot open the result by
    its key, but can by a copy of the former envelope or of its data key.

    Args:
        envelope: what `seal` or `rewrap` returned.
        key: a `DecryptionKey` or a `Passphrase` of one of its recipients.
        recipients: all that shall be able to open it from now on.

    Raises:
        EnvelopeError: it cannot be opened.
        RecipientError: no recipients, too many, or one twice.
    """
    source = io.BytesIO(envelope)
    header = Header.read(source)
    bodies.check_length(header.body, len(envelope) - source.tell())
    return header.rewrap(key, recipients).encoded + envelope[source.tell() :]


def _ignore(_chunk: memoryview) -> None:
    pass
