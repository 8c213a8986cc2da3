"""Cross-validation: people, not scans, are dealt to folds."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bids_muscle.errors import UsageError


def split_participants(participants: Iterable[str], folds: int, seed: int) -> list[frozenset[str]]:
    """Deal participants to folds, so that each dataset is spread over all of them.

    Parameters
    ----------
    participants
        ``'dataset/sub-01'``; one that comes several times is one person.
    folds
        Number of folds, at least 2.
    seed
        Same seed, same split, whatever the order of the participants.

    Returns
    -------
    list of frozenset
        The participants held out in each fold.

    Raises
    ------
    UsageError
        If there are fewer participants than folds.

    Examples
    --------
    >>> folds = split_participants(['a/sub-1', 'a/sub-2', 'b/sub-1', 'b/sub-2'], 2, seed=0)
    >>> [sorted(name[0] for name in fold) for fold in folds]
    [['a', 'b'], ['a', 'b']]
    """
    people = sorted(set(participants))
    if not 2 <= folds <= len(people):
        raise UsageError(
            f'{len(people)} participants with images and labels cannot be split into {folds} '
            'folds.',
            'Use --folds with a number from 2 to the number of participants, or omit it.',
        )
    shuffled = np.random.default_rng(seed).permutation(len(people))
    # Those of one dataset follow each other, in random order; then they are dealt like cards.
    dealt = sorted((people[k] for k in shuffled), key=lambda name: name.rpartition('/')[0])
    return [frozenset(dealt[k::folds]) for k in range(folds)]
