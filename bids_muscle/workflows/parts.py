"""Parts of one body joined: one table of muscles over all of them, beside those of the parts."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from bids_muscle.dataset import sidecars
from bids_muscle.dataset.names import derivative_path, joined_outputs
from bids_muscle.dataset.participants import height_m
from bids_muscle.dataset.parts import PartSet, check_places, find_part_sets
from bids_muscle.dataset.provenance import own_uri, source_uris
from bids_muscle.dataset.records import (
    ScanRecord,
    read_records,
    remove_aside,
    set_record_aside,
    write_record,
)
from bids_muscle.dataset.scan import DIXON, Contrast, Scan
from bids_muscle.dataset.sessions import read_person
from bids_muscle.dataset.writer import read_tsv, write_json, write_tsv
from bids_muscle.errors import IncompleteScanError, Problem, problem_of
from bids_muscle.imaging.dixon import FatSource
from bids_muscle.segmentation.quality import LEAST_PART, UNUSABLE_DICE
from bids_muscle.tables import name_some
from bids_muscle.workflows.records import remove_stale
from bids_muscle.workflows.resume import remove_page

if TYPE_CHECKING:
    import pandas as pd
    from nibabel import Nifti1Image

    from bids_muscle.anatomy.labels import LabelTable
    from bids_muscle.measurement.images import ScanImages
    from bids_muscle.measurement.parts import Joined, Part
    from bids_muscle.segmentation.bundle import ModelBundle
    from bids_muscle.settings import Settings


def join_scans(
    settings: Settings,
    participant: str,
    scans: Sequence[Scan],
    models: Mapping[str, ModelBundle],
    set_aside: Mapping[str, ScanRecord] = MappingProxyType({}),
) -> list[Problem]:
    """Join the parts among the scans of a participant, unless an earlier run has done it.

    Each joined scan has a record of its own. Where a part failed, or the parts cannot be put
    together, it says why. With the minimal outputs none is joined, as images and tables are
    missing; a joined scan of an earlier run stays while its parts are the same.

    Parameters
    ----------
    settings
        The settings of the run.
    participant
        Label without ``sub-``.
    scans
        All scans of the participant, with their records written.
    models
        Model by region.
    set_aside
        Records of the earlier run, by name, that this one has taken away.

    Returns
    -------
    list of Problem
        What went wrong with other things than a part.
    """
    problems = []
    records = {record.scan: record for record in read_records(settings.output_dir, participant)}
    part_sets = find_part_sets(scans)
    _remove_others(settings, participant, records.values(), scans, part_sets)
    known = {**set_aside, **records}
    for parts in part_sets:
        members = [records[scan.name] for scan in parts.members if scan.name in records]
        if not members:
            continue
        if (whole := known.get(parts.scan.name)) and (
            left_out := set(whole.parts).intersection(records).difference(s.name for s in scans)
        ):
            if whole.scan not in records:
                _say_incomplete(settings, parts, whole, left_out)
            continue
        state = _fingerprint(members)
        earlier = records.get(parts.scan.name)
        if earlier and earlier.fingerprint == state and _is_finished(settings, earlier):
            continue
        if settings.output_level == 'minimal':
            if earlier:
                _remove(settings, participant, earlier)
                print(
                    f'bids_muscle: {earlier.scan} of an earlier run is removed: its parts have '
                    'changed. To join them again, run without --output-level minimal.',
                    file=sys.stderr,
                )
            continue
        remove_page(settings.output_dir, participant)
        record = _describe(parts, members, state)
        try:
            used, problem = _choose(parts, records)
            own = problem or check_places(used)
            problems += [] if problem or not own else [own]
            if own is None:
                labels = models[parts.scan.region or ''].labels
                warnings, outputs = _measure(settings, parts, used, record.model, labels)
                record = replace(
                    record,
                    warnings=tuple(warnings),
                    outputs=tuple(outputs),
                    aside=tuple(scan.name for scan in parts.members if scan not in used),
                )
        except Exception as error:
            own = problem_of(error, f'Joining the parts of {parts.scan.name}')
            problems.append(own)
        if own:
            record = replace(record, status='failed', problem=own)
            print(f'bids_muscle: {record.scan} failed. {own}', file=sys.stderr)
        write_record(record, parts.scan, settings.output_dir)
        remove_aside(record, settings.output_dir)
    return problems


def _remove_others(
    settings: Settings,
    participant: str,
    records: Iterable[ScanRecord],
    scans: Sequence[Scan],
    part_sets: Sequence[PartSet],
) -> None:
    """Remove joined scans that are none any more, as a further scan came to their parts."""
    # A scan out of reach does not say where it lies.
    there = {scan.name for scan in scans if scan.problem is None}
    joined = {parts.scan.name for parts in part_sets}
    for record in records:
        if record.parts and there.issuperset(record.parts) and record.scan not in joined:
            _remove(settings, participant, record)


def _remove(settings: Settings, participant: str, record: ScanRecord) -> None:
    """Remove a joined scan."""
    remove_page(settings.output_dir, participant)
    set_record_aside(record, settings.output_dir)
    remove_stale(settings, participant, [record], [])
    remove_aside(record, settings.output_dir)


def _say_incomplete(
    settings: Settings, parts: PartSet, whole: ScanRecord, left_out: Collection[str]
) -> None:
    """Say of a joined scan, some parts of which ran again, that this run left others out."""
    problem = IncompleteScanError(
        f'The parts are not joined: this run leaves out {name_some(sorted(left_out))}.',
        'Run again without --bids-filter-file.',
    ).problem
    record = replace(whole, status='failed', problem=problem, outputs=(), warnings=(), light='')
    print(f'bids_muscle: {record.scan} failed. {problem}', file=sys.stderr)
    write_record(record, parts.scan, settings.output_dir)


def _is_finished(settings: Settings, record: ScanRecord) -> bool:
    return record.status == 'done' and all(
        (settings.output_dir / name).is_file() for name in record.outputs
    )


def _fingerprint(members: Sequence[ScanRecord]) -> str:
    """Return the SHA-256 (hex) of all that decides what a joined scan is."""
    state = [
        {key: value for key, value in record.as_dict().items() if key not in ('light', 'steps')}
        for record in members
    ]
    return hashlib.sha256(json.dumps(state, sort_keys=True, default=dict).encode()).hexdigest()


def _describe(parts: PartSet, members: Sequence[ScanRecord], fingerprint: str) -> ScanRecord:
    """Return the record of a joined scan, as if nothing went wrong."""
    first = next((record for record in members if record.status == 'done'), members[0])
    manual = any(record.processing.get('manual') for record in members)
    return replace(
        first,
        scan=parts.scan.name,
        status='done',
        problem=None,
        parts=tuple(scan.name for scan in parts.members),
        left_out='',
        warnings=(),
        outputs=(),
        light='',
        steps=(),
        processing={**first.processing, 'manual': manual},
        fingerprint=fingerprint,
    )


def _choose(
    parts: PartSet, records: Mapping[str, ScanRecord]
) -> tuple[list[Scan], Problem | None]:
    """Return the first finished scan at each place, or why there is none."""
    used = []
    for place in parts.places:
        done = [scan for scan in place if scan.name in records]
        done = [scan for scan in done if records[scan.name].status == 'done']
        if not done:
            names = ' and '.join(scan.name for scan in place)
            return [], IncompleteScanError(
                f'The parts are not joined: {names} failed.',
                'See the problem of this part, and run again.',
            ).problem
        used.append(done[0])
    return used, None


def _measure(
    settings: Settings,
    parts: PartSet,
    used: Sequence[Scan],
    model: Mapping[str, str],
    labels: LabelTable,
) -> tuple[list[str], list[str]]:
    """Measure parts as one and write the tables; return warnings, and the files written."""
    from bids_muscle.measurement.extent import implausible_extents
    from bids_muscle.measurement.outlines import add_predicted_dice
    from bids_muscle.measurement.parts import join_parts
    from bids_muscle.measurement.rows import NO_CLASS, morph_dictionary
    from bids_muscle.measurement.table import measure_scan

    read = [_read(settings, scan) for scan in used]
    if len({frozenset(part.part.signals) for part in read}) > 1:
        raise IncompleteScanError(
            f'The parts of {parts.scan.name} differ in their contrasts: one has images that '
            'another does not have.',
            'Leave such images out with --bids-filter-file.',
        )
    joined = join_parts([part.part for part in read])
    first = used[0]
    tables = [_table(settings, scan, 'morph') for scan in used]
    unlabelled = set.intersection(
        *(set(table.loc[table['reason'] == NO_CLASS, 'index'].astype(int)) for table in tables)
    )
    measures = measure_scan(
        joined.labels,
        labels,
        _images(first, joined, read),
        levels=joined.levels,
        fat_method=settings.fat_method,
        height_m=height_m(read_person(settings.bids_dir, first.participant, first.session)),
        covered=joined.covered,
        unlabelled=unlabelled,
    )
    dice = _predicted_of_parts(used, tables, measures.muscles)
    add_predicted_dice(measures.muscles, _predicted_dice(tables), dice)
    if not all(_counts_swaps(table) for table in tables):
        measures.muscles['mfi_swapped_voxels'] = np.nan
    sources = [path for part in read for path in part.sources]
    made = {
        'morph': measures.muscles,
        'morph_slices': measures.slices,
        'morph_levels': measures.levels,
    }
    for name, table in made.items():
        write_tsv(table, settings.output_dir / derivative_path(parts.scan, name))
        columns = morph_dictionary(name)
        content = sidecars.joined_sidecar(used, sources, columns, model, settings.science())
        write_json(content, settings.output_dir / derivative_path(parts.scan, f'{name}_json'))
    warnings = [
        *_warnings(parts, used, joined),
        *_bad_outlines(dice),
        *implausible_extents(measures.muscles),
    ]
    return warnings, [str(path) for path in joined_outputs(parts.scan)]


def _images(scan: Scan, joined: Joined, read: Sequence[_Read]) -> ScanImages:
    """Return what is measured in joined parts, of which `scan` is one."""
    from bids_muscle.measurement.images import ScanImages

    images = joined.signals
    masks = {name: images[name] for name in ('swap', 'body') if name in images}
    shown = scan.images[0].contrast
    return ScanImages(
        contrast='dixon' if shown in DIXON else str(shown),
        water=images.get('water'),
        fat=images.get('fat'),
        fat_fraction=images.get('fat fraction'),
        intensity=images.get('intensity'),
        clipped=max(part.clipped for part in read),
        bounded=any(part.bounded for part in read),
        fat_suppressed=scan.fat_suppressed,
        fat_doubt=next((part.fat_doubt for part in read if part.fat_doubt), ''),
        **{name: np.asarray(mask.dataobj) > 0 for name, mask in masks.items()},
    )


@dataclass(frozen=True)
class _Read:
    """A part as it is measured, where it comes from, and what limits its fat."""

    part: Part
    sources: list[str]
    bounded: bool
    fat_doubt: str
    clipped: float


def _read(settings: Settings, scan: Scan) -> _Read:
    """Read a part: its raw images as the scan itself was measured by, and what was published."""
    import nibabel as nib

    from bids_muscle.imaging.conform import load_image, to_canonical
    from bids_muscle.imaging.levels import read_levels
    from bids_muscle.imaging.prepare import prepare_scan
    from bids_muscle.imaging.quality import clipped_fraction
    from bids_muscle.measurement.methods import BRIGHT_FAT
    from bids_muscle.measurement.parts import Part

    sources = source_uris(scan, settings.bids_dir)

    def published(key: str, contrast: Contrast | None = None) -> Nifti1Image:
        path = derivative_path(scan, key, contrast=contrast)
        sources.append(own_uri(path))
        return to_canonical(nib.Nifti1Image.from_filename(settings.output_dir / path))

    # Found in the image without bias field: those that a person sees, and that were swapped back.
    swap = published('swap_mask') if scan.fat_source is FatSource.WATER_AND_FAT else None
    prepared = prepare_scan(
        {str(contrast): load_image(path) for contrast, path in scan.paths.items()},
        echoes=[load_image(path) for path in scan.echoes],
        echo_train=scan.echo_train,
        bias_correction=False,
        fix_swaps=settings.fix_swaps,
        known_swaps=swap,
        fat_doubt=scan.fat_doubt,
    )
    labels = published('dseg')
    signals: dict[str, Nifti1Image] = {}
    clipped = 0.0
    if {'water', 'fat'} <= set(prepared.images):
        signals = {name: prepared.images[name] for name in ('water', 'fat')}
    if prepared.fat_fraction:
        signals['fat fraction'] = prepared.fat_fraction
    if swap and not settings.fix_swaps:
        signals['swap'] = swap
    for contrast in set(scan.paths) & set(BRIGHT_FAT):
        signals['intensity'] = published('preproc', Contrast(contrast))
        signals['body'] = prepared.body_mask
        raw = np.asarray(prepared.images[str(contrast)].dataobj)
        clipped = clipped_fraction(raw, np.asarray(prepared.body_mask.dataobj) > 0)
    levels = read_levels(settings.output_dir / derivative_path(scan, 'levels'))
    return _Read(
        Part(labels, signals, levels),
        sources,
        prepared.bounded,
        prepared.fat_doubt,
        clipped,
    )


def _table(settings: Settings, scan: Scan, key: str) -> pd.DataFrame:
    return read_tsv(settings.output_dir / derivative_path(scan, key))


def _counts_swaps(muscles: pd.DataFrame) -> bool:
    """Return whether swaps were searched in a part: their voxels are missing otherwise."""
    return bool(muscles['mfi_swapped_voxels'].notna().any() or not muscles['n_voxels'].any())


def _predicted_dice(parts: Sequence[pd.DataFrame]) -> dict[str, float]:
    """Return the mean of what is predicted of the parts, by their voxels, by name of the label.

    Missing where it is not known of a part that has the muscle.
    """
    import pandas as pd

    columns = ['name', 'n_voxels', 'dice_predicted']
    rows = pd.concat([part.reindex(columns=columns) for part in parts])
    rows[columns[1:]] = rows[columns[1:]].apply(pd.to_numeric, errors='coerce')
    rows = rows[rows['n_voxels'] > 0]
    weighted = (
        (rows['dice_predicted'] * rows['n_voxels'])
        .groupby(rows['name'])
        .agg(lambda values: values.sum(skipna=False))
    )
    mean = weighted / rows.groupby('name')['n_voxels'].sum()
    return {str(name): float(value) for name, value in mean.items()}


def _predicted_of_parts(
    used: Sequence[Scan], tables: Sequence[pd.DataFrame], whole: pd.DataFrame
) -> dict[str, dict[str, float]]:
    """Return what is predicted of each part, of muscles of which it has not only a small end."""
    import pandas as pd

    least_ml = LEAST_PART * whole.set_index('name')['volume_ml'].fillna(0)
    found = {}
    for scan, table in zip(used, tables, strict=True):
        ml = pd.to_numeric(table.set_index('name')['volume_ml'], errors='coerce')
        enough = ml.reindex(least_ml.index).fillna(0) >= least_ml
        dice = _predicted_dice([table])
        found[scan.name] = {name: value for name, value in dice.items() if enough.get(name)}
    return found


def _bad_outlines(dice: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Name the muscles of each part whose outline there is not to be used."""
    for scan, each in dice.items():
        if low := [name for name, value in each.items() if value < UNUSABLE_DICE]:
            yield (
                f'The outlines of {name_some(low)} in {scan} are likely to be wrong, so these '
                'muscles do not count in the joined scan either. Correct the map of this part.'
            )


def _warnings(parts: PartSet, used: Sequence[Scan], joined: Joined) -> list[str]:
    found = list(joined.warnings)
    if joined.gap_mm:
        found.append(
            f'{joined.gap_mm:.0f} mm between the parts were not imaged. No volume includes this '
            'gap.'
        )
    if aside := [scan.name for scan in parts.members if scan not in used]:
        found.append(f'{" and ".join(aside)} repeats a part and is not joined.')
    return found
