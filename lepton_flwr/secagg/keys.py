"""Session keys: X25519 pairs and what is derived from them, one key for each purpose."""

from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lepton_flwr.crypto.digest import field
from lepton_flwr.secagg.errors import KeyRecordError

KEY_BYTES = 32
CHANNEL_LABEL = "lepton/secagg/channel/v1"
PAIR_LABEL = "lepton/secagg/pairwise-mask/v1"
SELF_LABEL = "lepton/secagg/self-mask/v1"


def public_key(secret: bytes) -> bytes:
    """The 32-byte X25519 public key of a 32-byte secret key."""
    return private_key(secret).public_key().public_bytes_raw()


def private_key(secret: bytes) -> X25519PrivateKey:
    """The X25519 key of 32 secret bytes, to agree with many others at the cost of one set-up."""
    return X25519PrivateKey.from_private_bytes(secret)


@dataclass(frozen=True)
class Channel:
    """What one client needs to talk to another, past the server: 32 bytes each.

    Attributes:
        seal: AES-256-GCM key of the shares to the other; used once.
        open: the same of the shares from the other.
        vouch: HMAC-SHA256 key of what is said to the other of participants and survivors; used once
            for each.
        check: the same of what the other says.
    """

    seal: bytes
    open: bytes
    vouch: bytes
    check: bytes


def channel(secret: X25519PrivateKey, public: bytes, sid: bytes, own: int, other: int) -> Channel:
    """The keys of the pair, as client `own` uses them; each has one direction and one purpose."""
    low, high = min(own, other), max(own, other)
    block = _derive(_agree(secret, public), CHANNEL_LABEL, sid, low, high, length=4 * KEY_BYTES)
    up_seal, down_seal, up_vouch, down_vouch = (
        block[start : start + KEY_BYTES] for start in range(0, len(block), KEY_BYTES)
    )
    if own == low:
        return Channel(up_seal, down_seal, up_vouch, down_vouch)
    return Channel(down_seal, up_seal, down_vouch, up_vouch)


def pair_key(secret: X25519PrivateKey, public: bytes, sid: bytes, i: int, j: int) -> bytes:
    """The mask key of the pair {i, j}: the same at both ends."""
    return _derive(_agree(secret, public), PAIR_LABEL, sid, min(i, j), max(i, j))


def self_key(seed: bytes, sid: bytes, i: int) -> bytes:
    """The mask key of client i's own seed."""
    return _derive(seed, SELF_LABEL, sid, i, i)


def _agree(secret: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return secret.exchange(X25519PublicKey.from_public_bytes(public))
    except (ValueError, UnsupportedAlgorithm):
        # A point of small order would give a shared secret that the network knows.
        raise KeyRecordError("a public key is not a usable X25519 key") from None


def _derive(
    secret: bytes, label: str, sid: bytes, first: int, second: int, *, length: int = KEY_BYTES
) -> bytes:
    info = label.encode() + sid + field(first) + field(second)
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=sid, info=info).derive(secret)
