"""Exact secure sums of large whole numbers, in the small ones that a secure sum can hold.

A secure sum adds modulo 2^32, so that N clients have 31 - log2(N) bits each. A whole number of up
to 62 bits is cut into limbs of that many bits; the limbs add up apart and their sums are put
together again: the sum is exact for any number of clients.
"""

from dataclasses import dataclass

import numpy as np

from lepton_flwr._validate import integer
from lepton_flwr.secagg.encoding import LARGEST, Kind, Layout, Segment

MAX_BOUND = 2**62


@dataclass(frozen=True)
class WholeNumbers:
    """A vector of whole numbers within [-bound, bound], for a sum over at most `num_clients`.

    Attributes:
        size: of the vector.
        bound: largest absolute value of one client's coordinate; at most 2^62.
        num_clients: most clients in one sum.
    """

    size: int
    bound: int
    num_clients: int

    def __post_init__(self) -> None:
        integer("size", self.size, at_least=1)
        integer("bound", self.bound, at_least=1, at_most=MAX_BOUND)
        integer("num_clients", self.num_clients, at_least=2, at_most=10_000)

    @property
    def limb_bits(self) -> int:
        """Bits of one limb."""
        return (LARGEST // self.num_clients).bit_length() - 1

    @property
    def limbs(self) -> int:
        """Limbs of one number, which is shifted to [0, 2 bound] first."""
        return -(-(2 * self.bound).bit_length() // self.limb_bits)

    @property
    def layout(self) -> Layout:
        """What a secure sum of it looks like."""
        most = 2**self.limb_bits - 1
        segments = tuple(
            Segment(f"limb-{i}", Kind.COUNT, self.size, most) for i in range(self.limbs)
        )
        return Layout(segments, self.num_clients)

    def encode(self, vector: np.ndarray) -> np.ndarray:
        """One client's vector, int64 (size,), as the layout's uint32; cut to the bound."""
        values: dict[str, np.ndarray | float] = {**self.limbs_of(vector)}
        return self.layout.encode(values, 1)

    def limbs_of(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """The layout's segments by name, uint64 (size,) each; the vector is cut to the bound."""
        shifted = np.clip(vector, -self.bound, self.bound).astype(np.int64)
        shifted = (shifted + self.bound).astype(np.uint64)
        mask = np.uint64(2**self.limb_bits - 1)
        return {
            f"limb-{i}": (shifted >> np.uint64(i * self.limb_bits)) & mask
            for i in range(self.limbs)
        }

    def decode(self, total: np.ndarray) -> tuple[list[int], int]:
        """The sums as exact Python ints, and the number of clients in them."""
        layout = self.layout
        decoded = layout.decode(layout.lift(total))
        clients = decoded.weight
        sums = [-clients * self.bound] * self.size
        for i in range(self.limbs):
            for j, limb in enumerate(decoded.sums[f"limb-{i}"].tolist()):
                sums[j] += limb << (i * self.limb_bits)
        return sums, clients
