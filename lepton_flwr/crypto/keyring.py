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

from lepton_flwr import _validate as check
from lepton_flwr._files import output_errors, refuse_existing, staged_folder, write_atomic
from lepton_flwr.crypto import authority as authorities
from lepton_flwr.crypto import tls
from lepton_flwr.crypto.address import Address
from lepton_flwr.crypto.authority import Authority
from lepton_flwr.crypto.certificates import certified_key, parse_der
from lepton_flwr.crypto.members import (
    DEVICES,
    NODES,
    SERVER,
    Complete,
    Made,
    make_folder,
    write_members,
    write_nodes,
)
from lepton_flwr.crypto.private_keys import ENVIRONMENT_VARIABLE, is_protected
from lepton_flwr.crypto.register import Issued, Register
from lepton_flwr.crypto.revocation import LIST_LIFETIME, locked
from lepton_flwr.crypto.tls import ServerCredentials, TlsAuthority, create_server_credentials
from lepton_flwr.errors import ConfigError

AUTHORITY = "authority"
REGISTER_FILE = "register.json"
AUTHORITY_LIFETIME = timedelta(days=5 * 365)
MAX_NODES = 10_000
_INIT, _ISSUE, _REVOKE, _ROTATE = "init", "issue", "revoke", "rotate"
_SERVER, _AUTHORITY, _FINISH = "server", "authority", "finish"


class Keyring:
    """The keys of a federation.

    A change is in the register before anything of it is in a folder that leaves the authority:
    those of the server and of the devices that are still below `devices/`. After a crash, the same
    call again completes it. Any other call first writes what the register knows, which is all but
    private keys: a certificate of `issue` whose folder never appeared is revoked, and a device that
    was to be rotated is to be rotated again. Changes at the same time wait for each other.

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
            for new in (vault, partial / SERVER, partial / SERVER / NODES, partial / DEVICES):
                new.mkdir(mode=0o700)
            _new_authority(vault, 1, name, passphrase, now())
            web = TlsAuthority.create(now(), AUTHORITY_LIFETIME)
            web.save(vault, passphrase)
            create_server_credentials(partial / SERVER, _server_names(address), web)
            Register(name, address).write(vault / REGISTER_FILE)
            ring = cls(partial, passphrase, now)
            devices = [ring._make(f"device-{number:03d}") for number in range(1, nodes + 1)]

            def write() -> None:
                for made in devices:
                    made.write_new(ring._folder(made.issued.name), web.certificate_pem, None)

            register = ring.register.with_issued(*(made.issued for made in devices))
            ring._commit(register, (_INIT,), write)
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
        folder = self._folder(name)
        with self._changing(_ISSUE, name) as done:
            if not done:
                if self.register.current(name):
                    raise ConfigError(
                        f"{name} has a certificate: expected a new name; or rotate it"
                    )
                made = self._make(name)
                refuse_existing(folder)
                web = (self._vault / tls.AUTHORITY_FILE).read_bytes()
                self._commit(
                    self.register.with_issued(made.issued),
                    (_ISSUE, name),
                    lambda: made.write_new(folder, web, complete),
                )
        return folder

    def revoke(self, names: Sequence[str] = ()) -> None:
        """Revoke devices and sign new lists; without names, the lists are renewed.

        Raises:
            ConfigError: a name has no certificate that could be revoked.
            PassphraseError: the authority's passphrase is missing or wrong.
            OutputError: a file cannot be written.
        """
        with self._changing(_REVOKE, *names) as done:
            if not done:
                for name in names:
                    self._known(name)
                register = self.register.with_revoked(names, self._now())
                self._commit(register, (_REVOKE, *names))

    def rotate_device(self, name: str) -> Path:
        """Make new keys of a device and revoke its former ones.

        Returns:
            The device's folder, for the files to deliver.

        Raises:
            ConfigError: no device has the name.
            PassphraseError: the authority's passphrase is missing or wrong.
            OutputError: a file cannot be written.
        """
        folder = self._folder(name)
        with self._changing(_ROTATE, name):
            self._known(name)
            made = self._make(name)
            register = self.register.with_revoked([name], self._now())
            self._commit(
                register.with_issued(made.issued),
                (_ROTATE, name),
                lambda: made.replace_keys(folder),
            )
        return folder

    def rotate_server(self) -> None:
        """Make a new key and certificate of the TLS server; devices need nothing new.

        Raises:
            PassphraseError: the authority's passphrase is missing or wrong.
            OutputError: a file cannot be written.
        """
        with self._changing(_SERVER):
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
        with self._changing(_AUTHORITY) as done:
            if done:
                return
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
                replace(
                    one,
                    generation=number,
                    certificate=new.certify(name, certified_key(one.certificate), self._now()),
                )
                for name, one in former.newest().items()
            ]
            register = replace(former, generations=(*former.generations, number))
            self._commit(register.with_issued(*made), (_AUTHORITY,))

    def drop_authority(self) -> None:
        """Stop trusting the former authority and destroy its key.

        Raises:
            ConfigError: there is no former one.
            PassphraseError: the authority's passphrase is missing or wrong.
            OutputError: a file cannot be written.
        """
        with self._changing(_FINISH) as done:
            if done:
                return
            *former, last = self.register.generations
            if not former:
                raise ConfigError("one authority is trusted: there is no former one to drop")
            kept = tuple(one for one in self.register.issued if one.generation == last)
            self._commit(replace(self.register, generations=(last,), issued=kept), (_FINISH,))

    @property
    def key_file(self) -> Path:
        """The key of the authority that issues."""
        return self._vault / f"ca-{self.register.generations[-1]}" / authorities.KEY_FILE

    @property
    def _vault(self) -> Path:
        return self.folder / AUTHORITY

    def _folder(self, name: str) -> Path:
        return self.folder / DEVICES / name

    @contextmanager
    def _changing(self, *change: str) -> Iterator[bool]:
        """Keep others out, and complete what a crash left unfinished.

        Yields:
            Whether that was this very change, which is done then.
        """
        with locked(self._vault):
            self.register = Register.read(self._vault / REGISTER_FILE)
            yield bool(self.register.unfinished) and self._recover() == change

    def _recover(self) -> tuple[str, ...]:
        """Write what the register knows; returns the change that is complete by that, if one is."""
        verb, *names = change = self.register.unfinished
        register = self.register
        if lost := verb == _ISSUE and not self._folder(names[0]).exists():
            register = register.with_revoked(names, self._now())  # nobody has its keys
        self._commit(register, change)
        return () if lost or verb == _ROTATE else change

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

    def _make(self, name: str) -> Made:
        """Make a device's keys, in memory."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name):
            raise ConfigError(
                f"name={name!r}: expected 1 to 63 lower-case letters, digits, '.', '_', '-'"
            )
        generation = self.register.generations[-1]
        made = self._authority(generation).issue(name, self._now())
        private, public = tls.node_key()
        return Made(
            Issued(name, generation, parse_der(made.certificate), public.decode()), made, private
        )

    def _commit(
        self, register: Register, change: tuple[str, ...], write: Callable[[], object] | None = None
    ) -> None:
        """Record a change, then write it into all folders.

        Args:
            register: the new one.
            change: what to record as unfinished until all is written.
            write: writes the private keys, which are nowhere else.
        """
        now = self._now()
        # Seconds, so that a register put back from a copy still numbers its lists upwards.
        number = max(register.lists + 1, int(now.timestamp()))
        register = replace(register, lists=number, unfinished=change)
        trusted = [self._authority(number) for number in register.generations]
        lists = b"".join(
            one.sign_revocations(register.lists, register.revoked(number), now, LIST_LIFETIME)
            for one, number in zip(trusted, register.generations, strict=True)
        )
        register.write(self._vault / REGISTER_FILE)
        self.register = register
        write_nodes(self.folder, register)
        if write is not None:
            write()
        if change == (_AUTHORITY,):
            for name in register.names():
                make_folder(self._folder(name))
        roster = b"".join(one.certificate_pem for one in trusted)
        write_members(self.folder, register, lists, roster)
        for former in range(1, register.generations[0]):
            vault = self._vault / f"ca-{former}"
            with output_errors(vault):
                if vault.exists():
                    shutil.rmtree(vault)
        self.register = replace(register, unfinished=())
        self.register.write(self._vault / REGISTER_FILE)

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
