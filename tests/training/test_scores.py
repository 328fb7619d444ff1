import numpy as np
import pytest
from sklearn import metrics

from lepton_flwr.errors import DataError
from lepton_flwr.training.models import ModelSpec, build
from lepton_flwr.training.scores import BINS, counts_of, evaluate_counts, summarise


def binary(rows=4000, seed=1, gap=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows)
    return rng.normal(size=(rows, 1)) * 1.5 + gap * labels[:, None] - 1.0, labels


def several(rows=4000, classes=5, seed=1):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    return rng.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[labels], labels


def total(parts):
    return {key: sum(part[key] for part in parts) for key in parts[0]}


@pytest.mark.parametrize("gap", [0.0, 0.5, 2.0, 8.0])
def test_binary_metrics_agree_with_scikit_learn(gap):
    logits, labels = binary(gap=gap)
    summary = summarise(counts_of(logits, labels))
    probability = 1 / (1 + np.exp(-logits[:, 0]))
    assert summary.auc == pytest.approx(metrics.roc_auc_score(labels, logits[:, 0]), abs=2e-3)
    assert summary.accuracy == metrics.accuracy_score(labels, logits[:, 0] > 0)
    assert summary.loss == pytest.approx(metrics.log_loss(labels, probability), rel=1e-9)


def test_metrics_of_several_classes_agree_with_scikit_learn():
    logits, labels = several()
    summary = summarise(counts_of(logits, labels))
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    auc = metrics.roc_auc_score(labels, probability, multi_class="ovr")
    assert summary.auc == pytest.approx(auc, abs=2e-3)
    assert summary.accuracy == metrics.accuracy_score(labels, logits.argmax(axis=1))
    assert summary.loss == pytest.approx(metrics.log_loss(labels, probability), rel=1e-9)


def test_the_curve_agrees_with_scikit_learn():
    logits, labels = binary()
    roc = summarise(counts_of(logits, labels)).roc
    false_rate, true_rate, _ = metrics.roc_curve(labels, logits[:, 0])
    assert roc.shape == (201, 2)
    np.testing.assert_allclose(roc[:, 1], np.interp(roc[:, 0], false_rate, true_rate), atol=0.02)
    assert (np.diff(roc[:, 1]) >= 0).all()


@pytest.mark.parametrize("make", [binary, several])
def test_counts_of_clients_add_up_to_counts_of_everything(make):
    logits, labels = make()
    parts = [counts_of(logits[k::7], labels[k::7]) for k in range(7)]
    together, whole = summarise(total(parts)), summarise(counts_of(logits, labels))
    assert together.accuracy == whole.accuracy
    assert together.auc == whole.auc
    assert together.loss == pytest.approx(whole.loss)


def test_extreme_logits_and_broken_ones_are_counted_as_described():
    logits = np.array([[1e30], [-1e30], [50.0], [np.nan], [np.inf]])
    counts = counts_of(logits, np.array([1, 0, 0, 1, 1]))
    assert counts["correct"] == 2
    assert counts["loss-sum"] == pytest.approx(60.0)  # 50 is bounded by 20, and two are broken
    negative, positive = counts["scores"].reshape(2, BINS)
    assert (negative[0], negative[-1]) == (1, 1)
    assert (positive[0], positive[-1]) == (2, 1)
    assert counts["scores"].sum() == 5


def test_confident_classes_do_not_break_the_log_odds():
    logits = np.array([[1e4, 0.0, 0.0], [0.0, -1e4, 1e4]])
    counts = counts_of(logits, np.array([0, 1]))
    assert counts["correct"] == 1
    assert counts["loss-sum"] == pytest.approx(20.0)
    assert counts["scores"].sum() == 6


def test_a_class_that_nobody_holds_is_left_out_of_the_mean():
    logits, labels = several(classes=4)
    kept = labels != 3
    summary = summarise(counts_of(logits[kept], labels[kept]))
    probability = np.exp(logits[kept]) / np.exp(logits[kept]).sum(axis=1, keepdims=True)
    areas = [metrics.roc_auc_score(labels[kept] == k, probability[:, k]) for k in range(3)]
    assert summary.auc == pytest.approx(np.mean(areas), abs=2e-3)


def test_nothing_to_count_gives_none():
    nothing = summarise(counts_of(np.empty((0, 1)), np.empty(0, np.int64)))
    assert (nothing.accuracy, nothing.auc, nothing.loss, nothing.roc) == (None,) * 4
    logits, labels = binary(100)
    one_class = summarise(counts_of(logits[labels == 1], labels[labels == 1]))
    assert one_class.auc is None
    assert one_class.accuracy is not None


@pytest.mark.parametrize("classes", [2, 3])
def test_a_model_is_evaluated_in_parts_as_in_one(classes):
    model = build(ModelSpec("mlp", (3,), classes), 1)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(5000, 3)).astype(np.float32)
    y = rng.integers(0, classes, 5000)
    counts = evaluate_counts(model, x, y[:, None], classes)
    whole = counts_of(np.asarray(model(x)).astype(np.float64), y)
    assert counts["examples"] == 5000
    assert counts["correct"] == whole["correct"]
    np.testing.assert_array_equal(counts["scores"], whole["scores"])
    assert evaluate_counts(model, x[:0], y[:0], classes)["examples"] == 0


def test_what_does_not_fit_is_refused():
    model = build(ModelSpec("mlp", (3,), 2), 1)
    x = np.zeros((2, 3), np.float32)
    for labels, classes in (([0], 2), ([0, 2], 2), ([-1, 0], 2), ([0, 1], 3)):
        with pytest.raises(DataError, match="expected"):
            evaluate_counts(model, x, np.array(labels), classes)
    with pytest.raises(DataError, match="multiple"):
        summarise({"scores": np.zeros(5), "examples": 1, "correct": 1, "loss-sum": 0.0})
