"""What ``.bidsignore`` leaves out of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from bids_muscle.files import read_small
from bids_muscle.user_tables import decode

#: Suffixes of images that BIDS knows: one of these is ignored on purpose, others for their name.
_BIDS_SUFFIXES = frozenset(('T1w', 'T2w', 'PDw', 'T2starw', 'MEGRE', 'MESE', 'VFA', 'FLAIR'))

#: Larger files are not read, and longer lines fit no path: both would take long.
_MOST_BYTES, _MOST_CHARACTERS = 2**20, 1024


def is_ignored(bids_dir: Path, relative: str) -> bool:
    """Return whether ``.bidsignore`` leaves out a file, or a folder with a slash at its end.

    Patterns are those of gitignore; of several that fit, the last one counts.
    """
    path = bids_dir / '.bidsignore'
    try:
        state = path.stat().st_mtime_ns
    except OSError:
        return False
    ignored = False
    for rule in _read(path, state):
        if rule.fits(relative):
            ignored = rule.leaves_out
    return ignored


def is_image_ignored(bids_dir: Path, relative: str) -> bool:
    """Return whether ``.bidsignore`` leaves out an image whose name it need not hide.

    Names that BIDS does not know, such as ``sub-01_water.nii.gz``, are listed there for the
    validator, and not because nobody wants the images.
    """
    suffix = relative.rpartition('_')[2].partition('.')[0]
    return suffix in _BIDS_SUFFIXES and is_ignored(bids_dir, relative)


@dataclass(frozen=True)
class _Rule:
    """A line of ``.bidsignore``; the time it takes does not grow with its wildcards.

    Examples
    --------
    >>> paths = ['sub-01/anat/a_T2w.nii.gz', 'sub-01/', 'sub-01/x', 'extra/sub-01/x']
    >>> [_Rule('*_T2w.*').fits(path) for path in paths]
    [True, False, False, False]
    >>> [_Rule('/sub-01/').fits(path) for path in paths]
    [True, True, True, False]
    >>> [_Rule('**/anat/*T[12]w*').fits(path) for path in paths]
    [True, False, False, False]
    >>> _Rule('!x').leaves_out
    False
    """

    line: str

    @property
    def leaves_out(self) -> bool:
        """Whether it leaves out what it fits, or takes that in again."""
        return not self.line.startswith('!')

    def fits(self, relative: str) -> bool:
        """Return whether it fits a path or one of the folders that hold it."""
        pattern = self.line.removeprefix('!')
        *above, last = pattern.rstrip('/').removeprefix('/').split('/')
        path = relative.split('/')
        # How many parts of the path the parts of the pattern so far can have taken.
        anchored = '/' in pattern.rstrip('/')
        taken = {0} if anchored else set(range(len(path)))
        for part in above:
            taken = _after(path, part, taken)
        taken = {n for n in _after(path, last, taken) if last != '**' or n > min(taken)}
        return any(n < len(path) or not pattern.endswith('/') for n in taken)


def _after(path: Sequence[str], part: str, taken: set[int]) -> set[int]:
    """Return how many parts of a path can be taken once one more part of a pattern is."""
    if part == '**':
        return set(range(min(taken, default=len(path) + 1), len(path) + 1))
    return {n + 1 for n in taken if n < len(path) and fnmatchcase(path[n], part)}


@lru_cache(maxsize=2)
def _read(path: Path, _changed_ns: int) -> tuple[_Rule, ...]:
    try:
        lines = decode(read_small(path, _MOST_BYTES))[0].splitlines()
    except (OSError, ValueError):
        return ()
    rules = (line.strip() for line in lines)
    return tuple(
        _Rule(rule)
        for rule in rules
        if 0 < len(rule) <= _MOST_CHARACTERS and not rule.startswith('#')
    )
