"""What was learnt, with all that predictions need; and its encrypted form."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from lepton_flwr import _npz
from lepton_flwr._files import write_atomic
from lepton_flwr.data.preprocessing import Preprocessor
from lepton_flwr.errors import DataError, LeptonError
from lepton_flwr.sdk.errors import UnseenCategoryError
from lepton_flwr.sdk.labels import Labels
from lepton_flwr.sdk.preparation import without_participants
from lepton_flwr.training.models import ModelSpec, build
from lepton_flwr.training.predictions import predict_logits, probabilities

PURPOSE = "lepton/sdk/model/v1"
_ABOUT = "about"


class ModelEnvelope(bytes):
    """An encrypted model: bytes that show nothing of it, and that its recipients can open."""

    def __repr__(self) -> str:
        return f"<encrypted model of {len(self):,} bytes>"

    __str__ = __repr__

    def save(self, path: Path | str) -> None:
        """Write it to a file, in place of what is there.

        Raises:
            OutputError: it cannot be written.
        """
        write_atomic(Path(path), bytes(self))

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read what `save` wrote; nothing is decrypted.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from None


@dataclass(frozen=True)
class LearntModel:
    """A model that takes rows as they are.

    Attributes:
        spec: what to build.
        weights: float32 arrays in the order of `model.get_weights()`.
        preprocessor: from rows to features.
        labels: from classes to labels.
        guarantee: what was promised of it, in words.
        by: the column that says whose a row is, which is no feature; None if there is none.

    Raises:
        DataError: the parts do not fit each other.
    """

    spec: ModelSpec
    weights: tuple[np.ndarray, ...]
    preprocessor: Preprocessor
    labels: Labels
    guarantee: str
    by: str | int | None = None

    def __post_init__(self) -> None:
        features = len(self.preprocessor.feature_names)
        if self.spec.input_shape != (features,) or self.spec.num_classes != len(self.labels.values):
            raise DataError("the model, its features and its labels do not fit each other")
        if [weight.shape for weight in self.weights] != _shapes(self.spec):
            raise DataError("the weights do not have the shapes of the model")
        if not all(np.isfinite(weight).all() for weight in self.weights):
            raise DataError("the weights hold NaN or infinite values: nothing was learnt")

    def predict_proba(self, rows: Any, *, unseen: str = "other") -> np.ndarray:
        """Probabilities of the classes, float64 (n, classes).

        Args:
            rows: as in `Preprocessor.transform`; the column that says whose they are is left out.
            unseen: as in `Preprocessor.transform`.

        Raises:
            UnseenCategoryError: with "error", a text has no feature of its own.
            DataError: the rows are not of the columns that the model was learnt from.
        """
        source, _ = without_participants(self.by, rows)
        features = self.preprocessor.transform(source)
        if unseen != "other":
            try:
                self.preprocessor.transform(source, unseen=unseen)
            except DataError as error:
                raise UnseenCategoryError(str(error)) from None
        network = build(self.spec, 0)
        network.set_weights(list(self.weights))
        return probabilities(predict_logits(network, features))

    def to_bytes(self) -> bytes:
        """All of it; nothing in it is code."""
        about = {
            "spec": self.spec.to_json(),
            "preprocessor": self.preprocessor.to_json(),
            "labels": self.labels.to_plain(),
            "guarantee": self.guarantee,
            "by": self.by,
        }
        content = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {f"weight-{i}": w for i, w in enumerate(self.weights)}
        np.savez(buffer, **{_ABOUT: content, **arrays})
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Inverse of `to_bytes`.

        Raises:
            DataError: it is something else.
        """
        try:
            with _npz.opened(io.BytesIO(content)) as archive:
                about = json.loads(_npz.array(archive.read(f"{_ABOUT}.npy")).tobytes())
                names = [f"weight-{i}.npy" for i in range(len(archive.namelist()) - 1)]
                weights = tuple(_npz.array(archive.read(name)) for name in names)
            if any(weight.dtype != np.float32 for weight in weights):
                raise TypeError
            spec = ModelSpec.from_json(about["spec"])
            preprocessor = Preprocessor.from_json(about["preprocessor"])
            labels, guarantee = Labels.from_plain(about["labels"]), str(about["guarantee"])
            by = about["by"]
        except LeptonError:
            raise
        except _npz.UNREADABLE:
            raise DataError("not a model of a LeptonClient, or damaged") from None
        return cls(spec, weights, preprocessor, labels, guarantee, by)


def _shapes(spec: ModelSpec) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    (width,) = spec.input_shape
    for units in (*spec.hidden_units, spec.num_outputs):
        shapes += [(width, units), (units,)]
        width = units
    return shapes
