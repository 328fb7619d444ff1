"""What a device requires of a session, whatever the server asks: its own policy, fail closed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lepton_flwr import _validate as check
from lepton_flwr.crypto.stream import StreamCipher
from lepton_flwr.errors import ConfigError
from lepton_flwr.secagg.encoding import MAX_DIMENSION
from lepton_flwr.secagg.errors import FloorError
from lepton_flwr.secagg.graph import MAX_CLIENTS, MAX_COMPLETE, Graph
from lepton_flwr.secagg.parameters import MAX_NUMBER, SessionConfig


@dataclass(frozen=True)
class ClientFloors:
    """A device's floors: the table `[secagg]` of its policy.

    Attributes:
        min_survivors: fewest clients, itself included, whose sum it takes part in.
        min_clients: fewest clients that may open a session with it.
        min_threshold: fewest holders of its secrets that it takes to reveal one.
        sparse: whether it takes part in sessions of more than 128 clients, whose graph withstands a
            tenth of corrupt clients and not a third.
        max_dimension: longest vector, in coordinates.
        max_number: largest session number of a run, so most sessions of one run.
        ciphers: whose masks it takes.

    Raises:
        ConfigError: a value is of the wrong type or outside its range.
    """

    min_survivors: int = 2
    min_clients: int = 2
    min_threshold: int = 2
    sparse: bool = True
    max_dimension: int = 2**27
    max_number: int = MAX_NUMBER
    ciphers: tuple[StreamCipher, ...] = tuple(StreamCipher)

    def __post_init__(self) -> None:
        check.integer("min_survivors", self.min_survivors, at_least=2, at_most=MAX_CLIENTS)
        check.integer("min_clients", self.min_clients, at_least=2, at_most=MAX_CLIENTS)
        check.integer("min_threshold", self.min_threshold, at_least=2, at_most=MAX_CLIENTS)
        check.integer("max_dimension", self.max_dimension, at_least=1, at_most=MAX_DIMENSION)
        check.integer("max_number", self.max_number, at_least=1, at_most=MAX_NUMBER)
        if not isinstance(self.sparse, bool):
            raise ConfigError(f"sparse={self.sparse!r}: expected true or false")
        known = set(StreamCipher)
        if not isinstance(self.ciphers, list | tuple) or not len(self.ciphers) > 0:
            raise ConfigError(f"ciphers={self.ciphers!r}: expected a list of one or more")
        if not all(isinstance(cipher, str) and cipher in known for cipher in self.ciphers):
            raise ConfigError(f"ciphers={self.ciphers!r}: expected {', '.join(StreamCipher)}")
        object.__setattr__(self, "ciphers", tuple(map(StreamCipher, self.ciphers)))

    @classmethod
    def from_table(cls, table: Mapping[str, Any], min_survivors: int) -> "ClientFloors":
        """Read the policy's table; `min_survivors` stands at the policy's top.

        Raises:
            ConfigError: an unknown key, or a value out of its range.
        """
        keys = [name for name in cls.__dataclass_fields__ if name != "min_survivors"]
        if not isinstance(table, Mapping) or not set(table) <= set(keys):
            raise ConfigError(f"secagg: expected a table with no more than {', '.join(keys)}")
        return cls(min_survivors=min_survivors, **table)

    def check(self, config: SessionConfig) -> None:
        """Refuse a session before any key is made.

        Raises:
            FloorError: it asks for less protection or more work than this device's policy.
        """
        layout = config.layout
        self._at_least("min_survivors", config.min_survivors, self.min_survivors)
        self._at_least("invited clients", layout.num_clients, self.min_clients)
        self._at_most("coordinates", layout.dimension, self.max_dimension)
        self._at_most("session number", config.number, self.max_number)
        if config.cipher not in self.ciphers:
            raise FloorError(
                f"cipher={config.cipher}: this device's policy asks for {', '.join(self.ciphers)}"
            )

    def check_graph(self, graph: Graph) -> None:
        """Refuse a session before any secret is shared.

        Raises:
            FloorError: too few clients came, too few can reveal, or its graph is not allowed.
        """
        self._at_least("clients", graph.size, self.min_clients)
        self._at_least("threshold", graph.threshold, self.min_threshold)
        if graph.size > MAX_COMPLETE and not self.sparse:
            raise FloorError(
                f"{graph.size} clients: this device's policy asks for the complete graph, so for "
                f"at most {MAX_COMPLETE}; sparse = true under [secagg] allows more"
            )

    @staticmethod
    def _at_least(name: str, value: int, floor: int) -> None:
        if value < floor:
            raise FloorError(f"{name}: {value}: this device's policy asks for at least {floor}")

    @staticmethod
    def _at_most(name: str, value: int, most: int) -> None:
        if value > most:
            raise FloorError(f"{name}: {value}: this device's policy asks for at most {most}")
