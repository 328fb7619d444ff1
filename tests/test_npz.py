"""Archives of arrays: what is written comes back, and no size in a hostile one is believed."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lepton_flwr import _npz

NUMBERS = st.one_of(arrays.floating_dtypes(), arrays.integer_dtypes(), arrays.boolean_dtypes())


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def claiming(shape, dtype="<f4", content=b"", version=(1, 0)):
    """A member whose header says something of its own."""
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    write = getattr(np.lib.format, f"write_array_header_{version[0]}_0")
    write(file, header)
    return file.getvalue() + content


@settings(deadline=None)
@given(
    array=arrays.arrays(NUMBERS, arrays.array_shapes(min_dims=0, min_side=0)),
    fortran=st.booleans(),
)
def test_arrays_come_back_as_numpy_itself_reads_them(array, fortran):
    content = npy(np.asfortranarray(array) if fortran else array)
    found, expected = _npz.array(content), np.load(io.BytesIO(content))
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()
    assert found.flags.writeable


@pytest.mark.parametrize(
    "content",
    [
        claiming((2**42,), content=b"four"),
        claiming((2**42,), version=(2, 0)),
        claiming((2**70, 2**70)),
        claiming((2**70, 0)),
        claiming((2,), content=b"four"),
        claiming((1,), content=b"four and more"),
        claiming((2**40,), dtype="|V0"),
        claiming((-1, -1), content=b"four"),
        npy(np.zeros(2, np.float32))[:-1],
        claiming((1,), dtype="|O", content=b"pointers"),
        b"\x93NUMPY\x01\x00\x30\x00{'descr': ((((((((((((",
        b"\x93NUMPY\x03\x00" + b"\0" * 80,
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
        b"",
        b"text",
    ],
)
def test_a_member_that_is_no_array_takes_no_memory_and_is_refused(content):
    tracemalloc.start()
    try:
        with pytest.raises(_npz.UNREADABLE):
            _npz.array(content)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def archive(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as written:
        for name, content in members.items():
            written.writestr(name, content)
    return file


def test_a_compressed_member_is_refused():
    bomb = archive({"x.npy": npy(np.zeros(2**20))}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed"), _npz.opened(bomb):
        pass


def test_members_that_say_more_than_the_file_has_are_refused():
    """Two entries of one content, as in archives that unpack to more than they are."""
    file = archive({"x.npy": npy(np.zeros(1000)), "y.npy": b""})
    with zipfile.ZipFile(file, "a") as again:
        one, other = again.infolist()
        other.header_offset = one.header_offset
        other.file_size, other.compress_size, other.CRC = one.file_size, one.compress_size, one.CRC
        again._didModify = True
    with pytest.raises(ValueError, match="longer than their file"), _npz.opened(file):
        pass
