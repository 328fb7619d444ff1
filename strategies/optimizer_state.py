"""The state of Flower's server optimizers, as named arrays: what a run must keep to go on."""

from collections.abc import Mapping

import numpy as np
from flwr.serverapp.strategy import Strategy

from lepton_flwr.errors import ConfigError

# Attributes of FedAvgM (a list of arrays) and of FedAdam, FedYogi and FedAdagrad (arrays by name).
_LISTS, _TABLES = ("momentum_vector",), ("m_t", "v_t")


def state_of(strategy: Strategy) -> dict[str, np.ndarray]:
    """What a strategy has added up over the rounds; empty before the first, and for FedAvg."""
    found: dict[str, np.ndarray] = {}
    for name in _LISTS:
        for index, array in enumerate(getattr(strategy, name, None) or []):
            found[f"{name}/{index}"] = np.asarray(array)
    for name in _TABLES:
        for key, array in (getattr(strategy, name, None) or {}).items():
            found[f"{name}/{key}"] = np.asarray(array)
    return found


def restore(strategy: Strategy, state: Mapping[str, np.ndarray]) -> None:
    """Put back what `state_of` took out of a strategy of the same kind.

    Raises:
        ConfigError: the state is of another kind of strategy.
    """
    tables: dict[str, dict[str, np.ndarray]] = {}
    for path, array in state.items():
        name, _, key = path.partition("/")
        if name not in _LISTS + _TABLES or not hasattr(strategy, name):
            raise ConfigError(
                f"optimizer state {name!r}: {type(strategy).__name__} has none: expected that of "
                "the same strategy"
            )
        tables.setdefault(name, {})[key] = array
    for name, table in tables.items():
        arrays = [table[key] for key in sorted(table, key=int)] if name in _LISTS else table
        setattr(strategy, name, arrays)
