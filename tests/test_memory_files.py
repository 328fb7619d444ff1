import tempfile
from pathlib import Path

import pytest

from lepton_flwr import _memory_files
from lepton_flwr.errors import OutputError


def test_what_is_written_comes_back_and_was_on_no_disk():
    seen = []

    def write(path: Path) -> None:
        assert path.name == "model.keras"
        with path.open("wb") as file:
            seen.append(path.resolve().as_posix())
            file.write(b"secret" * 100_000)

    assert _memory_files.written(write, "model.keras") == b"secret" * 100_000
    assert seen[0].startswith("/memfd:")


def filesystem(path: Path) -> str:
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    kinds = dict(mounts)  # a later mount hides an earlier one
    return next(kinds[str(place)] for place in (path, *path.parents) if str(place) in kinds)


def test_files_beside_the_path_are_in_memory_too(monkeypatch, tmp_path):
    """As Keras makes and extracts them, of models too large for the free memory."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # that of the user is a disk
    places = []

    def write(path: Path) -> None:
        with tempfile.NamedTemporaryFile(dir=path.parent) as beside:
            places.append(Path(beside.name))
            assert filesystem(places[0]) == "tmpfs"
        path.write_bytes(b"")

    _memory_files.written(write, "model.keras")
    with _memory_files.readable(b"", "model.keras") as path:
        assert filesystem(path.parent) == "tmpfs"
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not any(tmp_path.iterdir())


def test_without_a_file_system_in_memory_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(_memory_files, "_FOLDER", tmp_path / "none")
    with pytest.raises(OutputError, match="expected Linux' file system in memory"):
        _memory_files.written(lambda _: pytest.fail("called"), "x")


def test_a_longer_earlier_content_leaves_no_tail():
    def write(path: Path) -> None:
        path.write_bytes(b"much longer")
        path.write_bytes(b"short")

    assert _memory_files.written(write, "x") == b"short"


def test_content_can_be_read_at_a_path_meanwhile_and_not_after():
    with _memory_files.readable(b"\0\1\2", "x.bin") as path:
        assert path.name == "x.bin"
        assert path.read_bytes() == b"\0\1\2"
        assert path.read_bytes() == b"\0\1\2"
    assert not path.exists()
    assert not path.parent.exists()


def test_a_writer_that_fails_leaves_nothing():
    places = []

    def write(path: Path) -> None:
        places.append(path)
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        _memory_files.written(write, "x")
    assert not places[0].parent.exists()
