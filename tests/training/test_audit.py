"""The effective mechanism of whole trainings: as claimed, and refuted where it is broken.

Every audit here has a false-alarm rate of 1e-6. Two set-ups on real trainings:

* many canaries in one training, each with a feature, and so a weight, of its own. A mechanism as
  claimed draws independent noise for every weight and clips every record by itself, so canaries
  are independent trials (Steinke et al. 2023 drop the independence, at the price of power);
* one canary in many trainings, as `audit_training` does for any model.
"""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.errors import DataError
from lepton_flwr.privacy.accounting import SampledGaussian
from lepton_flwr.privacy.audit import judge
from lepton_flwr.privacy.noise import GaussianNoise
from lepton_flwr.training import engine as engines
from lepton_flwr.training.audit import SPREAD, SUM, audit_training
from lepton_flwr.training.private import PrivateTrainer, RecordPrivacy
from lepton_flwr.training.vectorized import VectorizedEngine

ENGINES = ("bookkeeping", "vectorized", "tensorflow-privacy")
DELTA = 1e-5
FAR = np.float32(1e9)  # a label that no prediction passes: the loss keeps its slope of one
CANARIES = 800  # and as many features without one
STEPS = 4
TRAININGS = 4


class HalfNoise(GaussianNoise):
    def fill(self, out, stddev):
        super().fill(out, stddev / 2)


class SameNoise(GaussianNoise):
    """One draw for all steps."""

    kept = None

    def fill(self, out, stddev):
        if self.kept is None:
            super().fill(out, stddev)
            self.kept = out.copy()
        out[:] = self.kept


class SeededNoise(GaussianNoise):
    """A key that everybody knows."""

    def __init__(self):
        super().__init__(CipherStream(bytes(32)))


class ClipSkipped(VectorizedEngine):
    def clipped_sum(self, x, y, mask, l2_norm_clip, sample_weight=None):
        return super().clipped_sum(x, y, mask, 1e9 * l2_norm_clip, sample_weight)


class Microbatches(VectorizedEngine):
    """Clips the mean of two examples: one of them can turn it from -C to C."""

    def clipped_sum(self, x, y, mask, l2_norm_clip, sample_weight=None):
        gradients = tf.vectorized_map(self._example_gradient, (x, y, (), ()))
        total = [tf.zeros(v.shape) for v in self.model.trainable_variables]
        (rows,) = gradients
        rows = rows * tf.reshape(mask, [-1, 1, 1])
        means = tf.reduce_mean(tf.reshape(rows, [-1, 2, *total[0].shape]), axis=1)
        norms = tf.norm(means, axis=[1, 2], keepdims=True)
        return [tf.reduce_sum(means * tf.minimum(l2_norm_clip / norms, 1.0), axis=0)]


def linear_model(features):
    model = keras.Sequential([keras.Input((features,))])
    model.add(keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros"))
    model.compile(keras.optimizers.SGD(1.0), "mae")
    return model


@pytest.fixture
def broken_engine(monkeypatch):
    """Registers an engine class under a name."""

    def register(engine_class):
        monkeypatch.setitem(
            __import__("sys").modules, "broken_engines", SimpleNamespace(it=engine_class)
        )
        monkeypatch.setitem(engines._ENGINES, "broken", "broken_engines:it")
        return "broken"

    return register


class Weights(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_begin(self, logs=None):
        self.seen.append(self.model.get_weights()[0].ravel())

    def on_train_batch_end(self, batch, logs=None):
        self.on_train_begin()


def many_canaries(engine="bookkeeping", noise=GaussianNoise, trainings=TRAININGS):
    """Audit trainings in which half of the features have a canary.

    Each feature has two neighbouring rows: an opponent that pulls its weight up, and a canary that
    pulls it down a hundred times harder, or a row of zeros, whose gradient is zero.
    """
    features = 2 * CANARIES
    present = np.arange(features) % 2 == 0
    rows = np.repeat(np.eye(features, dtype=np.float32), 2, axis=0)
    labels = np.tile(np.array([FAR, -FAR], np.float32), features)
    rows[0::2] *= 10
    rows[1::2] *= 1000 * present[:, None].astype(np.float32)
    model = linear_model(features)
    moves = []
    for _ in range(trainings):
        model.set_weights([np.zeros((features, 1), np.float32)])
        watch = Weights()
        privacy = RecordPrivacy(1.0, 2.0, 1.0)
        trainer = PrivateTrainer(model, privacy, engine=engine, noise=noise())
        trainer.fit(rows, labels, steps=STEPS, callbacks=[watch])
        moves.append(-len(rows) * np.diff(watch.seen, axis=0).sum(axis=0))
    moves = np.stack(moves)
    claim = SampledGaussian(2.0, 1.0, STEPS)
    return judge({SUM: (moves[:, present], moves[:, ~present])}, claim, DELTA)


@pytest.mark.parametrize("engine", ENGINES)
def test_training_shows_no_more_than_it_claims(engine):
    """And most of its mu of 1: the audit is not blind."""
    report = many_canaries(engine)
    assert not report.refuted, report.sentence()
    assert report.epsilon <= report.claimed_epsilon
    assert report.evidence.mu > 0.4


def test_half_of_the_noise_is_caught():
    report = many_canaries(noise=HalfNoise)
    assert report.refuted, report.sentence()


def test_microbatches_of_two_with_the_sensitivity_of_one_are_caught(broken_engine):
    report = many_canaries(broken_engine(Microbatches))
    assert report.refuted, report.sentence()
    assert report.epsilon > report.claimed_epsilon


def test_a_third_less_noise_is_caught():
    """About as sharp as this audit is: a tenth less would pass."""

    class Less(GaussianNoise):
        def fill(self, out, stddev):
            super().fill(out, stddev * 2 / 3)

    assert many_canaries(noise=Less, trainings=12).refuted


def one_canary(trials, make_trainer, q=1.0, noise_multiplier=2.0, steps=STEPS):
    """Audit a linear model with one other record."""
    rows = 10 * np.eye(2, dtype=np.float32)
    return audit_training(
        linear_model(2),
        rows[1:],
        np.array([FAR]),
        (100 * rows[0], -FAR),
        RecordPrivacy(1.0, noise_multiplier, q),
        steps=steps,
        trials=trials,
        make_trainer=make_trainer,
    )


def test_a_clip_that_is_skipped_is_caught(broken_engine):
    name = broken_engine(ClipSkipped)
    report = one_canary(60, lambda m, p: PrivateTrainer(m, p, engine=name))
    assert report.refuted, report.sentence()


def test_noise_from_a_seed_is_caught():
    report = one_canary(60, lambda m, p: PrivateTrainer(m, p, noise=SeededNoise()))
    assert report.refuted, report.sentence()


def test_noise_that_repeats_in_every_step_is_caught():
    report = one_canary(80, lambda m, p: PrivateTrainer(m, p, noise=SameNoise()), 0.5, 2.0, 8)
    assert report.refuted, report.sentence()
    assert report.attack == SPREAD


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "q", "noise_multiplier", "trials"),
    [("bookkeeping", 1.0, 2.0, 800), ("bookkeeping", 0.5, 1.0, 2000)],
)
def test_many_trainings_show_no_more_than_they_claim_and_half_the_noise_is_caught(
    engine, q, noise_multiplier, trials
):
    def good(model, privacy):
        return PrivateTrainer(model, privacy, engine=engine)

    def half(model, privacy):
        return PrivateTrainer(model, privacy, engine=engine, noise=HalfNoise())

    report = one_canary(trials, good, q, noise_multiplier)
    assert not report.refuted, report.sentence()
    assert report.epsilon > 0
    # With 800 trials a miss in 100,000 runs, with 1,200 in 1e11.
    assert one_canary(max(trials, 1200), half, q, noise_multiplier).refuted


def test_the_models_weights_are_restored():
    model = linear_model(2)
    model.set_weights([np.array([[1.0], [2.0]], np.float32)])
    rows = np.eye(2, dtype=np.float32)
    privacy = RecordPrivacy(1.0, 1.0, 1.0)
    audit_training(model, rows[1:], [FAR], (rows[0], -FAR), privacy, steps=1, trials=40)
    np.testing.assert_array_equal(model.get_weights()[0].ravel(), [1.0, 2.0])


def test_a_canary_that_shows_nothing_is_refused():
    model, rows = linear_model(2), np.eye(2, dtype=np.float32)
    privacy = RecordPrivacy(1.0, 1.0, 1.0)
    with pytest.raises(DataError, match="shape"):
        audit_training(model, rows, [FAR] * 2, (rows, FAR), privacy, steps=1)
    for row in (np.zeros(2), np.full(2, np.nan)):
        with pytest.raises(DataError, match="zero or not finite"):
            audit_training(model, rows, [FAR] * 2, (row, FAR), privacy, steps=1)
