"""Labels of raw images as their names and folders write them, also where BIDS does not allow it.

pybids reads a label as far as it is allowed: ``ses-2019-01`` and ``ses-2019-02`` are both session
2019 to it, and water of one date would meet fat of the other.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from pathlib import Path

from bids_muscle.dataset.names import ENTITIES
from bids_muscle.errors import BadDataError, Problem

_KEY = re.compile(r'[a-z]+')
_NOT_ALLOWED = re.compile(r'[^0-9A-Za-z+]+')
#: Suffixes of images that are left alone without a word: those of BIDS, and masks.
_OTHER_SUFFIX = re.compile(
    r'[TP]\w*w|FLAIR|FLASH|PD|PDT2|inplaneT[12]|angio|defacemask|T1rho|UNIT1|MESE|VFA|IRT1|MP2RAGE'
    r'|MPM|MTS|MTR|MTsat|T2star|\w*map|mask|dseg|probseg'
)
#: Labels that are numbers.
_NUMBERS = ('run', 'echo', 'chunk')


def why_unknown(suffix: str, problem: Problem | None) -> str:
    """Return why an image that no contrast rule takes is left alone where that is worth a word."""
    if problem:
        return 'matches no contrast rule and has a name that BIDS does not allow'
    known = _OTHER_SUFFIX.fullmatch(suffix)
    return '' if known else 'matches no contrast rule and has a suffix that is not in BIDS'


def allowed(label: str) -> str:
    """Return a label without characters that BIDS does not allow.

    Where nothing is left of it, its checksum keeps it apart from others.

    Examples
    --------
    >>> allowed('2019-01'), allowed('術前'), allowed('')
    ('201901', '7f060ef4', '00000000')
    """
    return _NOT_ALLOWED.sub('', label) or f'{zlib.crc32(label.encode()):08x}'


def read_labels(relative: Path) -> tuple[dict[str, str], str, Problem | None]:
    """Read the labels of an image from its name, and from its folders those of sub and ses.

    Parameters
    ----------
    relative
        Path of the image in the dataset.

    Returns
    -------
    labels : dict
        By key, those of :data:`~bids_muscle.dataset.names.ENTITIES` only, in their order; without
        characters that BIDS does not allow.
    suffix : str
        The part after the last underscore.
    problem : Problem or None
        What is wrong with the name.

    Examples
    --------
    >>> name = 'sub-1/ses-pre_op/anat/sub-1_ses-pre_op_run-01_T1w.nii.gz'
    >>> labels, suffix, problem = read_labels(Path(name))
    >>> labels, suffix, problem.remedy
    ({'sub': '1', 'ses': 'preop', 'run': '01'}, 'T1w', 'Name it ses-preop, file and folder alike.')
    """
    *pieces, suffix = relative.name.split('.nii')[0].split('_')
    written: dict[str, str] = {}
    doubled, last = False, ''
    for piece in pieces:
        key, dash, label = piece.partition('-')
        if dash and _KEY.fullmatch(key):
            doubled |= key in written
            last = key
            written.setdefault(key, label)
        else:
            written[last] = f'{written[last]}_{piece}' if last in written else piece
    folders = dict(
        part.split('-', 1) for part in relative.parts[:-1] if part.startswith(('sub-', 'ses-'))
    )
    read = {**written, **folders}
    labels = {key: allowed(read[key]) for key, _ in ENTITIES if key in read}
    return labels, suffix, _problem(relative, written, folders, doubled=doubled)


def _problem(
    relative: Path,
    written: Mapping[str, str],
    folders: Mapping[str, str],
    *,
    doubled: bool,
) -> Problem | None:
    for key, label in folders.items():
        if key in written and written[key] != label:
            return BadDataError(
                f'{relative} has {key}-{written[key]} in its name but {key}-{label} in its '
                'folder.',
                'Correct the name, or move the file.',
            ).problem
    for key, label in {**written, **folders}.items():
        clean = _NOT_ALLOWED.sub('', label)
        if not key or clean != label or not label:
            shown = f'{key}-{label}' if key else label
            where = 'file and folder alike' if key in folders else 'letters and digits only'
            return BadDataError(
                f'{relative} has {shown!r} in its name. BIDS does not allow this label, and other '
                'programs truncate it.',
                f'Name it {key or "acq"}-{clean or "<label>"}, {where}.',
            ).problem
        if key in _NUMBERS and not label.isdecimal():
            return BadDataError(
                f'{relative} has {key}-{label} in its name. BIDS requires a number there.',
                f'Name it {key}-1, {key}-2 and so on.',
            ).problem
    if doubled:
        return BadDataError(
            f'{relative} has a key twice in its name.', 'Give each key one label.'
        ).problem
    return None
