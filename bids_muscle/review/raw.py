"""The raw dataset of an output folder: measuring needs it, and the images of sagittal scans."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.records import ScanRecord
from bids_muscle.errors import PARSE_ERRORS, BadDataError, MissingInputError
from bids_muscle.files import read_small


def raw_dataset(output_dir: Path) -> Path:
    """Return the raw dataset that the outputs were made from.

    Raises
    ------
    BadDataError
        If the description of the outputs does not say it.
    MissingInputError
        If it is not there.
    """
    path = output_dir / dataset_path('description')
    try:
        link = str(json.loads(read_small(path))['DatasetLinks']['raw'])
    except (OSError, *PARSE_ERRORS, KeyError, TypeError) as error:
        raise BadDataError(
            f'{path} does not say where the raw dataset is.', 'Run the participant level yourself.'
        ) from error
    raw = Path(output_dir, link).resolve()
    if not raw.is_dir():
        raise MissingInputError(
            f'The raw dataset {raw} does not exist.',
            f'Put it there, or correct DatasetLinks in {path}.',
        )
    return raw


def raw_images(output_dir: Path, record: ScanRecord) -> dict[str, Path]:
    """Return the raw images of a scan by contrast.

    A record is a file that anybody may have edited: only images below the folder of the
    participant are read, and none that a link leads out of the raw dataset to.

    Raises
    ------
    BadDataError, MissingInputError
        As :func:`raw_dataset`; also if an image lies elsewhere, or is not there.
    """
    raw = raw_dataset(output_dir)
    images = {}
    for contrast, name in record.inputs.items():
        parts, path = PurePosixPath(name).parts, raw / name
        if (
            parts[:1] != (f'sub-{record.participant}',)
            or '..' in parts
            or not name.endswith(('.nii', '.nii.gz'))
            or not path.resolve().is_relative_to(raw)
        ):
            raise BadDataError(
                f'{name} of {record.scan} is not an image of this participant in {raw}.',
                'Put the image itself into the raw dataset, and run the participant level again.',
            )
        if not path.is_file():
            raise MissingInputError(
                f'{path}, the image of {record.scan}, does not exist.',
                'Put it there, or run the participant level again.',
            )
        images[contrast] = path
    return images
