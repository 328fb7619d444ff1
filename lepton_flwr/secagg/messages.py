"""The messages of the five exchanges, and their flat form: names to text, numbers and bytes.

Flat values are those that any transport carries (Flower's ConfigRecord among them). Reading is
strict: a missing, unknown, wrongly typed or wrongly sized field is a `MessageError`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar, cast

from lepton_flwr.crypto.digest import DIGEST_BYTES, digest
from lepton_flwr.crypto.stream import StreamCipher
from lepton_flwr.errors import LeptonError
from lepton_flwr.secagg.encoding import Kind, Layout, Segment
from lepton_flwr.secagg.errors import MessageError
from lepton_flwr.secagg.graph import MAX_CLIENTS, MAX_HOLDERS
from lepton_flwr.secagg.keys import KEY_BYTES
from lepton_flwr.secagg.parameters import SessionConfig
from lepton_flwr.secagg.shamir import SHARE_BYTES
from lepton_flwr.secagg.transcript import TAG_BYTES

Value = int | float | str | bytes | list[int] | list[float] | list[str] | list[bytes]
Fields = dict[str, Value]
T = TypeVar("T", int, float, str, bytes)

NONCE_BYTES = 32
SIGNATURE_BYTES = 64
# A tag or a signature.
PROOF_BYTES = (TAG_BYTES, SIGNATURE_BYTES)
MAX_CREDENTIAL_BYTES = 4096
MAX_BITMAP_BYTES = (MAX_CLIENTS + 7) // 8
MAX_SEGMENTS = 64
MAX_TEXT = 128
# AES-GCM: nonce, two shares of 33 bytes, tag.
CIPHERTEXT_BYTES = 12 + 2 * SHARE_BYTES + 16
RECORD_LABEL = "lepton/secagg/key-record/v1"


class Reader:
    """Takes fields out of an untrusted message, once each."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._left = dict(fields)

    def one(self, name: str, kind: type[T], length: tuple[int, int] | int | None = None) -> T:
        """A single value; `length` bounds text and bytes."""
        value = self._take(name)
        self._check(name, value, kind, length)
        return cast(T, value)

    def many(
        self, name: str, kind: type[T], most: int, length: tuple[int, int] | int | None = None
    ) -> list[T]:
        """A list of at most `most` values."""
        values = self._take(name)
        if not isinstance(values, list) or len(values) > most:
            raise MessageError(f"{name}: expected a list of at most {most} values")
        for value in values:
            self._check(name, value, kind, length)
        return cast(list[T], values)

    def end(self) -> None:
        """Nothing may be left."""
        if self._left:
            raise MessageError(f"{len(self._left)} unknown fields: expected none")

    def _take(self, name: str) -> object:
        if name not in self._left:
            raise MessageError(f"{name} is missing")
        return self._left.pop(name)

    @staticmethod
    def _check(name: str, value: object, kind: type, length: tuple[int, int] | int | None) -> None:
        if type(value) is not kind:
            raise MessageError(f"{name}: {type(value).__name__}, expected {kind.__name__}")
        if length is not None:
            low, high = length if isinstance(length, tuple) else (length, length)
            size = len(cast(bytes, value))
            if not low <= size <= high:
                raise MessageError(f"{name}: length {size}, expected {low} to {high}")


@dataclass(frozen=True)
class KeyRequest:
    """E0, server to client: what the session is, and the digest of what it will work on."""

    config: SessionConfig
    content_hash: bytes

    def to_fields(self) -> Fields:
        """Flat form."""
        layout = self.config.layout
        return {
            "run-id": self.config.run_id,
            "number": self.config.number,
            "purpose": self.config.purpose,
            "min-survivors": self.config.min_survivors,
            "l2-norm-clip": float(self.config.l2_norm_clip),
            "cipher": str(self.config.cipher),
            "num-clients": layout.num_clients,
            "max-weight": layout.max_weight,
            "names": [part.name for part in layout.segments],
            "kinds": [str(part.kind) for part in layout.segments],
            "sizes": [part.size for part in layout.segments],
            "bounds": [float(part.bound) for part in layout.segments],
            "content-hash": self.content_hash,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> "KeyRequest":
        """Read and check the flat form."""
        read = Reader(fields)
        names = read.many("names", str, MAX_SEGMENTS, (1, MAX_TEXT))
        kinds = read.many("kinds", str, MAX_SEGMENTS, (1, MAX_TEXT))
        sizes = read.many("sizes", int, MAX_SEGMENTS)
        bounds = read.many("bounds", float, MAX_SEGMENTS)
        if not 1 <= len(names) == len(kinds) == len(sizes) == len(bounds):
            raise MessageError("names, kinds, sizes, bounds: expected lists of one length >= 1")
        content_hash = read.one("content-hash", bytes, DIGEST_BYTES)
        if not set(kinds) <= set(Kind):
            raise MessageError(f"kinds: expected {', '.join(Kind)}")
        cipher = read.one("cipher", str, (1, MAX_TEXT))
        if cipher not in set(StreamCipher):
            raise MessageError(f"cipher: expected {', '.join(StreamCipher)}")
        try:
            layout = Layout(
                segments=tuple(
                    Segment(name, Kind(kind), size, bound)
                    for name, kind, size, bound in zip(names, kinds, sizes, bounds, strict=True)
                ),
                num_clients=read.one("num-clients", int),
                max_weight=read.one("max-weight", int),
            )
        except MessageError:
            raise
        except LeptonError as error:
            raise MessageError(f"layout: {error}") from None
        config = SessionConfig(
            run_id=read.one("run-id", str, (1, MAX_TEXT)),
            number=read.one("number", int),
            purpose=read.one("purpose", str, (1, MAX_TEXT)),
            layout=layout,
            min_survivors=read.one("min-survivors", int),
            l2_norm_clip=read.one("l2-norm-clip", float),
            cipher=StreamCipher(cipher),
        )
        read.end()
        return cls(config, content_hash)


@dataclass(frozen=True)
class KeyRecord:
    """E0, client to server: its session keys, signed by its long-term key.

    Attributes:
        credential: device certificate (DER) or 32-byte public key.
        share_public: X25519 key that encrypts shares to this client.
        mask_public: X25519 key of the pairwise masks.
        nonce: 32 random bytes.
        signature: Ed25519 over `transcript.keys_digest`.
    """

    credential: bytes
    share_public: bytes
    mask_public: bytes
    nonce: bytes
    signature: bytes

    def to_fields(self) -> Fields:
        """Flat form."""
        return {
            "credential": self.credential,
            "share-public": self.share_public,
            "mask-public": self.mask_public,
            "nonce": self.nonce,
            "signature": self.signature,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> "KeyRecord":
        """Read and check the flat form."""
        read = Reader(fields)
        record = cls(
            credential=read.one("credential", bytes, (KEY_BYTES, MAX_CREDENTIAL_BYTES)),
            share_public=read.one("share-public", bytes, KEY_BYTES),
            mask_public=read.one("mask-public", bytes, KEY_BYTES),
            nonce=read.one("nonce", bytes, NONCE_BYTES),
            signature=read.one("signature", bytes, SIGNATURE_BYTES),
        )
        read.end()
        return record

    def digest(self) -> bytes:
        """32 bytes that determine the record."""
        return digest(
            RECORD_LABEL,
            self.credential,
            self.share_public,
            self.mask_public,
            self.nonce,
            self.signature,
        )


@dataclass(frozen=True)
class KeyRoster:
    """E1, server to one client: who takes part, and the signed keys of its neighbours.

    Attributes:
        members: the long-term public keys of all, ascending: 32 bytes each, one after the other.
        digests: the digests of their key records, in the same order.
        records: the neighbours' records, in the same order.
    """

    members: bytes
    digests: bytes
    records: tuple[KeyRecord, ...]

    def to_fields(self) -> Fields:
        """Flat form: records as columns."""
        return {
            "members": self.members,
            "digests": self.digests,
            "credentials": [r.credential for r in self.records],
            "share-publics": [r.share_public for r in self.records],
            "mask-publics": [r.mask_public for r in self.records],
            "nonces": [r.nonce for r in self.records],
            "signatures": [r.signature for r in self.records],
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> "KeyRoster":
        """Read and check the flat form."""
        read = Reader(fields)
        members = read.one("members", bytes, (KEY_BYTES, KEY_BYTES * MAX_CLIENTS))
        digests = read.one("digests", bytes, len(members))
        if len(members) % KEY_BYTES:
            raise MessageError(f"members: length {len(members)}, expected a multiple of 32")
        columns = (
            read.many("credentials", bytes, MAX_HOLDERS, (KEY_BYTES, MAX_CREDENTIAL_BYTES)),
            read.many("share-publics", bytes, MAX_HOLDERS, KEY_BYTES),
            read.many("mask-publics", bytes, MAX_HOLDERS, KEY_BYTES),
            read.many("nonces", bytes, MAX_HOLDERS, NONCE_BYTES),
            read.many("signatures", bytes, MAX_HOLDERS, SIGNATURE_BYTES),
        )
        read.end()
        if len({len(column) for column in columns}) != 1:
            raise MessageError("key records: expected columns of one length")
        return cls(members, digests, tuple(KeyRecord(*row) for row in zip(*columns, strict=True)))


@dataclass(frozen=True)
class ShareBundle:
    """E1, client to server: for each neighbour, in index order, its encrypted shares."""

    ciphertexts: tuple[bytes, ...]

    def to_fields(self) -> Fields:
        """Flat form."""
        return {"ciphertexts": list(self.ciphertexts)}

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> "ShareBundle":
        """Read and check the flat form."""
        read = Reader(fields)
        bundle = cls(tuple(read.many("ciphertexts", bytes, MAX_HOLDERS, CIPHERTEXT_BYTES)))
        read.end()
        return bundle


@dataclass(frozen=True)
class WorkRequest:
    """E2, server to client: who is left, and the neighbours' shares for it, in index order.

    What to work on travels beside it.
    """

    participants: bytes
    ciphertexts: tuple[bytes, ...]

    def to_fields(self) -> Fields:
        """Flat form."""
        return {"participants": self.participants, "ciphertexts": list(self.ciphertexts)}

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> "WorkRequest":
        """Read and check the flat form."""
        read = Reader(fields)
        request = cls(
            read.one("participants", bytes, (1, MAX_BITMAP_BYTES)),
            tuple(read.many("ciphertexts", bytes, MAX_HOLDERS, CIPHERTEXT_BYTES)),
        )
        read.end()
        return request


@dataclass(frozen=True)
class Participation:
    """E2, client to server, beside the masked vector.

    For each neighbour that takes part, in index order, a tag on the list of participants.
    """

    tags: tuple[bytes, ...]

    def to_fields(self) -> Fields:
        """Flat form."""
        return {"tags": list(self.tags)}

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> "Participation":
        """Read and check the flat form."""
        read = Reader(fields)
        participation = cls(tuple(read.many("tags", bytes, MAX_HOLDERS, TAG_BYTES)))
        read.end()
        return participation


@dataclass(frozen=True)
class SurvivorRequest:
    """E3, server to client: whose masked vectors arrived.

    With the surviving neighbours' tags to it on the list of participants, in index order.
    """

    survivors: bytes
    tags: tuple[bytes, ...]

    def to_fields(self) -> Fields:
        """Flat form."""
        return {"survivors": self.survivors, "tags": list(self.tags)}

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> "SurvivorRequest":
        """Read and check the flat form."""
        read = Reader(fields)
        request = cls(
            read.one("survivors", bytes, (1, MAX_BITMAP_BYTES)),
            tuple(read.many("tags", bytes, MAX_HOLDERS, TAG_BYTES)),
        )
        read.end()
        return request


@dataclass(frozen=True)
class Attestation:
    """E3, client to server: its word on the lists.

    On the complete graph a tag for each surviving neighbour, in index order, one after the other;
    on a ring the signature of a member of the committee, and nothing of anybody else.
    """

    proof: bytes

    def to_fields(self) -> Fields:
        """Flat form."""
        return {"proof": self.proof}

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> "Attestation":
        """Read and check the flat form."""
        read = Reader(fields)
        attestation = cls(read.one("proof", bytes, (0, MAX_HOLDERS * TAG_BYTES)))
        read.end()
        return attestation


@dataclass(frozen=True)
class RevealRequest:
    """E4, server to client: who vouched for the lists, and how.

    Attributes:
        senders: their indices.
        proofs: a tag to this client or a signature, of each.
        credentials: of each that signed; none with tags, and then left out of the flat form.
    """

    senders: tuple[int, ...]
    proofs: tuple[bytes, ...]
    credentials: tuple[bytes, ...] = ()

    def to_fields(self) -> Fields:
        """Flat form."""
        signed: Fields = {"credentials": list(self.credentials)} if self.credentials else {}
        return {"senders": list(self.senders), "proofs": list(self.proofs), **signed}

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> "RevealRequest":
        """Read and check the flat form."""
        read = Reader(fields)
        senders = read.many("senders", int, MAX_HOLDERS)
        proofs = read.many("proofs", bytes, MAX_HOLDERS, PROOF_BYTES)
        credentials: list[bytes] = []
        if "credentials" in fields:
            sizes = (KEY_BYTES, MAX_CREDENTIAL_BYTES)
            credentials = read.many("credentials", bytes, MAX_HOLDERS, sizes)
        read.end()
        if len(senders) != len(proofs):
            raise MessageError("senders, proofs: expected lists of one length")
        return cls(tuple(senders), tuple(proofs), tuple(credentials))


@dataclass(frozen=True)
class Reveal:
    """E4, client to server: one share of each participant whose shares it holds, in index order.

    Of the self mask's seed for a survivor, of the mask key for one who dropped out.
    """

    shares: tuple[bytes, ...]

    def to_fields(self) -> Fields:
        """Flat form."""
        return {"shares": list(self.shares)}

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> "Reveal":
        """Read and check the flat form."""
        read = Reader(fields)
        reveal = cls(tuple(read.many("shares", bytes, MAX_HOLDERS, SHARE_BYTES)))
        read.end()
        return reveal
