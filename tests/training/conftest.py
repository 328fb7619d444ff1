import logging
import os

import numpy as np
import pytest

for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class Oracle:
    """A loop over batches of one, which shares no code with any engine."""

    @staticmethod
    def gradients(model, x, y, sample_weight=None):
        """Per example, the gradient of the compiled loss without weight regularisation."""
        import tensorflow as tf

        found = []
        for i in range(len(tf.nest.flatten(y)[0])):
            x_i, y_i = tf.nest.map_structure(lambda t, i=i: t[i : i + 1], (x, y))
            weight = None if sample_weight is None else tf.constant(sample_weight[i : i + 1])
            with tf.GradientTape() as tape:
                output = model(x_i, training=True)
                loss = model.compute_loss(x_i, y_i, output, sample_weight=weight)
                for v in model.trainable_variables:
                    loss = loss - (v.regularizer(v) if v.regularizer else 0.0)
            parts = tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")
            found.append(
                np.concatenate(
                    [tf.convert_to_tensor(p).numpy().astype(np.float64).ravel() for p in parts]
                )
            )
        return np.stack(found)

    @staticmethod
    def clipped(rows, clip):
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows * np.minimum(1.0, clip / np.maximum(norms, 1e-300))

    def clipped_sum(self, model, x, y, clip=1.0):
        return self.clipped(self.gradients(model, x, y), clip).sum(axis=0)

    @staticmethod
    def of_engine(engine):
        """An engine as one compiled function of arrays."""
        import tensorflow as tf

        run = tf.function(engine.clipped_sum, autograph=False, reduce_retracing=True)

        def clipped_sum(x, y, clip=1.0, mask=None, sample_weight=None):
            rows = len(tf.nest.flatten(y)[0])
            mask = np.ones(rows) if mask is None else np.asarray(mask)
            weight = None if sample_weight is None else tf.constant(sample_weight, tf.float32)
            sums = run(
                *tf.nest.map_structure(tf.constant, (x, y)),
                tf.constant(mask, tf.float32),
                tf.constant(clip, tf.float32),
                weight,
            )
            return np.concatenate([t.numpy().ravel() for t in sums])

        return clipped_sum

    def errors(self, engine, x, y, *clips, sample_weight=None):
        """For each clip, the largest difference between an engine and the loop.

        It is relative to the largest sum of sizes. Gradients and graph are made once for all.
        """
        gradients = self.gradients(engine.model, x, y, sample_weight)
        run = self.of_engine(engine)
        for clip in clips:
            rows = self.clipped(gradients, clip * (1 - 2.0**-21))  # where engines aim
            found = run(x, y, clip, sample_weight=sample_weight)
            yield np.abs(found - rows.sum(axis=0)).max() / np.abs(rows).sum(axis=0).max()


@pytest.fixture(scope="session")
def oracle():
    return Oracle()


@pytest.fixture(autouse=True)
def _quiet_tracing():
    """Tests trace many functions, of which TensorFlow warns."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
