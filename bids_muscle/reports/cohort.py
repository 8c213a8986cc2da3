"""Tables of a cohort: all muscles and all scans of a derivatives dataset, tidy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bids_muscle.dictionaries import read_dictionary
from bids_muscle.reports.outliers import ASYMMETRY
from bids_muscle.reports.outputs import IDENTITY, MISSING, REASON, Definitions, ScanOutputs
from bids_muscle.reports.ratings import SEPARATOR
from bids_muscle.statistics.cohort import MEASURES

if TYPE_CHECKING:
    import pandas as pd

#: Whether a row counts in the cohort, and why not.
EXCLUSION = ('excluded', 'exclusion_reason')
#: Whether the network or a person made the labels.
SOURCE = 'label_source'
#: Columns of participants.tsv by participant label.
People = Mapping[str, Mapping[str, str]]

SCAN_COLUMNS = ('participant_id', 'session_id', 'scan', 'region', 'contrast')


def analysed_measures(scans: Sequence[ScanOutputs]) -> list[str]:
    """Return the measures that the statistics look at and the scans have."""
    present = {name for scan in scans for name in scan.measures}
    return [name for name in MEASURES if name in present]


def muscle_table(scans: Sequence[ScanOutputs], people: People) -> pd.DataFrame:
    """Return one row per scan, muscle and side, joined with the participants' columns.

    Values are text, exactly as the participant level wrote them.
    """
    import pandas as pd

    measures = _in_order(name for scan in scans for name in scan.measures)
    pairs = [(scan, row) for scan in scans for row in scan.rows]
    reasons = [scan.exclusion(row) for scan, row in pairs]
    known = [(scan_cells(scan), len(scan.rows)) for scan in scans]
    columns: dict[str, list[str]] = {
        name: [cells[name] for cells, count in known for _ in range(count)]
        for name in SCAN_COLUMNS
    }
    for name in (*IDENTITY, *measures, REASON):
        columns[name] = [row.get(name, MISSING) for _, row in pairs]
    columns[SOURCE] = [_source(scan) for scan, _ in pairs]
    columns['excluded'] = ['yes' if reason else 'no' for reason in reasons]
    columns['exclusion_reason'] = [reason or MISSING for reason in reasons]
    columns |= _people_columns([scan for scan, _ in pairs], people, columns)
    return pd.DataFrame(columns, dtype=object)


def wide_table(
    scans: Sequence[ScanOutputs], people: People, measures: Sequence[str]
) -> pd.DataFrame:
    """Return one row per scan, with a column per measure, side and muscle.

    What is excluded is n/a.
    """
    import pandas as pd

    names = _wide_names(scans, measures)
    found = [_wide_cells(scan, measures) for scan in scans]
    cells = [scan_cells(scan) for scan in scans]
    columns = {name: [each[name] for each in cells] for name in SCAN_COLUMNS}
    columns |= {name: [each.get(name, MISSING) for each in found] for name in names}
    columns |= _people_columns(scans, people, columns)
    return pd.DataFrame(columns, dtype=object)


def phenotype_table(scans: Sequence[ScanOutputs], measures: Sequence[str]) -> pd.DataFrame:
    """Return one row per participant, as BIDS asks for below ``phenotype/``.

    Columns are those of the wide table with session and scan in front: ``ses1_acqdixon_...``.
    Those in which nobody has a value are left out.
    """
    import pandas as pd

    rows: dict[str, dict[str, str]] = {}
    for scan in (scan for scan in scans if scan.rows):
        own = rows.setdefault(f'sub-{scan.record.participant}', {})
        for name, text in _wide_cells(scan, measures).items():
            own[f'{scan_prefix(scan)}_{name}'] = text
    names = sorted(
        {name for row in rows.values() for name, text in row.items() if text != MISSING}
    )
    columns = {
        'participant_id': list(rows),
        **{name: [row.get(name, MISSING) for row in rows.values()] for name in names},
    }
    return pd.DataFrame(columns, dtype=object)


def scan_prefix(scan: ScanOutputs) -> str:
    """Return what tells a scan from the others of its participant, as part of a column's name."""
    return '_'.join(scan.record.scan.split('_')[1:]).replace('-', '')


def wide_definitions(
    scans: Sequence[ScanOutputs], measures: Sequence[str], definitions: Definitions
) -> dict[str, dict[str, str]]:
    """Return the data dictionary of the columns of the wide table that hold measures."""
    spread = {}
    for name, (measure, where) in _wide_names(scans, measures).items():
        entry = dict(definitions.get(measure, {'Description': measure}))
        spread[name] = {**entry, 'LongName': f'{entry.get("LongName", measure)}, {where}'}
    return spread


def _wide_names(
    scans: Sequence[ScanOutputs], measures: Sequence[str]
) -> dict[str, tuple[str, str]]:
    """Return the columns of the wide table, each with its measure and its muscle."""
    rows = {row['name']: row for scan in scans for row in scan.rows}.values()
    both = {row['muscle']: row for row in rows}.values()
    asymmetries = _in_order(name for scan in scans for name in scan.measures if ASYMMETRY in name)
    return {
        **{
            _wide_name(name, row['name']): (name, row['name']) for name in measures for row in rows
        },
        **{
            _wide_name(name, row['muscle']): (name, row['muscle'])
            for name in asymmetries
            for row in both
        },
    }


def wide_sides(
    scans: Sequence[ScanOutputs], measures: Sequence[str]
) -> dict[str, tuple[str, str, str]]:
    """Return measure, muscle and side of the columns of the wide table that have a side."""
    rows = {row['name']: row for scan in scans for row in scan.rows}
    return {
        name: (measure, rows[where]['muscle'], rows[where]['side'])
        for name, (measure, where) in _wide_names(scans, measures).items()
        if measure in measures
    }


def _wide_name(measure: str, muscle: str) -> str:
    return f'{measure}_{muscle.replace(" ", "_")}'


def _wide_cells(scan: ScanOutputs, measures: Sequence[str]) -> dict[str, str]:
    cells = {}
    asymmetries = [name for name in scan.measures if ASYMMETRY in name]
    for row in scan.kept:
        for name in measures:
            cells[_wide_name(name, row['name'])] = row.get(name, MISSING)
        for name in asymmetries:
            cells[_wide_name(name, row['muscle'])] = row[name]
    return cells


def _people_columns(
    scans: Sequence[ScanOutputs], people: People, taken: Iterable[str]
) -> dict[str, list[str]]:
    named = [scan.record.participant for scan in scans]
    extra = _in_order(name for label in named for name in people.get(label, ()))
    taken = set(taken)
    return {
        # A column of participants.tsv never hides one of ours.
        f'participants_{name}' if name in taken else name: [
            people.get(label, {}).get(name, MISSING) for label in named
        ]
        for name in extra
        if name != 'participant_id'
    }


def recorded_people(scans: Sequence[ScanOutputs]) -> People:
    """Return what the participant level noted about people, where there is no other source."""
    return {scan.record.participant: scan.record.participant_info for scan in scans}


def scan_table(scans: Sequence[ScanOutputs]) -> pd.DataFrame:
    """Return one row per scan: whether it was finished, why not, and what made it."""
    import pandas as pd

    rows = []
    for scan in scans:
        record = scan.record
        rows.append(
            {
                **scan_cells(scan),
                'segmentation': scan.segmentation,
                SOURCE: _source(scan),
                'status': record.status,
                'reason': str(record.problem) if record.problem else MISSING,
                'warnings': ' '.join(scan.notes) or MISSING,
                'model': ' '.join(record.model.get(key, '') for key in ('name', 'version')),
                'model_sha256': record.model.get('sha256', MISSING),
                'software_version': record.versions.get('bids_muscle', MISSING),
                'settings_sha256': record.settings_digest or MISSING,
                'device': record.device or MISSING,
                **{name: str(value) for name, value in scan.quality.items()},
                **verdict_cells(scan),
                **_exclusion_cells(scan.exclusion()),
            }
        )
    columns = _in_order([*read_dictionary('group_scans'), *(c for row in rows for c in row)])
    return pd.DataFrame(rows, columns=columns, dtype=object)


def _source(scan: ScanOutputs) -> str:
    if not scan.done:
        return MISSING
    return 'manual' if scan.manual else 'network'


def scan_cells(scan: ScanOutputs) -> dict[str, str]:
    """Return the columns that say which scan a row is about."""
    record = scan.record
    return {
        'participant_id': f'sub-{record.participant}',
        'session_id': f'ses-{record.session}' if record.session else MISSING,
        'scan': record.scan,
        'region': record.region or MISSING,
        'contrast': scan.contrast,
    }


def verdict_cells(scan: ScanOutputs) -> dict[str, str]:
    """Return the columns of the ratings of a scan."""
    verdict = scan.verdict
    return {
        'qc_rating': verdict.rating if verdict else MISSING,
        'qc_raters': SEPARATOR.join(verdict.raters if verdict else ()) or MISSING,
        'qc_muscles': SEPARATOR.join(verdict.muscles if verdict else ()) or MISSING,
        'qc_comments': SEPARATOR.join(verdict.comments if verdict else ()) or MISSING,
    }


def _exclusion_cells(reason: str) -> dict[str, str]:
    return dict(zip(EXCLUSION, ('yes' if reason else 'no', reason or MISSING), strict=True))


def measure_definitions(scans: Sequence[ScanOutputs]) -> dict[str, Any]:
    """Return the data dictionary of the measures; the first scan that defines one wins."""
    definitions: dict[str, Any] = {}
    for scan in scans:
        for name, entry in scan.definitions.items():
            definitions.setdefault(name, entry)
    return definitions


def _in_order(names: Any) -> list[str]:
    return list(dict.fromkeys(names))
