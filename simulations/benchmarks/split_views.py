"""Where an active server can cut the ring in two: `python -m simulations.benchmarks.split_views`.

The server wants the sum over an arc of the ring that begins at some place. In the stretch of k / 2
places before it, it tells the arc that some honest clients never shared their secrets, and all
that the other honest ones dropped out with their vectors. The former still answer the other side.
Whether all mask keys of the latter, and all seeds of the arc's beginning, come together is a matter
of counting, which is what is done here: no keys, no messages. Corrupt clients vouch for both lists
and give both kinds of shares. What it finds can be done; what it does not find may still be.
"""

import argparse
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from lepton_flwr.secagg.degree import degree_and_threshold

SHARES = (0.1, 0.14, 0.17, 0.2, 0.25)
REACH = 6  # stretches looked at on each side


def around(marks: np.ndarray, half: int) -> np.ndarray:
    """For each place the marked ones among its neighbours."""
    sums = np.concatenate([[0], np.cumsum(marks)])
    places = np.arange(marks.size)
    ends = np.minimum(places + half + 1, marks.size)
    return np.asarray(sums[ends] - sums[np.maximum(places - half, 0)] - marks)


def can_cut(corrupt: np.ndarray, start: int, degree: int, threshold: int) -> bool:
    """Whether an arc can begin at a place of the ring.

    Args:
        corrupt: bool, shape (clients,), in the order of the ring.
        start: the arc's first place.
        degree: neighbours of each client.
        threshold: shares and attestations needed.
    """
    half, spare = degree // 2, degree - threshold
    offsets = np.arange(-REACH * half, REACH * half + 1)
    bad = corrupt[(start + offsets) % corrupt.size]
    arc = offsets >= 0
    stretch = [at for at in np.flatnonzero((offsets < 0) & (offsets >= -half))[::-1] if not bad[at]]
    for count in range(max(0, len(stretch) - spare), min(spare, len(stretch)) + 1, 2):
        even = [stretch[i * len(stretch) // max(count, 1)] for i in range(count)]
        for missing in (stretch[len(stretch) - count :], stretch[:count], even):
            absent, dropped = np.zeros_like(arc), np.zeros_like(arc)
            dropped[stretch] = True
            dropped[missing] = False
            absent[missing] = True
            if _sum_comes_out(bad, arc, absent, dropped, degree=degree, threshold=threshold):
                return True
    return False


def _sum_comes_out(
    bad: np.ndarray,
    arc: np.ndarray,
    absent: np.ndarray,
    dropped: np.ndarray,
    *,
    degree: int,
    threshold: int,
) -> bool:
    half, spare = degree // 2, degree - threshold
    corrupt, gone = around(bad, half), around(dropped, half)
    unseen = around(absent, half)
    if (unseen[arc & ~bad] > spare).any():
        return False  # the arc does not start
    attests = ~bad & ~dropped & (gone + np.where(arc, unseen, 0) <= spare)
    same = np.where(arc, around(attests & arc, half), around(attests & ~arc, half))
    reveals = attests & (same + corrupt >= threshold)
    near = np.abs(np.arange(arc.size) - arc.size // 2) <= (REACH - 2) * half
    wanted = (dropped | (arc & ~bad)) & near
    return bool((around(reveals, half) + corrupt >= threshold)[wanted].all())


def main(arguments: Sequence[str] | None = None) -> None:
    """Search and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--places", type=int, default=200, help="places tried in each row")
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(1)
    table = Table(title="Places of the ring where an arc can be cut off")
    for name in ("clients", "k / t", "corrupt", "cut"):
        table.add_column(name, justify="right")
    for clients in (500, 1_000, 10_000):
        degree, threshold = degree_and_threshold(clients)
        for share in SHARES:
            cut = 0
            for _ in range(options.places):
                corrupt = rng.permutation(clients) < share * clients
                cut += can_cut(corrupt, 0, degree, threshold)
            row = (f"{clients:,}", f"{degree} / {threshold}", f"{share:.0%}")
            table.add_row(*row, f"{cut / options.places:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
