"""What the server asks a client to train: plain values, checked when they arrive."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Self

from lepton_flwr import _validate as check
from lepton_flwr.config import ENGINES, OPTIMIZERS
from lepton_flwr.errors import ConfigError
from lepton_flwr.training.models import ModelSpec

MAX_STEPS = 100_000
MAX_JSON = 10_000


@dataclass(frozen=True)
class Task:
    """One round's work on a client, the same for all clients.

    Attributes:
        model: what to build.
        optimizer: its Keras optimizer, fresh in every round.
        learning_rate: of that optimizer.
        local_steps: steps per round.
        sampling_probability: chance of each row to be in a batch.
        noise_multiplier: of record-level privacy; 0 trains without.
        l2_norm_clip: bound of one example's gradient.
        engine: how per-example gradients are computed.
        seed: of the data order of training without privacy; of nothing else.
    """

    model: ModelSpec
    optimizer: str
    learning_rate: float
    local_steps: int
    sampling_probability: float
    noise_multiplier: float
    l2_norm_clip: float
    engine: str
    seed: int

    def __post_init__(self) -> None:
        check.choice("optimizer", self.optimizer, OPTIMIZERS)
        check.finite("learning_rate", self.learning_rate, above=0)
        check.integer("local_steps", self.local_steps, at_least=1, at_most=MAX_STEPS)
        check.finite("sampling_probability", self.sampling_probability, above=0, at_most=1)
        check.finite("noise_multiplier", self.noise_multiplier, at_least=0)
        check.finite("l2_norm_clip", self.l2_norm_clip, above=0)
        check.choice("engine", self.engine, ENGINES)
        check.integer("seed", self.seed, at_least=0)

    def to_json(self) -> str:
        """One line; `from_json` is its inverse."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return json.dumps({**values, "model": self.model.to_json()}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a task that came from a server.

        Raises:
            ConfigError: not JSON, a missing or unknown field, or a value outside its range.
        """
        try:
            values = json.loads(text) if len(text) <= MAX_JSON else None
        except ValueError:
            values = None
        names = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            raise ConfigError(f"task: expected a JSON object with {', '.join(sorted(names))}")
        if not isinstance(values["model"], str):
            raise ConfigError("task: model: expected text")
        return cls(**{**values, "model": ModelSpec.from_json(values["model"])})
