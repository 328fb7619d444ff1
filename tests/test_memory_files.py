from pathlib import Path

import pytest

from lepton_flwr import _memory_files


def test_what_is_written_comes_back_and_was_on_no_disk():
    seen = []

    def write(path: Path) -> None:
        assert path.name == "model.keras"
        with path.open("wb") as file:
            seen.append(path.resolve().as_posix())
            file.write(b"secret" * 100_000)

    assert _memory_files.written(write, "model.keras") == b"secret" * 100_000
    assert seen[0].startswith("/memfd:")


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
