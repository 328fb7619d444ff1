"""The public-key suites that wrap a data key of 32 bytes.

`x25519` and `x25519-mlkem768` are HPKE in base mode (RFC 9180) with HKDF-SHA256 and AES-256-GCM,
over DHKEM(X25519, HKDF-SHA256) and over the hybrid of ML-KEM-768 (FIPS 203) and X25519 known as
X-Wing (draft-connolly-cfrg-xwing-kem): it holds as long as one of the two does. `rsa-3072` is
RSA-OAEP with SHA-256 (RFC 8017, 7.1), for those who must.
"""

from typing import Any, Protocol

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

DATA_KEY_BYTES = 32
_TAG_BYTES = 16
_X25519_BYTES = 32
_MLKEM_SEED_BYTES = 64
_RSA_BITS = 3072
_RSA_EXPONENT = 65537


class KeySuite(Protocol):
    """One way to wrap a data key for the holder of a private key.

    Keys are bytes: raw for HPKE (ML-KEM's before X25519's), DER for RSA (SubjectPublicKeyInfo and
    PKCS #8). All methods raise ValueError for bytes that are no key of the suite.

    Attributes:
        wrapped_bytes: length of a wrapped data key.
    """

    wrapped_bytes: int

    def generate(self) -> bytes:
        """A fresh private key."""

    def public(self, private: bytes) -> bytes:
        """The public key of a private key."""

    def wrap(self, public: bytes, data_key: bytes, context: bytes) -> bytes:
        """Encrypt a data key, bound to `context`."""

    def unwrap(self, private: bytes, wrapped: bytes, context: bytes) -> bytes | None:
        """Decrypt a data key; None if it was not wrapped for this key in this context."""


class _Hpke:
    """HPKE in base mode; `context` is its `info`."""

    def __init__(self, kem: KEM) -> None:
        self._suite = Suite(kem, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
        self.wrapped_bytes = kem.enc_length() + DATA_KEY_BYTES + _TAG_BYTES

    def generate(self) -> bytes:
        raise NotImplementedError

    def public(self, private: bytes) -> bytes:
        raise NotImplementedError

    def wrap(self, public: bytes, data_key: bytes, context: bytes) -> bytes:
        return self._suite.encrypt(data_key, self._public_key(public), context)

    def unwrap(self, private: bytes, wrapped: bytes, context: bytes) -> bytes | None:
        try:
            return self._suite.decrypt(wrapped, self._private_key(private), context)
        except InvalidTag:
            return None

    def _public_key(self, public: bytes) -> Any:
        raise NotImplementedError

    def _private_key(self, private: bytes) -> Any:
        raise NotImplementedError


class _X25519(_Hpke):
    def __init__(self) -> None:
        super().__init__(KEM.X25519)

    def generate(self) -> bytes:
        return X25519PrivateKey.generate().private_bytes_raw()

    def public(self, private: bytes) -> bytes:
        return self._private_key(private).public_key().public_bytes_raw()

    def _public_key(self, public: bytes) -> X25519PublicKey:
        return X25519PublicKey.from_public_bytes(public)

    def _private_key(self, private: bytes) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(private)


class _Hybrid(_Hpke):
    def __init__(self) -> None:
        super().__init__(KEM.MLKEM768_X25519)

    def generate(self) -> bytes:
        seed = MLKEM768PrivateKey.generate().private_bytes_raw()
        return seed + X25519PrivateKey.generate().private_bytes_raw()

    def public(self, private: bytes) -> bytes:
        mlkem, x25519 = self._halves(private)
        return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    def _public_key(self, public: bytes) -> MLKEM768X25519PublicKey:
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:-_X25519_BYTES]),
            X25519PublicKey.from_public_bytes(public[-_X25519_BYTES:]),
        )

    def _private_key(self, private: bytes) -> MLKEM768X25519PrivateKey:
        return MLKEM768X25519PrivateKey(*self._halves(private))

    def _halves(self, private: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
        return (
            MLKEM768PrivateKey.from_seed_bytes(private[:_MLKEM_SEED_BYTES]),
            X25519PrivateKey.from_private_bytes(private[_MLKEM_SEED_BYTES:]),
        )


class _Rsa:
    """RSA-OAEP with SHA-256; `context` is its label."""

    wrapped_bytes = _RSA_BITS // 8

    def generate(self) -> bytes:
        key = rsa.generate_private_key(_RSA_EXPONENT, _RSA_BITS)
        return key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def public(self, private: bytes) -> bytes:
        return (
            self._private_key(private)
            .public_key()
            .public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    def wrap(self, public: bytes, data_key: bytes, context: bytes) -> bytes:
        try:
            key = serialization.load_der_public_key(public)
        except UnsupportedAlgorithm:
            raise ValueError("unsupported key") from None
        if (
            not isinstance(key, rsa.RSAPublicKey)
            or key.key_size != _RSA_BITS
            or key.public_numbers().e != _RSA_EXPONENT
        ):
            raise ValueError(f"expected an RSA key of {_RSA_BITS} bits, exponent {_RSA_EXPONENT}")
        return key.encrypt(data_key, _oaep(context))

    def unwrap(self, private: bytes, wrapped: bytes, context: bytes) -> bytes | None:
        key = self._private_key(private)
        try:
            return key.decrypt(wrapped, _oaep(context))
        except ValueError:
            return None

    def _private_key(self, private: bytes) -> rsa.RSAPrivateKey:
        try:
            key = serialization.load_der_private_key(private, password=None)
        except (TypeError, UnsupportedAlgorithm):
            raise ValueError("unsupported key") from None
        if not isinstance(key, rsa.RSAPrivateKey) or key.key_size != _RSA_BITS:
            raise ValueError(f"expected an RSA key of {_RSA_BITS} bits")
        return key


def _oaep(label: bytes) -> padding.OAEP:
    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label)


KEY_SUITES: dict[str, KeySuite] = {
    "x25519": _X25519(),
    "x25519-mlkem768": _Hybrid(),
    "rsa-3072": _Rsa(),
}
