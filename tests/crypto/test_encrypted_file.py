import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_flwr.crypto import body as bodies
from lepton_flwr.crypto.encrypted_file import (
    decrypt_file,
    encrypt_file,
    inspect,
    rewrap_file,
)
from lepton_flwr.crypto.envelope import seal, unseal
from lepton_flwr.crypto.errors import (
    DigestError,
    EnvelopeError,
    NotAnEnvelopeError,
    PurposeError,
    RecipientError,
    SourceChangedError,
    TamperedChunkError,
    TrailingBytesError,
    TruncatedError,
    WrongKeyError,
)
from lepton_flwr.crypto.passphrase import Passphrase
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.errors import DataError, OutputError

KEY, OTHER = DecryptionKey.generate(), DecryptionKey.generate()
CHUNK = 1 << 10
PLAINTEXT = bytes(range(256)) * 10  # two chunks and a half


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(bodies, "CHUNK_BITS", 10)
    for name, value in (("MEMORY_KIB", 64), ("PASSES", 1), ("LANES", 1)):
        monkeypatch.setattr(f"lepton_flwr.crypto.passphrase.{name}", value)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "plain").write_bytes(PLAINTEXT)
    encrypt_file(tmp_path / "plain", tmp_path / "sealed", [KEY.recipient])
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("length", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK])
def test_a_file_comes_back_as_it_was(tmp_path, length):
    plain, sealed, found = (tmp_path / name for name in ("plain", "sealed", "found"))
    plain.write_bytes(os.urandom(length))
    told = []
    digest = encrypt_file(
        plain, sealed, [KEY.recipient, OTHER.recipient, Passphrase("correct horse")], digest=True
    )
    for key in (KEY, OTHER, Passphrase("correct horse")):
        found.unlink(missing_ok=True)
        again = decrypt_file(
            sealed, found, key, digest=True, progress=lambda *numbers: told.append(numbers)
        )
        assert found.read_bytes() == plain.read_bytes()
        assert digest == again == hashlib.sha256(plain.read_bytes()).hexdigest()
    assert told[-1] == (length, length)
    assert names(tmp_path) == ["found", "plain", "sealed"]
    if length > 100:
        assert plain.read_bytes()[:16] not in sealed.read_bytes()


def test_a_file_is_an_envelope_and_an_envelope_a_file(folder):
    sealed = folder / "sealed"
    assert unseal(sealed.read_bytes(), KEY, purpose="lepton/file/v1") == PLAINTEXT
    sealed.write_bytes(seal(PLAINTEXT, [KEY.recipient], purpose="lepton/model/v1"))
    with pytest.raises(PurposeError):
        decrypt_file(sealed, folder / "found", KEY)
    decrypt_file(sealed, folder / "found", KEY, purpose="lepton/model/v1")
    assert (folder / "found").read_bytes() == PLAINTEXT


def test_without_a_digest_there_is_none(folder):
    assert encrypt_file(folder / "plain", folder / "other", [KEY.recipient]) is None
    assert decrypt_file(folder / "other", folder / "found", KEY) is None


def damaged(sealed, start):
    """Name, what stands there then, and the error."""
    first, second, third = (
        sealed[start + at * (CHUNK + 16) : start + (at + 1) * (CHUNK + 16)] for at in range(3)
    )
    header = sealed[:start]
    yield sealed[:-1], TruncatedError
    yield header + first + second, TruncatedError
    yield header + first, TruncatedError
    yield header, TruncatedError
    yield header[:-1], TruncatedError
    yield sealed + b"\0", TrailingBytesError
    yield sealed + third, TrailingBytesError
    yield header + second + first + third, TamperedChunkError
    yield header + first + first + third, TamperedChunkError
    yield header + second + second + third, TamperedChunkError
    yield header + first + second + bytes(len(third)), TamperedChunkError
    yield header + first + second + third[:-1] + bytes([third[-1] ^ 1]), TamperedChunkError
    yield b"\0" + sealed[1:], NotAnEnvelopeError
    yield b"", NotAnEnvelopeError


@pytest.mark.parametrize("number", range(14))
def test_a_damaged_file_gives_out_nothing(folder, number):
    start = inspect(folder / "sealed").header_bytes
    content, error = list(damaged((folder / "sealed").read_bytes(), start))[number]
    (folder / "sealed").write_bytes(content)
    with pytest.raises(error):
        decrypt_file(folder / "sealed", folder / "found", KEY)
    assert names(folder) == ["plain", "sealed"]
    # Nor does it replace what is there.
    (folder / "found").write_bytes(b"as it was")
    with pytest.raises(error):
        decrypt_file(folder / "sealed", folder / "found", KEY, overwrite=True)
    assert (folder / "found").read_bytes() == b"as it was"
    assert names(folder) == ["found", "plain", "sealed"]


def test_chunks_of_another_file_for_the_same_recipient_are_refused(folder):
    encrypt_file(folder / "plain", folder / "other", [KEY.recipient])
    start = inspect(folder / "sealed").header_bytes
    one, other = (bytearray((folder / name).read_bytes()) for name in ("sealed", "other"))
    one[start : start + CHUNK + 16] = other[start : start + CHUNK + 16]
    (folder / "sealed").write_bytes(one)
    with pytest.raises(TamperedChunkError, match="chunk 1 of 3"):
        decrypt_file(folder / "sealed", folder / "found", KEY)


def test_until_all_is_verified_the_plaintext_is_hidden_and_its_owners_alone(folder):
    seen = []

    def look(done, total):
        (beside,) = folder.glob(".partial-*")
        seen.append((done, (folder / "found").exists(), beside.stat().st_mode & 0o777))

    before = os.umask(0)
    try:
        decrypt_file(folder / "sealed", folder / "found", KEY, progress=look)
    finally:
        os.umask(before)
    assert seen == [(done, False, 0o600) for done in (CHUNK, 2 * CHUNK, len(PLAINTEXT))]
    assert (folder / "found").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_command_leaves_nothing(folder, error):
    def stop(done, total):
        if done > CHUNK:
            raise error

    with pytest.raises(error):
        decrypt_file(folder / "sealed", folder / "found", KEY, progress=stop)
    with pytest.raises(error):
        encrypt_file(folder / "plain", folder / "new", [KEY.recipient], progress=stop)
    assert names(folder) == ["plain", "sealed"]


def test_two_writers_of_one_name_do_not_mix(folder):
    encrypt_file(folder / "plain", folder / "other", [OTHER.recipient])
    started = []

    def other(done, total):
        if not started:
            started.append(True)
            decrypt_file(folder / "other", folder / "found", OTHER, overwrite=True)

    decrypt_file(folder / "sealed", folder / "found", KEY, overwrite=True, progress=other)
    assert (folder / "found").read_bytes() == PLAINTEXT
    assert names(folder) == ["found", "other", "plain", "sealed"]


def test_what_exists_is_replaced_only_when_asked(folder):
    sealed = (folder / "sealed").read_bytes()
    with pytest.raises(OutputError, match="exists"):
        encrypt_file(folder / "plain", folder / "sealed", [KEY.recipient])
    with pytest.raises(OutputError, match="exists"):
        decrypt_file(folder / "sealed", folder / "plain", KEY)
    assert (folder / "sealed").read_bytes() == sealed
    (folder / "dangling").symlink_to(folder / "nowhere")
    with pytest.raises(OutputError, match="exists"):
        decrypt_file(folder / "sealed", folder / "dangling", KEY)
    encrypt_file(folder / "plain", folder / "plain", [KEY.recipient], overwrite=True)
    decrypt_file(folder / "plain", folder / "plain", KEY, overwrite=True)
    assert (folder / "plain").read_bytes() == PLAINTEXT


def test_a_plaintext_is_compared_with_the_expected_digest(folder):
    digest = hashlib.sha256(PLAINTEXT).hexdigest()
    with pytest.raises(DigestError):
        decrypt_file(folder / "sealed", folder / "found", KEY, sha256="0" * 64)
    assert names(folder) == ["plain", "sealed"]
    assert decrypt_file(folder / "sealed", folder / "found", KEY, sha256=digest.upper()) == digest


@pytest.mark.parametrize("change", ["grow", "shrink", "touch"])
def test_a_source_that_changes_meanwhile_is_refused(folder, change):
    plain = folder / "plain"

    def write(done, total):
        if done == CHUNK:
            if change == "grow":
                with plain.open("ab") as file:
                    file.write(b"x")
            elif change == "shrink":
                os.truncate(plain, CHUNK)
            else:
                os.utime(plain, ns=(1, 1))

    with pytest.raises(SourceChangedError):
        encrypt_file(plain, folder / "new", [KEY.recipient], progress=write)
    assert names(folder) == ["plain", "sealed"]


@pytest.mark.parametrize(("change", "error"), [(-1, TruncatedError), (1, TrailingBytesError)])
def test_an_encrypted_file_that_changes_meanwhile_is_refused(folder, change, error):
    sealed = folder / "sealed"

    def write(done, total):
        os.truncate(sealed, size + change)

    size = sealed.stat().st_size
    with pytest.raises(error):
        decrypt_file(sealed, folder / "found", KEY, progress=write)
    assert names(folder) == ["plain", "sealed"]


def test_what_is_no_regular_file_is_refused(folder):
    os.mkfifo(folder / "pipe")
    for source in (folder, folder / "pipe", Path("/dev/null"), folder / "absent"):
        for use in (
            lambda path: encrypt_file(path, folder / "new", [KEY.recipient]),
            lambda path: decrypt_file(path, folder / "new", KEY),
            lambda path: rewrap_file(path, KEY, [KEY.recipient]),
            inspect,
        ):
            with pytest.raises(DataError):
                use(source)


def test_a_folder_that_cannot_be_written_is_one_error(folder):
    with pytest.raises(OutputError):
        encrypt_file(folder / "plain", folder / "absent" / "new", [KEY.recipient])


def test_rewrapping_a_file_keeps_the_body_the_mode_and_the_name(folder):
    sealed = folder / "sealed"
    sealed.chmod(0o640)
    before, body_at = sealed.read_bytes(), inspect(sealed).header_bytes
    told = []
    rewrap_file(
        sealed, KEY, [OTHER.recipient, Passphrase("correct horse")],
        progress=lambda *numbers: told.append(numbers),
    )  # fmt: skip
    assert told == [(done, len(PLAINTEXT)) for done in (CHUNK, 2 * CHUNK, len(PLAINTEXT))]
    after = sealed.read_bytes()
    assert after[inspect(sealed).header_bytes :] == before[body_at:]
    assert sealed.stat().st_mode & 0o777 == 0o640
    decrypt_file(sealed, folder / "found", OTHER)
    assert (folder / "found").read_bytes() == PLAINTEXT
    with pytest.raises(WrongKeyError):
        decrypt_file(sealed, folder / "again", KEY)
    assert names(folder) == ["found", "plain", "sealed"]


def test_a_rewrapping_that_fails_leaves_the_file_as_it_was(folder, monkeypatch):
    sealed = folder / "sealed"
    before = sealed.read_bytes()
    for key, recipients, error in (
        (OTHER, [OTHER.recipient], WrongKeyError),
        (KEY, [], RecipientError),
    ):
        with pytest.raises(error):
            rewrap_file(sealed, key, recipients)

    def shorten(done, total):
        os.truncate(sealed, len(before) - 1)

    with pytest.raises(TruncatedError):
        rewrap_file(sealed, KEY, [OTHER.recipient], progress=shorten)
    sealed.write_bytes(before)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OutputError, match="No space left"):
        rewrap_file(sealed, KEY, [OTHER.recipient])
    assert sealed.read_bytes() == before
    assert names(folder) == ["plain", "sealed"]
    sealed.write_bytes(before[:-1])
    with pytest.raises(TruncatedError):
        rewrap_file(sealed, KEY, [OTHER.recipient])


def test_errors_name_the_file(folder):
    (folder / "sealed").write_bytes(b"something else")
    with pytest.raises(NotAnEnvelopeError, match=r"^sealed: not encrypted by lepton"):
        inspect(folder / "sealed")


def test_a_file_says_what_it_is_without_a_key(folder):
    encrypt_file(
        folder / "plain", folder / "new", [KEY.recipient, Passphrase("correct horse")],
        purpose="rows",
    )  # fmt: skip
    found = inspect(folder / "new")
    assert found.version == 1
    assert found.purpose == "rows"
    assert [one.suite for one in found.recipients] == ["x25519", "argon2id"]
    assert [one.fingerprint for one in found.recipients] == [KEY.recipient.fingerprint, None]
    assert found.chunk_bytes == CHUNK
    assert found.plaintext_bytes == len(PLAINTEXT)
    size = (folder / "new").stat().st_size
    assert found.file_bytes == size == found.header_bytes + len(PLAINTEXT) + 3 * 16
    (folder / "new").write_bytes((folder / "new").read_bytes()[:-1])
    with pytest.raises(EnvelopeError):
        inspect(folder / "new")


MEMORY = r"""
import re, sys
from pathlib import Path
from lepton_flwr.crypto.encrypted_file import decrypt_file, encrypt_file, rewrap_file
from lepton_flwr.crypto.recipients import DecryptionKey
def peak():  # not getrusage, which counts the process that started this one
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])
folder, key = Path(sys.argv[1]), DecryptionKey.generate()
before = peak()
encrypt_file(folder / "plain", folder / "sealed", [key.recipient])
rewrap_file(folder / "sealed", key, [key.recipient])
decrypt_file(folder / "sealed", folder / "found", key)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says the peak")
def test_memory_does_not_grow_with_the_file(tmp_path):
    with (tmp_path / "plain").open("wb") as file:
        file.truncate(1 << 26)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path], capture_output=True, text=True, check=True
    )
    assert 0 < int(done.stdout) < 8 * 1024  # KiB, of a file of 64 MiB
    assert (tmp_path / "found").stat().st_size == 1 << 26
