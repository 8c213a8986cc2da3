"""Numbers and names of vertebrae and discs in label maps, as VerSe numbers vertebrae."""

from __future__ import annotations

from itertools import pairwise

from bids_muscle.anatomy.levels import VERTEBRAE

#: Number of a disc: that of the vertebra above it, and this. S1 is 26, as VerSe numbers sacra.
DISC_OFFSET, S1 = 100, 26
#: Vertebrae without a name count from this number, from below.
UNNAMED = 40
#: No more of them are offered.
_MOST_UNNAMED = 25


def spine_names(kind: str) -> dict[int, str]:
    """Return the name of each number that a map may have.

    Parameters
    ----------
    kind
        ``'vertebrae'`` or ``'discs'``.

    Examples
    --------
    >>> vertebrae, discs = spine_names('vertebrae'), spine_names('discs')
    >>> vertebrae[24], vertebrae[26], vertebrae[41], discs[124], discs[141]
    ('L5', 'S1', 'vertebra 1', 'L5-S1', 'disc 1')
    """
    numbers = [S1 if name == 'S1' else n for n, name in enumerate(VERTEBRAE, start=1)]
    unnamed = range(1, _MOST_UNNAMED + 1)
    if kind == 'vertebrae':
        named = dict(zip(numbers, VERTEBRAE, strict=True))
        return named | {UNNAMED + n: f'vertebra {n}' for n in unnamed}
    pairs = zip(numbers, pairwise(VERTEBRAE), strict=False)
    named = {DISC_OFFSET + number: f'{upper}-{lower}' for number, (upper, lower) in pairs}
    return named | {DISC_OFFSET + UNNAMED + n: f'disc {n}' for n in unnamed}
