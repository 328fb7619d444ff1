"""Fixed injected keys make the statistical tests deterministic; each says its false-alarm rate."""

import math

import numpy as np
import pytest
from scipy import stats

from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.privacy import ziggurat

ALARM = 1e-6
LAYERS = ziggurat._LAYERS


@pytest.fixture(scope="module")
def draws():
    found = np.empty(4_000_000, np.float32)
    ziggurat.fill(CipherStream(bytes(31) + b"z"), found, 1.0)
    return found.astype(np.float64)


def test_layers_have_one_area_and_close_at_the_top():
    _, edges, heights, _, _ = ziggurat._tables()
    assert (edges.size, edges[-1], heights[-1]) == (LAYERS + 1, 0.0, 1.0)
    assert (np.diff(edges) < 0).all()
    areas = edges[:-1] * np.diff(heights)
    tail = math.sqrt(math.pi / 2) * math.erfc(edges[1] / math.sqrt(2))
    areas[0] = edges[1] * heights[1] + tail
    np.testing.assert_allclose(areas, areas.mean(), rtol=1e-11)
    assert edges[0] * heights[1] == pytest.approx(areas[0], rel=1e-12)


def test_every_part_of_the_line_has_its_share(draws):
    """Chi-squared over parts of one probability, and over the layers' edges: false alarms 1e-6."""
    edges = ziggurat._tables()[1][1:]
    for bounds in (
        stats.norm.ppf(np.linspace(0, 1, 4_001)),
        np.concatenate([[-np.inf], -edges, edges[-2::-1], [np.inf]]),
    ):
        expected = np.diff(stats.norm.cdf(bounds)) * draws.size
        counts = np.histogram(draws, bounds)[0]
        assert stats.chisquare(counts, expected).pvalue > ALARM / 2


def test_tails_have_their_mass_and_shape(draws):
    """Counts beyond each bound are binomial, and excesses over R have their law: 1e-6 in all."""
    radius = ziggurat._tables()[1][1]
    bounds = (3.0, 3.5, radius, 4.3, 4.6, 5.0)
    for bound in bounds:
        count = int((np.abs(draws) > bound).sum())
        p = 2 * stats.norm.sf(bound)
        assert stats.binomtest(count, draws.size, p).pvalue > ALARM / 8
    beyond = draws[np.abs(draws) > radius]
    assert stats.binomtest(int((beyond > 0).sum()), beyond.size).pvalue > ALARM / 8
    tail = ziggurat._tail(CipherStream(bytes(32)), 200_000)
    assert tail.min() > radius
    law = stats.truncnorm(radius, np.inf)
    assert stats.kstest(tail, law.cdf).pvalue > ALARM / 8


def test_what_float32_cannot_decide_is_decided_as_the_bell_is():
    """Points of one layer that are not below the next: those below the bell stay. 1e-6 in all."""
    _, edges, heights, _, _ = ziggurat._tables()
    for layer in (1, LAYERS // 2, LAYERS - 1):
        x = np.linspace(edges[layer + 1], edges[layer], 400_001)[1:-1]
        found = ziggurat._decided(
            CipherStream(bytes([layer % 256] * 32)), np.full(x.size, layer), x
        )
        chance = (np.exp(-(x**2) / 2) - heights[layer]) / (heights[layer + 1] - heights[layer])
        stayed = int((found == x).sum())
        deviation = math.sqrt((chance * (1 - chance)).sum())
        assert abs(stayed - chance.sum()) < 5.2 * deviation


def test_neighbours_and_signs_are_uncorrelated(draws):
    """Of draws, squares and signs, to the next and one chunk on: 1e-6 in all."""
    for kind in (draws, draws**2, np.sign(draws)):
        values = (kind - kind.mean()) / kind.std()
        for lag in (1, 2, ziggurat._CHUNK):
            product = (values[lag:] * values[:-lag]).mean() * math.sqrt(values.size - lag)
            assert abs(product) < 5.5


@pytest.mark.parametrize("size", [0, 1, 3, 16, ziggurat._CHUNK, 2 * ziggurat._CHUNK + 1])
def test_any_length_is_filled_whole(size):
    found = np.full(size, np.nan, np.float32)
    # Of float32 draws some are equal, so a key of the system's would sometimes fail.
    ziggurat.fill(CipherStream(bytes(32)), found, 2.5)
    assert np.isfinite(found).all()
    assert np.unique(found).size >= 0.999 * size


def test_the_deviation_scales_every_draw():
    one, other = np.empty(100_000, np.float32), np.empty(100_000, np.float32)
    ziggurat.fill(CipherStream(bytes(32)), one, 1.0)
    ziggurat.fill(CipherStream(bytes(32)), other, 1e-3)
    np.testing.assert_allclose(other, 1e-3 * one.astype(np.float64), rtol=3e-7)
