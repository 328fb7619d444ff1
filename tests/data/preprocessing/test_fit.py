"""Federated statistics against scikit-learn on the pooled rows, and what privacy makes of them."""

import contextlib

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from lepton_flwr.data import rdata
from lepton_flwr.data.preprocessing import (
    Column,
    Options,
    TableSchema,
    fit,
    fit_tables,
    num_releases,
)
from lepton_flwr.data.preprocessing.columns import take
from lepton_flwr.data.preprocessing.in_process import InProcess
from lepton_flwr.errors import DataError, PrivacyError
from lepton_flwr.privacy.events import SampledGaussian, Unbounded


def pooled(frame: pd.DataFrame, impute: str) -> dict[str, np.ndarray]:
    """Features by name, by scikit-learn on all rows together."""
    features = {}
    for name, values in frame.items():
        if pd.api.types.is_numeric_dtype(values):
            column = values.to_numpy(dtype=float)[:, np.newaxis]
            imputer = SimpleImputer(strategy=impute, add_indicator=True)
            filled = imputer.fit_transform(column)
            scaler = StandardScaler().fit(column)
            features[name] = scaler.transform(filled[:, :1])[:, 0]
            if filled.shape[1] > 1:
                features[f"{name} missing"] = filled[:, 1]
        else:
            texts = values.astype(object).where(values.notna(), "no value").to_frame()
            encoder = OneHotEncoder(sparse_output=False).fit(texts)
            for text, feature in zip(
                encoder.categories_[0], encoder.transform(texts).T, strict=True
            ):
                key = f"{name} missing" if text == "no value" else f"{name}={text}"
                features[key] = feature
    return features


def assert_equal_to_pooled(frame, participants, split, impute, tolerance=1e-6):
    schema = TableSchema.infer(frame)
    options = Options(impute=impute, max_categories=1000)
    made = fit_tables(split(frame, participants, schema), schema, options=options)
    wanted = pooled(frame, impute)
    assert set(made.feature_names) == set(wanted)
    got = made.transform(frame, dtype=np.float64)
    for name, values in wanted.items():
        at = made.feature_names.index(name)
        np.testing.assert_allclose(got[:, at], values, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("impute", ["mean", "median"])
def test_without_noise_it_equals_scikit_learn_on_the_pooled_rows(table, split, impute):
    assert_equal_to_pooled(table, 5, split, impute, tolerance=1e-9)


def test_hard_numbers_equal_the_pooled_ones_too(split):
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "constant": np.full(200, 7.25),
            "stamps": 1.6e9 + rng.normal(0, 1000, 200),
            "tiny": rng.normal(0, 1e-12, 200),
            "outlier": np.append(rng.normal(0, 1, 199), 1e6),
            "zeros": np.where(rng.random(200) < 0.95, 0.0, 3.0),
            "negative": -(10.0 ** rng.uniform(-3, 9, 200)),
        }
    )
    for impute in ("mean", "median"):
        assert_equal_to_pooled(frame, 4, split, impute)


@pytest.mark.parametrize(
    ("package", "item", "drop"),
    [
        ("survival", "flchain", ["chapter"]),
        pytest.param("modeldata", "hotel_rates", ["arrival_date"], marks=pytest.mark.slow),
    ],
)
def test_on_real_tables_it_equals_scikit_learn_on_the_pooled_rows(package, item, drop, split):
    frame = rdata.read(package, item).drop(columns=drop)
    assert_equal_to_pooled(frame, 9, split, "median")


def test_rare_categories_share_the_feature_of_all_others(split):
    frame = pd.DataFrame({"t": ["a"] * 50 + ["b"] * 30 + ["c"] * 5 + ["d"]})
    schema = TableSchema.infer(frame)
    made = fit_tables(split(frame, 3, schema), schema, options=Options(max_categories=2))
    assert made.feature_names == ("t=a", "t=b", "t other")
    assert made.transform(pd.DataFrame({"t": ["b", "d", "never seen"]})).tolist() == [
        [0, 1, 0], [0, 0, 1], [0, 0, 1],
    ]  # fmt: skip


def test_a_missing_category_may_count_as_the_most_frequent_one(table, split):
    schema = TableSchema.infer(table)
    options = Options(most_frequent=True)
    made = fit_tables(split(table, 4, schema), schema, options=options)
    row = table.iloc[:1].assign(town=None)
    assert made.transform(row)[0, made.feature_names.index("town=Ulm")] == 1
    assert "town missing" not in made.feature_names


def test_public_lists_and_bounds_are_used_and_not_asked_for(table, split, keyed_noise):
    schema = TableSchema(
        (
            Column("age", "number", 0.0, 50.0),
            Column("plan", "category", values=("a", "b", "c")),
        )
    )
    made = fit_tables(split(table, 4, schema), schema, noise_multiplier=0.01)
    assert (made.releases, num_releases(schema)) == (1, 1)
    age = np.minimum(table["age"], 50)
    assert made.columns[0].mean == pytest.approx(age.mean(), rel=1e-2)
    assert made.columns[0].scale == pytest.approx(age.std(), rel=1e-2)
    assert made.feature_names == ("age", "plan=a", "plan=b", "plan=c")


def test_private_statistics_come_close_where_records_are_many(split, keyed_noise):
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 90, 20_000).astype(float),
            "year": rng.integers(2015, 2019, 20_000),
            "income": rng.lognormal(10, 0.5, 20_000),
            "town": rng.choice(["Ulm", "Köln", "rare"], 20_000, p=[0.6, 0.3999, 0.0001]),
        }
    )
    schema = TableSchema.infer(frame)
    asked = InProcess(split(frame, 3, schema))
    made = fit(asked, schema, noise_multiplier=5.0, most_rows=2**14, salt=bytes(16))
    age, year, income, town = made.columns
    for fitted, name in ((age, "age"), (year, "year"), (income, "income")):
        assert fitted.mean == pytest.approx(frame[name].mean(), abs=0.15 * frame[name].std())
        assert fitted.scale == pytest.approx(frame[name].std(), rel=0.35)
        assert fitted.low <= frame[name].quantile(0.1)
        assert fitted.high >= frame[name].quantile(0.9)
    # The rare town is not among the slots; one slot in a thousand may be empty.
    assert 2 <= len(town.slots) <= 8
    found = made.transform(frame.assign(town="Ulm"))[0]
    assert found[[n.startswith("town#") for n in made.feature_names]].sum() == 1
    rare = made.transform(frame.assign(town="rare"))[0]
    assert rare[[n.startswith("town other") for n in made.feature_names]].sum() == 1


def test_rare_categories_share_features_by_a_hash_that_no_record_shapes(keyed_fit):
    rng = np.random.default_rng(6)
    names = np.array([f"agent {i}" for i in range(400)])
    frame = pd.DataFrame(
        {"agent": np.where(rng.random(9000) < 0.5, "big", rng.choice(names, 9000))}
    )
    made = keyed_fit(frame, 8.0, most_rows=4096)
    (agent,) = made.columns
    # 4,500 records beside noise of 8 sqrt(3 (1 + 1)) = 20 in a bin would fill 225.
    assert agent.others == 64
    x = made.transform(pd.DataFrame({"agent": names}))
    assert (x.sum(axis=1) == 1).all()
    shared = x[:, len(agent.slots) :].sum(axis=0)
    assert len(shared) == 64
    assert shared.max() < 25  # 6.2 on average: of another salt over 24 has probability 1e-6


@pytest.mark.parametrize("impute", ["mean", "median"])
def test_a_private_fit_asks_as_often_as_announced_and_charges_each_answer(table, split, impute):
    schema = TableSchema.infer(table)
    options = Options(impute=impute)
    charges = []

    @contextlib.contextmanager
    def charge(participant, event):
        charges.append((participant, event))
        yield

    made = fit_tables(
        split(table, 4, schema), schema, noise_multiplier=0.5, options=options, charge=charge
    )
    assert made.releases == num_releases(schema, options) == 3
    event = SampledGaussian(0.5, 1.0, 1)
    releases = [sorted(i for i, _ in charges[at : at + 4]) for at in range(0, 12, 4)]
    assert releases == [[0, 1, 2, 3]] * 3
    assert {charged for _, charged in charges} == {event}
    assert made.private


def test_exact_statistics_are_charged_as_unbounded(table, split):
    schema = TableSchema.infer(table)
    seen = set()

    @contextlib.contextmanager
    def charge(_, event):
        seen.add(event)
        yield

    fit_tables(split(table, 3, schema), schema, charge=charge)
    assert seen == {Unbounded()}


def test_a_refused_charge_stops_before_the_records_are_read(table, split, monkeypatch):
    schema = TableSchema.infer(table)
    tables = split(table, 3, schema)
    read = []
    monkeypatch.setattr(
        "lepton_flwr.data.preprocessing.questions.Question.answer",
        lambda *_: read.append(1),
    )

    def charge(*_):
        raise PrivacyError("no budget")

    with pytest.raises(PrivacyError, match="no budget"):
        fit_tables(tables, schema, noise_multiplier=1.0, charge=charge)
    assert not read


def test_no_answer_is_seen_in_the_clear(table, split, monkeypatch):
    """The server's side gets masked vectors; those of one table differ every time in all places."""
    schema = TableSchema.infer(table)
    received = []
    from lepton_flwr.secagg.server import ServerSession

    add = ServerSession.receive_masked
    monkeypatch.setattr(
        ServerSession,
        "receive_masked",
        lambda self, node, vector, tags: (
            received.append(vector.copy()),
            add(self, node, vector, tags),
        )[1],
    )
    tables = split(table, 3, schema)
    for _ in range(2):
        fit_tables(tables, schema, options=Options())
    one, two = received[: len(received) // 2], received[len(received) // 2 :]
    for a, b in zip(one, two, strict=True):
        if a.size == b.size:
            assert (a == b).mean() < 1e-3


def test_columns_with_too_few_records_are_dropped_and_if_all_are_it_is_said_how_to_mend(
    split, keyed_noise
):
    frame = pd.DataFrame({"good": [1.0, 2.0] * 5000, "gone": [np.nan] * 9999 + [1.0]})
    schema = TableSchema.infer(frame)
    made = fit_tables(split(frame, 3, schema), schema, noise_multiplier=3.0)
    assert made.dropped == ("gone",)
    assert made.feature_names == ("good",)
    assert made.transform(frame.to_numpy()).shape == (10_000, 1)
    few = frame[:50].assign(text="a")
    schema = TableSchema.infer(few)
    with pytest.raises(DataError, match=r"no column holds enough records.*larger epsilon"):
        fit_tables(split(few, 3, schema), schema, noise_multiplier=100.0)


def test_the_sum_of_one_participant_is_refused(table):
    schema = TableSchema.infer(table)
    with pytest.raises(DataError, match="expected at least 2"):
        fit_tables([schema.read(table)], schema)


def test_adding_a_record_changes_an_exact_fit_only_through_sums(table, split):
    """`fit` sees sums alone: participants divided otherwise give the same preprocessor."""
    schema = TableSchema.infer(table)
    salt = bytes(16)
    everything = schema.read(table)
    cut = np.arange(len(table)) % 7 < 2
    tables = [take(everything, np.flatnonzero(cut)), take(everything, np.flatnonzero(~cut))]
    one = fit(InProcess(tables), schema, salt=salt)
    two = fit(InProcess(split(table, 5, schema)), schema, salt=salt)
    for a, b in zip(one.columns, two.columns, strict=True):
        if hasattr(a, "mean"):
            assert a.mean == pytest.approx(b.mean, rel=1e-9)
            assert a.scale == pytest.approx(b.scale, rel=1e-9)
        else:
            assert a == b
