"""Write the tables of a cohort, each with its data dictionary."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from bids_muscle.anatomy.people import CHANGING, find_column
from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.writer import tsv_line, tsv_lines, write_bytes, write_json, write_text
from bids_muscle.dictionaries import read_dictionary
from bids_muscle.imaging.quality import quality_dictionary
from bids_muscle.reports.cohort import (
    analysed_measures,
    measure_definitions,
    phenotype_columns,
    phenotype_lines,
    scan_cells,
    scan_columns,
    scan_prefix,
    scan_rows,
    verdict_cells,
    wide_definitions,
    wide_names,
    wide_sides,
    wide_table,
)
from bids_muscle.reports.cohort_input import Cohort
from bids_muscle.reports.completeness import cause_table
from bids_muscle.reports.figures import BACKGROUNDS
from bids_muscle.reports.interchange import to_parquet, write_for_others
from bids_muscle.reports.muscle_table import MuscleTable
from bids_muscle.reports.outliers import RobustScores, outlier_columns, outlier_table
from bids_muscle.reports.outputs import MISSING, ScanOutputs
from bids_muscle.reports.ratings import CohortReview

if TYPE_CHECKING:
    import pandas as pd


def write_cohort_tables(
    cohort: Cohort, complete: pd.DataFrame, scores: RobustScores, output_dir: Path
) -> list[Path]:
    """Write the tables of a cohort, each as TSV with its JSON data dictionary.

    Parameters
    ----------
    cohort
        Scans, people and the order of their sessions.
    complete
        From :func:`~bids_muscle.reports.completeness.completeness`.
    scores
        Of the analysed measures, asymmetries and image quality.
    output_dir
        The derivatives dataset.

    Returns
    -------
    list of Path
        ``group_muscles`` (tidy, a row per muscle), ``group_wide`` (a row per scan), these two as
        Parquet too and the second as CSV with a codebook and a script for R,
        ``phenotype/bids_muscle`` (a row per participant), ``group_scans``, ``group_completeness``,
        ``group_causes`` and ``group_outliers``.
    """
    scans, values = cohort.scans, cohort.values
    definitions = measure_definitions(scans)
    measures = analysed_measures(scans)
    wide = wide_table(values, measures)
    spread = wide_definitions(values, measures, definitions)
    prefixes = {scan_prefix(scan) for scan in scans if scan.rows}
    prefixed = {f'{prefix}_{name}': spread[name] for prefix in prefixes for name in spread}
    outliers = outlier_table(scans, scores.among(outlier_columns(scans, measures)))
    muscles = MuscleTable(scans)
    own = list(wide_names(values, measures))
    phenotype = phenotype_columns(scans, wide, own)
    of_scans = scan_columns(scans)
    return [
        *_write(
            output_dir,
            'group_muscles',
            muscles.columns,
            muscles.tsv(),
            definitions,
            muscles.parquet(),
        ),
        *_write(
            output_dir, 'group_wide', wide.columns, tsv_lines(wide), spread, [to_parquet(wide)]
        ),
        *write_for_others(
            wide,
            _dictionary('group_wide', wide.columns, spread),
            wide_sides(values, measures),
            cohort.order.names,
            output_dir,
        ),
        *_write(
            output_dir,
            'phenotype',
            ['participant_id', *phenotype],
            phenotype_lines(scans, wide, own, phenotype),
            prefixed,
        ),
        *_write(
            output_dir,
            'group_scans',
            of_scans,
            chain([tsv_line(of_scans)], (tsv_line(row.values()) for row in scan_rows(scans))),
            quality_dictionary(),
        ),
        *_write_frame(output_dir, 'group_completeness', complete),
        *_write_frame(output_dir, 'group_causes', cause_table(complete)),
        *_write_frame(output_dir, 'group_outliers', outliers),
    ]


def write_review_tables(
    scans: Sequence[ScanOutputs], review: CohortReview | None, output_dir: Path
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
    redo = [scan for scan in scans if scan.judgement() or (scan.verdict and scan.verdict.muscles)]
    redo = [scan for scan in redo if not scan.record.parts]
    images = [_main_image(scan) for scan in redo if scan.record.inputs]
    # A JSON string is a YAML string, whatever is in it.
    lines = [f'- {json.dumps(name)}\n' for name in images]
    write_text('FILES_SEG:' + (''.join(['\n', *lines]) if lines else ' []\n'), yaml)
    return [
        *_write_frame(output_dir, 'group_redo', _redo_table(redo)),
        *_write_frame(output_dir, 'group_raters', _rater_table(review)),
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
            **scan_cells(scan),
            'image': _main_image(scan) if scan.record.inputs else MISSING,
            **verdict_cells(scan),
        }
        for scan in scans
    ]
    return pd.DataFrame(rows, columns=list(read_dictionary('group_redo')), dtype=object)


def _rater_table(review: CohortReview) -> pd.DataFrame:
    import pandas as pd

    rows = [vars(pair) for pair in review.pairs]
    return pd.DataFrame(rows, columns=list(read_dictionary('group_raters')))


def _write_frame(output_dir: Path, key: str, table: pd.DataFrame) -> list[Path]:
    return _write(output_dir, key, table.columns, tsv_lines(table))


def _write(
    output_dir: Path,
    key: str,
    columns: Iterable[str],
    lines: Iterable[str],
    definitions: Mapping[str, Any] | None = None,
    parquet: Iterable[bytes] = (),
) -> list[Path]:
    """Write the lines of a table, its dictionary, and its Parquet file if it has one."""
    path, sidecar = (output_dir / dataset_path(name) for name in (key, f'{key}_json'))
    write_bytes((line.encode('utf-8') for line in lines), path)
    write_json(_dictionary(key, columns, definitions or {}), sidecar)
    if not parquet:
        return [path, sidecar]
    typed = output_dir / dataset_path(f'{key}_parquet')
    write_bytes(parquet, typed)
    return [path, sidecar, typed]


def _dictionary(
    key: str, columns: Iterable[str], definitions: Mapping[str, Any]
) -> dict[str, Any]:
    known = {**definitions, **read_dictionary(key)}
    columns = list(columns)
    changing = {find_column(columns, what) for what in CHANGING}
    said = 'Column of participants.tsv of the raw dataset'
    other = {'Description': f'{said}.'}
    of_session = {'Description': f'{said}, or that of sessions.tsv where it has one.'}
    return {
        column: known.get(column, of_session if column in changing else other)
        for column in columns
    }
