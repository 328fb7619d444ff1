"""What noise costs: `python -m simulations.benchmarks.sampler`.

A million discrete Gaussian draws on one core, beside the rounded continuous draws of this package,
numpy's generator (fast, and no protection: its state follows from its output), and OpenDP's exact
sampler on a hundredth of the draws. Times are those of the processor.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from lepton_flwr.privacy.discrete import DiscreteGaussianNoise
from lepton_flwr.privacy.mechanisms import _opendp
from lepton_flwr.privacy.noise import GaussianNoise

DRAWS = 1_000_000
REPEATS = 9
DEVIATIONS = (1.0, 20.0, 512.0, 2.0**20)


def _seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return median(times)


def main() -> None:
    """Print the table."""
    table = Table(box=None, padding=(0, 3, 0, 0))
    names = ("stddev", "discrete, s", "its table, s", "rounded, s", "numpy, s", "OpenDP, s")
    for name in names:
        table.add_column(name, justify="right")
    generator, rounded, dp = np.random.default_rng(), GaussianNoise(), _opendp()
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T=float)
    for stddev in DEVIATIONS:
        start = time.process_time()
        noise = DiscreteGaussianNoise(stddev)
        built = time.process_time() - start
        exact = dp.m.make_gaussian(*space, scale=stddev)
        zeros = [0] * (DRAWS // 100)
        row = (
            _seconds(partial(noise.draw, DRAWS)),
            built,
            _seconds(partial(rounded.rounded, DRAWS, stddev)),
            _seconds(partial(generator.normal, 0, stddev, DRAWS)),
            100 * _seconds(partial(exact, zeros), 3),
        )
        table.add_row(f"{stddev:g}", *(f"{value:.3f}" for value in row))
    console = Console()
    console.print(f"{DRAWS:,} draws, medians of {REPEATS}; OpenDP: from {DRAWS // 100:,}")
    console.print(table)


if __name__ == "__main__":
    main()
