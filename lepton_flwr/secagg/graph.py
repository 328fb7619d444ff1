"""Who holds whose shares and who masks with whom, and how many it takes to reveal."""

MAX_COMPLETE = 128


def complete_threshold(num_participants: int) -> int:
    """Shares needed to reveal a secret on the complete graph: floor(2N/3) + 1.

    With under N/3 corrupt clients no two lists of survivors can both gather this many signatures,
    and with under N/3 dropped the survivors always suffice (Bonawitz et al. 2017, section 6.2).
    """
    return 2 * num_participants // 3 + 1


def default_floor(clients: int, sampling_probability: float = 1.0) -> int:
    """Fewest survivors where nobody said: what the protocol needs of the cohort anyway.

    A sampled cohort varies in size; half of its expected size is taken as its smallest.
    """
    if sampling_probability == 1.0:
        return max(complete_threshold(clients), 3)
    return max(complete_threshold(int(clients * sampling_probability / 2)), 3)
