"""Cohort tables: all muscles and all scans of a derivatives dataset, tidy, with dictionaries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.writer import write_json, write_tsv
from bids_muscle.reports.outputs import IDENTITY, MISSING, REASON, ScanOutputs, number

if TYPE_CHECKING:
    import pandas as pd

#: A robust z beyond which a value is listed (Iglewicz and Hoaglin 1993).
OUTLIER_Z = 3.5
#: Fewer values than this have no outlier.
LEAST_VALUES = 5

SCAN_COLUMNS = ('participant_id', 'session_id', 'scan', 'region', 'contrast')


@dataclass(frozen=True)
class Outlier:
    """A value far from those of the same muscle, side and contrast."""

    participant: str
    scan: str
    name: str
    column: str
    value: float
    robust_z: float


def write_cohort_tables(scans: Sequence[ScanOutputs], output_dir: Path) -> list[Path]:
    """Write ``group_muscles`` and ``group_scans``, each as TSV with its JSON data dictionary.

    Parameters
    ----------
    scans
        All scans of the dataset.
    output_dir
        The derivatives dataset.

    Returns
    -------
    list of Path
        The four files.
    """
    tables = {
        'group_muscles': (muscle_table(scans), _measure_definitions(scans)),
        'group_scans': (scan_table(scans), {}),
    }
    paths = []
    for key, (table, definitions) in tables.items():
        path = output_dir / dataset_path(key)
        write_tsv(table, path)
        sidecar = output_dir / dataset_path(f'{key}_json')
        write_json(_dictionary(key, table, definitions), sidecar)
        paths += [path, sidecar]
    return paths


def muscle_table(scans: Sequence[ScanOutputs]) -> pd.DataFrame:
    """Return one row per scan, muscle and side, joined with the participants' columns.

    Values are text, exactly as the participant level wrote them.
    """
    import pandas as pd

    measures = _in_order(column for scan in scans for row in scan.rows[:1] for column in row)
    measures = [name for name in measures if name not in (*IDENTITY, REASON)]
    named = (*SCAN_COLUMNS, *IDENTITY, *measures, REASON)
    people = _people(scans)
    extra = _in_order(name for info in people.values() for name in info)
    # A column of participants.tsv never hides one of ours.
    titles = {name: f'participants_{name}' if name in named else name for name in extra}
    rows = [
        {
            **_scan_cells(scan),
            **{name: row.get(name, MISSING) for name in (*IDENTITY, *measures, REASON)},
            **{
                titles[name]: people.get(scan.record.participant, {}).get(name, MISSING)
                for name in extra
            },
        }
        for scan in scans
        for row in scan.rows
    ]
    return pd.DataFrame(rows, columns=[*named, *titles.values()], dtype=object)


def scan_table(scans: Sequence[ScanOutputs]) -> pd.DataFrame:
    """Return one row per scan: whether it was finished, why not, and what made it."""
    import pandas as pd

    rows = []
    for scan in scans:
        record = scan.record
        rows.append(
            {
                **_scan_cells(scan),
                'status': record.status,
                'reason': str(record.problem) if record.problem else MISSING,
                'warnings': ' '.join(scan.notes) or MISSING,
                'model': ' '.join(record.model.get(key, '') for key in ('name', 'version')),
                'model_sha256': record.model.get('sha256', MISSING),
                'software_version': record.versions.get('bids_muscle', MISSING),
                'settings_sha256': record.settings_digest or MISSING,
            }
        )
    return pd.DataFrame(rows, columns=list(_packaged_dictionary('group_scans')), dtype=object)


def find_outliers(scans: Sequence[ScanOutputs], columns: Sequence[str]) -> list[Outlier]:
    """List values with a robust z beyond 3.5, the farthest first.

    The robust z is 0.6745 (value - median) / MAD, with MAD the median absolute deviation from the
    median [1]_, over the scans of one region and contrast, for each muscle and side. Muscles with
    fewer than five values, or of which more than half are equal, have no outliers.

    References
    ----------
    .. [1] Iglewicz B, Hoaglin DC. How to detect and handle outliers. ASQC Quality Press, 1993.
    """
    import numpy as np

    groups: dict[tuple[str, ...], list[tuple[ScanOutputs, str, float]]] = {}
    for scan in scans:
        for row in scan.rows:
            for column in columns:
                value = number(row.get(column, MISSING))
                if value is not None:
                    key = (str(scan.record.region), scan.contrast, row['index'], column)
                    groups.setdefault(key, []).append((scan, row['name'], value))
    outliers = []
    for (_, _, _, column), members in groups.items():
        values = np.array([value for _, _, value in members])
        distance = values - np.median(values)
        mad = np.median(np.abs(distance))
        if len(members) < LEAST_VALUES or mad == 0:
            continue
        for (scan, name, value), z in zip(members, 0.6745 * distance / mad, strict=True):
            if abs(z) > OUTLIER_Z:
                record = scan.record
                outliers.append(
                    Outlier(record.participant, record.scan, name, column, value, float(z))
                )
    return sorted(outliers, key=lambda o: (-abs(o.robust_z), o.scan, o.name, o.column))


def _scan_cells(scan: ScanOutputs) -> dict[str, str]:
    record = scan.record
    return {
        'participant_id': f'sub-{record.participant}',
        'session_id': f'ses-{record.session}' if record.session else MISSING,
        'scan': record.scan,
        'region': record.region or MISSING,
        'contrast': scan.contrast,
    }


def _people(scans: Sequence[ScanOutputs]) -> dict[str, Mapping[str, str]]:
    """Return the columns of participants.tsv by participant."""
    return {
        scan.record.participant: {
            name: text
            for name, text in scan.record.participant_info.items()
            if name != 'participant_id'
        }
        for scan in reversed(scans)
        if scan.record.participant_info
    }


def _measure_definitions(scans: Sequence[ScanOutputs]) -> dict[str, Any]:
    """Return the data dictionary of the measures; the first scan that defines one wins."""
    definitions: dict[str, Any] = {}
    for scan in scans:
        for name, entry in scan.definitions.items():
            definitions.setdefault(name, entry)
    return definitions


def _dictionary(key: str, table: pd.DataFrame, definitions: Mapping[str, Any]) -> dict[str, Any]:
    known = {**definitions, **_packaged_dictionary(key)}
    other = {'Description': 'Column of participants.tsv of the raw dataset.'}
    return {column: known.get(column, other) for column in table.columns}


def _packaged_dictionary(key: str) -> dict[str, Any]:
    path = resources.files('bids_muscle') / f'data/dictionaries/{key}.json'
    content: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
    return content


def _in_order(names: Any) -> list[str]:
    return list(dict.fromkeys(names))
