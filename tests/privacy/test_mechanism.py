import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.errors import ConfigError, PrivacyError
from lepton_flwr.privacy.clipping import clip_l2
from lepton_flwr.privacy.mechanism import ClientLevelGaussian
from lepton_flwr.privacy.noise import GaussianNoise


def keyed() -> GaussianNoise:
    return GaussianNoise(CipherStream(bytes(32)))


@given(
    arrays(np.float64, st.integers(1, 30), elements=st.floats(-10, 10)),
    st.floats(0.01, 10),
    st.floats(1, 1e6),
)
def test_one_client_never_moves_the_sum_by_more_than_the_sensitivity(update, clip, scale):
    on_grid = np.rint(clip_l2(update, clip)[0] * scale)
    mechanism = ClientLevelGaussian(clip, 1.0, scale)
    assert np.linalg.norm(on_grid) <= mechanism.sensitivity(update.size) * (1 + 1e-12)


def test_rounding_can_need_the_square_root_of_the_dimension():
    """Without its second term the sensitivity would be exceeded fourfold here."""
    dimension, clip, scale = 10_000, 1.0, 51.0
    on_grid = np.rint(clip_l2(np.ones(dimension), clip)[0] * scale)
    assert np.linalg.norm(on_grid) > 1.9 * clip * scale
    mechanism = ClientLevelGaussian(clip, 1.0, scale)
    assert np.linalg.norm(on_grid) <= mechanism.sensitivity(dimension)


def test_the_noise_has_the_stated_deviation():
    """Variance within 4 standard errors: false-alarm rate 1e-4 (fixed key)."""
    mechanism = ClientLevelGaussian(0.5, 1.3, 1000.0)
    total = np.arange(100_000, dtype=np.int64)
    noise = mechanism.release(total, keyed()) - total
    assert noise.dtype == np.int64
    variance = (1.3 * (500 + np.sqrt(100_000) / 2)) ** 2
    assert abs(noise.var() / variance - 1) < 4 * np.sqrt(2 / total.size)


def test_releases_differ_when_nothing_is_injected():
    mechanism = ClientLevelGaussian(1.0, 1.0, 1e6)
    total = np.zeros(8, dtype=np.int64)
    assert not np.array_equal(mechanism.release(total), mechanism.release(total))
    assert not total.any()


@pytest.mark.parametrize("total", [np.zeros(3), np.zeros(3, np.int32), np.zeros((3, 1), np.int64)])
def test_anything_but_an_int64_vector_is_refused(total):
    with pytest.raises(PrivacyError, match="int64"):
        ClientLevelGaussian(1.0, 1.0, 1.0).release(total, keyed())


def test_sums_near_overflow_are_refused():
    with pytest.raises(PrivacyError, match="room"):
        ClientLevelGaussian(1.0, 1.0, 1.0).release(np.array([-(2**62)]), keyed())


@pytest.mark.parametrize("field", ["l2_norm_clip", "noise_multiplier", "scale"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_settings_are_refused(field, value):
    settings = {"l2_norm_clip": 1.0, "noise_multiplier": 1.0, "scale": 1.0}
    with pytest.raises(ConfigError, match=field):
        ClientLevelGaussian(**(settings | {field: value}))
