"""Which code runs here: its digest, and who signed it."""

import functools
from pathlib import Path

from lepton_flwr.crypto.digest import digest, field
from lepton_flwr.crypto.identity import SignatureError, verify

PACKAGES = ("clients", "lepton_flwr", "strategies")  # what the app bundle holds
SIGNATURE_FILE = "app.sig"
_DIGEST = "lepton/code/digest/v1"
_SIGNATURE = "lepton/code/signature/v1"


@functools.cache
def code_digest() -> bytes:
    """SHA-256 over the paths and contents of the app's Python files, 32 bytes.

    The same for a checkout, an installed wheel and an unpacked app bundle.
    """
    root = Path(__file__).resolve().parent.parent
    files = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    parts = [
        part
        for path in files
        for part in (field(path.relative_to(root).as_posix()), path.read_bytes())
    ]
    return digest(_DIGEST, *parts)


def signed_message(code: bytes) -> bytes:
    """What a signer of code signs with its Ed25519 key."""
    return digest(_SIGNATURE, code)


def is_signed(code: bytes, signature: bytes, public_key: bytes) -> bool:
    """Whether the signature is that key's, over this code."""
    try:
        verify(public_key, signed_message(code), signature)
    except SignatureError:
        return False
    return True
