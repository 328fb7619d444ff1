"""Shoulder exercises from a smart watch; the people who wore it are clients."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_flwr.config import RunConfig
from lepton_flwr.data import records
from lepton_flwr.data.assemble import divide
from lepton_flwr.data.federated import ClientData, FederatedData
from lepton_flwr.data.scenario import Scenario
from lepton_flwr.errors import DataError

RATE = 50  # samples a second
WINDOW, STEP = 2 * RATE, RATE  # 2 s each, begun every second
EXERCISES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
CHANNELS = ("ax", "ay", "az", "wx", "wy", "wz")
# What an arm at exercise does: accelerations within 2 g, gravity included, and rotations within
# 4 rad/s. Faster ones count as the bound.
BOUNDS = np.array([2.0, 2.0, 2.0, 4.0, 4.0, 4.0])
# A left arm is a right arm in a mirror: accelerations turn along x, rotations about y and z.
MIRROR = np.array([-1.0, 1.0, 1.0, 1.0, -1.0, -1.0])
STATISTICS = ("mean", "deviation", "smallest", "largest", "change", "quarter", "half", "most")
_HELD_OUT, _DEALT = 2, 3  # streams of the seed


def load(config: RunConfig) -> FederatedData:
    """Windows as clients, natural ones by person.

    Evaluation leaves people out: `data.test_fraction` of the ten, at least one and drawn by the
    seed, train nothing. Their windows are dealt to the clients as held-out rows, for rows are
    evaluated where clients are.

    Raises:
        DataError: seglearn, which brings the data, is not installed.
        ConfigError: the clients cannot be made; the message says which setting to change.
    """
    x, y, people = windows(_read())
    rng = np.random.default_rng([config.seed, _HELD_OUT])
    everyone = np.unique(people)
    count = min(max(round(config.data.test_fraction * len(everyone)), 1), len(everyone) - 3)
    absent = np.isin(people, rng.choice(everyone, count, replace=False))
    seen, unseen = np.flatnonzero(~absent), np.flatnonzero(absent)
    keys = np.array([f"person-{person:02d}" for person in people[seen].tolist()])
    parts = divide(config, y[seen], keys, len(np.unique(keys)))
    order = np.random.default_rng([config.seed, _DEALT]).permutation(unseen)
    clients = tuple(
        ClientData(x[seen[rows]], y[seen[rows]], x[np.sort(test)], y[np.sort(test)])
        for rows, test in zip(parts.values(), np.array_split(order, len(parts)), strict=True)
    )
    population = records.population(records.of_features(x, y))
    return FederatedData(
        clients, tuple(parts), len(EXERCISES), feature_names(), population=population
    )


def windows(recordings: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, exercise and person of every window of every recording.

    A feature depends on its window alone: statistics of each channel, cut to its bound and scaled
    to [-1, 1].

    Args:
        recordings: `X`, a list of (samples, 6); `y`, `subject` and `side` (1 is right), one each.

    Returns:
        float32 (n, 48), int32 (n,), and int64 (n,).

    Raises:
        DataError: recordings of another shape, or values that are not finite.
    """
    x, y, people = [], [], []
    for samples, label, person, side in zip(
        recordings["X"], recordings["y"], recordings["subject"], recordings["side"], strict=True
    ):
        values = np.asarray(samples, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(CHANNELS) or not np.isfinite(values).all():
            raise DataError(
                f"a recording of shape {values.shape}: expected finite numbers in six channels"
            )
        unit = np.clip(values / BOUNDS * (MIRROR if side == 0 else 1.0), -1.0, 1.0)
        for start in range(0, len(unit) - WINDOW + 1, STEP):
            x.append(_statistics(unit[start : start + WINDOW]))
            y.append(label)
            people.append(person)
    if not x:
        raise DataError("no recording is as long as a window: expected 2 s or more")
    return np.array(x, np.float32), np.array(y, np.int32), np.array(people, np.int64)


def feature_names() -> tuple[str, ...]:
    """In the order of the features."""
    return tuple(f"{channel} {name}" for name in STATISTICS for channel in CHANNELS)


def _statistics(window: np.ndarray) -> np.ndarray:
    """48 numbers within [-1, 1]: `STATISTICS` of each channel."""
    deviation = window.std(axis=0)  # at most 1
    change = np.abs(np.diff(window, axis=0)).mean(axis=0) / 2  # likewise
    return np.concatenate(
        [
            window.mean(axis=0),
            np.minimum(2 * deviation, 1.0),
            window.min(axis=0),
            window.max(axis=0),
            np.minimum(10 * change, 1.0),
            *np.quantile(window, (0.25, 0.5, 0.75), axis=0),
        ]
    )


def _read() -> Mapping[str, Any]:
    try:
        from seglearn.datasets import load_watch
    except ImportError as error:
        raise DataError(
            f"{error.name} is not installed: pip install 'lepton-flwr[simulation]'"
        ) from None
    recordings: Mapping[str, Any] = load_watch()
    return recordings


SCENARIO = Scenario(
    name="iot",
    title="Exercises from a watch",
    description=(
        "4,677 windows of 2 s from the accelerometer and gyroscope of a smart watch, worn by ten "
        "people at seven shoulder exercises (seglearn, load_watch): which exercise is it? A client "
        "is a person; held-out rows are of people that no client trains on."
    ),
    model="mlp",
    load=load,
    defaults={
        "data": {"min_rows": 100},
        "train": {
            "optimizer": "adam",
            "learning_rate": 0.01,
            "local_steps": 20,
            "sampling_probability": 0.2,
        },
    },
)
