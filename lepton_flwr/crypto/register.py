"""What an authority has issued and revoked: the one record from which all else follows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from lepton_flwr._files import write_atomic
from lepton_flwr.crypto.address import Address
from lepton_flwr.crypto.certificates import fingerprint, parse_pem
from lepton_flwr.crypto.revocation import Revoked
from lepton_flwr.errors import LeptonError, PrivacyError

_FORMAT = 2


class RegisterError(PrivacyError):
    """The record of what an authority issued and revoked is missing or damaged."""


@dataclass(frozen=True)
class Issued:
    """A device's certificate.

    Attributes:
        name: the device's.
        generation: of the authority that issued it.
        certificate: the certificate.
        node: the public key that authenticates the device's SuperNode, one OpenSSH line.
        revoked: when it was revoked, with a time zone; None if it was not.
    """

    name: str
    generation: int
    certificate: x509.Certificate
    node: str
    revoked: datetime | None = None


@dataclass(frozen=True)
class Register:
    """What the authorities of a federation have issued and revoked.

    Attributes:
        name: the federation's.
        address: where its server listens.
        generations: numbers of the authorities that devices trust; the last one issues.
        lists: number of the newest revocation lists.
        issued: every certificate of these authorities.
        unfinished: the change whose files may not all be written, a verb and names; empty if none.
    """

    name: str
    address: Address
    generations: tuple[int, ...] = (1,)
    lists: int = 0
    issued: tuple[Issued, ...] = ()
    unfinished: tuple[str, ...] = ()

    def current(self, name: str) -> tuple[Issued, ...]:
        """A device's certificates that are not revoked."""
        return tuple(one for one in self.issued if one.name == name and one.revoked is None)

    def newest(self) -> dict[str, Issued]:
        """Of each of `names()` the certificate that was issued last."""
        return {one.name: one for one in self.issued if one.revoked is None}

    def names(self) -> list[str]:
        """The devices that have a certificate that is not revoked."""
        return sorted({one.name for one in self.issued if one.revoked is None})

    def revoked(self, generation: int) -> list[Revoked]:
        """What the authority of a generation has revoked."""
        return [
            Revoked(one.certificate.serial_number, one.revoked)
            for one in self.issued
            if one.generation == generation and one.revoked is not None
        ]

    def with_issued(self, *more: Issued) -> Self:
        """This register and these certificates."""
        return replace(self, issued=(*self.issued, *more))

    def with_revoked(self, names: Sequence[str], now: datetime) -> Self:
        """This register with all certificates of these devices revoked."""
        return replace(
            self,
            issued=tuple(
                replace(one, revoked=now) if one.name in names and one.revoked is None else one
                for one in self.issued
            ),
        )

    def write(self, path: Path) -> None:
        """Replace the file by this register.

        Raises:
            OutputError: it cannot be written; what was there is intact.
        """
        table = {
            "format": _FORMAT,
            "name": self.name,
            "address": str(self.address),
            "generations": list(self.generations),
            "lists": self.lists,
            "unfinished": list(self.unfinished),
            "issued": [_to_table(one) for one in self.issued],
        }
        write_atomic(path, f"{json.dumps(table, indent=1)}\n".encode(), mode=0o600)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            RegisterError: the file is missing or damaged.
        """
        try:
            table = json.loads(path.read_bytes())
            if table["format"] != _FORMAT:
                raise RegisterError(
                    f"{path.name}: format {table['format']}: expected {_FORMAT}; use the "
                    "version of lepton-flwr that wrote it"
                )
            return cls(
                str(table["name"]),
                Address.parse(table["address"]),
                tuple(int(number) for number in table["generations"]),
                int(table["lists"]),
                tuple(_from_table(one) for one in table["issued"]),
                tuple(str(word) for word in table["unfinished"]),
            )
        except OSError as error:
            raise RegisterError(
                f"{path}: {error.strerror}: expected the folder that `lepton keys init` or "
                "`lepton federation init` made"
            ) from None
        except RegisterError:
            raise
        except (ValueError, TypeError, KeyError, LeptonError):
            raise RegisterError(
                f"{path.name} is damaged: expected what `lepton keys` wrote; put a copy of it back"
            ) from None


def _to_table(one: Issued) -> dict[str, Any]:
    return {
        "name": one.name,
        "generation": one.generation,
        "serial": f"{one.certificate.serial_number:x}",
        "sha256": fingerprint(one.certificate),
        "revoked": None if one.revoked is None else one.revoked.isoformat(),
        "certificate": one.certificate.public_bytes(serialization.Encoding.PEM).decode(),
        "node": one.node,
    }


def _from_table(table: dict[str, Any]) -> Issued:
    revoked = None if table["revoked"] is None else datetime.fromisoformat(table["revoked"])
    if revoked is not None and revoked.tzinfo is None:
        raise ValueError("a time without a zone")
    certificate = parse_pem(table["certificate"].encode())
    node = str(table["node"])
    return Issued(str(table["name"]), int(table["generation"]), certificate, node, revoked)
