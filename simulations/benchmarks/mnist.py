"""MNIST with tensorflow-privacy's tutorial settings: `python -m simulations.benchmarks.mnist`.

Trains the tutorial's network as the tutorial does (SGD, batches of 256, delta 1e-5), with Poisson
batches, and prints accuracy and epsilon beside those the tutorial publishes
(github.com/tensorflow/privacy, tutorials/README.md). The picture shows accuracy after every epoch
against the epsilon spent.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from lepton_flwr import _validate as check
from lepton_flwr.config import ENGINES
from lepton_flwr.data.scenarios.image import read_folder
from lepton_flwr.errors import LeptonError
from lepton_flwr.privacy.accounting import SampledGaussian, epsilon_of, epsilon_rdp_of

TRAIN_ROWS, BATCH, DELTA, RUNS = 60_000, 256, 1e-5, 3
STEPS_PER_EPOCH = TRAIN_ROWS // BATCH  # as the tutorial counts


@dataclass(frozen=True)
class Setting:
    """One row of the tutorial's table.

    Attributes:
        noise_multiplier: of the Gaussian noise.
        l2_norm_clip: bound of one example's gradient.
        learning_rate: of SGD.
        epochs: of 234 steps.
        published_accuracy: in per cent.
        published_epsilon: at delta 1e-5.
    """

    noise_multiplier: float
    l2_norm_clip: float
    learning_rate: float
    epochs: int
    published_accuracy: float
    published_epsilon: float

    @property
    def mechanism(self) -> SampledGaussian:
        """What one epoch releases."""
        return SampledGaussian(self.noise_multiplier, BATCH / TRAIN_ROWS, STEPS_PER_EPOCH)


SETTINGS = (
    Setting(1.3, 1.5, 0.25, 15, 95.0, 1.19),
    Setting(1.1, 1.0, 0.15, 60, 96.6, 3.01),
)


@dataclass(frozen=True)
class Result:
    """What the runs of one setting gave.

    Attributes:
        accuracies: on the test images, in [0, 1], shape (runs, epochs).
        epsilons: PLD epsilon after each epoch, shape (epochs,).
        epsilon_rdp: RDP epsilon at the end.
        seconds: of one run, on average.
    """

    accuracies: np.ndarray
    epsilons: np.ndarray
    epsilon_rdp: float
    seconds: float

    @property
    def final(self) -> float:
        """Mean accuracy of the runs at the end."""
        return mean(self.accuracies[:, -1].tolist())


def load(folder: Path) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Train and test images in [0, 1], float32 of shape (n, 28, 28, 1), with their digits."""
    images, digits = read_folder(folder)
    x, y = images[..., np.newaxis].astype(np.float32) / np.float32(255), digits.astype(np.int32)
    return (x[:TRAIN_ROWS], y[:TRAIN_ROWS]), (x[TRAIN_ROWS:], y[TRAIN_ROWS:])


def reproduce(
    setting: Setting, data: Any, *, engine: str, runs: int, epochs: int, done: Callable[[], object]
) -> Result:
    """Train `runs` times for `epochs` epochs; `done` is called after each epoch."""
    from lepton_flwr.training.models import ModelSpec, build, compile_model

    (x, y), test = data
    accuracies = np.empty((runs, epochs))
    model = build(ModelSpec("cnn", (28, 28, 1), 10), 0)
    compile_model(model, "sgd", setting.learning_rate)
    start = time.perf_counter()
    for run in range(runs):
        model.set_weights(build(ModelSpec("cnn", (28, 28, 1), 10), run).get_weights())
        for epoch in range(epochs):
            _train_epoch(model, setting, x, y, engine)
            accuracies[run, epoch] = _accuracy(model, *test)
            done()
    seconds = (time.perf_counter() - start) / runs
    spent = [(epoch + 1) * STEPS_PER_EPOCH for epoch in range(epochs)]
    return Result(
        accuracies,
        np.array([epsilon_of(setting.mechanism, DELTA, steps) for steps in spent]),
        epsilon_rdp_of(setting.mechanism, DELTA, spent[-1]),
        seconds,
    )


def _train_epoch(model: Any, setting: Setting, x: np.ndarray, y: np.ndarray, engine: str) -> None:
    from lepton_flwr.training.private import PrivateTrainer, RecordPrivacy

    mechanism = setting.mechanism
    privacy = RecordPrivacy(
        setting.l2_norm_clip, mechanism.noise_multiplier, mechanism.sampling_probability
    )
    PrivateTrainer(model, privacy, engine=engine).fit(x, y, steps=STEPS_PER_EPOCH)


def _accuracy(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    from lepton_flwr.training.scores import evaluate_counts, summarise

    accuracy = summarise(evaluate_counts(model, x, y, 10)).accuracy
    return float("nan") if accuracy is None else accuracy


def draw(results: Sequence[tuple[Setting, Result]], path: Path) -> None:
    """Write the picture: mean accuracy by epoch, each run faintly, epsilon on a second axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(results), figsize=(6 * len(results), 4), squeeze=False, layout="constrained"
    )
    for axis, (setting, result) in zip(axes[0], results, strict=True):
        epochs = np.arange(1, result.epsilons.size + 1)
        axis.plot(epochs, 100 * result.accuracies.T, color="C0", alpha=0.25, linewidth=1)
        axis.plot(epochs, 100 * result.accuracies.mean(axis=0), ".-", color="C0", label="accuracy")
        axis.axhline(setting.published_accuracy, color="C0", linestyle=":", label="published")
        axis.set(
            xlabel="epoch",
            ylabel="test accuracy (%)",
            ylim=(80, 100),
            title=f"noise {setting.noise_multiplier:g}, clip {setting.l2_norm_clip:g}",
        )
        right = axis.twinx()
        right.plot(epochs, result.epsilons, ".-", color="C1", label="epsilon (PLD)")
        right.plot(setting.epochs, setting.published_epsilon, "x", color="C1", label="published")
        right.set_ylabel(f"epsilon at delta {DELTA:g}")
        right.set_ylim(bottom=0)
        lines = [*axis.get_lines()[-2:], *right.get_lines()]
        axis.legend(lines, [line.get_label() for line in lines], loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, print and draw."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="example: python -m simulations.benchmarks.mnist --data mnist/ --out mnist.png",
    )
    parser.add_argument("--data", required=True, type=Path, help="folder of MNIST's four .gz files")
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    parser.add_argument("--runs", type=int, default=RUNS, help="trainings of each setting")
    parser.add_argument(
        "--epochs-scale", type=float, default=1.0, help="share of the epochs; 0.1 for a quick try"
    )
    parser.add_argument("--settings", type=int, nargs="+", choices=(1, 2), default=(1, 2))
    parser.add_argument("--out", type=Path, default=Path("mnist.png"), help="the picture")
    options = parser.parse_args(arguments)
    try:
        check.integer("--runs", options.runs, at_least=1)
        check.finite("--epochs-scale", options.epochs_scale, above=0, at_most=1)
        chosen = [SETTINGS[number - 1] for number in options.settings]
        lengths = [max(1, math.ceil(s.epochs * options.epochs_scale)) for s in chosen]
        data = load(options.data)
    except LeptonError as error:
        parser.error(str(error))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("Epochs", total=options.runs * sum(lengths))
        results = [
            reproduce(
                setting,
                data,
                engine=options.engine,
                runs=options.runs,
                epochs=epochs,
                done=lambda: progress.advance(bar),
            )
            for setting, epochs in zip(chosen, lengths, strict=True)
        ]
    table = Table(
        title=f"MNIST, mean of {options.runs} runs, delta {DELTA:g}, engine {options.engine}"
    )
    columns = ("noise", "clip", "rate", "epochs", "accuracy %", "runs", "published")
    for name in (*columns, "eps PLD", "eps RDP", "published", "s a run"):
        table.add_column(name, justify="right")
    for setting, epochs, result in zip(chosen, lengths, results, strict=True):
        whole = epochs == setting.epochs
        table.add_row(
            *(f"{v:g}" for v in (setting.noise_multiplier, setting.l2_norm_clip)),
            f"{setting.learning_rate:g}",
            str(epochs),
            f"{100 * result.final:.2f}",
            " ".join(f"{100 * a:.1f}" for a in result.accuracies[:, -1]),
            f"{setting.published_accuracy:g}" if whole else "-",
            f"{result.epsilons[-1]:.3f}",
            f"{result.epsilon_rdp:.3f}",
            f"{setting.published_epsilon:g}" if whole else "-",
            f"{result.seconds:.0f}",
        )
    Console(width=110).print(table)
    draw(list(zip(chosen, results, strict=True)), options.out)


if __name__ == "__main__":
    main()
