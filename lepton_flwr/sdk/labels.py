"""Labels as classes 0, 1, ..., and classes as the labels that they were."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from lepton_flwr.sdk.errors import LabelError

MAX_CLASSES = 100
_TRUTH = {"False": False, "True": True}
_KINDS: dict[str, Any] = {"text": str, "int": int, "float": float, "bool": bool}


class TextLabels(np.ndarray):
    """Predicted texts, as an array of numbers that knows them.

    Whoever needs numbers takes it as it is (matplotlib, for colours): element i is the position
    of its text among `names`. Compared with texts, it is the texts; `text` is a plain array of
    them.

    Attributes:
        names: the label's texts, sorted.
    """

    names: tuple[str, ...]

    def __new__(cls, codes: Any, names: tuple[str, ...]) -> Self:
        """From positions among `names`, whole numbers of any shape."""
        array = np.array(codes, dtype=np.int64).view(cls)
        array.names = tuple(names)
        return array

    def __array_finalize__(self, made_from: Any) -> None:
        self.names = getattr(made_from, "names", ())

    def __reduce__(self) -> Any:
        return TextLabels, (np.asarray(self), self.names)

    @property
    def text(self) -> np.ndarray:
        """The texts, an array of str of the same shape."""
        texts: np.ndarray = np.array(self.names, dtype=str)[np.asarray(self)]
        return texts

    def __eq__(self, other: Any) -> Any:
        mine, theirs = self._comparable(other)
        return mine == theirs

    def __ne__(self, other: Any) -> Any:
        mine, theirs = self._comparable(other)
        return mine != theirs

    __hash__ = None

    def _comparable(self, other: Any) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(other, TextLabels):
            return self.text, other.text
        theirs = np.asarray(other)
        return (self.text if theirs.dtype.kind in "OU" else np.asarray(self)), theirs

    def __repr__(self) -> str:
        return f"TextLabels({np.array2string(self.text, separator=', ', threshold=20)})"

    __str__ = __repr__


@dataclass(frozen=True)
class Labels:
    """The values of a label, sorted: class i is the i-th of them.

    Attributes:
        kind: "text", "int", "float" or "bool".
        values: of that kind.

    Raises:
        LabelError: fewer than two values, or more than 100.
    """

    kind: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if self.kind not in _KINDS or any(type(v) is not _KINDS[self.kind] for v in self.values):
            raise LabelError(f"labels of kind {self.kind!r}: expected values of one known kind")
        if list(self.values) != sorted(set(self.values)):
            raise LabelError("label values: expected different ones in ascending order")
        if not 2 <= len(self.values) <= MAX_CLASSES:
            raise LabelError(
                f"the label has {len(self.values)} different value"
                f"{'s' if len(self.values) != 1 else ''}: expected 2 to {MAX_CLASSES} classes"
            )

    @classmethod
    def of(cls, y: Any) -> tuple[Self, np.ndarray]:
        """Find the values of a label column.

        Args:
            y: n texts, numbers or truth values.

        Returns:
            The labels, and the class of each row, int32 of shape (n,).

        Raises:
            LabelError: missing or infinite values, kinds mixed, one value only or over 100.
        """
        column = np.asarray(y) if hasattr(y, "dtype") else np.asarray(y, dtype=object)
        if column.ndim != 1 or not column.size:
            raise LabelError(
                f"labels of shape {column.shape}: expected (rows,), one label for each row"
            )
        items = column.tolist()
        missing = sum(map(_missing, items))
        if missing:
            raise LabelError(
                f"{missing} of {len(items)} labels are missing: remove those rows, or fill them"
            )
        kind = kind_of(items)
        items = [_KINDS[kind](item) for item in items]
        if kind == "float" and not all(map(math.isfinite, items)):
            raise LabelError("infinite labels: expected classes")
        values = sorted(set(items))
        place = {value: i for i, value in enumerate(values)}
        return cls(kind, tuple(values)), np.array([place[item] for item in items], dtype=np.int32)

    @classmethod
    def of_texts(cls, kind: str, texts: Sequence[str]) -> Self:
        """The values that texts stand for.

        Raises:
            ValueError: a text is none of the kind.
            LabelError: the values are not different ones in ascending order.
        """
        convert = _TRUTH.__getitem__ if kind == "bool" else _KINDS[kind]
        try:
            return cls(kind, tuple(convert(text) for text in texts))
        except KeyError:
            raise ValueError(kind) from None

    def decode(self, classes: np.ndarray) -> np.ndarray:
        """Labels of classes, int (n,), as they were; texts as `TextLabels`."""
        if self.kind == "text":
            return TextLabels(classes, self.values)
        labels: np.ndarray = self.array[classes]
        return labels

    @property
    def array(self) -> np.ndarray:
        """All values, in the order of the classes."""
        return np.array(self.values)

    def to_plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"kind": self.kind, "values": list(self.values)}

    @classmethod
    def from_plain(cls, table: Any) -> Self:
        """Inverse of `to_plain`.

        Raises:
            LabelError: it is something else.
        """
        if not isinstance(table, dict) or set(table) != {"kind", "values"}:
            raise LabelError("labels: expected kind and values")
        if not isinstance(table["values"], list):
            raise LabelError("labels: expected a list of values")
        return cls(table["kind"], tuple(table["values"]))


def _missing(item: Any) -> bool:
    if isinstance(item, str):
        return not item.strip()
    return item is None or str(item) in ("nan", "<NA>", "NaT")


def kind_of(items: list[Any]) -> str:
    """The kind of labels.

    Raises:
        LabelError: they are of several, or none.
    """
    kinds = {
        "text"
        if isinstance(item, str)
        else "bool"
        if isinstance(item, bool | np.bool_)
        else "int"
        if isinstance(item, int | np.integer)
        else "float"
        if isinstance(item, float | np.floating)
        else "other"
        for item in items
    }
    if kinds == {"int", "float"}:
        return "float"
    if len(kinds) != 1 or "other" in kinds:
        raise LabelError(
            f"labels of the kinds {', '.join(sorted(kinds))}: expected texts, numbers or truth "
            "values, all of one kind"
        )
    return kinds.pop()
