"""What one run is, built from nested tables (TOML, Flower's run config) over the defaults."""

import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from lepton_flwr import _validate as check
from lepton_flwr.config.data import DataConfig
from lepton_flwr.config.model import ModelConfig
from lepton_flwr.config.output import ObserveConfig, OutputConfig
from lepton_flwr.config.privacy import DPConfig
from lepton_flwr.config.secagg import SecAggConfig
from lepton_flwr.config.table import TableConfig
from lepton_flwr.config.train import TrainConfig
from lepton_flwr.config_tables import build, merge, plain
from lepton_flwr.errors import ConfigError


@dataclass(frozen=True)
class RunConfig:
    """One run.

    Attributes:
        scenario: name of the data and its model.
        clients: number of clients; None takes the scenario's own.
        rounds: rounds of training.
        evaluate_every: rounds between evaluations; the last round is always evaluated.
        seed: partition, held-out rows, initial weights and the data order of training without
            privacy. Never noise, masks, keys, or the sampling that privacy relies on.
        table: what devices' raw tables hold, where they are asked for statistics; None where the
            rows are features already.
    """

    scenario: str = "transport"
    clients: int | None = None
    rounds: int = 10
    evaluate_every: int = 1
    seed: int = 1
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    secagg: SecAggConfig = field(default_factory=SecAggConfig)
    dp: DPConfig = field(default_factory=DPConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    observe: ObserveConfig = field(default_factory=ObserveConfig)
    table: TableConfig | None = None

    def __post_init__(self) -> None:
        if self.clients is not None:
            check.integer("clients", self.clients, at_least=3, at_most=10_000)
        check.integer("rounds", self.rounds, at_least=1)
        check.integer("evaluate_every", self.evaluate_every, at_least=1)
        check.integer("seed", self.seed, at_least=0, at_most=2**31 - 1)
        if self.clients is not None and self.secagg.min_survivors > self.clients:
            raise ConfigError(
                f"secagg.min_survivors={self.secagg.min_survivors}: expected at most the "
                f"{self.clients} clients"
            )

    @classmethod
    def build(cls, *tables: Mapping[str, Any]) -> Self:
        """Build from nested tables; later ones win, key by key.

        Raises:
            ConfigError: an unknown key (with the nearest known one), a wrong type or value.
        """
        merged: dict[str, Any] = {}
        for table in tables:
            merge(merged, table)
        return typing.cast(Self, build(cls, merged, ""))

    def to_dict(self) -> dict[str, Any]:
        """Nested plain tables without unset values: what `build` takes and TOML can hold."""
        return typing.cast(dict[str, Any], plain(self))

    def to_json(self) -> str:
        """One line of canonical JSON."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of `to_json`.

        Raises:
            ConfigError: not JSON, or not a run's configuration.
        """
        try:
            table = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"configuration is not JSON: {error}") from None
        if not isinstance(table, dict):
            raise ConfigError("configuration is not a JSON object")
        return cls.build(table)
