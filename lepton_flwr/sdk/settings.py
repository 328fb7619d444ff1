"""The options of a `LeptonClient`, checked before anything happens."""

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from lepton_flwr import _validate as check
from lepton_flwr.config import PARTITIONS
from lepton_flwr.crypto.recipients import SUITES
from lepton_flwr.data.partition import MAX_CLIENTS, MIN_CLIENTS
from lepton_flwr.errors import ConfigError
from lepton_flwr.privacy.accounting import SMALLEST_DELTA

TRAINING, LAPLACE, GAUSSIAN = "training", "laplace", "gaussian"
MECHANISMS = (TRAINING, LAPLACE, GAUSSIAN)
LEARNING_RATE = 8.0  # of training with noise, by plain gradient descent
PERTURBED_LEARNING_RATE = 0.05  # of training on perturbed rows, by Adam
LINEAR = "linear"
DEFAULT_PARTICIPANTS = 3
DEFAULT_STORE = Path("~/.lepton")
LARGEST_DELTA = 1e-5
# How one owner's table becomes participants: devices are participants already.
_OF_ONE_TABLE = ("partition", "by", "alpha", "test_fraction", "bounds")


@dataclass(frozen=True)
class Settings:
    """Everything that can be chosen; `LeptonClient` says what each is.

    Raises:
        ConfigError: a value has the wrong type or is out of range, or two contradict each other.
    """

    participants: int | None = None
    partition: str = "iid"
    by: str | int | None = None
    alpha: float = 0.5
    test_fraction: float = 0.1
    bounds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    epsilon: float = 3.0
    delta: float | None = None
    mechanism: str = TRAINING
    statistics_share: float = 0.3
    model: str | tuple[int, ...] = LINEAR
    rounds: int = 10
    local_steps: int = 40
    learning_rate: float | None = None
    sampling_probability: float = 1.0
    l2_norm_clip: float = 1.0
    key_store: Path | str | None = None
    encryption: str = "x25519"
    federation: Path | str | None = None
    ledger: Path | str | None = None
    out: Path | str | None = None
    seed: int = 1
    progress: bool = True

    def __post_init__(self) -> None:
        if self.participants is not None:
            check.integer(
                "participants", self.participants, at_least=MIN_CLIENTS, at_most=MAX_CLIENTS
            )
        check.choice("partition", self.partition, PARTITIONS)
        if (self.by is not None) != (self.partition == "natural"):
            raise ConfigError(
                f'partition={self.partition!r}, by={self.by!r}: expected partition="natural" with '
                "by, the column whose values are the participants, or neither"
            )
        if self.by is not None and (
            isinstance(self.by, bool) or not isinstance(self.by, str | int)
        ):
            raise ConfigError(f"by={self.by!r}: expected a column's name or position")
        check.finite("alpha", self.alpha, above=0)
        check.finite("test_fraction", self.test_fraction, above=0, at_most=0.5)
        if not isinstance(self.bounds, Mapping):
            raise ConfigError("bounds: expected a mapping of column names to [low, high]")
        check.finite("epsilon", self.epsilon, above=0)
        if self.delta is not None:
            check.finite("delta", self.delta, at_least=SMALLEST_DELTA, below=1)
        check.choice("mechanism", self.mechanism, MECHANISMS)
        check.finite("statistics_share", self.statistics_share, above=0, at_most=0.9)
        _check_model(self.model)
        check.integer("rounds", self.rounds, at_least=1)
        check.integer("local_steps", self.local_steps, at_least=1)
        if self.learning_rate is not None:
            check.finite("learning_rate", self.learning_rate, above=0)
        check.finite("sampling_probability", self.sampling_probability, above=0, at_most=1)
        check.finite("l2_norm_clip", self.l2_norm_clip, above=0)
        check.choice("encryption", self.encryption, SUITES)
        for name in ("federation", "key_store", "ledger", "out"):
            value = getattr(self, name)
            if not isinstance(value, str | Path | None):
                raise ConfigError(f"{name}={value!r}: expected the path of a folder")
        check.integer("seed", self.seed, at_least=0, at_most=2**31 - 1)
        if not isinstance(self.progress, bool):
            raise ConfigError(f"progress={self.progress!r}: expected True or False")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """From keyword arguments.

        Raises:
            ConfigError: an unknown one, with the nearest that is known.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]}?" if near else "known: " + ", ".join(known)
                raise ConfigError(f"unknown option {name}: {hint}")
        made = cls(**options)
        if made.federation is not None:
            made._check_federation(options)
        return made

    def _check_federation(self, options: Mapping[str, Any]) -> None:
        """Refuse what contradicts devices that hold rows of their own."""
        for name in _OF_ONE_TABLE:
            if name in options:
                raise ConfigError(
                    f"{name} with federation: devices hold their own rows, and their own "
                    f"schema.toml says what of them: leave out one of {name} and federation"
                )
        if self.mechanism != TRAINING:
            raise ConfigError(
                f"mechanism={self.mechanism!r} with federation: devices train with noise and "
                f'perturb no inputs: expected mechanism="{TRAINING}"'
            )

    @property
    def store(self) -> Path:
        """Folder of the keys."""
        store = DEFAULT_STORE if self.key_store is None else self.key_store
        return Path(store).expanduser().absolute()

    @property
    def hidden_units(self) -> tuple[int, ...]:
        """Widths of the model's hidden layers."""
        return () if isinstance(self.model, str) else tuple(self.model)

    @property
    def optimizer(self) -> str:
        """Of the participants."""
        return "sgd" if self.mechanism == TRAINING else "adam"

    @property
    def rate(self) -> float:
        """Learning rate of the optimizer."""
        if self.learning_rate is not None:
            return self.learning_rate
        return LEARNING_RATE if self.mechanism == TRAINING else PERTURBED_LEARNING_RATE

    @property
    def runs(self) -> Path:
        """Folder that holds the runs of simulated federations."""
        return Path("runs" if self.out is None else self.out)

    def delta_for(self, num_rows: int | None) -> float:
        """The delta that was chosen, or a tenth of one over the rows, at most 1e-5."""
        if self.delta is not None:
            return self.delta
        if num_rows is None:
            return LARGEST_DELTA
        return min(LARGEST_DELTA, 10.0 ** math.floor(math.log10(0.1 / num_rows)))


def _check_model(model: Any) -> None:
    if isinstance(model, str):
        check.choice("model", model, (LINEAR,))
        return
    if not isinstance(model, tuple | list) or not model:
        raise ConfigError(
            f'model={model!r}: expected "{LINEAR}", or widths of hidden layers as (32,)'
        )
    for units in model:
        check.integer("model", units, at_least=1)
