"""Arrays in a zip archive, as `numpy.savez` writes them, from anyone: no size in it is trusted."""

import io
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np

# What reading an archive of any bytes can raise, here and where what was read is made use of.
UNREADABLE = (
    OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
    RuntimeError, MemoryError, SyntaxError, zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip


@contextmanager
def opened(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """Open an archive.

    **Guarantee**: its members, read one after the other, take no more memory than the file is long.

    Raises:
        ValueError: a member is compressed, or they are longer together than the file.
        UNREADABLE: one of these, where it is no archive.
    """
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("a compressed member: expected what numpy.savez writes")
        if sum(member.file_size for member in members) > length:
            raise ValueError("members longer than their file")
        yield archive


def array(content: bytes) -> np.ndarray:
    """The array of a member, of its own memory; nothing is unpickled.

    **Guarantee**: the memory for it is taken only if `content` has all of its bytes.

    Raises:
        ValueError: it is no array, one of objects, or is shorter or longer than it says.
        UNREADABLE: one of these, where the header is malformed.
    """
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"format {version}: expected (1, 0) or (2, 0)")
    if dtype.hasobject:
        raise ValueError("objects: expected numbers")
    if math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError("an array that is shorter or longer than it says")
    flat = np.frombuffer(content, dtype, offset=file.tell())
    return flat.reshape(shape, order="F" if fortran_order else "C").copy(order="K")
