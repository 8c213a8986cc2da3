"""The papers whose experiments can be repeated, and the label maps that these need."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.anatomy.levels import disc_of, level_of
from bids_muscle.dataset.label_maps import LabelMap, find_label_maps, translated
from bids_muscle.dataset.names import anat_path
from bids_muscle.dataset.planes import is_sagittal
from bids_muscle.dataset.writer import BIDS_VERSION, write_image, write_json, write_tsv
from bids_muscle.errors import MissingInputError
from bids_muscle.imaging.conform import load_image, read_grid, to_canonical, to_native
from bids_muscle.imaging.correction import whole_numbers
from bids_muscle.workflows.paper_slices import write_slices

#: Number of the first disc in the label maps of discs; vertebrae begin with 1.
FIRST_DISC = 101


@dataclass(frozen=True)
class Labels:
    """Label maps of one kind that an experiment learns from.

    Parameters
    ----------
    seg
        Their ``seg`` entity.
    kind
        ``'muscles'``, ``'vertebrae'``, ``'discs'``, or ``'slices'`` of all of these in the space
        of an atlas.
    muscles
        Abbreviations of the muscles that the paper has, left and right.
    within_levels
        Whether each muscle is cut to the vertebral levels of the label table (Weber 2021, Table
        1).
    """

    seg: str
    kind: str
    muscles: tuple[str, ...] = ()
    within_levels: bool = False


@dataclass(frozen=True)
class Paper:
    """An experiment: what it learns from, its arms, and what the paper prints.

    Parameters
    ----------
    name, title, region
        ``'weber2021'``, the reference, and the region of its muscles.
    labels
        Label maps.
    design
        ``folds``, or ``split`` and perhaps ``shared_test``; see
        :class:`~bids_muscle.workflows.training.TrainingRun`.
    arms
        Trainings: ``name``, ``recipe``, ``seg`` of its labels and, where several make one set of
        predictions, ``into``.
    scales
        Changes to recipes, and the simulated people, by scale.
    comparisons, tables, figures
        What is compared, and what is shown beside the paper; see data/papers.
    statistics
        Name of the statistics of the cohort, see
        :data:`~bids_muscle.workflows.paper_statistics.STATISTICS`; empty for none.
    loads
        Whether the loads on the lumbar spine are computed from both label maps.
    remarks
        What the page says about the experiment.
    """

    name: str
    title: str
    region: str
    labels: tuple[Labels, ...]
    design: Mapping[str, Any]
    arms: tuple[Mapping[str, str], ...]
    scales: Mapping[str, Mapping[str, Any]]
    tables: tuple[Mapping[str, Any], ...]
    figures: tuple[Mapping[str, str], ...] = ()
    comparisons: tuple[Mapping[str, Any], ...] = ()
    statistics: str = ''
    loads: bool = False
    remarks: tuple[str, ...] = ()


def read_paper(name: str) -> Paper:
    """Read the description of an experiment from the package."""
    path = resources.files('bids_muscle') / f'data/papers/{name}.toml'
    content = tomllib.loads(path.read_text(encoding='utf-8'))
    labels = tuple(
        Labels(**{**each, 'muscles': tuple(each.get('muscles', ()))})
        for each in content.pop('labels')
    )
    lists = {key: tuple(value) for key, value in content.items() if isinstance(value, list)}
    return Paper(**{**content, **lists, 'name': name, 'labels': labels})


@dataclass(frozen=True)
class PreparedData:
    """What the trainings of an experiment are given.

    Parameters
    ----------
    data
        BIDS dataset with the images.
    labels
        Derivatives dataset with the label maps.
    lacking
        Why each ``seg`` that is not there is not.
    remarks
        Sentences about how the label maps were made.
    """

    data: Path
    labels: Path
    lacking: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def prepare(
    paper: Paper, data: Path, output: Path, report: Callable[[str], None] = print
) -> PreparedData:
    """Make the label maps that the recipes of a paper learn from.

    Parameters
    ----------
    paper
        The experiment.
    data
        BIDS dataset with label maps of muscles, vertebrae or discs in its derivatives, whose
        lookup tables name them.
    output
        Folder. For slices in the space of an atlas it becomes a BIDS dataset of its own, with
        their label maps in ``derivatives/reference``; else it is the derivatives dataset.
    report
        Receives progress lines.

    Raises
    ------
    MissingInputError
        If nothing that the paper needs is there.
    """
    maps = [
        label_map
        for folder in sorted((data / 'derivatives').glob('*/'))
        for label_map in find_label_maps(folder)
    ]
    slices = any(labels.kind == 'slices' for labels in paper.labels)
    target = output / 'derivatives/reference' if slices else output
    lacking: dict[str, str] = {}
    remarks: list[str] = []
    for labels in paper.labels:
        if labels.kind == 'slices':
            count, said = write_slices(data, maps, labels.seg, labels.muscles, output, report)
        elif labels.kind == 'muscles':
            count, said = _write_muscles(maps, labels, paper.region, target)
        else:
            count, said = _write_spines(maps, labels, target)
        report(f'{count} label maps seg-{labels.seg}')
        remarks += said
        if not count:
            lacking[labels.seg] = _what(labels, paper.region)
    if len(lacking) == len(paper.labels):
        raise MissingInputError(
            f'The derivatives of {data} have no label map of {" or of ".join(lacking.values())}.',
            'Add label maps whose lookup tables name them, see docs/reproduce.md, or omit --data '
            'for simulated people.',
        )
    describe_maps(target, f'Label maps for {paper.name}', 'prepare')
    return PreparedData(output if slices else data, target, lacking, tuple(remarks))


def describe_maps(folder: Path, name: str, command: str) -> None:
    """Write the description of a derivatives dataset that a command of bids_muscle-model made."""
    description = {
        'Name': name,
        'BIDSVersion': BIDS_VERSION,
        'DatasetType': 'derivative',
        'GeneratedBy': [{'Name': f'bids_muscle-model {command}'}],
    }
    write_json(description, folder / 'dataset_description.json')


def _what(labels: Labels, region: str) -> str:
    """Return what label maps of a kind show, in words."""
    if labels.kind == 'muscles':
        return f'{", ".join(labels.muscles)} ({region} muscles, left and right)'
    if labels.kind == 'slices':
        return f'{", ".join(labels.muscles)}, vertebrae and discs on axial T2w scans'
    return {
        'vertebrae': 'single vertebrae (names such as L4) on sagittal scans',
        'discs': 'single discs (names such as L4-L5) on sagittal scans',
    }[labels.kind]


def _one_per_scan(maps: Sequence[LabelMap]) -> Iterator[LabelMap]:
    seen = set()
    for label_map in maps:
        key = frozenset(label_map.scan_entities.items())
        if key not in seen:
            seen.add(key)
            yield label_map


def _target(label_map: LabelMap, seg: str, output: Path) -> Path:
    return output / anat_path(label_map.scan_entities, f'seg-{seg}_dseg.nii.gz')


def _write_muscles(
    maps: Sequence[LabelMap], labels: Labels, region: str, output: Path
) -> tuple[int, list[str]]:
    """Write the maps of muscles in the numbers of the label table."""
    table = load_label_table(region)
    wanted = {label.index for label in table if label.abbreviation in labels.muscles}
    usable = [m for m in maps if m.names and not is_sagittal(read_grid(m.path))]
    usable = [m for m in usable if wanted & set(m.codes(table).values())]
    there: set[int] = set()
    uncut = 0
    chosen = list(_one_per_scan(usable))
    for label_map in chosen:
        native = load_image(label_map.path)
        image = to_canonical(native)
        codes = whole_numbers(image, label_map.path)
        kept = {k: number for k, number in label_map.codes(table).items() if number in wanted}
        numbers = translated(codes, kept).astype(np.uint8)
        if labels.within_levels:
            spine = _spine_of(label_map, maps)
            uncut += spine is None
            numbers = (
                numbers if spine is None else within_levels(numbers, image.affine, spine, region)
            )
        there |= set(np.unique(numbers).tolist())
        out = to_native(nib.Nifti1Image(numbers, image.affine), native)
        write_image(out, _target(label_map, labels.seg, output))
    lookup = [
        {'index': label.index, 'name': label.name} for label in table if label.index in wanted
    ]
    remarks = []
    if chosen:
        write_tsv(lookup, output / f'seg-{labels.seg}_dseg.tsv')
        absent = [label.name for label in table if label.index in wanted - there]
        if absent:
            remarks.append(
                f'No label map has {", ".join(absent)}. All tables are made without them.'
            )
    if uncut:
        remarks.append(
            f'{uncut} of {len(chosen)} label maps are used as they are: no label map of vertebrae '
            'of the same scan says which slices lie at the levels of each muscle.'
        )
    return len(chosen), remarks


def _spine_of(label_map: LabelMap, maps: Sequence[LabelMap]) -> LabelMap | None:
    """Return a map of named vertebrae of the same scan."""
    scan = label_map.scan_entities
    return next(
        (
            other
            for other in maps
            if other.scan_entities == scan and any(map(level_of, other.names.values()))
        ),
        None,
    )


def within_levels(
    labels: np.ndarray, affine: np.ndarray, spine: LabelMap, region: str
) -> np.ndarray:
    """Cut each muscle to the vertebral levels that the label table gives it.

    Parameters
    ----------
    labels
        (X, Y, Z) numbers of the label table, in RAS+ order.
    affine
        (4, 4) voxel index to RAS+ mm.
    spine
        Map of named vertebrae of the same scan.
    region
        Of the label table.

    Returns
    -------
    numpy.ndarray
        (X, Y, Z), 0 where a muscle lies above or below its levels.
    """
    from bids_muscle.imaging.levels import drawn_shares, likeliest

    n_slices = labels.shape[2]
    shares, _ = drawn_shares(load_image(spine.path), spine.names, affine, n_slices)
    levels = likeliest(shares, n_slices, 'segmentation')
    out = labels.copy()
    for label in load_label_table(region):
        side = levels.beside(*label.levels) if label.levels else None
        if side is not None:
            beyond = out[:, :, side != 0]
            beyond[beyond == label.index] = 0
            out[:, :, side != 0] = beyond
    return out


def _write_spines(maps: Sequence[LabelMap], labels: Labels, output: Path) -> tuple[int, list[str]]:
    """Write maps of single vertebrae or discs of sagittal scans, numbered from the top."""
    name_of = level_of if labels.kind == 'vertebrae' else disc_of
    usable = [
        label_map
        for label_map in maps
        if any(map(name_of, label_map.names.values())) and is_sagittal(read_grid(label_map.path))
    ]
    names = sorted({name for m in usable for text in m.names.values() if (name := name_of(text))})
    first = 1 if labels.kind == 'vertebrae' else FIRST_DISC
    numbers = {name: first + k for k, name in enumerate(names)}
    chosen = list(_one_per_scan(usable))
    for label_map in chosen:
        image = load_image(label_map.path)
        codes = whole_numbers(image, label_map.path)
        kept = {k: numbers[name] for k, text in label_map.names.items() if (name := name_of(text))}
        found = translated(codes, kept).astype(np.uint8)
        write_image(nib.Nifti1Image(found, image.affine), _target(label_map, labels.seg, output))
    if chosen:
        lookup = [{'index': number, 'name': name} for name, number in numbers.items()]
        write_tsv(lookup, output / f'seg-{labels.seg}_dseg.tsv')
    return len(chosen), []
