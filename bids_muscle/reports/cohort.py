"""Tables of a cohort: all muscles and all scans of a derivatives dataset, tidy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.dataset.records import ScanRecord
from bids_muscle.dataset.writer import table_rows, tsv_line
from bids_muscle.dictionaries import read_dictionary
from bids_muscle.reports.cohort_values import CohortValues, headers
from bids_muscle.reports.outputs import (
    ASYMMETRY,
    IDENTITY,
    MISSING,
    REASON,
    Definitions,
    ScanOutputs,
)
from bids_muscle.reports.ratings import SEPARATOR
from bids_muscle.reports.rows import cells_of
from bids_muscle.statistics.cohort import MEASURES
from bids_muscle.statistics.sessions import NO_SESSION, SessionOrder

if TYPE_CHECKING:
    import pandas as pd

#: Whether a row counts in the cohort, and why not.
EXCLUSION = ('excluded', 'exclusion_reason')
#: Whether the network or a person made the labels.
SOURCE = 'label_source'
#: Columns of participants.tsv by participant label.
People = Mapping[str, Mapping[str, str]]

#: Scans whose cells are put into columns together.
_PIECE = 5000
SCAN_COLUMNS = ('participant_id', 'session_id', 'scan', 'region', 'contrast')


def measure_names(scans: Sequence[ScanOutputs]) -> list[str]:
    """Return the columns that say how a muscle is, in the order of the scans."""
    names = _in_order(name for columns in headers(scans) for name in columns)
    return [name for name in names if name not in (*IDENTITY, REASON)]


def tidy_columns(scans: Sequence[ScanOutputs]) -> tuple[str, ...]:
    """Return the columns of the table of all muscles, without those of participants.tsv."""
    return (*SCAN_COLUMNS, *IDENTITY, *measure_names(scans), REASON, SOURCE, *EXCLUSION)


def analysed_measures(scans: Sequence[ScanOutputs]) -> list[str]:
    """Return the measures that the statistics look at and the scans have."""
    present = set(measure_names(scans))
    return [name for name in MEASURES if name in present]


def analysis_table(values: CohortValues, measures: Sequence[str]) -> pd.DataFrame:
    """Return the rows that count, joined with the participants' columns, for the statistics.

    Parameters
    ----------
    values
        Of all scans.
    measures
        Columns of `values`; they are numbers, all else is text.
    """
    import pandas as pd

    scans, kept = values.scans, values.kept
    at, cells = values.scan[kept], [scan_cells(scan) for scan in scans]
    taken = tidy_columns(scans)
    named = people_columns([scan for scan in scans if scan.rows], taken)
    known = people_columns(scans, taken)

    def of_scans(column: Sequence[str]) -> np.ndarray:
        spread: np.ndarray = np.array(column, dtype=object)[at]
        return spread

    columns: dict[str, Any] = {
        name: of_scans([each[name] for each in cells]) for name in SCAN_COLUMNS
    }
    columns |= {name: values.texts(name)[kept] for name in ('name', 'muscle', 'side')}
    columns |= {name: values.of(name)[kept] for name in measures}
    columns[REASON] = np.full(len(at), MISSING, object)
    columns[SOURCE] = of_scans([source_of(scan) for scan in scans])
    columns |= {name: of_scans(known[name]) for name in named}
    return pd.DataFrame(columns, dtype=None)


def wide_table(values: CohortValues, measures: Sequence[str]) -> pd.DataFrame:
    """Return one row per scan, with a column per measure, side and muscle.

    What is excluded is n/a. Cells are text of Arrow, which takes a fourth of Python's memory.
    """
    import pandas as pd
    import pyarrow as pa

    scans, names = values.scans, list(wide_names(values, measures))
    cells = [scan_cells(scan) for scan in scans]
    columns: dict[str, Any] = {name: [each[name] for each in cells] for name in SCAN_COLUMNS}
    rows = wide_rows(scans, measures, names)
    pieces: list[list[pa.Array]] = [[] for _ in names]
    while some := list(islice(rows, _PIECE)):
        for piece, column in zip(pieces, zip(*some, strict=True), strict=True):
            piece.append(pa.array(column, pa.string()))
    columns |= {
        name: pa.chunked_array(piece, pa.string())
        for name, piece in zip(names, pieces, strict=True)
    }
    columns |= people_columns(scans, columns)
    return pd.DataFrame(
        {
            name: pd.arrays.ArrowExtensionArray(
                pa.chunked_array([column], pa.string()) if isinstance(column, list) else column
            )
            for name, column in columns.items()
        }
    )


def phenotype_lines(
    scans: Sequence[ScanOutputs], wide: pd.DataFrame, own: Sequence[str], columns: Sequence[str]
) -> Iterator[str]:
    """Give the table of one row per participant, as BIDS asks for below ``phenotype/``.

    Parameters
    ----------
    scans, wide, own
        As for :func:`phenotype_columns`.
    columns
        What that returned.
    """
    yield tsv_line(['participant_id', *columns])
    place = {name: at for at, name in enumerate(columns)}
    known: dict[str, list[tuple[int, int]]] = {}
    rows = zip(scans, table_rows(wide[list(own)]), strict=True)
    for participant, members in groupby(
        ((scan, cells) for scan, cells in rows if scan.rows),
        key=lambda pair: pair[0].record.participant,
    ):
        row = [MISSING] * len(columns)
        for scan, cells in members:
            prefix = scan_prefix(scan)
            if prefix not in known:
                named = ((at, place.get(f'{prefix}_{name}')) for at, name in enumerate(own))
                known[prefix] = [(at, to) for at, to in named if to is not None]
            for at, to in known[prefix]:
                row[to] = cells[at]
        yield tsv_line([f'sub-{participant}', *row])


def phenotype_columns(
    scans: Sequence[ScanOutputs], wide: pd.DataFrame, own: Sequence[str]
) -> list[str]:
    """Return the columns of the phenotype table, sorted.

    They are those of the wide table with session and scan in front: ``ses1_acqdixon_...``. Those
    in which nobody has a value are left out.

    Parameters
    ----------
    scans, wide
        All scans, and their wide table.
    own
        Its columns that hold measures, from :func:`wide_names`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    prefixes = pa.array([scan_prefix(scan) for scan in scans]).dictionary_encode()
    found = []
    for name in own:
        known = pc.not_equal(pa.chunked_array(wide[name]).combine_chunks(), MISSING)
        for prefix in prefixes.filter(known).unique():
            found.append(f'{prefix}_{name}')
    return sorted(found)


def scan_prefix(scan: ScanOutputs) -> str:
    """Return what tells a scan from the others of its participant, as part of a column's name."""
    return '_'.join(scan.record.scan.split('_')[1:]).replace('-', '')


def wide_definitions(
    values: CohortValues, measures: Sequence[str], definitions: Definitions
) -> dict[str, dict[str, str]]:
    """Return the data dictionary of the columns of the wide table that hold measures."""
    spread = {}
    for name, (measure, where) in wide_names(values, measures).items():
        entry = dict(definitions.get(measure, {'Description': measure}))
        spread[name] = {**entry, 'LongName': f'{entry.get("LongName", measure)}, {where}'}
    return spread


def wide_names(values: CohortValues, measures: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the columns of the wide table, each with its measure and its muscle."""
    rows = {name: muscle for name, muscle, *_ in values.kinds}
    both = dict.fromkeys(rows.values())
    asymmetries = [name for name in measure_names(values.scans) if ASYMMETRY in name]
    return {
        **{_wide_name(name, row): (name, row) for name in measures for row in rows},
        **{_wide_name(name, muscle): (name, muscle) for name in asymmetries for muscle in both},
    }


def wide_sides(values: CohortValues, measures: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Return measure, muscle and side of the columns of the wide table that have a side."""
    rows = {name: (muscle, side) for name, muscle, side, _ in values.kinds}
    return {
        name: (measure, *rows[where])
        for name, (measure, where) in wide_names(values, measures).items()
        if measure in measures
    }


def _wide_name(measure: str, muscle: str) -> str:
    return f'{measure}_{muscle.replace(" ", "_")}'


def wide_rows(
    scans: Sequence[ScanOutputs], measures: Sequence[str], names: Sequence[str]
) -> Iterator[list[str]]:
    """Give the cells of the wide table that hold measures, scan by scan.

    Parameters
    ----------
    scans, measures
        The scans, and the measures that the table has.
    names
        From :func:`wide_names`, of these scans and perhaps others.
    """
    place = {name: at for at, name in enumerate(names)}
    known: dict[tuple[str, ...], dict[tuple[str, str], list[int]]] = {}
    for scan in scans:
        cells = [MISSING] * len(place)
        places = known.setdefault(scan.columns, {})
        asymmetries = [name for name in scan.columns if ASYMMETRY in name]
        kept = scan.kept
        for name, muscle, *found in (
            cells_of(kept, ('name', 'muscle', *measures, *asymmetries)) if kept else ()
        ):
            if (name, muscle) not in places:
                own = [_wide_name(measure, name) for measure in measures]
                both = [_wide_name(measure, muscle) for measure in asymmetries]
                places[name, muscle] = [place[each] for each in (*own, *both)]
            for at, cell in zip(places[name, muscle], found, strict=True):
                cells[at] = cell
        yield cells


def people_columns(scans: Sequence[ScanOutputs], taken: Iterable[str]) -> dict[str, list[str]]:
    """Return what is known of people, one cell per scan; a name that is taken has a prefix."""
    people = [scan.record.person for scan in scans]
    extra = _in_order(name for person in people for name in person)
    taken = set(taken)
    return {
        # A column of participants.tsv never hides one of ours.
        f'participants_{name}' if name in taken else name: [
            person.get(name, MISSING) for person in people
        ]
        for name in extra
        if name != 'participant_id'
    }


def recorded_people(scans: Sequence[ScanOutputs], order: SessionOrder | None = None) -> People:
    """Return what is known of each participant of the scans at the first session."""
    found: dict[str, dict[str, Mapping[str, str]]] = {}
    for record in (scan.record for scan in scans):
        found.setdefault(record.participant, {})[session_name(record)] = record.person
    first = (order or SessionOrder()).first
    return {who: sessions[first(sessions)] for who, sessions in found.items()}


def scan_columns(scans: Sequence[ScanOutputs]) -> list[str]:
    """Return the columns of the table of scans, with the figures of image quality."""
    quality = (name for scan in scans for name in scan.quality)
    return _in_order([*read_dictionary('group_scans'), *quality])


def scan_rows(scans: Sequence[ScanOutputs]) -> Iterator[dict[str, str]]:
    """Give one row per scan: whether it was finished, why not, and what made it."""
    columns = scan_columns(scans)
    for scan in scans:
        record = scan.record
        row = {
            **scan_cells(scan),
            'segmentation': scan.segmentation,
            SOURCE: source_of(scan),
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
        yield {name: row.get(name, MISSING) for name in columns}


def source_of(scan: ScanOutputs) -> str:
    """Return who made the labels: ``'manual'`` or ``'network'``."""
    if not scan.done:
        return MISSING
    return 'manual' if scan.manual else 'network'


def scan_cells(scan: ScanOutputs) -> dict[str, str]:
    """Return the columns that say which scan a row is about."""
    record = scan.record
    return {
        'participant_id': f'sub-{record.participant}',
        'session_id': session_name(record),
        'scan': record.scan,
        'region': record.region or MISSING,
        'contrast': scan.contrast,
    }


def session_name(record: ScanRecord) -> str:
    """Return the session of a scan as tables have it."""
    return f'ses-{record.session}' if record.session else NO_SESSION


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
    # Scans share their dictionaries, which need not be looked through again.
    for shared in {id(scan.definitions): scan.definitions for scan in scans}.values():
        for name, entry in shared.items():
            definitions.setdefault(name, entry)
    return definitions


def _in_order(names: Any) -> list[str]:
    return list(dict.fromkeys(names))
