"""What a private step costs: `python -m simulations.benchmarks.training [--quick]`.

Every row of a model runs in one process, in turns, and is compared with the plain Keras step of
the same model: the compiled train function of `fit` on a batch that is there, with or without XLA,
whichever is faster. "Keras fit" is a step of `fit` with shuffled batches and callbacks, which the
private step has in it too. Memory is the most that a process of its own holds during steps, beyond
what it holds between them: activations, gradients and copies, not weights, data or compiled code;
compared with Keras without XLA. The peers are the two recipes of tensorflow-privacy, on tf-keras
twins.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import ctypes
import gc
import json
import logging
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lepton_flwr.config import ENGINES

BATCH = 256
QUICK_BATCH = 16
BATCHES = 40  # in the data set that the private step samples from
CLIP, NOISE = 1.0, 1.1
KERAS, XLA, FIT = "Keras", "Keras, XLA", "Keras fit"
DP_MODEL = "tensorflow-privacy DPModel"
DP_OPTIMIZER = "tensorflow-privacy DPKerasSGDOptimizer"
STEP, GRADIENTS = "private step", "gradients only"
ROUNDS, STEPS, MEMORY_STEPS = 9, 10, 12
SLOW, SLOW_STEPS = 1.0, 3  # seconds; a slower step is taken a few times, after the others
REFERENCE = "tensorflow-privacy"
VOCABULARY, LENGTH = 10_000, 64

Seconds = list[float]
Run = Callable[[int], Seconds]


def mlp(keras: Any) -> Any:
    """784-200-200-10."""
    layers = keras.layers
    stack = [layers.Dense(200, "relu"), layers.Dense(200, "relu"), layers.Dense(10)]
    return keras.Sequential([keras.Input((784,)), *stack])


def cnn(keras: Any) -> Any:
    """The MNIST tutorial network of tensorflow-privacy."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 8, strides=2, padding="same", activation="relu"),
            layers.MaxPool2D(2, 1),
            layers.Conv2D(32, 4, strides=2, activation="relu"),
            layers.MaxPool2D(2, 1),
            layers.Flatten(),
            layers.Dense(32, "relu"),
            layers.Dense(10),
        ]
    )


def text(keras: Any) -> Any:
    """Embedding of 10,000 words and an LSTM over 64 of them."""
    layers = keras.layers
    words = keras.Input((LENGTH,), dtype="int32")
    stack = [words, layers.Embedding(VOCABULARY, 64), layers.LSTM(64), layers.Dense(10)]
    return keras.Sequential(stack)


def transformer(keras: Any) -> Any:
    """Two encoder blocks of width 64 with four heads over 64 words."""
    layers = keras.layers
    words = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(VOCABULARY, 64)(words)
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 16)(x, x))
        x = layers.LayerNormalization()(x + layers.Dense(64)(layers.Dense(256, "relu")(x)))
    return keras.Model(words, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


MODELS = {"mlp": mlp, "cnn": cnn, "text": text, "transformer": transformer}
TWINS = ("mlp", "cnn")


def subjects(model: str) -> list[str]:
    """What is measured for a model; the plain steps come first."""
    engines = [name for name in ENGINES if name != REFERENCE or model in TWINS]
    private = [f"{engine}: {part}" for engine in engines for part in (GRADIENTS, STEP)]
    return [KERAS, XLA, FIT, *private, *([DP_MODEL, DP_OPTIMIZER] if model in TWINS else [])]


@dataclass(frozen=True)
class Row:
    """One line of the table; None where it cannot run.

    Attributes:
        seconds: median of a step.
        mebibytes: most memory during steps, beyond that between them.
    """

    seconds: float | None
    mebibytes: float | None


def prepare(model: str, subject: str, batch: int, largest: int | None = None) -> Run:
    """Build a subject; what is returned takes that many steps and returns their seconds.

    Args:
        model: a name of `MODELS`.
        subject: see `subjects`.
        batch: examples of a step; of a private one on average.
        largest: to which private batches are cut.
    """
    if subject in (DP_MODEL, DP_OPTIMIZER):
        return _of_tensorflow_privacy(model, subject, batch)
    import keras

    keras.utils.set_random_seed(1)
    built = MODELS[model](keras)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    built.compile(keras.optimizers.SGD(0.01), loss, jit_compile=subject == XLA)
    if subject in (KERAS, XLA):
        return _train_function(built, *_rows(built, batch))
    if subject == FIT:
        return _fit(built, batch)
    engine, _, part = subject.partition(": ")
    if part == GRADIENTS:
        return _gradients(built, engine, batch)
    return _private_step(built, engine, batch, largest=largest)


def _rows(model: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    shape = (count, *model.input_shape[1:])
    words = "int" in str(model.inputs[0].dtype)
    x = rng.integers(0, VOCABULARY, shape) if words else rng.random(shape)
    return x.astype(np.int32 if words else np.float32), rng.integers(0, 10, count, dtype=np.int32)


def _timed(step: Callable[[], object]) -> Run:
    def run(steps: int) -> Seconds:
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        return seconds

    return run


def _train_function(model: Any, x: np.ndarray, y: np.ndarray) -> Run:
    """The compiled function of `fit`, of Keras 3 or 2, on one batch in memory."""
    import tensorflow as tf

    data = iter(tf.data.Dataset.from_tensors((x, y)).repeat())
    step = model.make_train_function() or model.train_function
    return _timed(lambda: step(data))


def _fit(model: Any, batch: int, batches: int = BATCHES) -> Run:
    """Steps of Keras' `fit`, from one end to the next."""
    x, y = _rows(model, batches * batch)

    def run(steps: int) -> Seconds:
        rows = min((steps + 1) * batch, len(x))
        return _between_steps(
            lambda watch: model.fit(
                x[:rows], y[:rows], batch_size=batch, verbose=0, callbacks=[watch]
            )
        )

    return run


def _between_steps(fit: Callable[[Any], object]) -> Seconds:
    import keras

    ends: Seconds = []
    fit(
        keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda *_, **__: ends.append(time.perf_counter())
        )
    )
    return np.diff(ends).tolist()


def _gradients(model: Any, engine: str, batch: int) -> Run:
    import tensorflow as tf

    from lepton_flwr.training.engine import get_engine

    x, y = (tf.constant(part) for part in _rows(model, batch))
    mask, clip = tf.ones([batch]), tf.constant(CLIP)
    clipped_sum = tf.function(get_engine(engine)(model).clipped_sum, autograph=False)
    return _timed(lambda: clipped_sum(x, y, mask, clip))


def _private_step(
    model: Any, engine: str, batch: int, batches: int = BATCHES, largest: int | None = None
) -> Run:
    """Steps of the private `fit`, batches cut to `largest`: with sampling, noise and optimizer."""
    from lepton_flwr.training.private import PrivateTrainer, RecordPrivacy

    x, y = _rows(model, batches * batch)
    privacy = RecordPrivacy(CLIP, NOISE, 1 / batches, truncated_batch_size=largest)
    trainer = PrivateTrainer(model, privacy, engine=engine)

    def run(steps: int) -> Seconds:
        return _between_steps(lambda watch: trainer.fit(x, y, steps=steps + 1, callbacks=[watch]))

    return run


def _of_tensorflow_privacy(model: str, subject: str, batch: int) -> Run:
    import tf_keras

    from lepton_flwr.training import tensorflow_privacy

    twin = MODELS[model](tf_keras)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="sum_over_batch_size" if subject == DP_MODEL else "none"
    )
    sgd = tf_keras.optimizers.legacy.SGD
    if subject == DP_MODEL:
        models = tensorflow_privacy.module("keras_models.dp_keras_model")
        private = models.make_dp_model_class(tf_keras.Sequential)
        twin = private(CLIP, NOISE, use_xla=False, layers=twin.layers)
        twin.build((None, *twin.layers[0].input_shape[1:]))
        twin.compile(sgd(0.01), loss)
    else:
        optimizers = tensorflow_privacy.module("optimizers.dp_optimizer_keras")
        optimizer = optimizers.make_keras_optimizer_class(sgd)
        twin.compile(optimizer(CLIP, NOISE, batch, learning_rate=0.01), loss)
    return _train_function(twin, *_rows(twin, batch))


def measure_time(model: str, names: Sequence[str], batch: int, rounds: int) -> dict[str, float]:
    """Median seconds of a step of each subject that can run, in interleaved rounds."""
    runs: dict[str, Run] = {}
    slow: list[str] = []
    for name in names:
        try:
            runs[name] = prepare(model, name, batch)
            runs[name](1)
            if runs[name](1)[0] > SLOW:
                slow.append(name)
        except Exception as error:  # a peer or a fallback that cannot take this model
            runs.pop(name, None)
            print(f"{model}, {name}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
    seconds: dict[str, Seconds] = {name: [] for name in runs}
    for _ in range(rounds):
        for name in runs:
            if name not in slow:
                seconds[name] += runs[name](STEPS)[1:]
    for name in slow:  # last: gigabytes come and go
        seconds[name] += runs[name](SLOW_STEPS)
    return {name: median(values) for name, values in seconds.items()}


def measure_memory(model: str, subject: str, batch: int) -> float | None:
    """Mebibytes that steps take; see the top of this file."""
    command = [sys.executable, "-m", __spec__.name, "--memory-of", model, subject, str(batch)]
    # What is free goes back at once: no allocator keeps it for the next step, or in between.
    variables = {
        **os.environ,
        "TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1",
        "MALLOC_MMAP_THRESHOLD_": str(2**17),
    }
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=variables)
    lines = done.stdout.strip().splitlines()
    return float(json.loads(lines[-1])) if done.returncode == 0 and lines else None


def _memory_here(model: str, subject: str, batch: int) -> float:
    run = prepare(model, subject, batch, largest=batch)
    run(MEMORY_STEPS)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    run(MEMORY_STEPS)
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    """Kibibytes, as Linux counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def measure(model: str, batch: int, rounds: int, memory: bool = True) -> dict[str, Row]:
    """All rows of one model."""
    names = subjects(model)
    seconds = measure_time(model, names, batch, rounds)
    able = platform.system() == "Linux" and memory
    mebibytes = {n: measure_memory(model, n, batch) for n in names if able and n in seconds}
    return {name: Row(seconds.get(name), mebibytes.get(name)) for name in names}


def add_rows(table: Table, model: str, rows: Mapping[str, Row]) -> None:
    """Add one model's rows; ratios are to the faster plain step, and to memory without XLA."""
    plain = [rows[name].seconds for name in (KERAS, XLA)]
    fastest = min((seconds for seconds in plain if seconds is not None), default=None)
    for name, row in rows.items():
        cells = [model, name]
        for value, base, scale in (
            (row.seconds, fastest, 1e3),
            (row.mebibytes, rows[KERAS].mebibytes, 1.0),
        ):
            cells.append("-" if value is None else f"{scale * value:,.1f}")
            cells.append("-" if value is None or not base else f"{value / base:,.2f}")
        table.add_row(*cells, end_section=name == list(rows)[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="example: python -m simulations.benchmarks.training --models cnn mlp",
    )
    parser.add_argument("--quick", action="store_true", help="small batches: a try, no measurement")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--batch", type=int, default=BATCH, help="examples of a step")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="interleaved repeats")
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory columns")
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.memory_of:
        model, subject, batch = options.memory_of
        print(json.dumps(_memory_here(model, subject, int(batch))))
        return
    logging.getLogger("tensorflow").setLevel(logging.CRITICAL)  # what cannot run is named below
    batch = QUICK_BATCH if options.quick else options.batch
    rounds = 1 if options.quick else options.rounds
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    table = Table(title=f"One step of {batch} examples, medians ({machine})")
    for name in ("model", "what", "ms", "x Keras", "MiB", "x Keras"):
        table.add_column(name, justify="left" if name in ("model", "what") else "right")
    for model in track(options.models, "Measuring", console=Console(stderr=True), transient=True):
        add_rows(table, model, measure(model, batch, rounds, not options.no_memory))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
