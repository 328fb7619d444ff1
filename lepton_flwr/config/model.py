"""What a server must know of the data in order to build the model."""

from dataclasses import dataclass

from lepton_flwr import _validate as check
from lepton_flwr.errors import ConfigError


@dataclass(frozen=True)
class ModelConfig:
    """What a server must know of rows that only devices have; unset, the scenario's data says it.

    Attributes:
        input_shape: shape of one row.
        num_classes: number of classes.
        label: the column that held them, where a table did.
        classes: their names, in the order of their numbers, where a table's values name them.
    """

    input_shape: tuple[int, ...] = ()
    num_classes: int = 0
    label: str = ""
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for size in self.input_shape:
            check.integer("model.input_shape", size, at_least=1)
        check.integer("model.num_classes", self.num_classes, at_least=0)
        if bool(self.input_shape) != (self.num_classes >= 2):
            raise ConfigError(
                f"model.input_shape={list(self.input_shape)}, "
                f"model.num_classes={self.num_classes}: expected both, with 2 classes or more, "
                "or neither"
            )
        if self.classes and (
            len(set(self.classes)) != self.num_classes
            or not all(isinstance(name, str) for name in self.classes)
        ):
            raise ConfigError(
                f"model.classes: {len(self.classes)} names: expected {self.num_classes} different "
                "texts, or none"
            )
