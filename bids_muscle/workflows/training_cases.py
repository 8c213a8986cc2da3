"""What a recipe learns from: the label maps of its sources, each with its images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_muscle.anatomy.labels import SPINE, load_label_table
from bids_muscle.dataset.discovery import find_scans
from bids_muscle.dataset.folders import list_participants
from bids_muscle.dataset.label_maps import (
    MOST_APART,
    LabelMap,
    candidate_scans,
    find_label_maps,
    read_lookup,
    sides_exchanged,
    translated,
)
from bids_muscle.dataset.scan import Contrast, Scan
from bids_muscle.errors import BadDataError, MissingInputError, UsageError
from bids_muscle.imaging.conform import load_image, to_canonical, voxel_sizes
from bids_muscle.imaging.correction import whole_numbers
from bids_muscle.segmentation.training.recipe import Recipe, Source
from bids_muscle.segmentation.training.sources import TrainingCase, find_cases, ras_affine
from bids_muscle.tables import name_some


def find_all_cases(
    recipe: Recipe,
    data: Sequence[Path],
    labels: Path | None = None,
    report: Callable[[str], None] = print,
) -> list[TrainingCase]:
    """Find the label maps and images of all sources of a recipe; each has its share as weight.

    Parameters
    ----------
    recipe
        The recipe.
    data
        Folders that hold the sources; BIDS datasets for sources of kind ``'bids'``.
    labels
        Derivatives dataset that sources of kind ``'bids'`` take their label maps from; None for
        all in the ``derivatives`` of `data`.
    report
        Receives how many label maps the recipe cannot use, and why.

    Raises
    ------
    MissingInputError, BadDataError
        If a source is missing or lacks what the recipe asks for.
    """
    cases = []
    for source in recipe.sources:
        found = (
            _bids_cases(source, recipe, data, labels, report)
            if source.kind == 'bids'
            else [replace(case, names=_names(case)) for case in find_cases(source, data)]
        )
        share = source.weight / len(found)
        cases += [replace(case, source=replace(case.source, weight=share)) for case in found]
    return cases


def _names(case: TrainingCase) -> dict[int, str]:
    person = next((p for p in case.labels.parents if p.name.startswith('sub-')), None)
    return read_lookup(case.labels, person.parent) if person else {}


def _bids_cases(
    source: Source,
    recipe: Recipe,
    data: Sequence[Path],
    labels: Path | None,
    report: Callable[[str], None],
) -> list[TrainingCase]:
    """Every ``seg-<seg>_dseg`` with the scans of all datasets and the labels that it has."""
    names = [root.absolute().name for root in data]
    if len(set(names)) < len(names):
        raise UsageError(
            f'Two --data folders have the same name: {", ".join(map(str, data))}.',
            'Rename one of them; participants are identified by dataset name and participant '
            'label.',
        )
    cases, unfit = [], Counter[str]()
    nameless: dict[str, list[int]] = {}
    apart_mm: dict[str, float] = {}
    for root, label_map, scans in _maps_with_scans(source, recipe, data, labels):
        images = [(scan, _unfit(recipe, scan)) for scan in scans]
        fitting = [scan for scan, why in images if not why]
        if fitting:
            own, unnamed = _known(source, recipe, label_map)
            nameless |= {label_map.path.name: unnamed} if unnamed else {}
            drawn_on = [_bids_case(own, recipe, label_map, scan, root) for scan in fitting]
            if apart := max(map(_apart_mm, drawn_on)):
                apart_mm[label_map.path.name] = apart
            cases += drawn_on
        else:
            unfit[images[0][1]] += 1
    for why, count in sorted(unfit.items()):
        report(f'{count} label maps of the source {source.name} are not used: {why}')
    _report_doubts(source, nameless, apart_mm, report)
    if labels:
        known = {participant for root in data for participant in list_participants(root)}
        drawn = {
            label_map.entities.get('sub', '') for label_map in find_label_maps(labels, source.seg)
        }
        if strangers := sorted(drawn - known):
            report(
                f'{len(strangers)} participants of {labels} are not used: no --data has '
                f'{", ".join(f"sub-{name}" for name in strangers[:3])}'
                f'{" ..." if len(strangers) > 3 else ""}'
            )
    where = str(labels) if labels else f'the derivatives of {" or ".join(map(str, data))}'
    if not cases and unfit:
        raise BadDataError(
            f'No label map seg-{source.seg}_dseg in {where} is of a scan for the recipe '
            f'{recipe.name}: {"; ".join(sorted(unfit))}.',
            f'Use a recipe with other channels, or exclude the source with --exclude '
            f'{source.name}.',
        )
    if not cases:
        raise MissingInputError(
            f'The label maps seg-{source.seg}_dseg of the source {source.name} are missing from '
            f'{where}.',
            f'Give the right --data folder, or exclude the source with --exclude {source.name}.',
        )
    return cases


def _report_doubts(
    source: Source,
    nameless: Mapping[str, Sequence[int]],
    apart_mm: Mapping[str, float],
    report: Callable[[str], None],
) -> None:
    """Say which label maps are used although something about them may be wrong."""
    if nameless:
        numbers = sorted({number for each in nameless.values() for number in each})
        report(
            f'{len(nameless)} label maps of the source {source.name} have numbers that their '
            f'lookup table does not name: {name_some(map(str, numbers))} (first in '
            f'{next(iter(nameless))}). They count as background.'
        )
    if apart_mm:
        farthest = max(apart_mm, key=lambda name: apart_mm[name])
        report(
            f'{len(apart_mm)} label maps of the source {source.name} lie beside their images, as '
            f'the headers tell, up to {apart_mm[farthest]:.1f} mm ({farthest}). They are used '
            'voxel by voxel; check that they fit.'
        )


def _maps_with_scans(
    source: Source, recipe: Recipe, data: Sequence[Path], labels: Path | None
) -> Iterator[tuple[Path, LabelMap, list[Scan]]]:
    """Yield the dataset, the label map and the scans that it lies on.

    Raises
    ------
    UsageError
        If a participant of `labels` is in several datasets, none of which `labels` is a part of.
    """
    region = None if recipe.region == SPINE else recipe.region
    within = Counter(person for root in data for person in list_participants(root))
    home = [root for root in data if labels and labels.absolute().is_relative_to(root.absolute())]
    for root in data:
        people = list_participants(root)
        scans: dict[str, list[Scan]] = {}
        folders = [labels] if labels else sorted((root / 'derivatives').glob('*/'))
        for label_map in (each for d in folders for each in find_label_maps(d, source.seg)):
            participant = label_map.entities.get('sub', '')
            if labels and participant not in people:
                continue  # of another of the datasets
            if labels and within[participant] > 1 and root not in home:
                if home:
                    continue
                raise UsageError(
                    f'sub-{participant} is in several --data folders, and {label_map.path} does '
                    'not say in which it was drawn.',
                    'Put the label maps into the derivatives folder of their dataset, and omit '
                    '--labels.',
                )
            if participant in people and participant not in scans:
                scans[participant] = find_scans(root, participant, region=region)
            fitting = candidate_scans(label_map, scans.get(participant, ()))
            if not fitting:
                raise MissingInputError(
                    f'The image of the label map {label_map.path} is missing in {root}: no '
                    'image has the same entities and grid.',
                    'Rename the map after its scan, or correct its grid.',
                )
            yield root, label_map, fitting


def _apart_mm(case: TrainingCase) -> float:
    """Return how far a label map lies from its image, 0 for next to nothing."""
    mine, its = (
        ras_affine(nib.load(path))  # type: ignore[arg-type]
        for path in (case.labels, next(iter(case.images.values())))
    )
    apart = float(np.linalg.norm(mine[:3, 3] - its[:3, 3]))
    return apart if apart > MOST_APART * voxel_sizes(its).min() else 0.0


def _known(source: Source, recipe: Recipe, label_map: LabelMap) -> tuple[Source, list[int]]:
    """Return the source with the classes of the network that this map has.

    And the numbers in the map that its lookup table does not name.
    """
    table = load_label_table(recipe.region)
    classes = classes_of(recipe)
    codes = {
        code: classes[number]
        for code, number in label_map.codes(table).items()
        if number in classes
    }
    if not codes:
        raise BadDataError(
            f'The label map {label_map.path} contains no label of the recipe {recipe.name}: the '
            f'names in its lookup table are {", ".join(label_map.names.values())}.',
            f'Use the names of {table.region}.tsv, or another recipe.',
        )
    image = to_canonical(load_image(label_map.path, may_be_empty=True))
    numbers = whole_numbers(image, label_map.path)
    if sides_exchanged(translated(numbers, label_map.codes(table)), table):
        raise BadDataError(
            f'The label map {label_map.path} has its sides exchanged: all muscles that its lookup '
            'table calls right lie left of those that it calls left, as its header tells.',
            'Correct the lookup table, or the header of the map and of its image.',
        )
    drawn = codes if source.all_slices else codes.keys() & set(np.unique(numbers).tolist())
    if not drawn:
        raise BadDataError(
            f'The label map {label_map.path} is empty: it contains none of the '
            f'numbers {", ".join(map(str, codes))} of its lookup table.',
            'Segment the muscles, remove the map, or correct the lookup table.',
        )
    unnamed = set(label_map.unnamed(numbers, table)) - {*source.unknown, *source.tissues}
    # A muscle that nobody outlined in this map is not background: it is not asked for.
    own = replace(
        source,
        labels=label_map.path.name,
        codes=codes,
        annotated=tuple(sorted({codes[code] for code in drawn})),
    )
    return own, sorted(unnamed)


def classes_of(recipe: Recipe) -> dict[int, int]:
    """Return the class of the network for each number of the label table that it has one for."""
    numbers = recipe.numbers or range(int(recipe.network['out_channels']))
    return {number: k for k, number in enumerate(numbers) if number}


def describe_cases(recipe: Recipe, cases: Sequence[TrainingCase]) -> str:
    """Count the label maps of each muscle for which the network has a class."""
    table = load_label_table(recipe.region)
    parts = [
        f'{table.by_index[number].name} {sum(k in case.source.annotated for case in cases)}'
        for number, k in classes_of(recipe).items()
    ]
    return f'{len(cases)} label maps; with {", ".join(parts)}'


def _wanted(recipe: Recipe, scan: Scan) -> list[str]:
    """Return the contrasts that the network is shown; nothing where the scan has no anatomy."""
    names = [str(contrast) for contrast in scan.paths]
    if recipe.channels != ('any',):
        return [name for name in recipe.channels if name in list(Contrast)]
    if {'water', 'fat'} <= set(names):
        return ['water', 'fat']
    # Any one image shows the anatomy; a fat fraction has no air around the body.
    return [name for name in names if name != Contrast.FAT_FRACTION][:1]


def _unfit(recipe: Recipe, scan: Scan) -> str:
    """Return why a scan cannot be used by a recipe, or nothing."""
    wanted = _wanted(recipe, scan)
    missing = [name for name in wanted if name not in scan.paths]
    if missing or not wanted:
        return f'the scan has no {" and no ".join(missing) or "anatomical"} image'
    if (recipe.region == SPINE) != (scan.region == SPINE):
        return f'the recipe is for {recipe.plane} scans'
    return ''


def _bids_case(
    source: Source, recipe: Recipe, label_map: LabelMap, scan: Scan, root: Path
) -> TrainingCase:
    images = {str(contrast): path for contrast, path in scan.paths.items()}
    shown = _wanted(recipe, scan)
    return TrainingCase(
        source,
        label_map.path,
        {name: images[name] for name in shown},
        f'{root.absolute().name}/sub-{scan.participant}',
        label_map.names,
        {name: images[name] for name in ('water', 'fat') if name in images.keys() - set(shown)},
    )
