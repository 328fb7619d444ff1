"""Ledgers of simulated devices, which their data finds again."""

import hashlib
import multiprocessing

import pytest

from lepton_flwr.crypto.files import KeyFileError
from lepton_flwr.errors import OutputError
from lepton_flwr.privacy.ledger_errors import LedgerCorruptError, LedgerMissingError
from lepton_flwr.provision import ledger_files

DIGESTS = [hashlib.sha256(bytes([number])).digest() for number in (1, 2, 1)]


def test_the_same_data_finds_its_ledger_again_and_two_of_it_are_two(tmp_path):
    files = ledger_files(tmp_path / "kept", DIGESTS)
    assert len(set(files)) == 3
    assert all(file.parent == tmp_path / "kept" for file in files)
    assert ledger_files(tmp_path / "kept", DIGESTS) == files
    assert ledger_files(tmp_path / "kept", DIGESTS[1:]) == files[1::-1]


def test_a_name_tells_nothing_of_the_data_without_the_folder_s_salt(tmp_path):
    one, other = (ledger_files(tmp_path / name, DIGESTS) for name in ("one", "other"))
    assert not {file.stem for file in one} & {file.stem for file in other}
    names = " ".join(file.name for file in one)
    assert not any(digest.hex()[:8] in names for digest in DIGESTS)
    assert (tmp_path / "one" / "salt").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o700


def test_ledgers_without_their_salt_open_no_new_accounts(tmp_path):
    (file, *_) = ledger_files(tmp_path, DIGESTS)
    file.touch()
    (tmp_path / "salt").unlink()
    with pytest.raises(LedgerMissingError, match="ledgers without salt"):
        ledger_files(tmp_path, DIGESTS)


def test_a_salt_that_is_none_or_that_others_can_read_is_refused(tmp_path):
    ledger_files(tmp_path, DIGESTS)
    (tmp_path / "salt").write_bytes(b"")
    with pytest.raises(LedgerCorruptError, match="0 bytes: expected the 32"):
        ledger_files(tmp_path, DIGESTS)
    (tmp_path / "salt").chmod(0o644)
    with pytest.raises(KeyFileError, match="expected a file that only"):
        ledger_files(tmp_path, DIGESTS)
    with pytest.raises(OutputError):
        ledger_files(tmp_path / "salt" / "in", DIGESTS)


def test_processes_that_begin_together_agree_on_the_salt(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.starmap(ledger_files, [(tmp_path / "kept", DIGESTS)] * 16, chunksize=1)
    assert all(files == found[0] for files in found)
