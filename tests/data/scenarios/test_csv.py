from pathlib import Path

import numpy as np
import pytest

from lepton_flwr.config import RunConfig
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.data.preprocessing import fit_tables
from lepton_flwr.data.scenarios import get
from lepton_flwr.data.tables import FederatedTables
from lepton_flwr.errors import ConfigError, DataError, LeptonError

CELL = "cell-value"
RANGES = {"age": [0, 100], "dose": [0, 10]}


def rows(num_rows: int = 120) -> list[list[object]]:
    rng = np.random.default_rng(0)
    return [
        [int(rng.integers(20, 90)), round(rng.uniform(0, 12), 3), f"site{i % 4}", i % 2]
        for i in range(num_rows)
    ]


def write(path: Path, body: list[list[object]], header: str = "age,dose,site,ill") -> Path:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in body)]) + "\n")
    return path


def load(
    path: Path | str, *, dp: bool = True, clients: int | None = None, **data
) -> FederatedData | FederatedTables:
    table = {"data": {"path": str(path), "by": "site", "ranges": RANGES, "min_rows": 2, **data}}
    extra = {"dp": {"record": {"enabled": dp}}} | ({} if clients is None else {"clients": clients})
    return get("csv").load(RunConfig.build(get("csv").defaults, table, extra))


@pytest.fixture
def file(tmp_path) -> Path:
    return write(tmp_path / "t.csv", rows())


def test_clients_are_the_values_of_a_column_and_features_are_scaled_by_ranges(file):
    data = load(file)
    assert data.names == ("site0", "site1", "site2", "site3")
    assert data.feature_names == ("age", "dose")
    assert data.num_classes == 2
    got = sorted(
        tuple(row) for c in data.clients for row in np.concatenate([c.x_train, c.x_test]).tolist()
    )
    want = sorted(
        (float(np.float32(age / 50 - 1)), float(np.float32(min(dose, 10) / 5 - 1)))
        for age, dose, _, _ in rows()
    )
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_without_a_column_of_clients_rows_are_divided_at_random(tmp_path):
    path = write(tmp_path / "t.csv", [[a, d, y] for a, d, _, y in rows()], "age,dose,ill")
    assert len(load(path, by="").clients) == 5
    assert len(load(path, by="", clients=7).clients) == 7
    with pytest.raises(ConfigError, match="no natural clients"):
        load(path, by="", partition="natural")


def test_labels_become_classes_in_sorted_order(tmp_path):
    words = ["NA", "b", "c"]
    path = write(
        tmp_path / "t.csv", [[a, d, s, words[i % 3]] for i, (a, d, s, _) in enumerate(rows())]
    )
    data = load(path)
    assert data.num_classes == 3
    labels = np.concatenate([p for c in data.clients for p in (c.y_train, c.y_test)])
    assert np.bincount(labels).tolist() == [40, 40, 40]
    numbers = write(tmp_path / "n.csv", [[a, d, s, [10, 9][y]] for a, d, s, y in rows()])
    client = load(numbers).clients[0]  # of rows 0, 4, 8, ...: labelled 10, the larger number
    assert set(client.y_train) == {1}


def test_the_label_may_be_any_column(tmp_path):
    path = write(tmp_path / "t.csv", [[y, a, d, s] for a, d, s, y in rows()], "ill,age,dose,site")
    assert load(path, label="ill").feature_names == ("age", "dose")


def test_client_level_privacy_needs_a_public_range_of_every_feature(file):
    client_level = {"dp": {"record": {"enabled": False}, "client": {"enabled": True}}}
    table = {"data": {"path": str(file), "by": "site", "min_rows": 2}}
    with pytest.raises(ConfigError, match=r"column .age. \(and 1 more\)"):
        get("csv").load(RunConfig.build(get("csv").defaults, table, client_level))


def test_without_all_ranges_the_columns_are_left_to_federated_statistics(file):
    tables = load(file, ranges={"age": [0, 100]})
    assert isinstance(tables, FederatedTables)
    age, dose = tables.schema.columns
    assert (age.low, age.high, dose.low) == (0, 100, None)
    assert tables.names == ("site0", "site1", "site2", "site3")
    assert tables.releases == 3


def test_text_missing_values_and_duplicates_become_features(tmp_path):
    words = ["low", "high", ""]
    body = [[a if i % 5 else "", words[i % 3], s, y] for i, (a, _, s, y) in enumerate(rows())]
    path = write(tmp_path / "t.csv", [*body, *body])
    tables = load(path, ranges={}, impute="median")
    assert sum(len(c.y_train) + len(c.y_test) for c in tables.clients) == len(
        {tuple(row) for row in body}
    )
    preprocessor = fit_tables(tables.tables, tables.schema, options=tables.options)
    data = tables.features(preprocessor)
    assert data.feature_names == (
        "age", "age missing", "dose=high", "dose=low", "dose missing",
    )  # fmt: skip
    assert data.preprocessor is preprocessor
    assert all(np.isfinite(c.x_train).all() for c in data.clients)
    kept = load(path, ranges={}, drop_duplicates=False)
    assert sum(len(c.y_train) + len(c.y_test) for c in kept.clients) == 2 * len(body)


def test_statistics_are_of_training_rows_alone(file):
    tables = load(file, ranges={})
    preprocessor = fit_tables(tables.tables, tables.schema, options=tables.options)
    ages = np.concatenate([c.train["age"] for c in tables.clients])
    assert preprocessor.columns[0].mean == pytest.approx(ages.mean())
    assert len(ages) == sum(len(c.y_train) for c in tables.clients)


def test_the_digest_of_records_depends_on_them_and_not_on_the_seed_or_the_split(file, tmp_path):
    def digests(path, **data):
        return [c.records for c in load(path, ranges={}, **data).clients]

    assert digests(file) == digests(file, test_fraction=0.4) == digests(file, impute="median")
    changed = write(tmp_path / "u.csv", [["21", *row[1:]] if i == 0 else row
                                         for i, row in enumerate(rows())])  # fmt: skip
    old, new = digests(file), digests(changed)
    assert old[0] != new[0]
    assert old[1:] == new[1:]
    assert len(set(old)) == 4


def test_kinds_can_be_stated_and_columns_left_out(file):
    tables = load(file, ranges={}, kinds={"age": "category", "dose": "ignore"})
    assert [(c.name, c.kind) for c in tables.schema.columns] == [("age", "category")]
    with pytest.raises(ConfigError, match="did you mean 'dose'"):
        load(file, ranges={}, kinds={"dos": "ignore"})
    with pytest.raises(ConfigError, match=r"data\.kinds\.age"):
        load(file, ranges={}, kinds={"age": "text"})


def test_a_range_of_a_column_of_text_is_refused(tmp_path):
    path = write(tmp_path / "t.csv", [["old", d, s, y] for _, d, s, y in rows()])
    with pytest.raises(DataError, match="column 'age' holds text"):
        load(path, ranges={"age": [0, 1]})


def test_a_constant_column_is_harmless(tmp_path):
    path = write(tmp_path / "t.csv", [[5, d, s, y] for _, d, s, y in rows()])
    tables = load(path, dp=False, ranges={})
    preprocessor = fit_tables(tables.tables, tables.schema)
    x = tables.features(preprocessor).clients[0].x_train
    assert (x[:, 0] == 0).all()


BAD = {
    "text": (lambda r: [[CELL, *row[1:]] if i == 3 else row for i, row in enumerate(r)], {},
             DataError, "column 'age' holds text"),
    "missing value": (lambda r: [["", *row[1:]] if i == 3 else row for i, row in enumerate(r)], {},
                      DataError, "column 'age' has missing values"),
    "infinite value": (lambda r: [["inf", *row[1:]] if i == 3 else row for i, row in enumerate(r)],
                       {}, DataError, "column 'age' has infinite values"),
    "missing label": (lambda r: [[*row[:3], ""] if i == 3 else row for i, row in enumerate(r)], {},
                      DataError, "label column 'ill' has missing values"),
    "missing client": (lambda r: [[*row[:2], "", row[3]] if i == 3 else row
                                  for i, row in enumerate(r)], {},
                       DataError, "column 'site' has missing values"),
    "one class": (lambda r: [[*row[:3], 1] for row in r], {}, DataError, "'ill' has 1 different"),
    "a measurement as label": (lambda r: [[*row[:3], i / 7] for i, row in enumerate(r)], {},
                               DataError, "'ill' has 120 different values: expected 2 to 100"),
    "no rows": (lambda r: [], {}, DataError, "a header and no rows"),
    "longer row": (lambda r: [*r, [1, 2, "site0", 1, CELL]], {}, DataError, "different lengths"),
    "every row longer": (lambda r: [[CELL, *row] for row in r], {}, DataError,
                         "different lengths"),
    "shorter row": (lambda r: [*r, [1, 2]], {}, DataError, "missing values"),
    "clients of one row": (lambda r: [[*row[:2], f"site{i}", row[3]] for i, row in enumerate(r)],
                           {}, ConfigError, "0 natural clients"),
    "unknown label": (lambda r: r, {"label": "il"}, ConfigError, "did you mean 'ill'"),
    "unknown client column": (lambda r: r, {"by": "sit"}, ConfigError, "did you mean 'site'"),
    "client column is the label": (lambda r: r, {"by": "ill"}, ConfigError, "is the label too"),
    "range of no column": (lambda r: r, {"ranges": {"agee": [0, 1]}}, ConfigError,
                           "did you mean 'age'"),
    "range of the label": (lambda r: r, {"ranges": {**RANGES, "ill": [0, 1]}}, ConfigError,
                           "no such column"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_that_names_the_column_and_shows_no_value(case, tmp_path):
    change, data, error, message = BAD[case]
    path = write(tmp_path / "t.csv", change(rows()))
    with pytest.raises(error, match=message) as caught:
        load(path, **data)
    assert "\n" not in str(caught.value)
    assert CELL not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("age,age,site,ill", "column 'age' appears more than once"),
        ("age,,site,ill", "names every column"),
    ],
)
def test_a_header_must_name_each_column_once(tmp_path, header, message):
    with pytest.raises(DataError, match=message):
        load(write(tmp_path / "t.csv", rows(), header))


def test_a_table_of_nothing_but_label_and_clients_is_refused(tmp_path):
    path = write(tmp_path / "t.csv", [[s, y] for _, _, s, y in rows()], "site,ill")
    with pytest.raises(DataError, match="no feature column"):
        load(path, ranges={})


def test_unreadable_files_are_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"set data\.path"):
        load("")
    with pytest.raises(DataError, match="No such file"):
        load(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="Is a directory"):
        load(tmp_path)
    for content in (b"", b"\xff\xfe\x00", b"age,dose,site,ill\n1,\xff,site0,0\n", b"\x00" * 9):
        (tmp_path / "bad.csv").write_bytes(content)
        with pytest.raises(LeptonError) as caught:
            load(tmp_path / "bad.csv")
        assert "\n" not in str(caught.value)


def test_a_byte_order_mark_and_spaces_in_the_header_do_no_harm(tmp_path):
    path = write(tmp_path / "t.csv", rows(), "age, dose ,site,ill")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(path).feature_names == ("age", "dose")
