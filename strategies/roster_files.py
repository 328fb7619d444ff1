"""The server's roster: the certificate of the devices' authority, and what it has revoked."""

import time
from datetime import UTC, datetime
from pathlib import Path

from lepton_flwr.crypto.identity import Roster
from lepton_flwr.crypto.revocation import LIST_FILE, RevocationError
from lepton_flwr.errors import ConfigError, LeptonError

# For as long files that cannot be used are taken for files that are being copied.
COPY_SECONDS = 5.0
_LOOK_SECONDS = 0.2
_NO_SERIAL = 0  # X.509 has positive ones only


class RosterFiles:
    """Members by files, which may be replaced while a run goes on.

    **Guarantee**: after `renew` members are judged by what the files hold now, and never by a list
    older than one that was read before.

    Args:
        path: certificates of the authorities, PEM; beside it, if there is one, `revoked.crl`.

    Raises:
        ConfigError: a file cannot be read.
        CertificateError: a certificate is malformed or not an authority's.
        RevocationError: a list is malformed, or an authority signed none of them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._roster = self._read()

    def verify(self, credential: bytes, message: bytes, signature: bytes) -> bytes:
        """See `Roster.verify`."""
        return self._roster.verify(credential, message, signature)

    def renew(self) -> None:
        """Read the files again; what cannot be used for `COPY_SECONDS` is an error.

        Raises:
            ConfigError: a file cannot be read.
            CertificateError: a certificate is malformed or not an authority's, or a list expired.
            RevocationError: a list is malformed, missing, or older than the one before.
        """
        deadline = time.monotonic() + COPY_SECONDS
        while True:
            try:
                found = self._read()
                self._check_lists(found)
            except LeptonError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_LOOK_SECONDS)
            else:
                self._roster = found
                return

    def _read(self) -> Roster:
        revoked = self._path.with_name(LIST_FILE)
        lists = _bytes(revoked) if revoked.exists() else None
        return Roster.of_authority(_bytes(self._path), lists)

    def _check_lists(self, found: Roster) -> None:
        if self._roster.lists and not found.lists:
            raise RevocationError(
                f"{LIST_FILE}: not there, though it was when the run began: copy it there again"
            )
        now = datetime.now(UTC)
        former = {known.authority: known.number for known in self._roster.lists}
        for known in found.lists:
            known.check(_NO_SERIAL, now)  # with an expired list every member would be refused
            newest = former.get(known.authority, known.number)
            if known.number < newest:
                raise RevocationError(
                    f"{LIST_FILE}: list {known.number}: expected at least {newest}, which was there"
                    " before: copy the newest"
                )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
