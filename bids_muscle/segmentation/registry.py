"""Models of others that can be fetched, and what is known of those that were.

``data/registry.toml`` lists the first. A fetched model has a folder of its own in that which
``BIDS_MUSCLE_MODELS`` names, with a :data:`CERTIFICATE` beside its files.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from bids_muscle.errors import PARSE_ERRORS, ModelError
from bids_muscle.files import read_small

#: Names a folder with models of the user, one folder each, beside those of the package.
USER_MODELS = 'BIDS_MUSCLE_MODELS'
#: File beside a fetched model: where it is from, its checksums and its licence.
CERTIFICATE = 'fetched.json'
#: What it must have.
FIELDS = {'name', 'version', 'kind', 'license', 'citation', 'trained_on', 'sha256'}


@dataclass(frozen=True)
class RemoteFile:
    """A file to be fetched.

    Parameters
    ----------
    name
        File name.
    sha256, bytes
        Checksum (hex) and size; None where nobody has published them.
    """

    name: str
    sha256: str | None = None
    bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model that can be fetched.

    Parameters
    ----------
    name, version
        What the outputs will say about the model; version is None where only the record has it.
    kind
        ``'MuscleMap'`` or ``'nnU-Net'``: how its files are laid out.
    home
        Page of those who made it.
    record, folder
        One of both: a Zenodo record (its API), or an address that file names are appended to.
    files
        What is fetched.
    license, citation, trained_on
        Terms, publication and training data, as its makers state them.
    regions
        Body regions of bids_muscle that it labels.
    orientation
        Voxel order of the training images, such as ``'RAS'``, where its own files do not say it.
    read_in
        Source code in which the address was read.
    unverified
        What could not be looked up when the list was made.
    """

    name: str
    kind: str
    home: str
    files: tuple[RemoteFile, ...]
    license: str
    citation: str
    trained_on: str
    regions: tuple[str, ...]
    read_in: str
    unverified: tuple[str, ...]
    version: str | None = None
    record: str | None = None
    folder: str | None = None
    orientation: str | None = None

    @property
    def source(self) -> str:
        """Where the files are."""
        return self.record or self.folder or self.home


def registry() -> dict[str, Entry]:
    """Return the models that can be fetched, by name.

    Examples
    --------
    >>> registry()['musclemap-wholebody'].regions
    ('cervical', 'lumbar', 'shoulder', 'pelvis', 'thigh', 'leg')
    """
    text = (resources.files('bids_muscle') / 'data/registry.toml').read_text(encoding='utf-8')
    return {name: _entry(name, fields) for name, fields in tomllib.loads(text).items()}


def _entry(name: str, fields: Mapping[str, Any]) -> Entry:
    files = tuple(RemoteFile(**file) for file in fields['files'])
    lists = {key: tuple(fields[key]) for key in ('regions', 'unverified')}
    return Entry(name=name, **{**fields, **lists, 'files': files})


def user_models() -> Path | None:
    """Return the folder that ``BIDS_MUSCLE_MODELS`` names, absolute; None where it is not set."""
    named = os.environ.get(USER_MODELS)
    return Path(named).absolute() if named else None


def fetched_models() -> dict[str, Path]:
    """Return where the fetched models are, by the name of their folder; they are not read yet."""
    folder = user_models()
    found = sorted(folder.glob(f'[!.]*/{CERTIFICATE}')) if folder else []
    return {path.parent.name: _model_in(path.parent) for path in found}


def _model_in(folder: Path) -> Path:
    # That of an nnU-Net training names its configuration and stays as it is.
    return folder / Path(str(certificate(folder).get('folder', '.'))).name


def model_folder(path: Path) -> Path:
    """Return the folder that holds all that describes a model: what a container must see.

    Parameters
    ----------
    path
        The model, as in :func:`~bids_muscle.segmentation.catalogue.find_model`.
    """
    if (path.parent / CERTIFICATE).is_file() or not path.is_dir():
        return path.parent
    return path


def certificate(path: Path) -> dict[str, Any]:
    """Return what is known of where a model is from; empty where it was not fetched.

    Parameters
    ----------
    path
        The model, as in :func:`~bids_muscle.segmentation.catalogue.find_model`.

    Raises
    ------
    ModelError
        If that cannot be read.
    """
    for folder in (path, path.parent):
        file = folder / CERTIFICATE
        if file.is_file():
            try:
                content = json.loads(read_small(file))
                if not content.keys() >= FIELDS:
                    raise ValueError('fields are missing')
            except (OSError, AttributeError, *PARSE_ERRORS) as error:
                raise ModelError(
                    f'{file} cannot be read: {error}.',
                    f'Remove {folder} and fetch the model again.',
                ) from error
            return dict(content)
    return {}
