"""DP-SGD (Abadi et al. 2016) for compiled Keras models, with the calls of Keras.

trainer = PrivateTrainer.from_epsilon(
    model, epsilon=3.0, delta=1e-5, num_records=len(x), batch_size=256, epochs=15, l2_norm_clip=1.0
)
history = trainer.fit(x, y, epochs=15, validation_data=(x_test, y_test))
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from lepton_flwr import _validate as check
from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.errors import ConfigError
from lepton_flwr.privacy import accounting
from lepton_flwr.privacy.accounting import BudgetError, SampledGaussian
from lepton_flwr.privacy.noise import GaussianNoise
from lepton_flwr.training import checkpoint
from lepton_flwr.training.draws import Draw, DrawSource
from lepton_flwr.training.engine import GradientEngine, get_engine
from lepton_flwr.training.loop import as_arrays, batch_specs, cached, reset_optimizer, run_epochs
from lepton_flwr.training.model_checks import seed_states
from lepton_flwr.training.record_privacy import RecordPrivacy, StepBudget
from lepton_flwr.training.step import CompiledStep, build_step
from lepton_flwr.training.weighting import example_weights

DEFAULT_ENGINE = "bookkeeping"


__all__ = ["PrivateTrainer", "RecordPrivacy", "StepBudget", "steps_per_epoch"]


class PrivateTrainer:
    """Trains a compiled Keras model so that its weights are private per record.

    A step takes each of the n records with probability q, whatever the others do, and applies

        (sum of clipped gradients + N(0, (noise_multiplier * l2_norm_clip)^2)) / (q n)

    by the model's own optimizer, whichever it is. Example and class weights scale a loss before
    its gradient is clipped. Weight regularisation is added to the released gradient: it depends on
    no record. An empty batch still steps, with noise alone. The number of records n is treated as
    public, as in every DP-SGD library: it scales the learning rate.

    The compiled step is kept with the model and serves every trainer of the same engine, whatever
    its settings, data size or batch size.

    Args:
        model: a compiled, built `keras.Model`; any number of inputs and outputs, any optimizer,
            mixed precision or not.
        privacy: clip, noise and sampling.
        budget: refuses steps beyond it; None leaves counting to the caller.
        engine: how per-example gradients are computed.
        physical_batch_size: computes a batch in pieces of so many rows, to save memory; the noise
            is still added once per batch.
        noise: None draws from a generator keyed by the operating system; tests inject one.
        sampling: likewise for the batches.

    Raises:
        ConfigError: unknown engine, or a model whose gradients cannot be private.

    **Guarantee**: T steps of `fit` are T releases of a Gaussian mechanism with `noise_multiplier`
    under Poisson sampling with `sampling_probability`, cut to `truncated_batch_size`, for adding
    or removing one record; weights, optimizer state and callbacks' logs of training are computed
    from these releases alone (validation figures are of the validation rows, and not private).
    With a budget, steps that would exceed it are never taken. Noise is float32 (see
    `GaussianNoise` on what that leaves open).
    """

    def __init__(
        self,
        model: Any,
        privacy: RecordPrivacy,
        *,
        budget: StepBudget | None = None,
        engine: str = DEFAULT_ENGINE,
        physical_batch_size: int | None = None,
        noise: GaussianNoise | None = None,
        sampling: CipherStream | None = None,
    ) -> None:
        self.model = model
        self.privacy = privacy
        self.budget = budget
        self.engine_name = engine
        if physical_batch_size is not None:
            check.integer("physical_batch_size", physical_batch_size, at_least=1)
        self.physical_batch_size = physical_batch_size
        self.steps_taken = 0
        self._noise = GaussianNoise() if noise is None else noise
        self._sampling = CipherStream() if sampling is None else sampling
        _engine_of(model, engine)

    @classmethod
    def from_epsilon(
        cls,
        model: Any,
        *,
        epsilon: float,
        delta: float,
        num_records: int,
        batch_size: float,
        epochs: float,
        l2_norm_clip: float,
        static_shape: bool = False,
        **options: Any,
    ) -> Self:
        """A trainer whose noise is calibrated to a budget.

        Args:
            model: as above.
            epsilon: the most that all steps may spend, by the PLD accountant.
            delta: the delta of all steps.
            num_records: n.
            batch_size: expected size of a batch, q n.
            epochs: expected passes over the data, n / batch_size steps each, in all calls of
                `fit` together.
            l2_norm_clip: bound of one example's gradient.
            static_shape: cut batches, so rarely that epsilon without would be at most one per cent
                lower, and pad all to one shape: about five standard deviations above their
                expected size. Without it batches have one of few shapes, and less padding.
            **options: `engine`, `physical_batch_size`, `noise`, `sampling` as above.

        Raises:
            ConfigError: an argument is out of range, or no noise suffices.
        """
        budget = StepBudget(epsilon, delta, num_records)
        check.finite("batch_size", batch_size, above=0, at_most=num_records)
        check.finite("epochs", epochs, above=0)
        q = batch_size / num_records
        steps = math.ceil(epochs * steps_per_epoch(q))
        noise = accounting.calibrate(epsilon, delta, q, steps)
        privacy = RecordPrivacy(l2_norm_clip, noise, q)
        if static_shape and q < 1:
            uncut = SampledGaussian(noise, q, 1)
            size = accounting.suggest_batch_size(uncut, num_records, delta, steps)
            privacy = replace(privacy, truncated_batch_size=size)
            cut = privacy.mechanism(num_records).truncation_probability
            noise = accounting.calibrate(epsilon, delta, q, steps, truncation_probability=cut)
            privacy = replace(privacy, noise_multiplier=noise)
        return cls(model, privacy, budget=budget, **options)

    def epsilon(self, delta: float | None = None, num_records: int | None = None) -> float:
        """What the steps taken so far have spent, by the PLD accountant.

        Args:
            delta: the delta; None takes the budget's.
            num_records: n, which matters where batches are cut; None takes the budget's.

        Raises:
            ConfigError: there is no budget to take them from.
        """
        mechanism, delta = self._accounted(delta, num_records)
        return accounting.epsilon_of(mechanism, delta, self.steps_taken)

    def epsilon_rdp(self, delta: float | None = None, num_records: int | None = None) -> float:
        """The same by the RDP accountant: looser, and widely published."""
        mechanism, delta = self._accounted(delta, num_records)
        return accounting.epsilon_rdp_of(mechanism, delta, self.steps_taken)

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        epochs: int = 1,
        steps: int | None = None,
        sample_weight: np.ndarray | None = None,
        class_weight: Mapping[int, float] | None = None,
        callbacks: Iterable[Any] = (),
        validation_data: tuple[Any, ...] | None = None,
        initial_epoch: int = 0,
        verbose: int = 0,
        fresh_optimizer: bool = False,
    ) -> keras.callbacks.History:
        """Train as `keras.Model.fit` does, with Poisson batches in place of shuffled ones.

        Args:
            x: inputs, shape (n, ...), nested as the model's inputs are.
            y: labels, likewise.
            epochs: the epoch before which to stop, as in Keras.
            steps: steps of an epoch, each one release; None takes 1 / q.
            sample_weight: shape (n,), finite and not negative.
            class_weight: class to the factor of its examples' losses; for one output of classes.
            callbacks: Keras callbacks; in their logs only validation figures tell of rows.
            validation_data: as in Keras; evaluated after every epoch, without privacy.
            initial_epoch: the first epoch; a resumed training goes on with `trainer.epochs_done`.
            verbose: 1 shows Keras' progress bar, 2 a line per epoch.
            fresh_optimizer: whether the optimizer's state is set back before the first step.

        Returns:
            Keras' History: steps, epsilon where there is a budget, validation figures.

        Raises:
            DataError: the data does not fit the model, or a weight cannot be used.
            ConfigError: a number is out of range, or the model mixes its examples.
            BudgetError: the steps asked for would exceed the budget; none was taken.
        """
        inputs, labels, num_records = as_arrays(self.model, x, y)
        steps = steps_per_epoch(self.privacy.sampling_probability) if steps is None else steps
        check.integer("steps", steps, at_least=1)
        check.integer("epochs", epochs, at_least=1)
        check.integer("initial_epoch", initial_epoch, at_least=0, at_most=epochs)
        total = steps * (epochs - initial_epoch)
        self._refuse_overspending(num_records, total)
        weights = example_weights(labels, num_records, sample_weight, class_weight)
        data = (inputs, labels, () if weights is None else weights)
        step = _compiled_step(self.model, self.engine_name, data)

        privacy = self.privacy
        expected = privacy.sampling_probability * num_records
        l2_norm_clip = tf.constant(privacy.l2_norm_clip, tf.float32)
        source = DrawSource(
            data,
            num_records,
            privacy.sampling_probability,
            privacy.truncated_batch_size,
            multiple_of=1 if self.physical_batch_size is None else self.physical_batch_size,
            factor=1 / expected,
            shapes=[tuple(v.shape) for v in self.model.trainable_variables],
            stddev=privacy.noise_multiplier * privacy.l2_norm_clip / expected,
            sampling=self._sampling,
            noise=self._noise,
        )
        if fresh_optimizer:
            reset_optimizer(self.model)
        for state in seed_states(self.model):
            state.assign(self._sampling.uint32(2).astype(np.int64) >> 1)

        def prepared(draw: Draw) -> Callable[[], None]:
            return step.prepared(draw, l2_norm_clip, self.physical_batch_size)

        with source.ahead(total, prepared) as ready:

            def one_step() -> None:
                release = next(ready)
                self.steps_taken += 1  # before the release, which may fail half-way
                release()

            return run_epochs(
                self.model,
                one_step,
                epochs=epochs,
                steps=steps,
                callbacks=callbacks,
                initial_epoch=initial_epoch,
                verbose=verbose,
                epoch_logs=lambda epoch: self._epoch_logs(validation_data),  # noqa: ARG005
            )

    @property
    def epochs_done(self) -> int:
        """Whole epochs of 1 / q steps taken so far."""
        return self.steps_taken // steps_per_epoch(self.privacy.sampling_probability)

    def save(self, path: Path) -> None:
        """Write the model, its optimizer, what was spent and what may be; see `checkpoint`.

        Raises:
            OutputError: it cannot be written; what stood at `path` is intact.
            ConfigError: the path does not end in `.keras`.
        """
        checkpoint.save(self, Path(path))

    @classmethod
    def load(cls, path: Path, **options: Any) -> Self:
        """Read what `save` wrote, to go on with the same mechanism; see `checkpoint`.

        Args:
            path: the file.
            **options: `custom_objects` of Keras, `noise` and `sampling` as above.

        Raises:
            DataError: the file is missing, damaged, or not of a private training.
        """
        return checkpoint.load(cls, Path(path), **options)

    def _accounted(
        self, delta: float | None, num_records: int | None
    ) -> tuple[SampledGaussian, float]:
        if self.budget is not None:
            delta = self.budget.delta if delta is None else delta
            num_records = self.budget.num_records if num_records is None else num_records
        if delta is None or (num_records is None and self.privacy.truncated_batch_size is not None):
            raise ConfigError("the trainer has no budget: expected delta and num_records")
        return self.privacy.mechanism(num_records or 1), delta

    def _refuse_overspending(self, num_records: int, steps: int) -> None:
        if self.budget is None:
            return
        if num_records != self.budget.num_records:
            raise ConfigError(
                f"{num_records} rows: expected the {self.budget.num_records} that the noise was "
                "calibrated for; calibrate anew for another data set"
            )
        mechanism, delta = self._accounted(None, None)
        spent = accounting.epsilon_of(mechanism, delta, self.steps_taken + steps)
        if not spent <= self.budget.epsilon:
            raise BudgetError(
                f"{steps} more steps would bring epsilon to {spent:.4g}: expected at most "
                f"{self.budget.epsilon:g} (delta {delta:g}); train fewer epochs"
            )

    def _epoch_logs(self, validation_data: tuple[Any, ...] | None) -> dict[str, float]:
        logs = {} if self.budget is None else {"epsilon": self.epsilon()}
        if validation_data is not None:
            found = self.model.evaluate(*validation_data, verbose=0, return_dict=True)
            logs |= {f"val_{name}": value for name, value in found.items()}
        return logs


def steps_per_epoch(sampling_probability: float) -> int:
    """Steps after which every record is expected once."""
    return max(1, round(1 / sampling_probability))


def _engine_of(model: Any, name: str) -> GradientEngine:
    return cached(model, (name, "engine"), lambda: get_engine(name)(model))


def _compiled_step(model: Any, engine_name: str, data: tuple[Any, ...]) -> CompiledStep:
    engine = _engine_of(model, engine_name)
    specs = batch_specs(*data)
    key = (engine_name, str(specs))
    return cached(model, key, lambda: build_step(engine, *specs))
