import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_flwr.crypto.stream import CipherStream, StreamCipher
from lepton_flwr.secagg.masking import CHUNK, add_streams

KEYS = [bytes([i]) * 32 for i in range(3)]


def stream(key, size, cipher=StreamCipher.AES):
    """All at once, with the library's cipher."""
    made = Cipher(algorithms.AES(key), modes.CTR(bytes(16)))
    if cipher is StreamCipher.CHACHA20:
        made = Cipher(algorithms.ChaCha20(key, bytes(16)), None)
    encryptor = made.encryptor()
    return np.frombuffer(encryptor.update(bytes(4 * size)), dtype="<u4")


@pytest.mark.parametrize("size", [1, 3, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
@pytest.mark.parametrize("cipher", StreamCipher)
def test_streams_are_added_and_subtracted_whatever_the_parts(size, num_threads, cipher):
    vector = np.arange(size, dtype=np.uint32)
    add_streams(vector, zip(KEYS, (1, -1, 1), strict=True), cipher, num_threads)
    expected = np.arange(size, dtype=np.uint32) + stream(KEYS[0], size, cipher)
    expected = expected - stream(KEYS[1], size, cipher) + stream(KEYS[2], size, cipher)
    np.testing.assert_array_equal(vector, expected)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 300), st.integers(1, 100))
@settings(max_examples=30, deadline=None)
def test_a_later_part_of_a_stream_is_what_the_whole_has_there(key, block, size):
    for cipher in StreamCipher:
        whole = CipherStream(key, cipher=cipher).read(64 * block + size)
        assert CipherStream(key, block, cipher).read(size) == whole[64 * block :]


def test_opposite_signs_cancel():
    vector = np.zeros(CHUNK + 7, dtype=np.uint32)
    add_streams(vector, [(KEYS[0], 1)])
    assert vector.any()
    add_streams(vector, [(KEYS[0], -1)])
    assert not vector.any()
