"""A device's folder: who it is, whom it trusts, what it allows, and its data.

Nothing here ever comes from the server. A folder holds `identity.pem` and `identity.crt` (the
signing key and its certificate), `roster.pem` (the certificate of the authority whose devices it
accepts), `revoked.crl` (whom that authority has revoked), `policy.toml` (what a server may ask) and
`data.npz`, or in its place `data.npz.lepton` (the same, encrypted) with `data.key` (what opens
it). A device that brings its table as it is has `data.csv`, or `data.csv.lepton` with `data.key`,
and `schema.toml` (what its columns are) in their place. Where statistics of all devices shaped the
features, `records.sha256` names the records.
Anything missing, malformed or open to changes by other users is refused. Its ledger, `ledger.db`,
is made when it first trains; `revoked.seen` holds the numbers of the newest revocation
lists that it has seen.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lepton_flwr.code import SIGNATURE_FILE, code_digest, is_signed
from lepton_flwr.crypto.identity import ROSTER_FILE, Identity, Roster
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.crypto.revocation import LIST_FILE, remember
from lepton_flwr.crypto.revocation_rules import RevocationRules
from lepton_flwr.data.wire import SCHEMA_FILE
from lepton_flwr.device.folders import check_trusted, find
from lepton_flwr.device.policy import POLICY_FILE, Policy
from lepton_flwr.errors import DataError, PolicyError
from lepton_flwr.privacy.ledger import LEDGER_FILE, Ledger

if TYPE_CHECKING:
    from lepton_flwr.data.federated import ClientData
    from lepton_flwr.data.preprocessing import Preprocessor
    from lepton_flwr.data.table_spec import TableSpec
    from lepton_flwr.data.tables import ClientTables

DATA_FILE = "data.npz"
SEALED_FILE = "data.npz.lepton"
TABLE_FILE = "data.csv"
SEALED_TABLE_FILE = "data.csv.lepton"
DATA_KEY_FILE = "data.key"
RECORDS_FILE = "records.sha256"
WHOLE = "device"  # the unit "client" is a device with all its data, now and later


@dataclass(frozen=True)
class Device:
    """An opened device folder.

    Attributes:
        folder: where it is.
        identity: its key and certificate.
        roster: the devices that it accepts.
        policy: what a server may ask.
    """

    folder: Path
    identity: Identity
    roster: Roster
    policy: Policy

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a device's folder.

        Raises:
            PolicyError: the folder, the policy or the roster is missing, malformed, or open to
                changes by other users.
            KeyFileError: the key is missing, malformed, or open to other users.
            PassphraseError: the key is protected, and `LEPTON_PASSPHRASE` is missing or wrong.
            CertificateError: a certificate is missing, malformed, of the wrong kind or out of its
                time, or the device's own is revoked.
            RevocationError: a revocation list is missing, malformed, of another authority, or
                older than one that this device has seen.
        """
        for path in (folder, folder / POLICY_FILE, folder / ROSTER_FILE):
            check_trusted(path)
        policy = Policy.read(folder / POLICY_FILE)
        roster = _roster(folder, policy.revocation_rules)
        identity = Identity.load(folder)
        roster.check(identity.certificate)  # or the others would refuse it, one after the other
        return cls(folder, identity, roster, policy)

    @classmethod
    def from_node_config(cls, node_config: Mapping[str, Any], run_id: int) -> Self:
        """Open the folder of this Flower node, see `find`.

        Raises:
            PolicyError: there is no such folder, or not one that this device can trust.
            KeyFileError: as in `open`.
            CertificateError: as in `open`.
        """
        return cls.open(find(node_config, run_id))

    def check_code(self) -> None:
        """Refuse to go on if the policy does not allow the code that runs.

        Code vouches for itself here: it guards against versions that nobody has approved. What
        keeps foreign code off a device is its SuperNode's `--trusted-entities`.

        Raises:
            PolicyError: neither its digest nor a signature of it is allowed.
        """
        policy = self.policy
        if not policy.apps and not policy.app_signers:
            return
        code = code_digest()
        if code.hex() in policy.apps:
            return
        path = self.folder / SIGNATURE_FILE
        if policy.app_signers and path.exists():
            signature = path.read_bytes()
            if any(is_signed(code, signature, bytes.fromhex(k)) for k in policy.app_signers):
                return
        raise PolicyError(
            f"code {code.hex()[:16]}...: this device's policy allows other code only; expected its "
            f"digest among apps, or a signature of it in {SIGNATURE_FILE}"
        )

    def ledger(self) -> Ledger:
        """Open the device's ledger; close it after use.

        Raises:
            LedgerError: it cannot be trusted or made.
            PolicyError: other users could change its folder.
        """
        spending = self.policy.spending
        path = Path(spending.ledger) if spending.ledger else self.folder / LEDGER_FILE
        check_trusted(path.parent)
        return Ledger(path, Path(spending.ledger_head) if spending.ledger_head else None)

    def data_digest(self) -> bytes:
        """SHA-256 of the records: names the data before any of it is read as data.

        Of `data.npz`, encrypted or not, unless its features were computed with statistics of all
        devices: those are noised anew every time, and the records that they were computed from stay
        the same. `records.sha256` then has their digest.

        **Guarantee**: encrypting the data, encrypting it anew, or for another key, does not change
        it, and so opens no new account in a ledger.

        Raises:
            DataError: the file is missing.
            EnvelopeError: encrypted data was altered, or is not for this device's key.
            KeyFileError: the key of encrypted data is missing or open to other users.
        """
        if self.has_table:
            return self.table.records
        from lepton_flwr.data.sealed import rows_digest

        named = self.folder / RECORDS_FILE
        try:
            if os.path.lexists(named):
                check_trusted(named)
                digest = bytes.fromhex(named.read_text(encoding="ascii"))
                if len(digest) != hashlib.sha256().digest_size:
                    raise ValueError
                return digest
            path = self.data_file
            if path.name == SEALED_FILE:
                return rows_digest(path.read_bytes(), self._data_key())
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise DataError(f"{DATA_FILE}: {error.strerror}") from None
        except ValueError:
            raise DataError(f"{RECORDS_FILE}: expected 64 hexadecimal digits") from None

    @property
    def has_table(self) -> bool:
        """Whether it brings a raw table in place of features."""
        return any(
            os.path.lexists(self.folder / name)
            for name in (TABLE_FILE, SEALED_TABLE_FILE, SCHEMA_FILE)
        )

    @cached_property
    def spec(self) -> "TableSpec":
        """What its raw table holds, by its own `schema.toml`.

        Raises:
            ConfigError: the file is missing or malformed.
            PolicyError: other users could change it.
        """
        from lepton_flwr.data.table_spec import TableSpec

        check_trusted(self.folder / SCHEMA_FILE)
        return TableSpec.read(self.folder / SCHEMA_FILE)

    @cached_property
    def table(self) -> "ClientTables":
        """Its raw table: the records to train on, and those that it holds out; read once.

        Raises:
            ConfigError: as `spec`.
            DataError: there is no table, one that is not what `schema.toml` says, features beside
                it, or fewer than two rows.
            EnvelopeError: an encrypted table was altered, or is not for this device's key.
            KeyFileError: the key of an encrypted table is missing or open to other users.
        """
        from lepton_flwr.crypto.encrypted_file import FILE_PURPOSE
        from lepton_flwr.crypto.envelope import unseal
        from lepton_flwr.data import csv_rows
        from lepton_flwr.data.tables import device_tables

        if not self.has_table:
            raise DataError(
                f"{self.data_file.name}: features: expected a raw table, {TABLE_FILE}, with "
                f"{SCHEMA_FILE}"
            )
        if os.path.lexists(self.data_file):
            raise DataError(
                f"{self.data_file.name} beside {SCHEMA_FILE} or {TABLE_FILE}: expected features or "
                "a raw table: remove one of them"
            )
        path = self.table_file
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from None
        if path.name == SEALED_TABLE_FILE:
            content = unseal(content, self._data_key(), purpose=FILE_PURPOSE)
        table, texts = csv_rows.read(content, self.spec.schema, self.spec.label, str(path))
        if not texts:
            raise DataError(f"{path}: no column {self.spec.label!r}: expected the label's")
        return device_tables(table, self.spec.answers(texts), self.spec, self.folder.name)

    def features(self, preprocessor: "Preprocessor") -> "ClientData":
        """Features of its raw table, by statistics that its run has brought.

        **Guarantee**: a row's features depend on that row and the preprocessor alone, whoever made
        that; whether there are any depends on no row.

        Raises:
            SchemaMismatchError: see `TableSpec.check_preprocessor`.
            DataError: there is no such table.
        """
        self.spec.check_preprocessor(preprocessor)
        return self.table.features(preprocessor)

    def data(self) -> "ClientData":
        """Read the device's data.

        Raises:
            DataError: the file is missing or malformed, or it is a raw table.
            EnvelopeError: encrypted data was altered, or is not for this device's key.
            KeyFileError: the key of encrypted data is missing or open to other users.
        """
        from lepton_flwr.data.federated import ClientData
        from lepton_flwr.data.sealed import open_rows

        if self.has_table:
            raise DataError(
                f"a raw table ({TABLE_FILE}): expected a run that brings the statistics of all "
                "devices, as `lepton server train --schema` does"
            )
        path = self.data_file
        if path.name == SEALED_FILE:
            return open_rows(path.read_bytes(), self._data_key())
        return ClientData.load(path)

    def _data_key(self) -> DecryptionKey:
        return DecryptionKey.load(self.folder / DATA_KEY_FILE)

    @property
    def data_file(self) -> Path:
        """The file of its rows: `data.npz.lepton` if that is there, else `data.npz`."""
        sealed = self.folder / SEALED_FILE
        return sealed if os.path.lexists(sealed) else self.folder / DATA_FILE

    @property
    def table_file(self) -> Path:
        """The file of its raw table: `data.csv.lepton` if that is there, else `data.csv`."""
        sealed = self.folder / SEALED_TABLE_FILE
        return sealed if os.path.lexists(sealed) else self.folder / TABLE_FILE


def _roster(folder: Path, rules: RevocationRules) -> Roster:
    authorities, path = (folder / ROSTER_FILE).read_bytes(), folder / LIST_FILE
    if not rules.required and not path.exists():
        return Roster.of_authority(authorities)
    check_trusted(path)
    roster = Roster.of_authority(authorities, path.read_bytes(), allow_expired=rules.allow_expired)
    remember(folder, roster.lists)
    return roster
