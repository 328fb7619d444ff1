"""Which rows a client holds, and how they are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lepton_flwr import _validate as check
from lepton_flwr.errors import ConfigError

PARTITIONS = ("natural", "iid", "dirichlet", "shards", "quantity")
COLUMN_KINDS = ("number", "category", "ignore")
IMPUTE = ("mean", "median")


@dataclass(frozen=True)
class DataConfig:
    """Which rows a client holds.

    Attributes:
        partition: how rows become clients; "natural" uses the scenario's own key.
        alpha: concentration of the Dirichlet and quantity partitions; small is uneven.
        test_fraction: chance of each row to be held out before training, drawn by the row alone.
        min_rows: clients of the natural partition with fewer rows are left out.
        path: file or folder of the scenarios that read one (`csv`, `image`); empty otherwise.
        label: the label column of a CSV; empty takes the last one.
        by: the column of a CSV whose values are the clients; empty splits by `partition`.
        ranges: column name to its public [low, high] range, for a CSV.
        kinds: column name to "number", "category" or "ignore", for a CSV; the others' kinds are
            taken from the file.
        impute: what stands for a missing number of a CSV, "mean" or "median".
        drop_duplicates: leave out equal rows of one client of a CSV.
        deviations: by how many standard deviations numbers are divided that statistics scale.
    """

    partition: str = "natural"
    alpha: float = 0.5
    test_fraction: float = 0.2
    min_rows: int = 50
    path: str = ""
    label: str = ""
    by: str = ""
    ranges: Mapping[str, Any] = field(default_factory=dict)
    kinds: Mapping[str, Any] = field(default_factory=dict)
    impute: str = "mean"
    drop_duplicates: bool = True
    deviations: float = 1.0

    def __post_init__(self) -> None:
        check.finite("data.deviations", self.deviations, above=0)
        check.choice("data.impute", self.impute, IMPUTE)
        for column, kind in self.kinds.items():
            check.choice(f"data.kinds.{column}", kind, COLUMN_KINDS)
        check.choice("data.partition", self.partition, PARTITIONS)
        check.finite("data.alpha", self.alpha, above=0)
        check.finite("data.test_fraction", self.test_fraction, above=0, below=1)
        check.integer("data.min_rows", self.min_rows, at_least=2)
        for column, pair in self.ranges.items():
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise ConfigError(f"data.ranges.{column}={pair!r}: expected [low, high]")
            low, high = (check.finite(f"data.ranges.{column}", v) for v in pair)
            if low >= high:
                raise ConfigError(f"data.ranges.{column}={pair!r}: expected low < high")
