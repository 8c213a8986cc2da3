"""Lay out the files of a fetched model as its own program has them."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from bids_muscle.dataset.writer import write_json
from bids_muscle.errors import PARSE_ERRORS, ModelError
from bids_muscle.files import read_small
from bids_muscle.segmentation.registry import Entry

#: What is taken from the archive of an nnU-Net training.
_NNUNET = re.compile(r'plans\.json|dataset\.json|fold_(\d+|all)/checkpoint_final\.pth')
#: Bytes that an archive may unpack to.
_MOST_UNPACKED = 2**35


def lay_out(entry: Entry, files: Mapping[str, Path], folder: Path) -> Path:
    """Put the files of a model into an empty folder.

    Parameters
    ----------
    entry
        The model.
    files
        Path by the name of the file in the list of models.
    folder
        Where to.

    Returns
    -------
    Path
        The model, for :func:`~bids_muscle.segmentation.catalogue.find_model`.

    Raises
    ------
    ModelError
        If an archive is damaged or holds no training, or more than one.
    """
    if entry.kind == 'MuscleMap':
        for name, path in files.items():
            shutil.copyfile(path, folder / name)
        return folder
    (archive,) = files.values()
    try:
        with zipfile.ZipFile(archive) as packed:
            inner = _unpack(packed, archive, folder)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ModelError(
            f'{archive} is not a valid archive: {error}.', f'Download it again from {entry.home}.'
        ) from error
    described = inner / 'dataset.json'
    if entry.orientation and described.is_file():
        try:
            content = json.loads(read_small(described))
            write_json({'orientation': entry.orientation, **content}, described)
        except (OSError, TypeError, *PARSE_ERRORS) as error:
            raise ModelError(
                f'dataset.json in {archive} cannot be read: {error}.',
                f'Download it again from {entry.home}.',
            ) from error
    return inner


def _unpack(packed: zipfile.ZipFile, archive: Path, folder: Path) -> Path:
    """Unpack the training in an archive; no path in it leads outside of the folder."""
    tops = [
        PurePosixPath(name).parent
        for name in packed.namelist()
        if PurePosixPath(name).name == 'plans.json'
    ]
    if len(tops) != 1 or tops[0].name in ('', '..'):
        raise ModelError(
            f'{archive} contains {len(tops)} nnU-Net trainings (folders with plans.json), not '
            'one.',
            'Unpack it, and give the folder of one training with --model.',
        )
    inner = folder / tops[0].name
    wanted = {}
    for info in packed.infolist():
        path = PurePosixPath(info.filename)
        if path.is_relative_to(tops[0]):
            name = path.relative_to(tops[0]).as_posix()
            if _NNUNET.fullmatch(name):
                wanted[name] = info
    if sum(info.file_size for info in wanted.values()) > _MOST_UNPACKED:
        raise ModelError(
            f'{archive} unpacks to more than the size of any known model.', 'Check its origin.'
        )
    for name, info in wanted.items():
        (inner / name).parent.mkdir(parents=True, exist_ok=True)
        with packed.open(info) as content, (inner / name).open('wb') as stream:
            shutil.copyfileobj(content, stream)
    return inner
