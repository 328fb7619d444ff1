"""DP-SGD (Abadi et al. 2016): Poisson batches, clipped sums, Gaussian noise."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lepton_flwr import _validate as check
from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.privacy.noise import GaussianNoise, poisson_sample
from lepton_flwr.training.engine import GradientEngine, get_engine, seed_states
from lepton_flwr.training.loop import as_tensors, batch_specs, cached, reset_optimizer, run_steps

_SMALLEST_BUCKET = 16


@dataclass(frozen=True)
class RecordPrivacy:
    """What one step of record-level private training releases.

    Attributes:
        l2_norm_clip: bound of one example's gradient.
        noise_multiplier: standard deviation of the noise over `l2_norm_clip`.
        sampling_probability: chance of each record to be in a step's batch.
    """

    l2_norm_clip: float
    noise_multiplier: float
    sampling_probability: float

    def __post_init__(self) -> None:
        check.finite("l2_norm_clip", self.l2_norm_clip, at_least=1e-10, at_most=1e10)
        check.finite("noise_multiplier", self.noise_multiplier, above=0, at_most=1e6)
        check.finite("sampling_probability", self.sampling_probability, above=0, at_most=1)


class PrivateTrainer:
    """Trains a compiled Keras model so that its weights are private per record.

    A step takes each of the n records with probability q, whatever the others do, and applies

        (sum of clipped gradients + N(0, (noise_multiplier * l2_norm_clip)^2)) / (q n)

    by the model's own optimizer. A batch is padded with masked rows, never cut; an empty one still
    steps, with noise alone. The number of records n is treated as public, as in every DP-SGD
    library: it scales the learning rate.

    The compiled step is kept with the model and serves every trainer of the same engine, whatever
    its settings, data size or batch size.

    Args:
        model: a compiled `keras.Model`, built, with one input and one output.
        privacy: clip, noise and sampling.
        engine: how per-example gradients are computed.
        noise: None draws from a generator keyed by the operating system; tests inject one.
        sampling: likewise for the batches.

    Raises:
        ConfigError: unknown engine, or a model whose gradients cannot be private.

    **Guarantee**: T steps of `fit` are T releases of a Gaussian mechanism with `noise_multiplier`
    under Poisson sampling with `sampling_probability`, for adding or removing one record; weights,
    optimizer state and callbacks' logs are computed from these releases alone. Noise is float32
    (see `GaussianNoise` on what that leaves open).
    """

    def __init__(
        self,
        model: Any,
        privacy: RecordPrivacy,
        *,
        engine: str = "vectorized",
        noise: GaussianNoise | None = None,
        sampling: CipherStream | None = None,
    ) -> None:
        self.model = model
        self.privacy = privacy
        self._engine_name = engine
        self._noise = GaussianNoise() if noise is None else noise
        self._sampling = CipherStream() if sampling is None else sampling
        _engine_of(model, engine)

    def fit(
        self, x: np.ndarray, y: np.ndarray, *, steps: int, callbacks: Iterable[Any] = ()
    ) -> keras.callbacks.History:
        """Train for `steps` steps from the model's weights and a fresh optimizer.

        Args:
            x: inputs, shape (n, ...).
            y: labels, shape (n, ...).
            steps: number of steps, and of releases to account for.
            callbacks: Keras callbacks; their logs hold step numbers only.

        Returns:
            Keras' History of the number of steps.

        Raises:
            DataError: the data does not fit the model.
            ConfigError: `steps` is not a positive whole number.
        """
        inputs, labels = as_tensors(self.model, x, y)
        step = _compiled_step(self.model, self._engine_name, labels)
        privacy, num_records = self.privacy, len(x)
        dimension = sum(math.prod(v.shape) for v in self.model.trainable_variables)
        stddev = privacy.noise_multiplier * privacy.l2_norm_clip
        expected = privacy.sampling_probability * num_records
        settings = tf.constant([privacy.l2_norm_clip, stddev, expected], tf.float32)

        def one_step() -> None:
            chosen = poisson_sample(self._sampling, num_records, privacy.sampling_probability)
            padded = np.full(bucket(chosen.size), -1, dtype=np.int64)
            padded[: chosen.size] = chosen
            draws = self._noise.standard_normal(dimension, np.float32)
            step(inputs, labels, padded, draws, settings)

        reset_optimizer(self.model)
        for state in seed_states(self.model):
            state.assign(self._sampling.uint32(2).astype(np.int64) >> 1)
        return run_steps(self.model, steps, callbacks, one_step)


def bucket(size: int) -> int:
    """The padded size of a batch: the least of 16, 20, 24, 28, 32, 40, ... that holds it.

    Four sizes per octave: at most a quarter is padding, and few shapes occur.
    """
    if size <= _SMALLEST_BUCKET:
        return _SMALLEST_BUCKET
    quarter = 1 << max((size - 1).bit_length() - 3, 0)
    return -(-size // quarter) * quarter


def _engine_of(model: Any, name: str) -> GradientEngine:
    return cached(model, (name, "engine"), lambda: get_engine(name)(model))


def _compiled_step(model: Any, engine_name: str, labels: tf.Tensor) -> Callable[..., Any]:
    engine = _engine_of(model, engine_name)
    specs = batch_specs(model, labels)
    return cached(model, (engine_name, *specs), lambda: _build_step(engine, model, *specs))


def _build_step(
    engine: GradientEngine, model: Any, inputs_spec: tf.TensorSpec, labels_spec: tf.TensorSpec
) -> Callable[..., Any]:
    variables = model.trainable_variables
    sizes = [math.prod(v.shape) for v in variables]
    flat = tf.TensorSpec([sum(sizes)], tf.float32)
    indices_spec = tf.TensorSpec([None], tf.int64)

    def step(
        x: tf.Tensor,
        y: tf.Tensor,
        indices: tf.Tensor,
        noise: tf.Tensor,
        settings: tf.Tensor,
    ) -> None:
        clip, stddev, expected = tf.unstack(settings)
        rows = tf.maximum(indices, 0)
        mask = tf.cast(indices >= 0, tf.float32)
        sums = engine.clipped_sum(tf.gather(x, rows), tf.gather(y, rows), mask, clip)
        draws = tf.split(noise * stddev, sizes)
        gradients = [
            tf.cast((s + tf.reshape(d, v.shape)) / expected, v.dtype)
            for s, d, v in zip(sums, draws, variables, strict=True)
        ]
        model.optimizer.apply(gradients, variables)

    signature = [inputs_spec, labels_spec, indices_spec, flat, tf.TensorSpec([3], tf.float32)]
    compiled: Callable[..., Any] = tf.function(step, autograph=False, input_signature=signature)
    return compiled
