"""Predictions as a file, and how right they are where the answers are known."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_flwr.runs import plots
from lepton_flwr.runs.text import decimal

_MOST_CURVES = 6
_MOST_CELLS = 12  # classes whose counts are written into the picture


def to_csv(classes: Sequence[str], shares: np.ndarray) -> str:
    """A line for each row: the most probable class, and the probability of each.

    Args:
        classes: their names.
        shares: float64 (n, classes).
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["prediction", *(f"probability {name}" for name in classes)])
    for best, row in zip(shares.argmax(axis=1), shares, strict=True):
        writer.writerow([classes[best], *(f"{value:.6f}" for value in row)])
    return text.getvalue()


def votes_to_csv(classes: Sequence[str], labels: np.ndarray, margins: np.ndarray) -> str:
    """A line for each row: the class that was voted for, and by how many votes, noise included.

    Args:
        classes: their names.
        labels: int64 (n,); -1 is no answer, of which both cells stay empty.
        margins: float64 (n,).
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["prediction", "margin"])
    for label, margin in zip(labels.tolist(), margins.tolist(), strict=True):
        writer.writerow([classes[label], f"{margin:.3f}"] if label >= 0 else ["", ""])
    return text.getvalue()


@dataclass(frozen=True)
class Assessment:
    """How right predictions are.

    Attributes:
        accuracy: share of rows whose most probable class is theirs.
        auc: area under the ROC curve; with several classes, the mean over the classes that occur
            of one against the rest. None where one class alone occurs.
        confusion: int64 (classes, classes): row the answer, column the prediction.
        curves: by class name (of two classes the second alone), false and true positive rates.
    """

    accuracy: float
    auc: float | None
    confusion: np.ndarray
    curves: dict[str, tuple[np.ndarray, np.ndarray]]


def assess(classes: Sequence[str], shares: np.ndarray, answers: np.ndarray) -> Assessment:
    """Compare.

    Args:
        classes: their names.
        shares: float64 (n, classes), n >= 1.
        answers: class numbers, int32 (n,).
    """
    from sklearn.metrics import auc, confusion_matrix, roc_curve

    predicted = shares.argmax(axis=1)
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    areas = []
    for number in range(1, 2) if len(classes) == 2 else range(len(classes)):
        positive = answers == number
        if positive.any() and not positive.all():
            false_rate, true_rate, _ = roc_curve(positive, shares[:, number])
            curves[classes[number]] = false_rate, true_rate
            areas.append(float(auc(false_rate, true_rate)))
    return Assessment(
        accuracy=float(np.mean(predicted == answers)),
        auc=float(np.mean(areas)) if areas else None,
        confusion=confusion_matrix(answers, predicted, labels=range(len(classes))),
        curves=curves,
    )


def draw(classes: Sequence[str], found: Assessment) -> bytes:
    """Confusion matrix and ROC curves side by side: PNG."""
    with plots.styled((9.6, 4.2), 120) as figure:
        left, right = figure.subplots(1, 2)
        _confusion(left, classes, found)
        _roc(right, classes, found)
        png = io.BytesIO()
        figure.savefig(png, format="png")
    return png.getvalue()


def _confusion(axes: Any, classes: Sequence[str], found: Assessment) -> None:
    counts = found.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.25)
    names = [name if len(name) <= 14 else f"{name[:13]}…" for name in classes]
    places = range(len(classes))
    axes.set_xticks(places, names, rotation=0 if len(classes) <= 3 else 35, ha="center")
    axes.set_yticks(places, names)
    axes.grid(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("answer")
    axes.set_title(f"Confusion, accuracy {decimal(found.accuracy)}", pad=10)
    if len(classes) <= _MOST_CELLS:
        for (row, column), count in np.ndenumerate(counts):
            dark = shares[row, column] > 0.6
            axes.text(
                column, row, f"{count:,}", ha="center", va="center",
                color="white" if dark else plots.INK, fontsize=10 if len(classes) <= 5 else 7,
            )  # fmt: skip


def _roc(axes: Any, classes: Sequence[str], found: Assessment) -> None:
    colors = (
        plots.BLUE, plots.VERMILION, plots.GREEN, plots.ORANGE, plots.SKY, plots.PURPLE,
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], color="#b8c1ca", linewidth=1.2, linestyle=plots.DASHES)
    for index, (name, (false_rate, true_rate)) in enumerate(found.curves.items()):
        few = len(found.curves) <= _MOST_CURVES
        color = colors[index] if few else plots.BLUE
        axes.plot(false_rate, true_rate, color=color, label=name, alpha=1.0 if few else 0.4)
    if 1 < len(found.curves) <= _MOST_CURVES:
        axes.legend(loc="lower right")
    what = f" of {classes[1]}" if len(classes) == 2 else ", one against the rest"
    axes.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.set_title(f"ROC{what}, AUC {decimal(found.auc)}", pad=10)
