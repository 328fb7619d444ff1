"""Sensitivity, noise and content of answers: what the guarantee rests on."""

import math

import numpy as np
import pytest

from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.data.preprocessing import TableSchema
from lepton_flwr.data.preprocessing.columns import take
from lepton_flwr.data.preprocessing.questions import (
    PRIVATE_GRID,
    Bins,
    Hashes,
    Listed,
    Magnitudes,
    Moments,
    Names,
    Question,
    Rows,
    hash_text,
)
from lepton_flwr.errors import ConfigError, DataError
from lepton_flwr.privacy.events import SampledGaussian, Unbounded
from lepton_flwr.privacy.noise import GaussianNoise

SALT = bytes(range(16))


class Silent(GaussianNoise):
    """No noise: what an answer is without it. Of tests only."""

    def rounded(self, shape, stddev):
        return np.zeros(shape, dtype=np.int64)


def parts():
    edges = (-1000.0, 0.0, 10.0, 1e5)
    return (
        Rows(), Magnitudes("income"), Magnitudes("debt"), Bins("age", (0.0, 30.0, 60.0)),
        Bins("debt", edges), Moments("age", 40.0, 20.0), Moments("income", 0.0, 1e4),
        Hashes("town", SALT, 6), Listed("plan", ("a",)),
    )  # fmt: skip


def read(frame):
    return TableSchema.infer(frame).read(frame)


def test_one_record_moves_an_answer_by_the_stated_norm_at_most_and_nearly_reaches_it(table):
    records = read(table)
    question = Question(parts(), noise_multiplier=1.0)
    whole = question.answer(records, Silent())
    moved = []
    for i in range(60):
        others = np.delete(np.arange(len(table)), i)
        less = question.answer(take(records, others), Silent())
        moved.append(float(np.linalg.norm(whole - less)))
    assert max(moved) <= question.stddev * PRIVATE_GRID  # at noise multiplier 1
    # Values beyond the Moments' bounds take a record to the full norm of its part.
    assert max(moved) > 0.9 * question.stddev * PRIVATE_GRID


def test_hostile_values_move_no_answer_further(table):
    question = Question(parts(), noise_multiplier=1.0)
    frame = table.iloc[:1].copy()
    empty = question.answer(take(read(table), np.arange(0)), Silent())
    for age, income, debt, town in (
        (1e19, -1e19, 1e-300, "x"), (-1e19, 1e19, -0.0, None), (np.nan, np.nan, np.nan, "a"),
    ):  # fmt: skip
        frame["age"], frame["income"], frame["debt"], frame["town"] = age, income, debt, town
        one = question.answer(TableSchema.infer(table).read(frame), Silent())
        assert np.linalg.norm(one - empty) <= question.stddev * PRIVATE_GRID


def test_the_noise_has_the_full_size_in_every_coordinate(table):
    # 20,000 draws: a deviation off by 3 % would be 6 standard errors off.
    question = Question((*parts(), Hashes("town", SALT, 14)), noise_multiplier=2.0)
    noise = GaussianNoise(CipherStream(bytes(32)))
    records = read(table)
    drawn = question.answer(records, noise) - question.answer(records, Silent())
    expected = 2.0 * math.sqrt(sum(part.norm**2 for part in question.parts))
    assert question.stddev == pytest.approx(expected, rel=1e-4)
    assert drawn.std() / PRIVATE_GRID == pytest.approx(expected, rel=0.03)
    assert abs(drawn.mean()) < 6 * drawn.std() / math.sqrt(drawn.size)


def test_noise_is_drawn_anew_for_every_answer(table):
    question = Question(parts(), noise_multiplier=1.0)
    records = read(table)
    assert (question.answer(records) != question.answer(records)).mean() > 0.9


def test_a_noised_answer_costs_one_gaussian_and_an_exact_one_has_no_bound():
    assert Question((Rows(),), 3.0).event == SampledGaussian(3.0, 1.0, 1)
    assert Question((Rows(),)).event == Unbounded()


def test_names_are_never_asked_for_with_noise():
    with pytest.raises(ConfigError, match="names are asked for with noise"):
        Question((Names("town", SALT, (1,)),), noise_multiplier=1.0)


def test_more_records_than_announced_are_refused(table):
    with pytest.raises(DataError, match="more than 8 records"):
        Question((Rows(),), 1.0, most_rows=8).answer(read(table))


def test_each_number_falls_into_the_bin_whose_edges_hold_it():
    rng = np.random.default_rng(0)
    numbers = np.concatenate(
        [rng.normal(size=500) * 10.0 ** rng.integers(-18, 18, 500), [0.0, 1.0, -1.0, 2.0, 1e-300]]
    )
    edges = Magnitudes.edges()
    for x in numbers:
        counts = Magnitudes("x").contributions({"x": np.array([x])})
        (at,) = np.flatnonzero(counts)
        assert counts[at] == 1
        low, high = edges[at], edges[at + 1]
        assert low <= x < high or low < x <= high


def test_bins_count_values_at_an_edge_once_and_those_beyond_in_the_outer_ones():
    counts = Bins("x", (0.0, 1.0, 2.0)).contributions(
        {"x": np.array([-5, 0, 0.5, 1, 2, 7, np.nan])}
    )
    assert counts.tolist() == [3, 3]


def test_hashes_are_followed_bit_by_bit():
    texts = np.array(["a", "a", None, "b"], dtype=object)
    head = hash_text("a", SALT) >> 36
    first = Hashes("t", SALT, 12).contributions({"t": texts})
    assert (first[0], first[1 + head]) == (1, 2)
    second = Hashes("t", SALT, 9, (head,), 12).contributions({"t": texts})
    assert second[1 + ((hash_text("a", SALT) >> 27) & 511)] == 2
    assert second.sum() == 3  # b has another prefix


def test_another_salt_gives_other_hashes():
    assert hash_text("a", SALT) != hash_text("a", bytes(16))
