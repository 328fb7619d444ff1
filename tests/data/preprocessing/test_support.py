import numpy as np
import pytest

from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.data.preprocessing.support import FAILURE, cover, num_blocks, support, threshold
from lepton_flwr.privacy.noise import GaussianNoise


def noise(size, stddev, key=0):
    return stddev * GaussianNoise(CipherStream(key.to_bytes(32, "big"))).standard_normal(size)


def test_exact_counts_are_found_where_they_are():
    counts = np.zeros(64)
    counts[[5, 40]] = 1
    assert support(counts, 0.0, 64) == (5, 41)
    assert support(np.zeros(64), 0.0, 64) is None


def test_noise_alone_passes_as_rarely_as_stated():
    # 1,000 empty histograms: at the stated rate of 1 %, more than 28 have probability 1e-6. The
    # union bound is not far off, for blocks within each other are alike.
    passed = sum(support(noise(64, 10.0, key), 10.0, 64) is not None for key in range(1000))
    assert 1 <= passed <= 28
    assert FAILURE == 0.01


def test_records_spread_thinly_are_found_in_wide_blocks():
    counts = np.full(64, 3.0)  # each far below the threshold of a bin
    assert threshold(1.5, num_blocks(64, 64)) > 3
    low, high = support(counts + noise(64, 1.5), 1.5, 64)
    assert high - low >= 48


def test_a_narrow_peak_is_found_narrowly():
    counts = np.zeros(64)
    counts[20] = 1000
    assert support(counts + noise(64, 20.0), 20.0, 64) == (20, 21)


def test_a_range_grows_until_hardly_anything_is_beyond_it():
    counts = np.full(64, 100.0)
    low, high = cover(counts + noise(64, 5.0), 5.0, (30, 31))
    assert counts[:low].sum() + counts[high:].sum() <= 0.05 * counts.sum()
    peak = np.zeros(64)
    peak[30] = 6400
    assert cover(peak, 5.0, (30, 31)) == (30, 31)


@pytest.mark.parametrize("around", [(0, 1), (63, 64), (0, 64)])
def test_a_range_at_the_end_grows_to_the_other_side_or_stops(around):
    assert cover(np.ones(64), 0.0, around) == (0, 64)
