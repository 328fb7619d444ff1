"""What steps add to the weights: its distribution, and that no two draws depend on each other.

Rows of NaN contribute zero, so with SGD a step moves the weights by noise alone. Every test has a
false-alarm rate of 1e-9, shared by all that it compares.
"""

from statistics import NormalDist

import keras
import numpy as np
import pytest
from scipy import stats

from lepton_flwr.privacy.noise import GaussianNoise
from lepton_flwr.training.private import PrivateTrainer, RecordPrivacy

ALARM = 1e-9
STEPS = 4
CLIP, MULTIPLIER, ROWS = 0.7, 1.3, 3
WIDTHS = (96, 64, 3)


def threshold(comparisons):
    """Of the largest of so many standard normal sizes."""
    return -NormalDist().inv_cdf(ALARM / (2 * comparisons))


def new_model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((32,)), *(keras.layers.Dense(w) for w in WIDTHS)])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    return model


def trainer_of(model, noise=None):
    return PrivateTrainer(model, RecordPrivacy(CLIP, MULTIPLIER, 1.0), noise=noise)


def releases(model, trainer, steps=STEPS):
    """The noise of each step over its claimed deviation, float64 of shape (steps, parameters)."""
    seen = []

    def look(*_, **__):
        seen.append(np.concatenate([w.ravel() for w in model.get_weights()]).astype(np.float64))

    watch = keras.callbacks.LambdaCallback(on_train_begin=look, on_train_batch_end=look)
    x, y = np.full((ROWS, 32), np.nan, np.float32), np.zeros((ROWS, 3), np.float32)
    trainer.fit(x, y, steps=steps, callbacks=[watch])
    return -np.diff(seen, axis=0) * ROWS / (CLIP * MULTIPLIER)


def largest_correlation(first, second):
    """Over all circular shifts of one against the other, in standard deviations.

    Of a vector with itself, shift zero is left out and each other one comes twice.
    """
    spectra = [np.fft.rfft(v - v.mean()) for v in (first, second)]
    products = np.fft.irfft(spectra[0] * spectra[1].conj(), first.size)
    sizes = np.abs(products) / (first.std() * second.std() * np.sqrt(first.size))
    return sizes[1:].max() if first is second else sizes.max()


def all_pairs(draws):
    """The largest correlation within and between the vectors, and how many were compared."""
    draws = list(draws)
    pairs = [(a, b) for i, a in enumerate(draws) for b in draws[: i + 1]]
    return max(largest_correlation(a, b) for a, b in pairs), len(pairs) * draws[0].size


def test_every_tensor_gets_noise_of_the_stated_distribution_in_every_step():
    """Kolmogorov-Smirnov, and the variance to a chi-squared law, for each step and tensor."""
    model = new_model()
    draws = releases(model, trainer_of(model))
    sizes = [w.size for w in model.get_weights()]
    parts = [p for step in draws for p in np.split(step, np.cumsum(sizes)[:-1])]
    level = ALARM / (2 * len(parts))
    for part in parts:
        assert stats.kstest(part, "norm").pvalue > level
        tail = stats.chi2.cdf(np.sum(part**2), part.size)
        assert level / 2 < tail < 1 - level / 2


def test_no_draw_repeats_within_a_step_or_between_steps_at_any_offset():
    model = new_model()
    found, compared = all_pairs(releases(model, trainer_of(model)))
    assert found < threshold(compared)


def test_two_fits_of_a_trainer_and_two_trainers_draw_independently():
    model = new_model()
    first, second = trainer_of(model), trainer_of(model)
    draws = [releases(model, t, 1)[0] for t in (first, first, second)]
    found, compared = all_pairs(draws)
    assert found < threshold(compared)


class Broken(GaussianNoise):
    def fill(self, out, stddev):
        super().fill(out, stddev)
        if out.size > 5:
            out[:] = self.spoil(out.copy())


class RepeatsAFifth(Broken):
    """The last fifth of a variable's noise is the first."""

    def spoil(self, draws):
        fifth = draws.size // 5
        draws[-fifth:] = draws[:fifth]
        return draws


class RepeatsAcrossSteps(Broken):
    """A fifth of a step's draws comes from the step before, elsewhere."""

    def __init__(self):
        super().__init__()
        self.before = {}

    def spoil(self, draws):
        fifth = draws.size // 5
        if draws.size in self.before:
            draws[:fifth] = self.before[draws.size][-fifth:]
        self.before[draws.size] = draws.copy()
        return draws


class Leaks(Broken):
    """Neighbours share a tenth of their variance."""

    def spoil(self, draws):
        return np.sqrt(0.9) * draws + np.sqrt(0.1) * np.roll(draws, 1)


@pytest.mark.parametrize("noise", [RepeatsAFifth, RepeatsAcrossSteps, Leaks])
def test_dependent_draws_are_found(noise):
    model = new_model()
    found, compared = all_pairs(releases(model, trainer_of(model, noise())))
    assert found < 90  # of a vector with itself it would be 98
    assert found > threshold(compared)


class NoNoise:
    def fill(self, out, stddev):
        out[:] = 0.0


def test_records_enter_steps_independently_with_the_stated_probability():
    """Each record has a weight of its own, which moves when it was in the batch.

    Counts of records, of steps, and of pairs of neighbouring records and steps are binomial.
    """
    rows, steps, q = 400, 60, 0.3
    model = keras.Sequential([keras.Input((rows,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(1.0), "mae")
    seen = []

    def look(*_, **__):
        seen.append(model.get_weights()[0].ravel())

    watch = keras.callbacks.LambdaCallback(on_train_begin=look, on_train_batch_end=look)
    trainer = PrivateTrainer(model, RecordPrivacy(1.0, 1.0, q), noise=NoNoise())
    x, y = np.eye(rows, dtype=np.float32), np.full(rows, 1e9, np.float32)
    trainer.fit(x, y, steps=steps, callbacks=[watch])
    inside = np.abs(np.diff(seen, axis=0)) > 0.5 / (q * rows)
    disjoint = [inside[0::2] & inside[1::2], inside[:, 0::2] & inside[:, 1::2]]
    counts = [
        *((int(c), steps, q) for c in inside.sum(axis=0)),
        *((int(c), rows, q) for c in inside.sum(axis=1)),
        *((int(both.sum()), both.size, q * q) for both in disjoint),
    ]
    for count, trials, probability in counts:
        assert stats.binomtest(count, trials, probability).pvalue > ALARM / len(counts)
