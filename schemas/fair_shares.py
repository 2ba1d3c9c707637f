"""How much of what all stores share one of them may have, so that there is some left for another. Pure."""

from __future__ import annotations

#: A store may have so many times as much of what is shared as it leaves free (Choudhury and Hahne, 1998): three
#: quarters when it is alone, less beside each further one.
SHARE_OF_FREE = 3


def share_of(most: int, taken: int) -> int:
    """Return how many of so many slots one store may have, given how many all stores have; never less than one."""
    return max(1, SHARE_OF_FREE * (most - taken))
