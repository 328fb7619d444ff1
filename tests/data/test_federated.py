import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_flwr.data.federated import ClientData, FederatedData
from lepton_flwr.errors import DataError, OutputError

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def arrays(train: int = 6, test: int = 3, shape: tuple[int, ...] = (4,), seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "x_train": rng.normal(size=(train, *shape)).astype(np.float32),
        "y_train": rng.integers(0, 3, train).astype(np.int32),
        "x_test": rng.normal(size=(test, *shape)).astype(np.float32),
        "y_test": rng.integers(0, 3, test).astype(np.int32),
    }


def equal(a: ClientData, b: ClientData) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        and getattr(a, name).dtype == getattr(b, name).dtype
        for name in ARRAYS
    )


@pytest.mark.parametrize("shape", [(1,), (4,), (28, 28, 1)])
@pytest.mark.parametrize("test", [0, 3])
def test_what_was_saved_is_loaded(tmp_path, shape, test):
    data = ClientData(**arrays(test=test, shape=shape))
    data.save(tmp_path / "client.npz")
    assert equal(ClientData.load(tmp_path / "client.npz"), data)


def test_saving_leaves_one_file_that_only_its_owner_reads(tmp_path):
    for _ in range(2):
        ClientData(**arrays()).save(tmp_path / "client.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["client.npz"]
    assert (tmp_path / "client.npz").stat().st_mode & 0o077 == 0


def test_a_failed_save_keeps_the_older_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / "client.npz"
    older = ClientData(**arrays(seed=1))
    older.save(path)

    def no_space(handle: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OutputError, match="No space left"):
        ClientData(**arrays(seed=2)).save(path)
    monkeypatch.undo()
    assert equal(ClientData.load(path), older)
    assert list(tmp_path.iterdir()) == [path]


def test_saving_into_a_missing_folder_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="No such file"):
        ClientData(**arrays()).save(tmp_path / "absent" / "client.npz")


def test_loading_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        ClientData.load(tmp_path / "client.npz")
    with pytest.raises(DataError):
        ClientData.load(tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, bytes, ClientData]:
    path = tmp_path_factory.mktemp("damaged") / "client.npz"
    data = ClientData(**arrays())
    data.save(path)
    return path, path.read_bytes(), data


@given(fraction=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_a_data_error(saved, fraction):
    path, content, _ = saved
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(DataError, match="damaged"):
        ClientData.load(path)


@settings(max_examples=400, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_changed_byte_is_a_data_error_or_changes_no_row(saved, place, flip):
    path, content, data = saved
    damaged = bytearray(content)
    damaged[int(place * len(content))] ^= flip
    path.write_bytes(damaged)
    try:
        loaded = ClientData.load(path)
    except DataError:
        return
    assert equal(loaded, data)


def test_pickled_objects_are_not_read(tmp_path):
    path = tmp_path / "client.npz"
    np.savez(path, **{**arrays(), "y_test": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(DataError, match="damaged"):
        ClientData.load(path)


def test_a_file_without_all_arrays_or_of_another_kind_is_a_data_error(tmp_path):
    path = tmp_path / "client.npz"
    np.savez(path, x_train=arrays()["x_train"])
    with pytest.raises(DataError, match="no data file of a client"):
        ClientData.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ARRAYS:
            archive.writestr(f"{name}.npy", "text")
    with pytest.raises(DataError, match="no data file of a client"):
        ClientData.load(path)


def test_sizes_that_a_file_claims_are_not_believed(tmp_path):
    """Of 900 bytes whose header says 2^42 numbers, and of zeros that unpack to a thousandfold."""
    path = tmp_path / "client.npz"
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**42, 1)}
    np.lib.format.write_array_header_1_0(file, header)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ARRAYS:
            archive.writestr(f"{name}.npy", file.getvalue())
    with pytest.raises(DataError, match="damaged"):
        ClientData.load(path)
    np.savez_compressed(path, **{**arrays(), "x_train": np.zeros((6, 10_000), np.float32)})
    with pytest.raises(DataError, match="damaged"):
        ClientData.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": np.zeros((6, 4))}, "expected float32 and int32"),
        ({"y_test": np.zeros(3, np.int64)}, "expected float32 and int32"),
        ({"y_train": np.zeros(5, np.int32)}, r"y_train of shape \(5,\)"),
        ({"x_train": np.zeros(6, np.float32)}, r"expected \(n, ...\)"),
        ({"x_train": np.full((6, 4), np.nan, np.float32)}, "x_train holds NaN or infinite"),
        ({"x_test": np.full((3, 4), np.inf, np.float32)}, "x_test holds NaN or infinite"),
        ({"y_train": np.full(6, -1, np.int32)}, "negative classes"),
        ({"x_test": np.zeros((3, 5), np.float32)}, "expected the same"),
        (
            {"x_train": np.zeros((0, 4), np.float32), "y_train": np.zeros(0, np.int32)},
            "no training row",
        ),
    ],
)
def test_unusable_rows_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        ClientData(**{**arrays(), **change})


def federated(**change) -> FederatedData:
    clients = tuple(ClientData(**arrays(seed=i)) for i in range(3))
    fields = {
        "clients": clients,
        "names": ("a", "b", "c"),
        "num_classes": 3,
        "feature_names": tuple("pqrs"),
    }
    return FederatedData(**{**fields, **change})


def test_the_input_shape_is_that_of_a_row():
    assert federated().input_shape == (4,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("a", "b")}, "3 clients and 2 names"),
        ({"names": ("a", "b", "a")}, "share a name"),
        ({"clients": (), "names": ()}, "0 clients"),
        ({"num_classes": 2}, "beyond the 2"),
        ({"feature_names": ("p",)}, "1 feature names"),
        (
            {
                "clients": (ClientData(**arrays()), ClientData(**arrays(shape=(5,)))),
                "names": ("a", "b"),
            },
            "client b: rows of shape",
        ),
    ],
)
def test_clients_that_do_not_fit_together_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        federated(**change)
