"""Secure aggregation: its floor, its bounds and its patience."""

from dataclasses import dataclass

from lepton_flwr import _validate as check
from lepton_flwr.errors import ConfigError


@dataclass(frozen=True)
class SecAggConfig:
    """Secure aggregation: always on.

    Attributes:
        min_survivors: fewest clients whose sum the server may learn; 0 takes the protocol's
            threshold. Each device's own policy has a floor of its own.
        update_bound: largest absolute value of one coordinate of an update; larger ones saturate,
            are counted and reported. With client-level privacy the clip norm takes its place.
        max_examples: largest weight of one client; a client with more rows counts as this many.
        timeout: seconds that one exchange waits at most for its slowest client.
        straggler_factor: as soon as enough clients for a sum have answered, the others get so many
            times what that took, and no longer; 0 waits for `timeout`.
        straggler_grace: the fewest seconds that an exchange waits for them.
        retries: how often a session that failed before any client was asked to work is opened
            anew, after 1, 2, 4, ... seconds.
        cipher: of the masks; chacha20 is for devices without AES instructions.
    """

    min_survivors: int = 0
    update_bound: float = 16.0
    max_examples: int = 65_536
    timeout: float = 600.0
    straggler_factor: float = 10.0
    straggler_grace: float = 60.0
    retries: int = 2
    cipher: str = "aes-256-ctr"

    def __post_init__(self) -> None:
        check.integer("secagg.min_survivors", self.min_survivors, at_least=0)
        check.finite("secagg.update_bound", self.update_bound, above=0)
        check.integer("secagg.max_examples", self.max_examples, at_least=1, at_most=2**24)
        check.finite("secagg.timeout", self.timeout, above=0)
        check.finite("secagg.straggler_factor", self.straggler_factor, at_least=0)
        check.finite("secagg.straggler_grace", self.straggler_grace, at_least=0)
        if 0 < self.straggler_factor < 1:
            raise ConfigError(
                f"secagg.straggler_factor={self.straggler_factor}: expected 0 (off) or at least 1"
            )
        check.integer("secagg.retries", self.retries, at_least=0, at_most=10)
        check.choice("secagg.cipher", self.cipher, ("aes-256-ctr", "chacha20"))
