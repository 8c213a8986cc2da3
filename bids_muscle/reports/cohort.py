"""Cohort tables: all muscles and all scans of a derivatives dataset, tidy, with dictionaries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.writer import write_json, write_text, write_tsv
from bids_muscle.reports.figures import BACKGROUNDS
from bids_muscle.reports.outputs import IDENTITY, MISSING, REASON, ScanOutputs, number
from bids_muscle.reports.ratings import SEPARATOR, Review

if TYPE_CHECKING:
    import pandas as pd

#: A robust z beyond which a value is listed (Iglewicz and Hoaglin 1993).
OUTLIER_Z = 3.5
#: Fewer values than this have no outlier.
LEAST_VALUES = 5

#: Whether a row counts in the cohort, and why not.
EXCLUSION = ('excluded', 'exclusion_reason')
SCAN_COLUMNS = ('participant_id', 'session_id', 'scan', 'region', 'contrast')


@dataclass(frozen=True)
class Outlier:
    """A value and its distance from those of the same muscle, side and contrast."""

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
    return [
        *_write(output_dir, 'group_muscles', muscle_table(scans), _measure_definitions(scans)),
        *_write(output_dir, 'group_scans', scan_table(scans)),
    ]


def write_review_tables(
    scans: Sequence[ScanOutputs], review: Review | None, output_dir: Path
) -> list[Path]:
    """Write what follows from the ratings: what to do again, and how well raters agree.

    Parameters
    ----------
    scans
        All scans of the dataset, each with its verdict.
    review
        The ratings, or None: then the files of an earlier run are removed, since they would
        contradict the cohort tables.
    output_dir
        The derivatives dataset.

    Returns
    -------
    list of Path
        ``group_redo`` and ``group_raters``, each as TSV and JSON, and ``qc_fail.yml``, which the
        manual-correction scripts of the Spinal Cord Toolbox take.
    """
    keys = ('group_redo', 'group_raters')
    yaml = output_dir / dataset_path('group_qc_fail')
    if review is None:
        for key in (*keys, *(f'{key}_json' for key in keys)):
            (output_dir / dataset_path(key)).unlink(missing_ok=True)
        yaml.unlink(missing_ok=True)
        return []
    redo = [scan for scan in scans if scan.exclusion() or (scan.verdict and scan.verdict.muscles)]
    images = [_main_image(scan) for scan in redo if scan.record.inputs]
    # A JSON string is a YAML string, whatever is in it.
    lines = [f'- {json.dumps(name)}\n' for name in images]
    write_text('FILES_SEG:' + (''.join(['\n', *lines]) if lines else ' []\n'), yaml)
    return [
        *_write(output_dir, 'group_redo', _redo_table(redo)),
        *_write(output_dir, 'group_raters', _rater_table(review)),
        yaml,
    ]


def _main_image(scan: ScanOutputs) -> str:
    """Return the file name of the image on which a segmentation is corrected."""
    inputs = scan.record.inputs
    contrast = next((name for name in BACKGROUNDS if name in inputs), next(iter(inputs)))
    return PurePosixPath(inputs[contrast]).name


def _redo_table(scans: Sequence[ScanOutputs]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {
            **_scan_cells(scan),
            'image': _main_image(scan) if scan.record.inputs else MISSING,
            **_verdict_cells(scan),
        }
        for scan in scans
    ]
    return pd.DataFrame(rows, columns=list(_packaged_dictionary('group_redo')), dtype=object)


def _rater_table(review: Review) -> pd.DataFrame:
    import pandas as pd

    rows = [vars(pair) for pair in review.pairs]
    return pd.DataFrame(rows, columns=list(_packaged_dictionary('group_raters')))


def _write(
    output_dir: Path, key: str, table: pd.DataFrame, definitions: Mapping[str, Any] | None = None
) -> list[Path]:
    path = output_dir / dataset_path(key)
    write_tsv(table, path)
    sidecar = output_dir / dataset_path(f'{key}_json')
    write_json(_dictionary(key, table, definitions or {}), sidecar)
    return [path, sidecar]


def muscle_table(scans: Sequence[ScanOutputs]) -> pd.DataFrame:
    """Return one row per scan, muscle and side, joined with the participants' columns.

    Values are text, exactly as the participant level wrote them.
    """
    import pandas as pd

    measures = _in_order(column for scan in scans for row in scan.rows[:1] for column in row)
    measures = [name for name in measures if name not in (*IDENTITY, REASON)]
    named = (*SCAN_COLUMNS, *IDENTITY, *measures, REASON, *EXCLUSION)
    people = _people(scans)
    extra = _in_order(name for info in people.values() for name in info)
    # A column of participants.tsv never hides one of ours.
    titles = {name: f'participants_{name}' if name in named else name for name in extra}
    rows = [
        {
            **_scan_cells(scan),
            **{name: row.get(name, MISSING) for name in (*IDENTITY, *measures, REASON)},
            **_exclusion_cells(scan.exclusion(row)),
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
                'segmentation': scan.segmentation,
                'status': record.status,
                'reason': str(record.problem) if record.problem else MISSING,
                'warnings': ' '.join(scan.notes) or MISSING,
                'model': ' '.join(record.model.get(key, '') for key in ('name', 'version')),
                'model_sha256': record.model.get('sha256', MISSING),
                'software_version': record.versions.get('bids_muscle', MISSING),
                'settings_sha256': record.settings_digest or MISSING,
                **_verdict_cells(scan),
                **_exclusion_cells(scan.exclusion()),
            }
        )
    return pd.DataFrame(rows, columns=list(_packaged_dictionary('group_scans')), dtype=object)


def find_outliers(scans: Sequence[ScanOutputs], columns: Sequence[str]) -> list[Outlier]:
    """List values with a robust z beyond 3.5, the farthest first; see :func:`robust_scores`."""
    far = [each for each in robust_scores(scans, columns) if abs(each.robust_z) > OUTLIER_Z]
    return sorted(far, key=lambda o: (-abs(o.robust_z), o.scan, o.name, o.column))


def robust_scores(scans: Sequence[ScanOutputs], columns: Sequence[str]) -> list[Outlier]:
    """Return how far each value lies from those of the same muscle, side and contrast.

    The robust z is 0.6745 (value - median) / MAD, with MAD the median absolute deviation from the
    median [1]_, over the scans of one region and contrast, for each muscle and side. Muscles with
    fewer than five values, or of which more than half are equal, have no scores.

    References
    ----------
    .. [1] Iglewicz B, Hoaglin DC. How to detect and handle outliers. ASQC Quality Press, 1993.
    """
    import numpy as np

    groups: dict[tuple[str, ...], list[tuple[ScanOutputs, str, float]]] = {}
    for scan in scans:
        for row in scan.kept:
            for column in columns:
                value = number(row.get(column, MISSING))
                if value is not None:
                    key = (str(scan.record.region), scan.contrast, row['index'], column)
                    groups.setdefault(key, []).append((scan, row['name'], value))
    scores = []
    for (_, _, _, column), members in groups.items():
        values = np.array([value for _, _, value in members])
        distance = values - np.median(values)
        mad = np.median(np.abs(distance))
        if len(members) < LEAST_VALUES or mad == 0:
            continue
        for (scan, name, value), z in zip(members, 0.6745 * distance / mad, strict=True):
            record = scan.record
            scores.append(Outlier(record.participant, record.scan, name, column, value, float(z)))
    return scores


def _scan_cells(scan: ScanOutputs) -> dict[str, str]:
    record = scan.record
    return {
        'participant_id': f'sub-{record.participant}',
        'session_id': f'ses-{record.session}' if record.session else MISSING,
        'scan': record.scan,
        'region': record.region or MISSING,
        'contrast': scan.contrast,
    }


def _verdict_cells(scan: ScanOutputs) -> dict[str, str]:
    verdict = scan.verdict
    return {
        'qc_rating': verdict.rating if verdict else MISSING,
        'qc_raters': SEPARATOR.join(verdict.raters if verdict else ()) or MISSING,
        'qc_muscles': SEPARATOR.join(verdict.muscles if verdict else ()) or MISSING,
        'qc_comments': SEPARATOR.join(verdict.comments if verdict else ()) or MISSING,
    }


def _exclusion_cells(reason: str) -> dict[str, str]:
    return dict(zip(EXCLUSION, ('yes' if reason else 'no', reason or MISSING), strict=True))


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
