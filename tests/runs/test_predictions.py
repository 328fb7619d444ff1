import csv
import io

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lepton_flwr.runs.predictions import assess, draw, to_csv


def random(classes: int, rows: int = 300):
    rng = np.random.default_rng(classes)
    answers = rng.integers(0, classes, rows).astype(np.int32)
    shares = rng.dirichlet(np.ones(classes), rows) + 0.5 * np.eye(classes)[answers]
    return shares / shares.sum(axis=1, keepdims=True), answers


def test_the_file_names_the_class_and_every_probability():
    shares = np.array([[0.25, 0.75], [0.9, 0.1]])
    rows = list(csv.DictReader(io.StringIO(to_csv(("no, not", "yes"), shares))))
    assert [row["prediction"] for row in rows] == ["yes", "no, not"]
    assert [float(row["probability no, not"]) for row in rows] == [0.25, 0.9]


@pytest.mark.parametrize("classes", [2, 4])
def test_the_assessment_is_scikit_learns(classes):
    shares, answers = random(classes)
    found = assess(tuple(map(str, range(classes))), shares, answers)
    binary = classes == 2
    score = shares[:, 1] if binary else shares
    assert found.auc == pytest.approx(roc_auc_score(answers, score, multi_class="ovr"))
    assert found.accuracy == pytest.approx(np.trace(found.confusion) / len(answers))
    assert found.confusion.sum(axis=1).tolist() == np.bincount(answers).tolist()
    assert len(found.curves) == (1 if binary else classes)


def test_one_class_alone_has_no_curve():
    found = assess(("a", "b"), np.array([[0.2, 0.8]]), np.array([1], np.int32))
    assert (found.auc, found.curves) == (None, {})
    assert draw(("a", "b"), found).startswith(b"\x89PNG")


@pytest.mark.parametrize("classes", [2, 5, 20])
def test_pictures_are_drawn_for_any_number_of_classes(classes):
    names = tuple(f"class {i} of a long name" for i in range(classes))
    png = draw(names, assess(names, *random(classes)))
    assert png.startswith(b"\x89PNG")
    assert len(png) > 10_000
