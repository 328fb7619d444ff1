"""Private keys in files: PKCS #8 PEM, mode 0600, behind a passphrase if wanted.

A protected key is PKCS #8 with PBES2 (RFC 8018), scrypt (RFC 7914) and AES-256-CBC: a form that
`openssl pkey` and `cryptography` read. They write PBKDF2 with 2,048 iterations only, which costs
who guesses passphrases next to nothing; hence the encoding here.
"""

import base64
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import padding, serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from lepton_flwr._files import write_atomic
from lepton_flwr.crypto.errors import PassphraseError
from lepton_flwr.crypto.files import KeyFileError, read_private

ENVIRONMENT_VARIABLE = "LEPTON_PASSPHRASE"
MIN_PASSPHRASE = 8
# OWASP's choice for 16 MiB; OpenSSL refuses more memory than 32 MiB.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 14, 8, 5
_KEY_BYTES = 32
_SALT_BYTES = 16
_BLOCK_BYTES = 16
_PROTECTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
# DER of the object identifiers pbes2, scrypt and aes256-CBC.
_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")


def private_pem(key: PrivateKeyTypes, passphrase: str | None = None) -> bytes:
    """The key as PKCS #8 PEM, behind the passphrase unless that is None.

    Raises:
        PassphraseError: the passphrase has fewer than 8 characters.
    """
    encoding = serialization.Encoding.PEM if passphrase is None else serialization.Encoding.DER
    plain = key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return plain if passphrase is None else _protect(plain, passphrase)


def load_private_pem(path: Path, passphrase: str | None = None) -> PrivateKeyTypes:
    """Read a PKCS #8 key that only its owner can open.

    Args:
        path: the file.
        passphrase: what a protected key is behind; None takes `LEPTON_PASSPHRASE` from the
            environment. It is not looked at for a key without protection.

    Raises:
        PassphraseError: the key is protected and the passphrase is missing or wrong.
        KeyFileError: it cannot be read, is open to other users, or is no PKCS #8 key.
    """
    pem = read_private(path)
    secret = None
    if pem.startswith(_PROTECTED):
        passphrase = passphrase or os.environ.get(ENVIRONMENT_VARIABLE)
        if not passphrase:
            raise PassphraseError(
                f"{path.name} is behind a passphrase: expected it in {ENVIRONMENT_VARIABLE}"
            )
        secret = passphrase.encode()
    try:
        return serialization.load_pem_private_key(pem, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if secret is not None:
            raise PassphraseError(
                f"{path.name}: wrong passphrase, or the file is damaged"
            ) from None
        raise KeyFileError(f"{path.name}: expected a private key in PKCS #8 PEM") from None


def is_protected(path: Path) -> bool:
    """Whether the key in the file is behind a passphrase.

    Raises:
        KeyFileError: it cannot be read or is open to other users.
    """
    return read_private(path).startswith(_PROTECTED)


def protect(path: Path, old: str | None, new: str | None) -> None:
    """Put the key in a file behind another passphrase, or behind none, in one step.

    Args:
        path: the file.
        old: its passphrase now, as in `load_private_pem`.
        new: its passphrase from now on; None takes the protection off.

    Raises:
        PassphraseError: `old` is wrong or `new` has fewer than 8 characters; nothing is changed.
        KeyFileError: as in `load_private_pem`.
        OutputError: it cannot be written; the former file is intact.
    """
    write_atomic(path, private_pem(load_private_pem(path, old), new), mode=0o600)


def _protect(der: bytes, passphrase: str) -> bytes:
    if len(passphrase) < MIN_PASSPHRASE:
        raise PassphraseError(
            f"passphrase of {len(passphrase)} characters: expected at least {MIN_PASSPHRASE}"
        )
    salt, iv = os.urandom(_SALT_BYTES), os.urandom(_BLOCK_BYTES)
    derived = Scrypt(salt=salt, length=_KEY_BYTES, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P)
    key = derived.derive(passphrase.encode())
    padder = padding.PKCS7(8 * _BLOCK_BYTES).padder()
    padded = padder.update(der) + padder.finalize()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    sealed = encryptor.update(padded) + encryptor.finalize()
    cost = b"".join(_integer(number) for number in (SCRYPT_N, SCRYPT_R, SCRYPT_P))
    derivation = _sequence(_SCRYPT, _sequence(_octets(salt), cost))
    cipher = _sequence(_AES_256_CBC, _octets(iv))
    algorithm = _sequence(_PBES2, _sequence(derivation, cipher))
    return _pem(_sequence(algorithm, _octets(sealed)))


def _pem(der: bytes) -> bytes:
    text = base64.b64encode(der)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return b"\n".join([_PROTECTED, *lines, _PROTECTED.replace(b"BEGIN", b"END"), b""])


def _sequence(*parts: bytes) -> bytes:
    return _tagged(0x30, b"".join(parts))


def _octets(value: bytes) -> bytes:
    return _tagged(0x04, value)


def _integer(value: int) -> bytes:
    return _tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _tagged(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + content
