"""`lepton encrypt`, `decrypt`, `rewrap`, `inspect` and `encryption-key`."""

import hashlib
import io
import sys

import pytest

from lepton_flwr.crypto.encrypted_file import encrypt_file
from lepton_flwr.crypto.recipients import SUITES, DecryptionKey, Recipient

ROWS = b"name,amount\n" + b"alice,1\n" * 100
PASSPHRASE = "correct horse"  # noqa: S105


@pytest.fixture(autouse=True)
def scene(monkeypatch, tmp_path):
    for name, value in (("MEMORY_KIB", 64), ("PASSES", 1), ("LANES", 1)):
        monkeypatch.setattr(f"lepton_flwr.crypto.passphrase.{name}", value)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    (tmp_path / "rows.csv").write_bytes(ROWS)


@pytest.fixture
def keys(lepton):
    for name in ("alice", "bob"):
        assert lepton("encryption-key", "new", f"{name}.key")[::2] == (0, "")


@pytest.mark.parametrize("suite", SUITES)
def test_a_key_pair_is_a_private_and_a_public_file(lepton, tmp_path, suite):
    code, out, err = lepton("encryption-key", "new", "a.key", "--suite", suite)
    assert (code, err) == (0, "")
    key, public = DecryptionKey.load(tmp_path / "a.key"), Recipient.load(tmp_path / "a.key.pub")
    assert key.recipient == public
    assert key.suite == suite
    assert (tmp_path / "a.key").stat().st_mode & 0o777 == 0o600
    assert public.fingerprint in out
    code, out, _ = lepton("encryption-key", "show", "a.key.pub")
    assert (code, out) == (0, f"{suite} {public.fingerprint}\n")


def test_a_key_pair_replaces_nothing(lepton, keys, tmp_path):
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert lepton("encryption-key", "new", "alice.key")[0] == 3
    (tmp_path / "alice.key.pub").rename(tmp_path / "carol.key.pub")
    assert lepton("encryption-key", "new", "alice.key")[0] == 3
    assert lepton("encryption-key", "new", "carol.key")[0] == 3
    (tmp_path / "carol.key.pub").rename(tmp_path / "alice.key.pub")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_goes_to_its_recipients_and_back(lepton, keys, tmp_path):
    digest = hashlib.sha256(ROWS).hexdigest()
    code, out, err = lepton("encrypt", "rows.csv", "--to", "alice.key.pub", "--to", "bob.key.pub")
    assert (code, err) == (0, "")
    assert digest in out
    sealed = (tmp_path / "rows.csv.lepton").read_bytes()
    assert b"alice" not in sealed
    (tmp_path / "rows.csv").unlink()
    for name in ("alice", "bob"):
        code, out, err = lepton("decrypt", "rows.csv.lepton", "--key", f"{name}.key", "--force")
        assert (code, err) == (0, "")
        assert digest in out
        assert (tmp_path / "rows.csv").read_bytes() == ROWS
    assert (tmp_path / "rows.csv.lepton").read_bytes() == sealed


def test_a_passphrase_comes_from_the_environment(lepton, monkeypatch, tmp_path):
    monkeypatch.setenv("LEPTON_PASSPHRASE", PASSPHRASE)
    assert lepton("encrypt", "rows.csv", "--passphrase")[0] == 0
    code, out, _ = lepton("decrypt", "rows.csv.lepton", "--passphrase", "--out", "found.csv")
    assert code == 0
    assert PASSPHRASE not in out
    assert (tmp_path / "found.csv").read_bytes() == ROWS
    monkeypatch.setenv("LEPTON_PASSPHRASE", "wrong horse")
    code, out, err = lepton("decrypt", "rows.csv.lepton", "--passphrase", "--out", "other.csv")
    assert (code, out) == (3, "")
    assert "wrong passphrase" in err
    assert not (tmp_path / "other.csv").exists()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_passphrase_is_typed_twice_to_encrypt_and_once_to_decrypt(lepton, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", Terminal())
    typed = iter(["correct horse", "other horse", "correct horse", "correct horse"])
    monkeypatch.setattr("click.termui.hidden_prompt_func", lambda _: next(typed))
    code, out, err = lepton("encrypt", "rows.csv", "--passphrase")
    assert code == 0
    assert PASSPHRASE not in out + err
    assert next(typed, None) is None
    typed = iter(["correct horse"])
    assert lepton("decrypt", "rows.csv.lepton", "--passphrase", "--out", "found.csv")[0] == 0
    assert (tmp_path / "found.csv").read_bytes() == ROWS


def test_without_a_terminal_a_missing_passphrase_is_one_line(lepton):
    code, out, err = lepton("encrypt", "rows.csv", "--passphrase")
    assert (code, out) == (3, "")
    assert err.count("\n") == 1
    assert "LEPTON_PASSPHRASE" in err


def test_a_key_can_have_a_passphrase(lepton, monkeypatch, tmp_path):
    monkeypatch.setenv("LEPTON_PASSPHRASE", PASSPHRASE)
    assert lepton("encryption-key", "new", "alice.key", "--passphrase")[0] == 0
    assert lepton("encrypt", "rows.csv", "--to", "alice.key.pub")[0] == 0
    assert lepton("decrypt", "rows.csv.lepton", "--key", "alice.key", "--force")[0] == 0
    monkeypatch.setenv("LEPTON_PASSPHRASE", "wrong horse")
    code, _, err = lepton("decrypt", "rows.csv.lepton", "--key", "alice.key", "--force")
    assert code == 3
    assert "wrong passphrase" in err
    # The file of the key is encrypted data as well, so its passphrase changes as that of any.
    monkeypatch.setenv("LEPTON_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("LEPTON_NEW_PASSPHRASE", "another horse")
    assert lepton("rewrap", "alice.key", "--passphrase", "--new-passphrase")[0] == 0
    assert (tmp_path / "alice.key").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("LEPTON_PASSPHRASE", "another horse")
    assert lepton("decrypt", "rows.csv.lepton", "--key", "alice.key", "--force")[0] == 0


def test_rewrapping_changes_who_can_open(lepton, keys, monkeypatch):
    assert lepton("encrypt", "rows.csv", "--to", "alice.key.pub")[0] == 0
    code, _, err = lepton("rewrap", "rows.csv.lepton", "--key", "alice.key", "--to", "bob.key.pub")
    assert (code, err) == (0, "")
    code, _, err = lepton("decrypt", "rows.csv.lepton", "--key", "alice.key", "--force")
    assert (code, err.count("\n")) == (3, 1)
    assert lepton("decrypt", "rows.csv.lepton", "--key", "bob.key", "--force")[0] == 0
    monkeypatch.setenv("LEPTON_NEW_PASSPHRASE", PASSPHRASE)
    assert lepton("rewrap", "rows.csv.lepton", "--key", "bob.key", "--new-passphrase")[0] == 0
    monkeypatch.setenv("LEPTON_PASSPHRASE", PASSPHRASE)
    assert lepton("decrypt", "rows.csv.lepton", "--passphrase", "--force")[0] == 0


def test_a_key_is_rotated_for_many_files_at_once(lepton, keys):
    for name in ("a", "b", "c"):
        lepton("encrypt", "rows.csv", "--to", "alice.key.pub", "--out", f"{name}.lepton")
    lepton("rewrap", "c.lepton", "--key", "alice.key", "--to", "bob.key.pub")
    files = ("a.lepton", "b.lepton", "c.lepton")
    code, out, err = lepton("rewrap", *files, "--key", "alice.key", "--to", "bob.key.pub")
    assert (code, out.count("\n")) == (3, 2)
    assert err.startswith("error: c.lepton: not encrypted for key")
    for file in files:
        assert lepton("decrypt", file, "--key", "bob.key", "--force")[0] == 0


def test_inspect_shows_versions_sizes_and_recipients(lepton, keys, monkeypatch, tmp_path):
    monkeypatch.setenv("LEPTON_PASSPHRASE", PASSPHRASE)
    lepton("encrypt", "rows.csv", "--to", "alice.key.pub", "--passphrase", "--purpose", "ro\x1bws")
    code, out, err = lepton("inspect", "rows.csv.lepton")
    assert (code, err) == (0, "")
    for shown in ("version 1", "812 bytes", "argon2id", "x25519", r"ro\x1bws", "524,288",
                  Recipient.load(tmp_path / "alice.key.pub").fingerprint):  # fmt: skip
        assert shown in out
    assert "\x1b" not in out


def test_nothing_is_replaced_without_force(lepton, keys, tmp_path):
    assert lepton("encrypt", "rows.csv", "--to", "alice.key.pub")[0] == 0
    for arguments in (
        ("encrypt", "rows.csv", "--to", "bob.key.pub"),
        ("decrypt", "rows.csv.lepton", "--key", "alice.key"),
    ):
        code, out, err = lepton(*arguments)
        assert (code, out) == (4, "")
        assert "--force" in err
    assert lepton("encrypt", "rows.csv", "--to", "bob.key.pub", "--force")[0] == 0
    assert lepton("decrypt", "rows.csv.lepton", "--key", "bob.key", "--force")[0] == 0


def test_a_plaintext_is_held_to_an_expected_digest(lepton, keys, tmp_path):
    lepton("encrypt", "rows.csv", "--to", "alice.key.pub")
    arguments = ("decrypt", "rows.csv.lepton", "--key", "alice.key", "--out", "found.csv")
    code, _, err = lepton(*arguments, "--sha256", "0" * 64)
    assert (code, err.count("\n")) == (3, 1)
    assert not (tmp_path / "found.csv").exists()
    assert lepton(*arguments, "--sha256", hashlib.sha256(ROWS).hexdigest())[0] == 0


def test_a_file_for_another_purpose_opens_when_it_is_named(lepton, keys, tmp_path):
    sealed, recipient = tmp_path / "model.lepton", Recipient.load(tmp_path / "alice.key.pub")
    encrypt_file(tmp_path / "rows.csv", sealed, [recipient], purpose="lepton/model/v1")
    code, _, err = lepton("decrypt", "model.lepton", "--key", "alice.key")
    assert code == 3
    assert "lepton/model/v1" in err
    arguments = ("decrypt", "model.lepton", "--key", "alice.key", "--purpose", "lepton/model/v1")
    assert lepton(*arguments)[0] == 0
    assert (tmp_path / "model").read_bytes() == ROWS


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["encrypt", "rows.csv"], 2),
        (["encrypt", "rows.csv", "--to", "absent.pub"], 2),
        (["encrypt", "rows.csv", "--to", "alice.key"], 2),
        (["encrypt", "rows.csv", "--to", "alice.key.pub", "--to", "alice.key.pub"], 2),
        (["encrypt", "rows.csv", "--to", "alice.key.pub", "--purpose", ""], 2),
        (["encrypt", "rows.csv", "--passphrase", PASSPHRASE], 2),
        (["encrypt", "absent.csv", "--to", "alice.key.pub"], 2),
        (["encrypt", ".", "--to", "alice.key.pub", "--out", "x"], 2),
        (["decrypt", "rows.csv", "--key", "alice.key"], 2),
        (["decrypt", "rows.csv", "--key", "alice.key", "--out", "x"], 3),
        (["decrypt", "absent.lepton", "--key", "alice.key"], 2),
        (["decrypt", "rows.csv", "--out", "x"], 2),
        (["decrypt", "rows.csv", "--out", "x", "--key", "alice.key", "--passphrase"], 2),
        (["decrypt", "rows.csv", "--out", "x", "--key", "absent.key"], 3),
        (["decrypt", "rows.csv", "--out", "x", "--key", "rows.csv"], 3),
        (["rewrap", "rows.csv", "--key", "alice.key", "--to", "alice.key.pub"], 3),
        (["rewrap", "rows.csv", "--key", "alice.key"], 2),
        (["inspect", "rows.csv"], 3),
        (["inspect", "absent"], 2),
        (["encryption-key", "new", "x.key", "--suite", "rsa-1024"], 2),
        (["encryption-key", "show", "alice.key"], 2),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_one_line_and_changes_nothing(
    lepton, keys, tmp_path, arguments, code
):
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    got, out, err = lepton(*arguments)
    assert (got, out) == (code, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
