import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.secagg.masking import CHUNK, add_streams

KEYS = [bytes([i]) * 32 for i in range(3)]


def stream(key, size):
    """All at once, with the library's cipher."""
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(encryptor.update(bytes(4 * size)), dtype="<u4")


@pytest.mark.parametrize("size", [1, 3, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
def test_streams_are_added_and_subtracted_whatever_the_parts(size, num_threads):
    vector = np.arange(size, dtype=np.uint32)
    add_streams(vector, zip(KEYS, (1, -1, 1), strict=True), num_threads)
    expected = np.arange(size, dtype=np.uint32) + stream(KEYS[0], size)
    expected = expected - stream(KEYS[1], size) + stream(KEYS[2], size)
    np.testing.assert_array_equal(vector, expected)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 300), st.integers(1, 100))
@settings(max_examples=30, deadline=None)
def test_a_later_part_of_a_stream_is_what_the_whole_has_there(key, block, size):
    whole = CipherStream(key).read(16 * block + size)
    assert CipherStream(key, block).read(size) == whole[16 * block :]


def test_opposite_signs_cancel():
    vector = np.zeros(CHUNK + 7, dtype=np.uint32)
    add_streams(vector, [(KEYS[0], 1)])
    assert vector.any()
    add_streams(vector, [(KEYS[0], -1)])
    assert not vector.any()
