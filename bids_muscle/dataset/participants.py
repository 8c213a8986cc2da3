"""What ``participants.tsv`` says about each participant."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from bids_muscle.anatomy.height import to_metres
from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.writer import write_bytes


def read_participants(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a ``participants.tsv`` by label without ``sub-``.

    Empty where the file cannot be read; of several rows of a participant the first one counts.
    """
    people: dict[str, dict[str, str]] = {}
    try:
        for label, info in _rows(path):
            people.setdefault(label, info)
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    return people


def read_participant_info(bids_dir: Path, participant: str) -> dict[str, str]:
    """Return the row of a participant in ``participants.tsv``; empty where there is none."""
    try:
        rows = _rows(bids_dir / dataset_path('participants'))
        return next((info for label, info in rows if label == participant), {})
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with path.open(encoding='utf-8-sig', newline='') as stream:
        for row in csv.DictReader(stream, delimiter='\t', quoting=csv.QUOTE_NONE):
            if label := (row.pop('participant_id', None) or '').removeprefix('sub-'):
                yield label, {key: value for key, value in row.items() if key and value}


def keep_participants(bids_dir: Path, output_dir: Path) -> dict[str, dict[str, str]]:
    """Copy ``participants.tsv`` of the raw dataset, and return its rows.

    Where the raw data are gone the rows are those of the copy of an earlier run.
    """
    for key in ('participants', 'participants_json'):
        source, kept = bids_dir / dataset_path(key), output_dir / dataset_path(key)
        if source.is_file() and (key.endswith('_json') or read_participants(source)):
            content = source.read_bytes()
            if not kept.is_file() or kept.read_bytes() != content:
                write_bytes(content, kept)
    return read_participants(output_dir / dataset_path('participants'))


def height_m(info: Mapping[str, str]) -> float | None:
    """Return the height of a participant in metres, given in m or cm; None where it is unlikely.

    Parameters
    ----------
    info
        From :func:`read_participant_info`.

    Examples
    --------
    >>> [height_m({'height': text}) for text in ('172', '1.72', 'n/a', '17')]
    [1.72, 1.72, None, None]
    """
    try:
        return to_metres(float(info.get('height', '')))
    except ValueError:
        return None


def weight_kg(info: Mapping[str, str]) -> float | None:
    """Return the body mass of a participant in kg; None where it is unlikely or not there.

    Parameters
    ----------
    info
        From :func:`read_participant_info`.

    Examples
    --------
    >>> [weight_kg({'weight': text}) for text in ('72.5', 'n/a', '72500')]
    [72.5, None, None]
    """
    try:
        weight = float(info.get('weight', ''))
    except ValueError:
        return None
    return weight if 5 <= weight <= 400 else None


def sex(info: Mapping[str, str]) -> str | None:
    """Return ``'female'`` or ``'male'``, from the words that BIDS allows; None for others.

    Examples
    --------
    >>> [sex({'sex': text}) for text in ('F', 'male', 'O', 'n/a')]
    ['female', 'male', None, None]
    """
    words = {'f': 'female', 'female': 'female', 'm': 'male', 'male': 'male'}
    return words.get(info.get('sex', '').strip().lower())
