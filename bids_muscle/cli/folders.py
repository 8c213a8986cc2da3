"""Whether the folders of a run can be used, checked before anything is computed."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bids_muscle.dataset.folders import CONVERT, find_dicom
from bids_muscle.errors import (
    PARSE_ERRORS,
    InvalidDatasetError,
    MissingInputError,
    OutputError,
)
from bids_muscle.files import how_to_fetch, read_small
from bids_muscle.user_tables import decode

if TYPE_CHECKING:
    from bids_muscle.settings import Settings

#: Settings that name folders; all others name files.
_FOLDERS = ('atlas', 'derivatives')


def check_input(settings: Settings) -> None:
    """Check that the dataset and the files named by options are there.

    Raises
    ------
    MissingInputError
        If one of them is absent or cannot be read.
    InvalidDatasetError
        If the folder is not the top of a BIDS dataset.
    """
    bids_dir = settings.bids_dir
    try:
        names = {path.name for path in bids_dir.iterdir()}
    except OSError as error:
        raise MissingInputError(
            f'The dataset {bids_dir} cannot be read: {error.strerror}.',
            'Check the path, and in a container that the folder is mounted.',
        ) from error
    if not settings.skip_bids_validation:
        _check_description(bids_dir, names)
    for name, paths in settings.inputs().items():
        if name == 'qc_ratings' and settings.level != 'group':
            continue  # a person rates what the participant level has made
        kind, is_there = ('folder', Path.is_dir) if name in _FOLDERS else ('file', Path.is_file)
        for path in paths:
            if not is_there(path):
                option = name.replace('_', '-')
                raise MissingInputError(f'The {kind} {path} does not exist.', f'Check --{option}.')


def _check_description(bids_dir: Path, names: set[str]) -> None:
    description = bids_dir / 'dataset_description.json'
    if description.name not in names:
        if dicom := find_dicom(bids_dir):
            raise InvalidDatasetError(
                f'{bids_dir} is not a BIDS dataset: it has DICOM images, such as {dicom}.', CONVERT
            )
        raise InvalidDatasetError(
            f'{bids_dir} is not a BIDS dataset: it has no {description.name}.',
            'Give the top folder of the dataset, add the file with "Name" and "BIDSVersion", or '
            'use --skip-bids-validation.',
        )
    content = _read_json(description)
    if not isinstance(content, dict):
        raise InvalidDatasetError(
            f'{description} is not a JSON object.', 'Correct it with the BIDS validator.'
        )
    if content.get('DatasetType', 'raw') != 'raw':
        raise InvalidDatasetError(
            f'{bids_dir} is not a raw dataset: {description.name} says '
            f'{content["DatasetType"]!r}.',
            'Give the raw dataset, or use --skip-bids-validation.',
        )


def check_output(settings: Settings) -> None:
    """Make the output and work folders, and check that they can be written.

    A dry run makes nothing: it checks the folders that are there.

    Raises
    ------
    OutputError
        If one lies inside the raw data or cannot be made or written.
    """
    for folder, option in (
        (settings.output_dir, '<output_dir>'),
        (settings.work_dir, '--work-dir'),
    ):
        if folder is not None:
            _check_apart(folder, settings.bids_dir, option)
            try:
                if settings.dry_run:
                    _check_present(folder)
                    continue
                folder.mkdir(parents=True, exist_ok=True)
                # Permissions say little on a read-only or network file system: try it.
                with tempfile.TemporaryFile(dir=folder):
                    pass
            except OSError as error:
                raise OutputError(
                    f'The folder {folder} cannot be written: {error.strerror}.',
                    f'Give another {option}, or make it writable.',
                ) from error
    _check_own(settings.output_dir)


def _check_own(output_dir: Path) -> None:
    """Raise if a folder holds the dataset of another program."""
    path = output_dir / 'dataset_description.json'
    try:
        content = json.loads(decode(read_small(path))[0])
    except (OSError, *PARSE_ERRORS):  # a file that says nothing is written anew
        return
    if not isinstance(content, dict):
        return
    makers = content.get('GeneratedBy')
    makers = makers if isinstance(makers, list) else []
    names = [str(each.get('Name')) for each in makers if isinstance(each, dict)]
    if 'bids_muscle' not in names:
        whose = ', '.join(names) or content.get('Name', 'another program')
        raise OutputError(
            f'The folder {output_dir} has the dataset of {whose}.',
            f'Give a folder of its own, such as {output_dir / "bids_muscle"}.',
        )


def _check_present(folder: Path) -> None:
    """Raise OSError if a folder, or the first one above it that is there, cannot be written."""
    places = (folder, *folder.parents)
    present = next(place for place in places if place.exists() or place.is_symlink())
    if not present.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(present, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _check_apart(folder: Path, bids_dir: Path, option: str) -> None:
    """Raise if a folder would be among the raw data; its derivatives/ is not."""
    # Not Path.resolve, which raises an error that is none of the system for a link to itself.
    place, raw = Path(os.path.realpath(folder)), Path(os.path.realpath(bids_dir))
    if place.is_relative_to(raw) and 'derivatives' not in place.relative_to(raw).parts[:1]:
        raise OutputError(
            f'The folder {folder} lies inside the raw data {bids_dir}.',
            f'Give another {option}, such as {bids_dir / "derivatives" / "bids_muscle"}.',
        )


def _read_json(path: Path) -> object:
    if fetch := how_to_fetch(path):
        raise MissingInputError(f'{path} is a placeholder of git-annex or Git LFS.', fetch)
    try:
        return json.loads(decode(read_small(path))[0])
    except OSError as error:
        raise MissingInputError(
            f'{path} cannot be read: {error.strerror}.', 'Check its permissions.'
        ) from error
    except PARSE_ERRORS:
        return None
