"""The folders of a dataset: its participants, and what looks like one."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from bids_muscle.dataset.bidsignore import is_ignored, is_image_ignored
from bids_muscle.dataset.image_names import allowed, read_labels
from bids_muscle.errors import MissingInputError
from bids_muscle.files import is_folder

#: Name of the folder of a participant.
PARTICIPANT = re.compile(r'sub-([0-9A-Za-z+]+)')
#: Names of folders that are meant for participants.
_MEANT = re.compile(r'sub(?:j|ject)?(?:[-_ .]|\d).*|sub', re.IGNORECASE)
#: Participants whose images are compared with ``.bidsignore`` before all others.
_LOOKED_THROUGH = 20
#: What to do with DICOM images.
CONVERT = 'Convert the DICOM images to BIDS first, as docs/from-dicom.md says.'
#: So many files are looked at to find DICOM images.
_MOST_FILES = 1000
#: Folders of a dataset, by their names, that are no participants.
_OTHER_FOLDERS = re.compile(r'\..*|tpl-.*|derivatives|sourcedata|code|phenotype|stimuli')


def list_participants(bids_dir: Path) -> list[str]:
    """List the participant labels of a dataset, sorted, without ``sub-``.

    Raises
    ------
    MissingInputError
        If the folder is absent or cannot be read.
    """
    matches = [PARTICIPANT.fullmatch(entry.name) for entry in _scan(bids_dir) if is_folder(entry)]
    return sorted(
        match[1] for match in matches if match and not is_ignored(bids_dir, f'{match[0]}/')
    )


def list_unusable(bids_dir: Path) -> list[str]:
    """List the folders that look like participants and are none, sorted.

    Their names are no BIDS labels, such as ``sub-C_02``, ``Sub-05`` or ``P07`` with images in it,
    or they are links to nothing.

    Raises
    ------
    MissingInputError
        If the folder is absent or cannot be read.
    """
    return sorted(
        os.fsencode(entry.name).decode(errors='backslashreplace')
        for entry in _scan(bids_dir)
        if _is_unusable(entry) and not is_ignored(bids_dir, f'{entry.name}/')
    )


def list_ignored(bids_dir: Path) -> list[str]:
    """List participants and images that ``.bidsignore`` leaves out, sorted.

    Images are looked for in the first participants only: a pattern mostly fits all or none.
    """
    folders = [entry.name for entry in _scan(bids_dir) if PARTICIPANT.fullmatch(entry.name)]
    images = (
        path.relative_to(bids_dir).as_posix()
        for name in sorted(folders)[:_LOOKED_THROUGH]
        for anat in ('anat', 'ses-*/anat')
        for path in (bids_dir / name).glob(f'{anat}/*.nii*')
    )
    gone = sorted(name for name in folders if is_ignored(bids_dir, f'{name}/'))
    return [
        *gone,
        *(
            name
            for name in images
            if name.split('/')[0] not in gone and is_image_ignored(bids_dir, name)
        ),
    ]


def find_dicom(folder: Path) -> Path | None:
    """Find a DICOM image in a folder that holds no NIfTI image.

    Derivatives are not looked at, and of a large folder only the first thousand files.
    """
    dicom = None
    files = (
        Path(path, name)
        for path, folders, names in os.walk(folder)
        for name in _in_order(folders, names)
    )
    for path in islice(files, _MOST_FILES):
        if path.name.endswith(('.nii', '.nii.gz')):
            return None
        dicom = dicom or (path if _is_dicom(path) else None)
    return dicom


def _in_order(folders: list[str], names: list[str]) -> list[str]:
    """Sort the files of a folder, and the folders that os.walk enters next."""
    folders[:] = sorted(set(folders) - {'derivatives'})
    return sorted(names)


def _is_dicom(path: Path) -> bool:
    """Return whether a file has the preamble of DICOM (PS3.10, 7.1)."""
    try:
        if not path.is_file():  # a pipe would make us wait
            return False
        with path.open('rb') as stream:
            return stream.read(132)[128:] == b'DICM'
    except OSError:
        return False


def _is_unusable(entry: os.DirEntry[str]) -> bool:
    if not is_folder(entry):
        leads_nowhere = entry.is_symlink() and not os.path.isfile(entry)  # noqa: PTH113
        return bool(_MEANT.fullmatch(entry.name)) and leads_nowhere
    if PARTICIPANT.fullmatch(entry.name) or _OTHER_FOLDERS.fullmatch(entry.name):
        return False
    if _MEANT.fullmatch(entry.name):
        return True
    try:
        return any(re.fullmatch('anat|ses-.*', path.name) for path in Path(entry).iterdir())
    except OSError:
        return False


def _scan(bids_dir: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(bids_dir) as entries:
            return list(entries)
    except OSError as error:
        raise MissingInputError(
            f'The dataset {bids_dir} cannot be read: {error.strerror}.',
            'Check the path and its permissions.',
        ) from error


def missing_sessions(bids_dir: Path, sessions: Sequence[str]) -> list[str]:
    """Return the sessions of which no participant has a folder or images.

    Parameters
    ----------
    bids_dir
        The dataset.
    sessions
        Labels without ``ses-``.

    Raises
    ------
    MissingInputError
        If the folder is absent or cannot be read.
    """
    left = {allowed(session) for session in sessions}
    for participant in list_participants(bids_dir) if left else ():
        folder = bids_dir / f'sub-{participant}'
        left.difference_update(
            allowed(path.name.removeprefix('ses-')) for path in folder.glob('ses-*')
        )
        left.difference_update(
            read_labels(path.relative_to(bids_dir))[0].get('ses')
            for path in folder.glob('anat/*_ses-*')
        )
        if not left:
            break
    return [session for session in sessions if allowed(session) in left]


def select_participants(bids_dir: Path, labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the wanted participants that are there, and the wanted ones that are not.

    Parameters
    ----------
    bids_dir
        The dataset.
    labels
        With or without ``sub-``; empty for all.
    """
    present = list_participants(bids_dir)
    wanted = sorted({label.removeprefix('sub-') for label in labels}) if labels else present
    known = set(present)
    return [w for w in wanted if w in known], [w for w in wanted if w not in known]
