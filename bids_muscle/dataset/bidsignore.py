"""What ``.bidsignore`` leaves out of a dataset."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from bids_muscle.files import read_small
from bids_muscle.tables import decode

#: Suffixes of images that BIDS knows: one of these is ignored on purpose, others for their name.
_BIDS_SUFFIXES = frozenset(('T1w', 'T2w', 'PDw', 'T2starw', 'MEGRE', 'MESE', 'VFA', 'FLAIR'))


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
    for pattern, leaves_out in _read(path, state):
        if pattern.fullmatch(relative):
            ignored = leaves_out
    return ignored


def is_image_ignored(bids_dir: Path, relative: str) -> bool:
    """Return whether ``.bidsignore`` leaves out an image whose name it need not hide.

    Names that BIDS does not know, such as ``sub-01_water.nii.gz``, stand there to please the
    validator, and not because nobody wants the images.
    """
    suffix = relative.rpartition('_')[2].partition('.')[0]
    return suffix in _BIDS_SUFFIXES and is_ignored(bids_dir, relative)


@lru_cache(maxsize=2)
def _read(path: Path, _changed_ns: int) -> tuple[tuple[re.Pattern[str], bool], ...]:
    try:
        lines = decode(read_small(path))[0].splitlines()
    except (OSError, ValueError):
        return ()
    rules = (line.strip() for line in lines)
    return tuple(
        (_compile(rule.removeprefix('!')), not rule.startswith('!'))
        for rule in rules
        if rule and not rule.startswith('#')
    )


def _compile(rule: str) -> re.Pattern[str]:
    """Return a pattern of gitignore as a regular expression of whole paths.

    Examples
    --------
    >>> paths = ['sub-01/anat/a_T2w.nii.gz', 'sub-01/', 'sub-01/x', 'extra/sub-01/x']
    >>> [bool(_compile('*_T2w.*').fullmatch(path)) for path in paths]
    [True, False, False, False]
    >>> [bool(_compile('/sub-01/').fullmatch(path)) for path in paths]
    [True, True, True, False]
    >>> [bool(_compile('**/anat/*T[12]w*').fullmatch(path)) for path in paths]
    [True, False, False, False]
    """
    folder, name = rule.endswith('/'), rule.rstrip('/')
    anchored = '/' in name
    words = {'**/': '(?:.*/)?', '**': '.*', '*': '[^/]*', '?': '[^/]'}
    body = ''
    for part in re.split(r'(\*\*/|\*\*|\*|\?|\[[^\]/]+\])', name.removeprefix('/')):
        if part.startswith('[') and part.endswith(']'):
            body += part.replace('[!', '[^', 1)
        else:
            body += words.get(part, re.escape(part))
    start = '' if anchored else '(?:.*/)?'
    try:
        return re.compile(start + body + ('/.*' if folder else '(?:/.*)?'))
    except re.error:
        return re.compile(re.escape(name))
