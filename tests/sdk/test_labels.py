"""Labels: what they may be, and how predictions give them back."""

import pickle

import numpy as np
import pandas as pd
import pytest

from lepton_flwr.sdk import LabelError, TextLabels
from lepton_flwr.sdk.labels import Labels

KINDS = {
    "text": np.array(["no", "yes", "no", "maybe"], dtype=object),
    "fixed text": np.array(["no", "yes", "no"]),
    "int": np.array([3, -1, 3, 7]),
    "float": np.array([0.5, 1.5, 0.5]),
    "bool": np.array([True, False, True]),
    "ints among objects": np.array([1, 0, 1], dtype=object),
    "whole and broken numbers": np.array([1, 0.5, 1], dtype=object),
}


@pytest.mark.parametrize("y", KINDS.values(), ids=KINDS)
def test_classes_become_the_labels_that_they_were(y):
    labels, classes = Labels.of(y)
    assert classes.dtype == np.int32
    assert set(classes) == set(range(len(labels.values)))
    assert (labels.decode(classes) == y).all()
    assert Labels.from_plain(labels.to_plain()) == labels


def test_classes_are_in_ascending_order():
    assert Labels.of(["b", "a", "c"])[0].values == ("a", "b", "c")
    assert Labels.of([10, 9, 100])[0].values == (9, 10, 100)


@pytest.mark.parametrize(
    ("y", "text"),
    [
        (["a", "a"], "has 1 different value"),
        (np.arange(101), "has 101 different values"),
        ([1.0, float("nan"), 0.0], "1 of 3 labels are missing"),
        (["a", None, " ", "b"], "2 of 4 labels are missing"),
        (pd.Series(["a", pd.NA, "b"]), "1 of 3 labels are missing"),
        ([1.0, float("inf")], "infinite"),
        (["a", 1], "expected texts, numbers or truth values, all of one kind"),
        ([True, 1], "all of one kind"),
        (np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]"), "other"),
        ([], "one label for each row"),
        ([[0, 1], [1, 0]], "one label for each row"),
    ],
    ids=str,
)
def test_what_is_no_class_is_refused(y, text):
    with pytest.raises(LabelError, match=text) as caught:
        Labels.of(y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "table",
    [None, [], {}, {"kind": "text", "values": "ab"}, {"kind": "text", "values": [1, 2]},
     {"kind": "int", "values": [2, 1]}, {"kind": "set", "values": [1, 2]}],
)  # fmt: skip
def test_damaged_labels_are_refused(table):
    with pytest.raises(LabelError):
        Labels.from_plain(table)


@pytest.fixture
def predictions():
    return TextLabels([1, 0, 1], ("no", "yes"))


def test_text_labels_compare_as_texts_and_count_as_numbers(predictions):
    y = np.array(["yes", "yes", "no"], dtype=object)
    assert (predictions == y).tolist() == [True, False, False]
    assert (y == predictions).tolist() == [True, False, False]
    assert (predictions != y).tolist() == [False, True, True]
    assert (predictions == "yes").tolist() == [True, False, True]
    assert (predictions == 1).tolist() == [True, False, True]
    assert (predictions == predictions).all()
    assert predictions.text.tolist() == ["yes", "no", "yes"]
    assert np.asarray(predictions).tolist() == [1, 0, 1]
    assert predictions[1:].text.tolist() == ["no", "yes"]
    assert "'yes'" in repr(predictions)


def test_text_labels_survive_pickling(predictions):
    again = pickle.loads(pickle.dumps(predictions))  # noqa: S301
    assert again.text.tolist() == predictions.text.tolist()


def test_text_labels_are_colours_to_matplotlib(predictions):
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure

    points = Figure().subplots().scatter([1, 2, 3], ["a", "b", "a"], c=predictions)
    assert isinstance(points, PathCollection)
    assert points.get_array().tolist() == [1, 0, 1]
