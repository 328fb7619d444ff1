import struct

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from lepton_flwr.crypto import passphrase as passphrases
from lepton_flwr.crypto.errors import (
    OversizedFieldError,
    PassphraseError,
    TamperedHeaderError,
    WrongKeyError,
    WrongPassphraseError,
)
from lepton_flwr.crypto.passphrase import ARGON2ID, Passphrase
from lepton_flwr.crypto.stanza import Stanza

DATA_KEY, PART = bytes(range(32)), b"part"


@pytest.fixture
def cheap(monkeypatch):
    for name, value in (("MEMORY_KIB", 64), ("PASSES", 1), ("LANES", 1)):
        monkeypatch.setattr(passphrases, name, value)


def test_a_stanza_states_rfc_9106s_second_recommended_costs():
    stanza = Passphrase("correct horse").wrap(DATA_KEY, PART)
    assert struct.unpack(">IBB", stanza.wrapped[:6]) == (64 * 1024, 3, 4)
    assert Passphrase("correct horse").unwrap([stanza], PART) == DATA_KEY


def test_the_costs_are_those_of_the_stanza_not_the_readers(cheap, monkeypatch):
    stanza = Passphrase("correct horse").wrap(DATA_KEY, PART)
    monkeypatch.setattr(passphrases, "PASSES", 2)
    assert Passphrase("correct horse").unwrap([stanza], PART) == DATA_KEY


def test_each_stanza_has_a_salt_of_its_own(cheap):
    stanzas = [Passphrase("correct horse").wrap(DATA_KEY, PART) for _ in range(3)]
    assert len({stanza.recipient for stanza in stanzas}) == 3
    assert len({stanza.wrapped for stanza in stanzas}) == 3


def test_another_passphrase_or_part_opens_nothing(cheap):
    stanza = Passphrase("correct horse").wrap(DATA_KEY, PART)
    for text, part in (("Correct horse", PART), ("correct horse ", PART), ("correct horse", b"p")):
        with pytest.raises(WrongPassphraseError):
            Passphrase(text).unwrap([stanza], part)


def test_keyboards_that_compose_letters_otherwise_make_no_difference(cheap):
    stanza = Passphrase("gr\u00f6\u00dfer als du").wrap(DATA_KEY, PART)
    assert Passphrase("gro\u0308\u00dfer als du").unwrap([stanza], PART) == DATA_KEY


@pytest.mark.parametrize("text", ["", "short", "7 chars", "e\u0301" * 7, "\ud800" * 8])
def test_a_passphrase_that_protects_nothing_is_refused_without_being_shown(text):
    with pytest.raises(PassphraseError) as caught:
        Passphrase(text)
    assert not text or text not in str(caught.value)


def test_a_passphrase_does_not_show_itself():
    assert "horse" not in repr(Passphrase("correct horse"))
    assert "horse" not in str(Passphrase("correct horse"))


def test_without_a_stanza_for_a_passphrase_the_key_is_another():
    with pytest.raises(WrongKeyError, match="no passphrase"):
        Passphrase("correct horse").unwrap([Stanza("x25519", bytes(32), bytes(80))], PART)


@pytest.mark.parametrize(
    ("costs", "error"),
    [
        ((262_145, 1, 1), OversizedFieldError),
        ((2**32 - 1, 255, 255), OversizedFieldError),
        ((64, 9, 1), OversizedFieldError),
        ((128, 1, 9), OversizedFieldError),
        ((64, 0, 1), TamperedHeaderError),
        ((64, 1, 0), TamperedHeaderError),
        ((0, 1, 1), TamperedHeaderError),
        ((63, 1, 8), TamperedHeaderError),
        ((64, 1, 8), WrongPassphraseError),
        ((8, 8, 1), WrongPassphraseError),
    ],
)
def test_costs_beyond_the_formats_are_refused_before_they_are_paid(costs, error, monkeypatch):
    paid = []

    def derive(self, **settings):
        paid.append(settings["memory_cost"])
        return Argon2id(**settings)

    monkeypatch.setattr(passphrases, "Argon2id", lambda **settings: derive(None, **settings))
    stanza = Stanza(ARGON2ID, bytes(32), struct.pack(">IBB", *costs) + bytes(48))
    with pytest.raises(error):
        Passphrase("correct horse").unwrap([stanza], PART)
    assert bool(paid) == (error is WrongPassphraseError)
