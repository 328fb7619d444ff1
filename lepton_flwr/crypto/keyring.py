"""All keys of a federation in one folder, which stays with whoever runs its authority.

`authority/` holds the secrets of the authority and its register and never leaves; `server/` is for
the server, `devices/NAME/` for each device:

| file | of | what |
|---|---|---|
| `authority/ca-1/authority.pem`, `.crt` | authority | certifies devices |
| `authority/ca.key`, `ca.crt` | authority | certifies the TLS server |
| `authority/register.json` | authority | what it issued and revoked |
| `server/ca.crt`, `server.pem`, `server.key` | server | TLS |
| `server/nodes/NAME.pub` | server | node-authentication keys that may join |
| `devices/NAME/identity.pem`, `identity.crt` | device | signs in secure aggregation |
| `devices/NAME/node.key` | device | authenticates its SuperNode |
| `devices/NAME/ca.crt` | device | whom it takes for the server |
| `roster.pem`, `revoked.crl` | both | whom secure aggregation accepts, and whom no longer |
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives import serialization

from lepton_flwr import _validate as check
from lepton_flwr._files import output_errors, staged_folder, write_atomic
from lepton_flwr.crypto import authority as authorities
from lepton_flwr.crypto import identity, tls
from lepton_flwr.crypto.address import Address
from lepton_flwr.crypto.authority import Authority
from lepton_flwr.crypto.certificates import certified_key, parse_der
from lepton_flwr.crypto.files import write_private
from lepton_flwr.crypto.private_keys import ENVIRONMENT_VARIABLE, is_protected
from lepton_flwr.crypto.register import Issued, Register
from lepton_flwr.crypto.revocation import LIST_FILE, LIST_LIFETIME, locked
from lepton_flwr.crypto.tls import ServerCredentials, TlsAuthority, create_server_credentials
from lepton_flwr.errors import ConfigError

AUTHORITY, SERVER, DEVICES, NODES = "authority", "server", "devices", "nodes"
REGISTER_FILE = "register.json"
NODE_KEY_FILE = "node.key"
AUTHORITY_LIFETIME = timedelta(days=5 * 365)
MAX_NODES = 10_000

Complete = Callable[[Path], None]
"""Adds to the new folder of a device what else it needs."""


class Keyring:
    """The keys of a federation.

    Every change is recorded in the register first, then written into the folders of the server and
    of the devices that are still below `devices/`; after a crash, `revoke()` of nobody writes them
    again. Commands that change something at the same time wait for each other.

    Args:
        folder: the federation's.
        passphrase: of the authority's keys; None takes `LEPTON_PASSPHRASE` from the environment.
        now: the clock.

    Raises:
        RegisterError: the folder holds no register, or a damaged one.
    """

    def __init__(
        self,
        folder: Path,
        passphrase: str | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.folder = folder
        self.register = Register.read(folder / AUTHORITY / REGISTER_FILE)
        self._passphrase = passphrase or os.environ.get(ENVIRONMENT_VARIABLE)
        self._now = now
        self._loaded: dict[int, Authority] = {}

    @classmethod
    def create(
        cls,
        folder: Path,
        nodes: int,
        address: Address,
        *,
        name: str = "federation",
        passphrase: str | None = None,
        complete: Callable[[Path], None] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> Self:
        """Make all keys of a federation.

        Args:
            folder: a new folder.
            nodes: number of devices, named device-001 and so on.
            address: where the server listens; its certificate holds the host and the names of
                this machine.
            name: the federation's name: letters, digits, spaces, `.`, `_` and `-`, 1 to 64.
            passphrase: protects the authority's keys; None leaves them unprotected.
            complete: adds more files to the folder, before it appears.
            now: the clock.

        Raises:
            ConfigError: a number or name is out of its range.
            PassphraseError: the passphrase is too short.
            OutputError: the folder exists or cannot be written; there is none then.
        """
        check.integer("nodes", nodes, at_least=1, at_most=MAX_NODES)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}", name):
            raise ConfigError(
                f"name={name!r}: expected 1 to 64 letters, digits, ' ', '.', '_', '-'"
            )
        with staged_folder(folder) as partial:
            vault = partial / AUTHORITY
            for made in (vault, partial / SERVER, partial / SERVER / NODES, partial / DEVICES):
                made.mkdir(mode=0o700)
            _new_authority(vault, 1, name, passphrase, now())
            web = TlsAuthority.create(now(), AUTHORITY_LIFETIME)
            web.save(vault, passphrase)
            create_server_credentials(partial / SERVER, _server_names(address), web)
            Register(name, address).write(vault / REGISTER_FILE)
            ring = cls(partial, passphrase, now)
            issued = [ring._make(f"device-{number:03d}") for number in range(1, nodes + 1)]
            ring._commit(ring.register.with_issued(*issued))
            if complete is not None:
                complete(partial)
        return cls(folder, passphrase, now)

    def issue(self, name: str, complete: Complete | None = None) -> Path:
        """Make a new device's keys.

        Args:
            name: 1 to 63 lower-case letters, digits, `.`, `_` and `-`.
            complete: adds more files to the device's folder, before it appears.

        Returns:
            The device's folder.

        Raises:
            ConfigError: the name is none or taken.
            OutputError: its folder exists, or a file cannot be written.
            PassphraseError: the authority's passphrase is missing or wrong.
        """
        with self._changing():
            if self.register.current(name):
                raise ConfigError(f"{name} has a certificate: expected a new name; or rotate it")
            self._commit(self.register.with_issued(self._make(name, complete)))
        return self.folder / DEVICES / name

    def revoke(self, names: Sequence[str] = ()) -> None:
        """Revoke devices and sign new lists; without names, the lists are renewed.

        Raises:
            ConfigError: a name has no certificate that could be revoked.
            PassphraseError: the authority's passphrase is missing or wrong.
            OutputError: a file cannot be written.
        """
        with self._changing():
            for name in names:
                self._known(name)
            self._commit(self.register.with_revoked(names, self._now()))

    def rotate_device(self, name: str) -> Path:
        """Make new keys of a device and revoke its former ones.

        Returns:
            The device's folder, for the files to deliver.

        Raises:
            ConfigError: no device has the name.
            PassphraseError: the authority's passphrase is missing or wrong.
            OutputError: a file cannot be written.
        """
        with self._changing():
            self._known(name)
            made = self._authority().issue(name, self._now())
            private, public = tls.node_key()
            register = self.register.with_revoked([name], self._now())
            generation = register.generations[-1]
            certificate = parse_der(made.certificate)
            register = register.with_issued(Issued(name, generation, certificate))
            register.write(self._vault / REGISTER_FILE)
            folder = self._device(name)
            self._replace(folder / identity.KEY_FILE, made.key_pem)
            self._replace(folder / identity.CERTIFICATE_FILE, made.certificate_pem)
            self._replace(folder / NODE_KEY_FILE, private)
            self._replace(self.folder / SERVER / NODES / f"{name}.pub", public)
            self._commit(register)
        return folder

    def rotate_server(self) -> None:
        """Make a new key and certificate of the TLS server; devices need nothing new.

        Raises:
            PassphraseError: the authority's passphrase is missing or wrong.
            OutputError: a file cannot be written.
        """
        with self._changing():
            web = TlsAuthority.load(self._vault, self._passphrase)
            key, certificate = web.issue(_server_names(self.register.address), self._now())
            files = ServerCredentials.within(self.folder / SERVER)
            self._replace(files.key, key)
            self._replace(files.certificate, certificate)

    def rotate_authority(self) -> None:
        """Make a new authority beside the former one, and new certificates of the devices' keys.

        Both are on every roster until `drop_authority`. Rosters and lists go to all devices before
        any device gets its new certificate.

        Raises:
            ConfigError: an earlier change of authority is not finished.
            PassphraseError: the authority's passphrase is missing or wrong.
            OutputError: a file cannot be written.
        """
        with self._changing():
            former = self.register
            if len(former.generations) > 1:
                raise ConfigError("two authorities are trusted: finish that change first")
            self._authority()  # a wrong passphrase ends here, and the new key gets the same one
            number = former.generations[-1] + 1
            shutil.rmtree(self._vault / f"ca-{number}", ignore_errors=True)  # what a crash left
            secret = self._passphrase if is_protected(self.key_file) else None
            new = _new_authority(self._vault, number, former.name, secret, self._now())
            self._loaded[number] = new
            made = [
                Issued(
                    one.name,
                    number,
                    new.certify(one.name, certified_key(one.certificate), self._now()),
                )
                for one in former.issued
                if one.revoked is None
            ]
            folders = [self._device(one.name) for one in made]
            register = replace(former, generations=(*former.generations, number))
            self._commit(register.with_issued(*made))
            for folder, one in zip(folders, made, strict=True):
                pem = one.certificate.public_bytes(serialization.Encoding.PEM)
                self._replace(folder / identity.CERTIFICATE_FILE, pem)

    def drop_authority(self) -> None:
        """Stop trusting the former authority and destroy its key.

        Raises:
            ConfigError: there is no former one.
            PassphraseError: the authority's passphrase is missing or wrong.
            OutputError: a file cannot be written.
        """
        with self._changing():
            *former, last = self.register.generations
            if not former:
                raise ConfigError("one authority is trusted: there is no former one to drop")
            kept = tuple(one for one in self.register.issued if one.generation == last)
            self._commit(replace(self.register, generations=(last,), issued=kept))
            for number in former:
                shutil.rmtree(self._vault / f"ca-{number}")

    @property
    def key_file(self) -> Path:
        """The key of the authority that issues."""
        return self._vault / f"ca-{self.register.generations[-1]}" / authorities.KEY_FILE

    @property
    def _vault(self) -> Path:
        return self.folder / AUTHORITY

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with locked(self._vault):
            self.register = Register.read(self._vault / REGISTER_FILE)
            yield

    def _authority(self, generation: int | None = None) -> Authority:
        number = self.register.generations[-1] if generation is None else generation
        if number not in self._loaded:  # opening a protected key takes a quarter of a second
            self._loaded[number] = Authority.load(self._vault / f"ca-{number}", self._passphrase)
        return self._loaded[number]

    def _known(self, name: str) -> None:
        if not self.register.current(name):
            raise ConfigError(
                f"{name}: no device with a valid certificate; expected one of "
                f"{', '.join(self.register.names()[:8]) or '(none)'}"
            )

    def _make(self, name: str, complete: Complete | None = None) -> Issued:
        """Make a device's folder; what it was issued is still to be recorded."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name):
            raise ConfigError(
                f"name={name!r}: expected 1 to 63 lower-case letters, digits, '.', '_', '-'"
            )
        generation = self.register.generations[-1]
        made = self._authority(generation).issue(name, self._now())
        private, public = tls.node_key()
        with staged_folder(self.folder / DEVICES / name) as partial:
            made.save(partial)
            write_private(partial / NODE_KEY_FILE, private)
            write_private(partial / tls.AUTHORITY_FILE, self._web_certificate())
            if complete is not None:
                complete(partial)
        self._replace(self.folder / SERVER / NODES / f"{name}.pub", public)
        return Issued(name, generation, parse_der(made.certificate))

    def _commit(self, register: Register) -> None:
        """Record what changed, sign its lists, and write rosters and lists into all folders."""
        now = self._now()
        # Seconds, so that a register put back from a copy still numbers its lists upwards.
        register = replace(register, lists=max(register.lists + 1, int(now.timestamp())))
        trusted = [self._authority(number) for number in register.generations]
        lists = b"".join(
            one.sign_revocations(register.lists, register.revoked(number), now, LIST_LIFETIME)
            for one, number in zip(trusted, register.generations, strict=True)
        )
        register.write(self._vault / REGISTER_FILE)
        self.register = register
        roster = b"".join(one.certificate_pem for one in trusted)
        names = register.names()
        devices = [self.folder / DEVICES / name for name in names]
        for folder in (self.folder / SERVER, *(one for one in devices if one.is_dir())):
            self._replace(folder / LIST_FILE, lists)  # before the roster that asks for it
            self._replace(folder / identity.ROSTER_FILE, roster)
        for public in (self.folder / SERVER / NODES).glob("*.pub"):
            if public.stem not in names:
                public.unlink()

    def _device(self, name: str) -> Path:
        """A device's folder; made if it was moved to the device, for the files to deliver."""
        folder = self.folder / DEVICES / name
        with output_errors(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _web_certificate(self) -> bytes:
        return (self._vault / tls.AUTHORITY_FILE).read_bytes()

    @staticmethod
    def _replace(path: Path, content: bytes) -> None:
        write_atomic(path, content, mode=0o600)


def _new_authority(
    vault: Path, number: int, name: str, passphrase: str | None, now: datetime
) -> Authority:
    made = Authority.create(name, now, AUTHORITY_LIFETIME)
    with staged_folder(vault / f"ca-{number}") as partial:
        made.save(partial, passphrase)
    return made


def _server_names(address: Address) -> list[str]:
    return list(dict.fromkeys([address.host, *tls.LOOPBACK]))
