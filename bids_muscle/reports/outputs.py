"""What a run left on disk about each scan: its record, table, definitions and pictures."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path

from bids_muscle.anatomy.labels import BODY, SPINE, Label, LabelTable, load_label_table
from bids_muscle.anatomy.structures import read_published_table
from bids_muscle.dataset.names import (
    SPINE_MAPS,
    dataset_path,
    derivative_path,
    io_spec,
    name_ending,
)
from bids_muscle.dataset.records import ScanRecord, read_records
from bids_muscle.dataset.scan import Scan
from bids_muscle.errors import PARSE_ERRORS, BadDataError, UsageError
from bids_muscle.reports.alignment import AlignmentFacts, read_alignment
from bids_muscle.reports.figure_files import Packed, read_figures
from bids_muscle.reports.ratings import RatedMap, Verdict
from bids_muscle.reports.rows import Row, columns_of, places_of
from bids_muscle.segmentation.quality import UNUSABLE_DICE
from bids_muscle.tables import MISSING, number, read_cells

#: Columns of a muscle table that say which muscle, not how it is.
IDENTITY = ('index', 'name', 'muscle', 'side')
REASON = 'reason'
#: What is in the name of a column that compares left with right; both sides have the same value.
ASYMMETRY = '_asymmetry_'
_ONE_SIDE_COUNTS = 'only one side counts in the cohort, so no asymmetry'

#: Magnetisation transfer in the name of a scan, as BIDS writes it or within ``acq``.
_TRANSFER = re.compile(r'(?:_mt-|_acq-[a-zA-Z0-9]*MT)(on|off)', re.IGNORECASE)
_ALONE = 'Its chunk label calls it a part of a larger image, and no other part was found.'

Definitions = Mapping[str, Mapping[str, str]]


def read_output_table(path: Path, columns: Iterable[str]) -> list[dict[str, str]] | None:
    """Read a table in which each row has something in each of the columns; None if it has not."""
    found = _read_filled(path, columns)
    if found is None:
        return None
    header, rows = found
    return [dict(zip(header, cells, strict=True)) for cells in rows]


def _read_filled(
    path: Path, columns: Iterable[str]
) -> tuple[tuple[str, ...], list[list[str]]] | None:
    """Read the header and the cells of a table as :func:`read_output_table`."""
    try:
        header, rows = read_cells(path)
    except (OSError, ValueError):
        return None
    places = places_of(header)
    filled = all(name in places and cells[places[name]] for cells in rows for name in columns)
    return (header, rows) if filled else None


@dataclass(frozen=True)
class ScanOutputs:
    """One scan as the reports see it.

    Parameters
    ----------
    record
        How the scan ended.
    rows
        Its muscle table, one row per label, values as written; empty where there is none.
    definitions
        Its data dictionary: column to ``LongName``, ``Description``, ``Units``, ``Source``.
    figures
        Files by name, the ``desc`` of the file.
    predicted_dice
        Dice to be expected of each muscle, by its name; empty where the model was not calibrated.
    segmentation
        First twelve hex digits of the SHA-256 of the label map, of a joined scan of those of its
        parts; a rating is about this one.
    alignment
        How it is aligned with its atlas and its levels, or None.
    verdict
        What the raters say, or None.
    missing
        Sentences about files that should be there and are not.
    excluded
        Why the scan (key ``''``) or a muscle (its name) is excluded by a list.
    quality
        Measures of the image, such as its noise, by name.
    flags
        What is likely to be wrong with the image, in words.
    part_of
        Name of the joined scan that it is a part of, or nothing.
    table
        What the numbers of its label map mean; None where that is not known.
    """

    record: ScanRecord
    rows: Sequence[Mapping[str, str]] = ()
    definitions: Definitions = field(default_factory=dict)
    figures: Mapping[str, Path | Packed] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    predicted_dice: Mapping[str, float] = field(default_factory=dict)
    segmentation: str = MISSING
    alignment: AlignmentFacts | None = None
    verdict: Verdict | None = None
    excluded: Mapping[str, str] = field(default_factory=dict)
    quality: Mapping[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    part_of: str = ''
    table: LabelTable | None = None

    def exclusion(self, row: Mapping[str, str] | None = None) -> str:
        """Return why the scan, or one row of its table, is left out of the cohort, or nothing."""
        part = f'part of {self.part_of}' if self.part_of else ''
        return '; '.join(reason for reason in (part, self.judgement(row)) if reason)

    def judgement(self, row: Mapping[str, str] | None = None) -> str:
        """Return the warnings about the scan, or a row of its table, except that it is a part."""
        if not self._has_exclusions:
            return ''
        name = row['name'] if row else ''
        reasons = [
            self.record.left_out,
            self.excluded.get('', ''),
            self.excluded.get(name, '') if name else '',
            self.verdict.exclusion(name or None) if self.verdict else '',
            self.unusable.get(name, ''),
        ]
        return '; '.join(reason for reason in reasons if reason)

    @property
    def _has_exclusions(self) -> bool:
        return bool(self.excluded or self.verdict or self.record.left_out or self.unusable)

    @cached_property  # asked for once or twice for each row
    def unusable(self) -> dict[str, str]:
        """Why muscles are not used without a person, by name; nothing once one passed the scan."""
        if self.manual or (self.verdict and self.verdict.rating == 'pass'):
            return {}
        return {
            name: f'predicted Dice {dice:.2f}, below {UNUSABLE_DICE:g}'
            for name, dice in self.predicted_dice.items()
            if dice < UNUSABLE_DICE
        }

    @property
    def least_sure(self) -> tuple[str, float] | None:
        """The muscle with the least predicted Dice, and that; None where there is none."""
        return min(self.predicted_dice.items(), key=lambda each: each[1], default=None)

    @cached_property
    def one_sided(self) -> frozenset[str]:
        """Muscles of which one side counts in the cohort and the other does not."""
        if not self._has_exclusions:
            return frozenset()
        counts: dict[str, set[bool]] = {}
        for row in self.rows:
            counts.setdefault(row['muscle'], set()).add(not self.exclusion(row))
        return frozenset(muscle for muscle, each in counts.items() if len(each) > 1)

    @property
    def cohort_rows(self) -> Sequence[Mapping[str, str]]:
        """The rows as the cohort has them: a side is compared only with one that counts too."""
        asymmetries = [name for name in self.columns if ASYMMETRY in name]
        if not (self.one_sided and asymmetries):
            return self.rows
        return tuple(
            _not_compared(row, asymmetries) if row['muscle'] in self.one_sided else row
            for row in self.rows
        )

    @property
    def kept(self) -> Sequence[Mapping[str, str]]:
        """The rows that count in the cohort."""
        if not (self._has_exclusions or self.part_of):
            return self.rows
        return tuple(row for row in self.cohort_rows if not self.exclusion(row))

    @property
    def done(self) -> bool:
        """Whether the scan was finished."""
        return self.record.status == 'done'

    @property
    def manual(self) -> bool:
        """Whether a person drew or corrected the labels."""
        return bool(self.record.processing.get('manual'))

    @property
    def contrast(self) -> str:
        """Contrasts of the inputs, e.g. ``'water+fat'``, and whether echoes were fitted.

        A scan with magnetisation transfer is no repeat of the one without.
        """
        fitted = ' (echoes)' if self.record.processing.get('fitted_echoes') else ''
        transfer = _TRANSFER.search(self.record.scan)
        mt = f' (MT {transfer[1].lower()})' if transfer else ''
        return '+'.join(self.record.inputs) + fitted + mt or MISSING

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the muscle table; none where it has no rows."""
        return columns_of(self.rows)

    @property
    def measures(self) -> tuple[str, ...]:
        """Columns that say how a muscle is, in the order of the table."""
        return tuple(name for name in self.columns if name not in (*IDENTITY, REASON))

    @property
    def notes(self) -> tuple[str, ...]:
        """Everything a reader should know about a finished scan."""
        alone = '_chunk-' in self.record.scan and not self.part_of
        return (*self.record.warnings, *self.flags, *self.missing, *[_ALONE] * alone)


def _not_compared(row: Mapping[str, str], asymmetries: Iterable[str]) -> Mapping[str, str]:
    """Return a row without differences of the sides, with the reason where it had any."""
    had = [name for name in asymmetries if row[name] != MISSING]
    cells = {**row, **dict.fromkeys(had, MISSING)}
    if had and REASON in row:
        reasons = (row[REASON], _ONE_SIDE_COUNTS)
        cells[REASON] = '; '.join(reason for reason in reasons if reason not in ('', MISSING))
    return cells


def read_scans(
    output_dir: Path,
    participant: str | None = None,
    records: Sequence[ScanRecord] | None = None,
) -> list[ScanOutputs]:
    """Read all scans of one participant or of all, ordered by participant and scan name.

    Parameters
    ----------
    output_dir
        The derivatives dataset.
    participant
        Label without ``sub-``, or None for all.
    records
        Those of these scans, where they have been read already.
    """
    known = read_records(output_dir, participant) if records is None else records
    records = sorted(known, key=lambda record: (record.participant, record.scan))
    return mark_parts([read_scan(output_dir, record) for record in records])


def mark_parts(scans: Sequence[ScanOutputs]) -> list[ScanOutputs]:
    """Say of each scan which joined scan it is a part of."""
    whole = {name: scan.record.scan for scan in scans for name in scan.record.parts}
    return [
        replace(scan, part_of=whole[scan.record.scan]) if scan.record.scan in whole else scan
        for scan in scans
    ]


def edited_scans(scan: ScanOutputs) -> tuple[str, ...]:
    """Return the scans whose label maps are corrected in the browser to correct a scan.

    That is the scan itself, the parts of a joined scan, or none.
    """
    if scan.record.parts:
        return tuple(name for name in scan.record.parts if name not in scan.record.aside)
    known = bool(scan.table) or scan.record.region == SPINE
    return (scan.record.scan,) if scan.done and known else ()


def _label_table(output_dir: Path, record: ScanRecord) -> LabelTable | None:
    """Return the label table of a scan, or None where neither region nor model tells it.

    That beside the label map goes before that of the package, which may be another version.
    """
    own = [name for name in record.outputs if name.endswith(name_ending('dseg_tsv'))]
    # A joined scan has no label map of its own.
    name = own[0] if own else dataset_path('lookup', seg=record.seg) if record.seg else None
    if name and record.region != SPINE:
        with suppress(OSError, KeyError, ValueError):
            return read_published_table(output_dir / name, record.region or BODY, record.seg)
    try:
        return None if record.seg else load_label_table(record.region or '')
    except UsageError:
        return None


def segmentations(scans: Iterable[ScanOutputs]) -> dict[str, RatedMap]:
    """Return what ratings can be about, by the name of the scan."""
    return {
        scan.record.scan: RatedMap(scan.segmentation, [row['name'] for row in scan.rows])
        for scan in scans
    }


def read_scan(output_dir: Path, record: ScanRecord) -> ScanOutputs:
    """Read what a run left of one scan, but for what it is a part of."""
    scan = _scan_of(record, record.scan)
    table = _label_table(output_dir, record)
    if record.status != 'done' or table is None:
        # Files of an earlier run may still be there; they are not the result of this one.
        lost = ('The table of its labels is missing or broken, so it has no measures.',)
        return ScanOutputs(record, missing=lost if record.seg and record.status == 'done' else ())
    if record.region == SPINE:
        return _read_spine(output_dir, record, scan)
    try:
        morph = output_dir / derivative_path(scan, 'morph')
        sidecar = output_dir / derivative_path(scan, 'morph_json')
        mapped = [name for name in record.parts if name not in record.aside] or [record.scan]
        labels = [output_dir / derivative_path(_scan_of(record, each), 'dseg') for each in mapped]
        labels_json = output_dir / derivative_path(scan, 'dseg_json')
        iqm = output_dir / derivative_path(scan, 'iqm')
    except (BadDataError, KeyError):
        return ScanOutputs(record, missing=(f'{record.scan} is not the name of a scan.',))
    folder, files, figures = read_figures(output_dir, scan, io_spec()['figures'])
    if not record.processing.get('bias_correction', True):
        for name in ('uncorrected', 'corrected', 'bias'):
            figures.pop(name, None)
    missing: list[str] = []
    rows = _read_table(morph, missing)
    definitions = _read_definitions(sidecar, missing) if rows else {}
    if record.parts:
        # Its pictures are those of the parts.
        dice = {row['name']: number(row.get('dice_predicted', MISSING)) for row in rows}
        known = {name: value for name, value in dice.items() if value is not None}
        return ScanOutputs(
            record, rows, definitions, {}, tuple(missing), known, _digest(*labels), table=table
        )
    if 'segmentation' not in figures:
        name = files['segmentation']
        missing.append(f'{name} is missing, so the segmentation cannot be shown.')
    written = {output.rpartition('/')[2] for output in record.outputs}
    gone = [
        file
        for name, file in files.items()
        if file in written
        and name not in figures
        and name != 'segmentation'
        and not (folder / file).exists()
    ]
    if gone:
        missing.append(f'Pictures that were made are gone: {", ".join(gone)}.')
    quality, flags = _read_quality(iqm)
    alignment = read_alignment(
        output_dir / derivative_path(scan, 'levels'),
        output_dir / derivative_path(scan, 'levels_json'),
    )
    return ScanOutputs(
        record,
        rows,
        definitions,
        figures,
        tuple(missing),
        _read_predicted_dice(labels_json),
        _digest(*labels),
        quality=quality,
        flags=flags,
        alignment=alignment,
        table=table,
    )


def _scan_of(record: ScanRecord, name: str) -> Scan:
    """Return a scan, or a part of it, by its name."""
    parts = (part.partition('-') for part in name.split('_'))
    entities = tuple((key, label) for key, _, label in parts)
    # The suffix of the images is in no name that is asked for here.
    return Scan(entities, 'dseg', record.region, (), seg=record.seg)


def _read_spine(output_dir: Path, record: ScanRecord, scan: Scan) -> ScanOutputs:
    """Read a sagittal scan; its tables are a section of the page of their own."""
    try:
        _, files, figures = read_figures(output_dir, scan, io_spec()['sagittal_figures'])
        labels = [output_dir / derivative_path(scan, key) for key in SPINE_MAPS]
    except BadDataError:
        return ScanOutputs(record, missing=(f'{record.scan} is not the name of a scan.',))
    packed = any(isinstance(each, Packed) for each in figures.values())
    missing = tuple(
        f'{file} is missing.'
        for name, file in files.items()
        if name not in figures and not (packed and name != 'spine')
    )
    table = _spine_table(output_dir, record)
    return ScanOutputs(record, (), {}, figures, missing, {}, _digest(*labels), table=table)


def _spine_table(output_dir: Path, record: ScanRecord) -> LabelTable | None:
    """Return the labels of vertebrae and discs from the tables beside their maps."""
    labels: list[Label] = []
    for name in record.outputs:
        if name.endswith('_dseg.tsv'):
            with suppress(OSError, KeyError, ValueError):
                labels += read_published_table(output_dir / name, SPINE, '')
    return LabelTable(SPINE, tuple(labels)) if labels else None


def _read_table(path: Path, missing: list[str]) -> tuple[Mapping[str, str], ...]:
    columns, rows = _read_filled(path, IDENTITY) or ((), [])
    if rows:
        places = places_of(columns)
        # One copy of names and reasons, which are the same in all scans.
        for place in [places[name] for name in (*IDENTITY, REASON) if name in places]:
            for row in rows:
                row[place] = sys.intern(row[place])
        return tuple(Row(places, tuple(row)) for row in rows)
    missing.append(f'{path.name} is missing or not a muscle table, so there are no measures.')
    return ()


def _read_predicted_dice(path: Path) -> dict[str, float]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))['PredictedDice']
        return {name: float(dice) for name, dice in content.items() if dice is not None}
    except (OSError, *PARSE_ERRORS, KeyError, TypeError, AttributeError):
        return {}


def _read_quality(path: Path) -> tuple[dict[str, float], tuple[str, ...]]:
    """Read the numbers among the image quality figures, and the flags."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        numbers = {
            name: float(value)
            for name, value in content.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        return numbers, tuple(str(flag) for flag in content['flags'])
    except (OSError, *PARSE_ERRORS, KeyError, TypeError, AttributeError):
        return {}, ()


def _digest(*paths: Path) -> str:
    try:
        return hashlib.sha256(b''.join(path.read_bytes() for path in paths)).hexdigest()[:12]
    except OSError:
        return MISSING


@cache
def _shared(text: str) -> Definitions:
    """Return one copy for all scans whose measures are defined alike."""
    content = json.loads(text)
    return {key: value for key, value in content.items() if isinstance(value, dict)}


def _read_definitions(path: Path, missing: list[str]) -> Definitions:
    try:
        return _shared(path.read_text(encoding='utf-8'))
    except (OSError, *PARSE_ERRORS, AttributeError):
        missing.append(f'{path.name} is missing or broken, so the measures are not defined here.')
        return {}
