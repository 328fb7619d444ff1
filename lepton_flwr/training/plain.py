"""Training without record-level privacy: seeded, shuffled minibatches."""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lepton_flwr import _validate as check
from lepton_flwr.errors import ConfigError
from lepton_flwr.training.loop import as_arrays, batch_specs, cached, reset_optimizer, run_epochs
from lepton_flwr.training.model_checks import seed_states


class PlainTrainer:
    """Trains a compiled Keras model as `PrivateTrainer` does, without clipping or noise.

    Batches have round(q n) rows, at least one, drawn from shuffled passes over the data. Order
    and random layers come from `order` alone, so one seed gives the same weights, bit for bit, on
    the same machine.

    Args:
        model: a compiled `keras.Model`, built, with one input.
        sampling_probability: q, the batch size over the number of rows.
        order: a seeded generator; nothing here protects anything.

    Raises:
        ConfigError: the model is not compiled, or q is outside (0, 1].
    """

    def __init__(self, model: Any, sampling_probability: float, order: np.random.Generator) -> None:
        if not getattr(model, "compiled", False) or not model.built:
            raise ConfigError("the model: expected one that is built and compiled")
        self.model = model
        self.sampling_probability = check.finite(
            "sampling_probability", sampling_probability, above=0, at_most=1
        )
        self._order = order

    def fit(
        self, x: np.ndarray, y: np.ndarray, *, steps: int, callbacks: Iterable[Any] = ()
    ) -> keras.callbacks.History:
        """Train for `steps` steps from the model's weights and a fresh optimizer.

        Args and errors are those of `PrivateTrainer.fit`.
        """
        inputs, labels, num_records = as_arrays(self.model, x, y)
        data = tf.nest.map_structure(tf.convert_to_tensor, (inputs, labels))
        specs = batch_specs(*data)
        key = ("plain", str(specs))
        step = cached(self.model, key, lambda: _build_step(self.model, *specs))
        batch_size = max(1, round(self.sampling_probability * num_records))
        waiting = np.empty(0, dtype=np.int64)

        def one_step() -> None:
            nonlocal waiting
            if waiting.size < batch_size:
                waiting = self._order.permutation(num_records)
            step(*data, tf.constant(waiting[:batch_size], tf.int64))
            waiting = waiting[batch_size:]

        reset_optimizer(self.model)
        for state in seed_states(self.model):
            state.assign(self._order.integers(2**31, size=2))
        return run_epochs(self.model, one_step, steps=steps, callbacks=callbacks)


def _build_step(model: Any, inputs_spec: Any, labels_spec: Any) -> Callable[..., Any]:
    variables = model.trainable_variables

    def step(x: Any, y: Any, indices: tf.Tensor) -> None:
        batch_x, batch_y = tf.nest.map_structure(lambda t: tf.gather(t, indices), (x, y))
        with tf.GradientTape() as tape:
            loss = model.compute_loss(batch_x, batch_y, model(batch_x, training=True))
            loss = model.optimizer.scale_loss(loss)
        model.optimizer.apply(tape.gradient(loss, variables), variables)

    signature = [inputs_spec, labels_spec, tf.TensorSpec([None], tf.int64)]
    compiled: Callable[..., Any] = tf.function(step, autograph=False, input_signature=signature)
    return compiled
