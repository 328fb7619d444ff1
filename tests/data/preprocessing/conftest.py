import contextlib

import numpy as np
import pandas as pd
import pytest

from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.data.preprocessing import Preprocessor, TableSchema, fit
from lepton_flwr.data.preprocessing.in_process import InProcess
from lepton_flwr.privacy.noise import GaussianNoise


def make_table(rows: int, seed: int = 0) -> pd.DataFrame:
    """Numbers and categories of several kinds, with missing values and duplicates."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 90, rows).astype(float),
            "income": rng.lognormal(10, 1, rows),
            "year": rng.integers(2015, 2019, rows),
            "debt": rng.normal(-300, 900, rows),
            "visits": rng.poisson(0.3, rows),
            "town": rng.choice(["Ulm", "Köln", "Bonn", "Trier"], rows, p=[0.5, 0.3, 0.15, 0.05]),
            "plan": rng.choice(["a", "b"], rows),
        }
    )
    frame.loc[rng.random(rows) < 0.1, "income"] = np.nan
    frame.loc[rng.random(rows) < 0.2, "town"] = None
    return frame


@pytest.fixture(scope="session")
def table() -> pd.DataFrame:
    return make_table(600)


@pytest.fixture(scope="session")
def split():
    """Divides a table among participants, as they read it themselves."""

    def divide(frame: pd.DataFrame, participants: int, schema: TableSchema) -> list:
        order = np.random.default_rng(1).permutation(len(frame))
        return [schema.read(frame.iloc[rows]) for rows in np.array_split(order, participants)]

    return divide


@contextlib.contextmanager
def same_noise():
    keys = iter(range(10**6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "lepton_flwr.data.preprocessing.questions.GaussianNoise",
            lambda: GaussianNoise(CipherStream(next(keys).to_bytes(32, "big"))),
        )
        yield


@pytest.fixture
def keyed_noise():
    """The same noise in every run of a test, for what a draw in a hundred would change."""
    with same_noise():
        yield


@pytest.fixture(scope="session")
def keyed_fit(split):
    """Fits a table of three participants with the same noise and salt in every run."""

    def made(table: pd.DataFrame, noise_multiplier: float, most_rows: int) -> Preprocessor:
        schema = TableSchema.infer(table)
        asked = InProcess(split(table, 3, schema))
        with same_noise():
            return fit(
                asked,
                schema,
                noise_multiplier=noise_multiplier,
                most_rows=most_rows,
                salt=bytes(16),
            )

    return made
