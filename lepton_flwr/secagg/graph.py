"""Who holds whose shares and who masks with whom, and how many it takes to reveal."""

MAX_COMPLETE = 128


def complete_threshold(num_participants: int) -> int:
    """Shares needed to reveal a secret on the complete graph: floor(2N/3) + 1.

    With under N/3 corrupt clients no two lists of survivors can both gather this many signatures,
    and with under N/3 dropped the survivors always suffice (Bonawitz et al. 2017, section 6.2).
    """
    return 2 * num_participants // 3 + 1
