"""`lepton keys`."""

import json

import pytest

from lepton_flwr.crypto import private_keys
from lepton_flwr.crypto.identity import Identity, Roster
from lepton_flwr.crypto.revocation import RevokedError


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch):
    monkeypatch.setattr(private_keys, "SCRYPT_N", 2)


INIT = ("keys", "init", "fed", "--nodes", 2, "--address", "fl.example.org:8000")


def test_one_command_makes_the_keys_of_a_federation_and_never_twice(lepton, tmp_path):
    code, out, err = lepton(*INIT)
    assert (code, err) == (0, "")
    assert "2 devices" in out
    assert {path.name for path in (tmp_path / "fed").iterdir()} == {
        "authority", "server", "devices",
    }  # fmt: skip
    code, _, err = lepton(*INIT)
    assert code == 4
    assert "exists" in err
    assert err.count("\n") == 1


def test_devices_come_and_go_and_the_table_says_so(lepton, tmp_path):
    lepton(*INIT)
    assert lepton("keys", "issue", "fed", "late")[0] == 0
    assert lepton("keys", "revoke", "fed", "device-001")[0] == 0
    code, out, err = lepton("keys", "show", "fed")
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert "revoked 20" in lines["device-001"]
    assert "valid" in lines["late"]
    rows = {row["name"]: row for row in json.loads(lepton("keys", "show", "fed", "--json")[1])}
    assert len(rows["late"]["sha256"]) == 64
    assert rows["late"]["sha256"][:10] in lines["late"]
    folder = tmp_path / "fed" / "devices" / "late"
    roster = Roster.of_authority(
        (folder / "roster.pem").read_bytes(), (folder / "revoked.crl").read_bytes()
    )
    with pytest.raises(RevokedError):
        roster.check(Identity.load(tmp_path / "fed" / "devices" / "device-001").certificate)
    assert lepton("keys", "revoke", "fed", "nobody")[0] == 2


def test_rotation_takes_one_thing_at_a_time(lepton):
    lepton(*INIT)
    assert lepton("keys", "rotate", "fed", "device-001")[0] == 0
    assert lepton("keys", "rotate", "fed", "--server")[0] == 0
    assert lepton("keys", "rotate", "fed", "--authority")[0] == 0
    code, out, _ = lepton("keys", "show", "fed")
    assert (code, out.count("(CA 2)")) == (0, 2)
    assert lepton("keys", "rotate", "fed", "--finish")[0] == 0
    for wrong in ((), ("device-001", "--server"), ("--authority", "--finish")):
        code, _, err = lepton("keys", "rotate", "fed", *wrong)
        assert code == 2
        assert "expected either" in err


def test_a_passphrase_comes_from_the_environment_or_a_prompt_and_never_an_argument(
    lepton, monkeypatch
):
    code, _, err = lepton(*INIT, "--protect")  # no terminal here
    assert code == 3
    assert "LEPTON_PASSPHRASE" in err
    monkeypatch.setenv("LEPTON_PASSPHRASE", "a lock of words")
    assert lepton(*INIT, "--protect")[0] == 0
    assert lepton("keys", "revoke", "fed")[0] == 0
    monkeypatch.setenv("LEPTON_PASSPHRASE", "not this lock")
    code, _, err = lepton("keys", "revoke", "fed")
    assert code == 3
    assert "wrong passphrase" in err
    for command in ("init", "issue", "revoke", "rotate", "protect"):
        assert "--passphrase" not in lepton("keys", command, "--help")[1]


def test_a_device_key_gets_a_passphrase_and_loses_it(lepton, monkeypatch, tmp_path):
    lepton(*INIT)
    folder = tmp_path / "fed" / "devices" / "device-001"
    monkeypatch.setenv("LEPTON_NEW_PASSPHRASE", "a lock of words")
    assert lepton("keys", "protect", folder)[0] == 0
    code, _, err = lepton("keys", "protect", folder)
    assert code == 3
    assert "LEPTON_PASSPHRASE" in err
    monkeypatch.setenv("LEPTON_PASSPHRASE", "a lock of words")
    assert Identity.load(folder)
    assert lepton("keys", "protect", folder, "--remove")[0] == 0
    monkeypatch.delenv("LEPTON_PASSPHRASE")
    assert Identity.load(folder)
