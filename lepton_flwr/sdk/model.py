"""What was learnt, with all that predictions need; and its encrypted form."""

import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from lepton_flwr._files import write_atomic
from lepton_flwr.data.preprocessing import Preprocessor
from lepton_flwr.errors import DataError, LeptonError
from lepton_flwr.sdk.errors import UnseenCategoryError
from lepton_flwr.sdk.labels import Labels
from lepton_flwr.training.models import ModelSpec, build

PURPOSE = "lepton/model/v1"
_ABOUT = "about"
_BATCH = 8192
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, TypeError)


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

    Raises:
        DataError: the parts do not fit each other.
    """

    spec: ModelSpec
    weights: tuple[np.ndarray, ...]
    preprocessor: Preprocessor
    labels: Labels
    guarantee: str

    def __post_init__(self) -> None:
        features = len(self.preprocessor.feature_names)
        if self.spec.input_shape != (features,) or self.spec.num_classes != len(self.labels.values):
            raise DataError("the model, its features and its labels do not fit each other")
        if [weight.shape for weight in self.weights] != _shapes(self.spec):
            raise DataError("the weights do not have the shapes of the model")
        if not all(np.isfinite(weight).all() for weight in self.weights):
            raise DataError("the weights hold NaN or infinite values: nothing was learnt")

    def predict_proba(self, rows: Any, *, unseen: str = "other") -> np.ndarray:
        """Probabilities of the classes, float32 (n, classes).

        Args:
            rows: as in `Preprocessor.transform`.
            unseen: likewise.

        Raises:
            UnseenCategoryError: with "error", a text has no feature of its own.
            DataError: the rows are not of the columns that the model was learnt from.
        """
        features = self.preprocessor.transform(rows)
        if unseen != "other":
            try:
                self.preprocessor.transform(rows, unseen=unseen)
            except DataError as error:
                raise UnseenCategoryError(str(error)) from None
        network = build(self.spec, 0)
        network.set_weights(list(self.weights))
        logits = np.asarray(network.predict(features, batch_size=_BATCH, verbose=0), np.float64)
        if self.spec.num_outputs == 1:
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)

    def to_bytes(self) -> bytes:
        """All of it; nothing in it is code."""
        about = {
            "spec": self.spec.to_json(),
            "preprocessor": self.preprocessor.to_json(),
            "labels": self.labels.to_plain(),
            "guarantee": self.guarantee,
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
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                about = json.loads(arrays[_ABOUT].tobytes())
                count = len(arrays.files) - 1
                weights = tuple(np.asarray(arrays[f"weight-{i}"], np.float32) for i in range(count))
            spec = ModelSpec.from_json(about["spec"])
            preprocessor = Preprocessor.from_json(about["preprocessor"])
            labels, guarantee = Labels.from_plain(about["labels"]), str(about["guarantee"])
        except LeptonError:
            raise
        except _DAMAGED:
            raise DataError("not a model of a LeptonClient, or damaged") from None
        return cls(spec, weights, preprocessor, labels, guarantee)


def _shapes(spec: ModelSpec) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    (width,) = spec.input_shape
    for units in (*spec.hidden_units, spec.num_outputs):
        shapes += [(width, units), (units,)]
        width = units
    return shapes
