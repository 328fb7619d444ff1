import math
import time

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.privacy.noise import GaussianNoise
from lepton_flwr.training.draws import DrawSource, NoiseLayout

N = 40
ROWS = (np.arange(1, N + 1, dtype=np.float32)[:, None] * [1, 10], np.arange(1, N + 1), ())


def source(q=0.5, size=None, multiple=1, dimension=3, key=1):
    return DrawSource(
        ROWS,
        N,
        q,
        size,
        multiple_of=multiple,
        factor=0.25,
        shapes=[(dimension,), (2, 2)],
        stddev=2.0,
        sampling=CipherStream(bytes([key] * 32)),
        noise=GaussianNoise(CipherStream(bytes([key + 100] * 32))),
    )


def test_a_batch_holds_the_sampled_rows_and_marks_its_padding():
    rows = source(key=2).rows()
    draw = source(key=2).draw()
    (x, y, weights), mask = draw.data, draw.mask
    assert weights == ()
    assert mask.sum() == 0.25 * rows.size
    np.testing.assert_array_equal(y[mask > 0], ROWS[1][rows])
    np.testing.assert_array_equal(x[mask > 0], ROWS[0][rows])
    assert len(x) == len(y) == mask.size == 4 * math.ceil(rows.size / 4)


def test_a_truncated_batch_has_one_shape_and_is_never_larger():
    made = source(q=0.5, size=16)
    sizes = []
    for number in range(60):
        draw = made.draw(number % 2)
        assert draw.mask.shape == (16,)
        sizes.append(int((draw.mask > 0).sum()))
    assert max(sizes) == 16
    assert min(sizes) < 16


def test_what_is_cut_is_cut_uniformly():
    """Chi-square over which of 40 certain records stay in a batch of 10: false alarms 1e-6."""
    made = source(q=1.0, size=10)
    counts = np.bincount(np.concatenate([made.rows() for _ in range(4000)]), minlength=N)
    assert counts.sum() == 40_000
    # Sampling without replacement varies less than independent draws: the test is conservative.
    assert stats.chisquare(counts).statistic * N / (N - 10) < stats.chi2.isf(1e-6, N - 1)


def test_cut_records_do_not_follow_their_index():
    """Both halves of the records, equally likely to stay: 6 standard deviations."""
    made = source(q=1.0, size=10)
    low = sum(int((made.rows() < N // 2).sum()) for _ in range(2000))
    spread = math.sqrt(2000 * 10 * 0.25 * (N - 10) / (N - 1))
    assert abs(low - 10_000) < 6 * spread


@pytest.mark.parametrize("size", [None, 10])
def test_batches_are_padded_to_whole_pieces(size):
    draw = source(size=size, multiple=7).draw()
    assert draw.mask.size % 7 == 0
    pieces = list(draw.pieces(7))
    assert [mask.size for _, mask in pieces] == [7] * len(pieces)
    np.testing.assert_array_equal(np.concatenate([data[1] for data, _ in pieces]), draw.data[1])


def copied(draw):
    return draw.mask.copy(), draw.noise.copy()


def test_draws_made_ahead_are_those_made_one_by_one():
    by_hand = source()
    expected = [copied(by_hand.draw()) for _ in range(7)]
    with source().ahead(7, copied) as draws:
        found = list(draws)
    assert len(found) == 7
    for (mask, noise), (other_mask, other_noise) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mask, other_mask)
        np.testing.assert_array_equal(noise, other_noise)


def test_a_draw_in_use_is_not_overwritten_by_the_next():
    with source().ahead(50, lambda draw: draw) as draws:
        for draw in draws:
            noise, mask = draw.noise.copy(), draw.mask.copy()
            time.sleep(0.001)
            np.testing.assert_array_equal(draw.noise, noise)
            np.testing.assert_array_equal(draw.mask, mask)


def test_noise_has_the_stated_deviation():
    """Variance of 1e5 draws within 6 standard errors: false alarms 2e-9."""
    made = source(dimension=100_000)
    noise, small = NoiseLayout(made.shapes).split(made.draw().noise)
    assert small.shape == (2, 2)
    assert noise.dtype == np.float32
    assert abs(noise.var() / 4.0 - 1) < 6 * math.sqrt(2 / noise.size)


def test_an_error_in_the_thread_reaches_the_training():
    made = source()
    made.noise.fill = None  # not callable
    with made.ahead(3, copied) as draws, pytest.raises(TypeError):
        next(draws)


@pytest.mark.parametrize("shapes", [[(3,), (2, 2)], [()], [(16,), (17, 3), (1,), (0, 4), (5, 16)]])
def test_each_variable_has_noise_of_its_own(shapes):
    layout = NoiseLayout(shapes)
    noise = np.arange(math.prod(layout.shape), dtype=np.float32).reshape(layout.shape)
    parts = layout.split(noise)
    assert [part.shape for part in parts] == shapes
    used = np.concatenate([part.ravel() for part in parts])
    assert len(set(used)) == used.size == sum(math.prod(shape) for shape in shapes)
    for part, tensor in zip(parts, layout.split(tf.constant(noise)), strict=True):
        np.testing.assert_array_equal(part, tensor.numpy())
