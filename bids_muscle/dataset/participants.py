"""What ``participants.tsv`` says about each participant."""

from __future__ import annotations

import csv
from pathlib import Path

from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.writer import write_bytes


def read_participants(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a ``participants.tsv`` by label without ``sub-``.

    Empty where the file cannot be read; of several rows of a participant the first one counts.
    """
    people: dict[str, dict[str, str]] = {}
    try:
        with path.open(encoding='utf-8-sig', newline='') as stream:
            for row in csv.DictReader(stream, delimiter='\t', quoting=csv.QUOTE_NONE):
                label = (row.pop('participant_id', None) or '').removeprefix('sub-')
                info = {key: value for key, value in row.items() if key and value}
                people.setdefault(label, info)
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    people.pop('', None)
    return people


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
