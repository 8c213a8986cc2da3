"""Cross-validation and splits: people, not scans, are dealt out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

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


#: What a person may be for in a split.
ROLES = ('train', 'validation', 'test')


def share_out(
    participants: Iterable[str],
    shares: Sequence[float],
    seed: int,
    tested: Collection[str] | None = None,
) -> dict[str, str]:
    """Split participants into those to learn from, to choose weights by, and to test on.

    Parameters
    ----------
    participants
        As for :func:`split_participants`.
    shares
        Of train, validation and test, such as ``(75, 15, 10)``; a role with a share of 0 has
        nobody, every other has somebody.
    seed
        Same seed, same split.
    tested
        Who is tested on whatever the shares; their share then counts for nobody else.

    Returns
    -------
    dict
        Role by participant, sorted by participant.

    Raises
    ------
    UsageError
        If the shares are no shares, or the participants too few.

    Examples
    --------
    >>> roles = share_out([f'a/sub-{k}' for k in range(20)], (75, 15, 10), seed=0)
    >>> [list(roles.values()).count(role) for role in ROLES]
    [15, 3, 2]
    """
    if len(shares) != len(ROLES) or min(shares) < 0 or not shares[0]:
        raise UsageError(
            f'The shares {"/".join(f"{share:g}" for share in shares)} are not those of train, '
            'validation and test.',
            'Give three numbers, such as 75/15/10; the first must be above 0.',
        )
    people = sorted(set(participants))
    roles = {name: ROLES[2] for name in tested or () if name in people}
    order = np.random.default_rng(seed).permutation(len(people))
    left = [people[k] for k in order if people[k] not in roles]
    wanted = [*shares[:2], 0.0 if tested is not None else shares[2]]
    needed = sum(share > 0 for share in wanted)
    if len(left) < needed or (tested is not None and not roles):
        raise UsageError(
            f'{len(people)} participants with images and labels are too few for the split '
            f'{"/".join(f"{share:g}" for share in shares)} into train, validation and test.',
            f'Add participants, at least {needed} for this split, or use cross-validation '
            '(--folds 2).',
        )
    counts = [max(round(len(left) * share / sum(wanted)), int(share > 0)) for share in wanted]
    counts[0] = len(left) - counts[1] - counts[2]
    for role, count in zip(ROLES, counts, strict=True):
        roles |= dict.fromkeys(left[:count], role)
        left = left[count:]
    return dict(sorted(roles.items()))
