"""The theorem of docs/secure-aggregation.md on small rings, without cryptography: who learns what.

A server plays thousands of random strategies: other participants for some, any survivors, any who
vanish. What it can remove of the masks is a matter of sets. With every check in place it never gets
anything but the sum of all honest survivors; with one check less it does.
"""

import random
from dataclasses import dataclass, field

import pytest

N, HALF, SPARE = 20, 4, 2
CHECKS = {"participants", "gaps", "one list", "shares", "connection"}


@dataclass
class Play:
    """One session; clients are named by their places.

    Attributes:
        corrupt: who works with the server.
        threshold: shares that give a secret.
        told: each honest client's participants, empty if it sends no vector.
        lists: participants and survivors that honest clients reveal by; one pair, unless the
            committee is outvoted.
        reveals: honest clients that answer, by the pair that they were told.
    """

    corrupt: frozenset
    threshold: int
    told: dict = field(default_factory=dict)
    lists: list = field(default_factory=list)
    reveals: dict = field(default_factory=dict)

    def found(self, of, kind):
        """Whether enough holders gave this share of a client."""
        holders = near(of) & self.corrupt
        for z, which in self.reveals.items():
            participants, survivors = self.lists[which]
            if z in near(of) and of in participants and (of in survivors) == (kind == "seed"):
                holders = holders | {z}
        return len(holders) >= self.threshold

    def sums(self):
        """The sets of honest clients whose vectors come out together."""
        honest = [y for y in range(N) if y not in self.corrupt and self.told.get(y)]
        seeds = {y for y in honest if self.found(y, "seed")}
        keys = self.corrupt | {y for y in range(N) if self.found(y, "key")}
        left, found = set(seeds), []
        while left:
            group, new, lost = set(), {left.pop()}, False
            while new:
                group |= new
                ties = set()
                for y in new - keys:
                    for v in (near(y) & self.told[y]) - keys:
                        lost |= v not in seeds or y not in self.told[v]
                        ties |= {v} & seeds
                new = ties - group
            left -= group
            if not lost:
                found.append(frozenset(group))
        return found


def near(place):
    return frozenset((place + step) % N for step in range(-HALF, HALF + 1) if step)


def rows(members):
    """How many of each row of places are among some clients."""
    return [sum((start + step) % N in members for step in range(HALF)) for start in range(N)]


def cut(corrupt):
    """Whether two separate rows are full of corrupt clients but the spare places."""
    full = [start for start, count in enumerate(rows(corrupt)) if count >= HALF - SPARE]
    return any(HALF <= (b - a) % N <= N - HALF for a in full for b in full)


def some(rng, among, most):
    """A few of some clients, often side by side."""
    among = sorted(among)
    if rng.random() < 0.5:
        start = rng.randrange(N)
        among = [i for i in among if (i - start) % N < 2 * HALF + 1]
    return frozenset(rng.sample(among, min(rng.randrange(most + 1), len(among))))


def play(rng, checks):
    """A random ring and strategy, or None where an honest client sees what it must not."""
    everybody = frozenset(range(N))
    corrupt = some(rng, everybody, 5)
    start, split = rng.randrange(N), rng.random() < 0.2
    gaps = [(start + step) % N for step in (*range(HALF), *range(N // 2, N // 2 + HALF))]
    if split:
        # Corrupt clients and missing ones share two rows.
        corrupt = frozenset(gaps[::2])
    if "connection" in checks and cut(corrupt):
        return None
    threshold = max(len(near(y) & corrupt) for y in everybody) + ("shares" in checks)
    if not 1 <= threshold <= 2 * HALF:
        return None
    made = Play(corrupt, threshold)
    honest = everybody - corrupt
    participants = everybody - some(rng, everybody, 3)
    odd, other = some(rng, honest, 2), everybody - some(rng, everybody, 2 * HALF)
    gone = [some(rng, participants - corrupt, 8) for _ in range(2)]
    if rng.random() < 0.3:
        # One client is told that every other neighbour is absent, all that the rest dropped out.
        victim = rng.choice(sorted(honest))
        around = [(victim + step) % N for step in range(-HALF, HALF + 1) if step]
        odd, other = frozenset([victim]), everybody - set(around[::2])
        gone[0] = frozenset(around[1::2])
    if split:
        gone[0] = frozenset(gaps) - corrupt
    gone = gone[: 1 if "one list" in checks else 2]
    made.lists = [(participants, participants - of) for of in gone]
    for y in honest:
        told = other if y in odd else participants
        made.told[y] = told if y in told and rng.random() < 0.95 else frozenset()
    if "gaps" in checks and any(
        max(rows(everybody - list_of)) > SPARE for pair in made.lists for list_of in pair
    ):
        return None
    for z in everybody - corrupt:
        which = rng.randrange(len(made.lists))
        if made.told[z] != participants or z not in made.lists[which][1]:
            continue
        seen = (near(z) & made.lists[which][1]) - corrupt
        if "participants" in checks and any(made.told[y] != participants for y in seen):
            continue
        made.reveals[z] = which
    return made


def plays(checks, times):
    """Of each strategy that honest clients let pass: the sums, and those that are allowed."""
    rng = random.Random(1)
    for made in (play(rng, checks) for _ in range(times)):
        if made is not None:
            yield made.sums(), {survivors - made.corrupt for _, survivors in made.lists}


def test_with_every_check_the_server_gets_one_sum_of_all_honest_survivors_or_nothing():
    got = 0
    for sums, allowed in plays(CHECKS, 6_000):
        assert len(sums) <= 1
        assert set(sums) <= allowed
        got += len(sums)
    assert got > 100  # the strategies are not all too clumsy


@pytest.mark.parametrize("check", sorted(CHECKS))
def test_without_one_of_them_it_gets_others(check):
    tried = plays(CHECKS - {check}, 20_000)
    assert any(len(sums) > 1 or not set(sums) <= allowed for sums, allowed in tried)
