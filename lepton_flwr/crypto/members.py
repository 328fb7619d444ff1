"""The folders of a federation's server and devices: what leaves the authority's machine."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from lepton_flwr._files import output_errors, staged_folder, write_atomic
from lepton_flwr.crypto import identity, tls
from lepton_flwr.crypto.certificates import CertificateError, load_certificate
from lepton_flwr.crypto.files import write_private
from lepton_flwr.crypto.identity import Identity
from lepton_flwr.crypto.register import Issued, Register
from lepton_flwr.crypto.revocation import LIST_FILE

SERVER, DEVICES, NODES = "server", "devices", "nodes"
NODE_KEY_FILE = "node.key"

Complete = Callable[[Path], None]
"""Adds to the new folder of a device what else it needs."""


class Made(NamedTuple):
    """A device's new keys, in memory: the private ones are nowhere else until they are written.

    Attributes:
        issued: what the register says of them.
        identity: signs in secure aggregation.
        node_key: the private key of its SuperNode.
    """

    issued: Issued
    identity: Identity
    node_key: bytes

    def write_new(self, folder: Path, tls_authority: bytes, complete: Complete | None) -> None:
        """Make a device's folder, with all its contents or not at all.

        Raises:
            OutputError: it exists, or a file cannot be written.
            KeyFileError: a key cannot be written.
        """
        with staged_folder(folder) as partial:
            self.identity.save(partial)
            write_private(partial / NODE_KEY_FILE, self.node_key)
            write_private(partial / tls.AUTHORITY_FILE, tls_authority)
            if complete is not None:
                complete(partial)

    def replace_keys(self, folder: Path) -> None:
        """Put these keys in place of those in a device's folder, which is made if need be.

        Raises:
            OutputError: a file cannot be written.
        """
        make_folder(folder)
        _replace(folder / NODE_KEY_FILE, self.node_key)
        _replace(folder / identity.KEY_FILE, self.identity.key_pem)
        _replace(folder / identity.CERTIFICATE_FILE, self.identity.certificate_pem)


def make_folder(folder: Path) -> None:
    """Make the folder of a device that was moved away, for the files to deliver.

    Raises:
        OutputError: it cannot be made.
    """
    with output_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)


def write_nodes(federation: Path, register: Register) -> None:
    """Make the server's folder of node-authentication keys hold those of the register alone.

    Raises:
        OutputError: a file cannot be written.
    """
    folder = federation / SERVER / NODES
    wanted = {f"{name}.pub": one.node.encode() for name, one in register.newest().items()}
    for path in (*folder.glob("*.pub"), *folder.glob(".partial-*")):
        if path.name not in wanted:
            with output_errors(path):
                path.unlink()
    for name, key in wanted.items():
        if _read(folder / name) != key:
            write_atomic(folder / name, key, mode=0o600, hidden=True)


def write_members(federation: Path, register: Register, lists: bytes, roster: bytes) -> None:
    """Write what all trust, then each device's newest certificate, into the folders that are there.

    Args:
        federation: the folder of all.
        register: what was issued.
        lists: the revocation lists, in PEM.
        roster: the certificates of the authorities, in PEM.

    Raises:
        OutputError: a file cannot be written.
    """
    newest = {federation / DEVICES / name: one for name, one in register.newest().items()}
    present = {folder: one for folder, one in newest.items() if folder.is_dir()}
    for folder in (federation / SERVER, *present):
        _replace(folder / LIST_FILE, lists)  # before the roster that asks for it
        _replace(folder / identity.ROSTER_FILE, roster)
    for folder, one in present.items():  # after the rosters that trust who issued it
        path = folder / identity.CERTIFICATE_FILE
        pem = one.certificate.public_bytes(serialization.Encoding.PEM)
        # A device whose new keys a crash took keeps the certificate of the key that it has.
        if _read(path) != pem and _key(path) in (None, one.certificate.public_key()):
            _replace(path, pem)


def _read(path: Path) -> bytes | None:
    with output_errors(path):
        return path.read_bytes() if path.exists() else None


def _key(path: Path) -> CertificatePublicKeyTypes | None:
    try:
        return load_certificate(path).public_key()
    except CertificateError:  # missing or damaged
        return None


def _replace(path: Path, content: bytes) -> None:
    write_atomic(path, content, mode=0o600)
