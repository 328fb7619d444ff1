"""What the raw tables of devices hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lepton_flwr.errors import ConfigError


@dataclass(frozen=True)
class TableConfig:
    """What the raw tables of devices hold, where those bring tables; public.

    Each device compares it with its own `schema.toml`, of which it is a part.

    Attributes:
        label: the column that holds the classes.
        classes: their names.
        columns: the feature columns in their order: each a table of `name`, `kind` ("number" or
            "category"), and of a number its public `low` and `high`, of a category its public
            `values`.
    """

    label: str
    classes: tuple[str, ...]
    columns: tuple[Mapping[str, Any], ...]

    def __post_init__(self) -> None:
        texts = [self.label, *self.classes]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise ConfigError("table.label, table.classes: expected texts")
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise ConfigError("table.classes: expected two different texts or more")
        if not all(isinstance(column, Mapping) and "name" in column for column in self.columns):
            raise ConfigError("table.columns: expected tables of name and kind")
        if not self.columns or self.label in [column["name"] for column in self.columns]:
            raise ConfigError("table.columns: expected one or more, without the label")
