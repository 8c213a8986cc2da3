"""Three calls for scripts and notebooks; import them from :mod:`bids_muscle`.

They run the same functions as the command ``bids_muscle`` does, on arrays and without BIDS.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from nibabel import Nifti1Image

from bids_muscle.anatomy.labels import OTHER_REGIONS, REGIONS
from bids_muscle.dataset.names import name_ending
from bids_muscle.dataset.planes import plane_warnings
from bids_muscle.dataset.records import ScanRecord, read_records
from bids_muscle.dataset.scan import DIXON, Contrast
from bids_muscle.dataset.writer import read_tsv
from bids_muscle.errors import BadDataError, MissingInputError, UsageError
from bids_muscle.imaging.conform import grid_of, load_image, make_image, to_canonical, to_native

if TYPE_CHECKING:
    import pandas as pd

    from bids_muscle.anatomy.labels import LabelTable
    from bids_muscle.anatomy.levels import SliceLevels
    from bids_muscle.imaging.prepare import PreparedScan
    from bids_muscle.measurement.images import ScanImages
    from bids_muscle.segmentation.bundle import ModelBundle

Image = Nifti1Image | str | Path

#: Names of the tables of :func:`read_outputs`, and keys of the outputs that they join.
_TABLES = {'muscles': 'morph', 'slices': 'morph_slices', 'levels': 'morph_levels'}


def segment(
    images: Mapping[str, Image],
    *,
    region: str,
    model: str | Path | None = None,
    device: str = 'cpu',
    bias_correction: bool = True,
    model_orientation: str | None = None,
    model_overlap: float | None = None,
) -> Nifti1Image:
    """Label the muscles of one axial scan, left and right.

    Parameters
    ----------
    images
        Image, or path of a NIfTI file, by contrast: ``'water'`` and ``'fat'``, ``'inphase'`` and
        ``'opposedphase'``, ``'fatfraction'``, ``'T1w'``, ``'T2w'`` or ``'PDw'``. All are (X, Y, Z)
        and on one grid.
    region
        ``'lumbar'`` or ``'cervical'``, with a model of another program also one of the others
        that ``--region`` takes.
    model
        Name or folder of a model; None for the model of the region.
    device
        ``'cpu'``, ``'cuda'`` or ``'cuda:N'``.
    bias_correction
        Whether the bias field is corrected first, but for models of other programs.
    model_orientation, model_overlap
        Of models of other programs, as ``--model-orientation`` and ``--model-overlap``.

    Returns
    -------
    Nifti1Image
        (X, Y, Z) whole numbers on the grid of the scan, in its voxel order: 0, or the number of a
        label of :func:`~bids_muscle.anatomy.labels.load_label_table`; a model of another program
        has numbers of its own.

    Raises
    ------
    UsageError
        If a contrast or the region is unknown.
    BidsMuscleError
        If an image, the model or the device cannot be used.

    Warns
    -----
    UserWarning
        For each thing about the images that the report of a scan would say.
    """
    from bids_muscle.segmentation.predictor import Predictor

    bundle = _bundle(model, region, model_orientation)
    if bundle.card.get('space') == 'atlas':
        raise UsageError(
            f'The model {bundle.name} works in the space of an atlas.',
            'Use it with the command bids_muscle.',
        )
    external = 'external' in bundle.card
    if model_overlap is not None and not (external and 0 <= model_overlap < 1):
        raise UsageError(
            f'The overlap of the windows is {model_overlap:g}.',
            'Give a fraction from 0 to below 1, and only for a model of another program.',
        )
    prepared = _prepare(images, bias_correction=bias_correction and not external)
    # A fat fraction has no anatomy where there is no signal.
    seen = {key: prepared.corrected[key] for key in _ordered(images) if key != 'fatfraction'}
    predictor = Predictor(bundle, device=device, overlap=model_overlap)
    found = predictor.segment(seen or prepared.corrected)
    return to_native(found.labels, prepared.native)


def measure(
    images: Mapping[str, Image],
    labels: Image,
    *,
    region: str,
    model: str | Path | None = None,
    height_m: float | None = None,
    fat_method: str = 'auto',
    bias_correction: bool = True,
    model_orientation: str | None = None,
) -> pd.DataFrame:
    """Measure fat, volume and area of the muscles of one axial scan.

    Parameters
    ----------
    images
        As for :func:`segment`.
    labels
        Label map on their grid, from :func:`segment` or corrected by a person.
    region, model, model_orientation
        As for :func:`segment`: a model of another program has labels of its own.
    height_m
        Height of the person (m), for the muscle index.
    fat_method
        As ``--fat-method``.
    bias_correction
        As for :func:`segment`. Water and fat are always measured without it.

    Returns
    -------
    DataFrame
        One row per muscle and side, columns as in ``morph.tsv``; missing where a value cannot be
        trusted, and ``reason`` says why.

    Raises
    ------
    UsageError
        If a contrast or the region is unknown.
    BidsMuscleError
        If an image cannot be used, or is not on the grid of the others.

    Warns
    -----
    UserWarning
        As for :func:`segment`.
    """
    from bids_muscle.measurement.table import checked_numbers, measure_scan

    table = _bundle(model, region, model_orientation).labels
    prepared = _prepare(images, bias_correction=bias_correction)
    drawn = to_canonical(_loaded(labels))
    # Before its numbers are looked at: it may be the map of another scan.
    seen = _scan_images(prepared, next(iter(_ordered(images))), drawn)
    numbers = make_image(checked_numbers(drawn, table), drawn.affine)
    return measure_scan(
        numbers,
        table,
        seen,
        fat_method=fat_method,
        height_m=height_m,
        levels=_levels(prepared, numbers, table) if region in REGIONS else None,
    ).muscles


def read_outputs(folder: str | Path) -> dict[str, pd.DataFrame]:
    """Read the tables of a folder that ``bids_muscle`` has written.

    Parameters
    ----------
    folder
        The derivatives dataset.

    Returns
    -------
    dict
        ``'scans'``: one row per scan, with ``status``, ``problem`` and ``warnings``.
        ``'muscles'``, ``'slices'`` and ``'levels'``: the tables of all finished scans, with
        ``participant_id``, ``session_id`` and ``scan`` before their columns. And each table of
        the group level by its name, such as ``'group_muscles'``. A table without rows is empty.

    Raises
    ------
    MissingInputError
        If the folder holds no scan of bids_muscle.
    """
    import pandas as pd

    folder = Path(folder)
    records = read_records(folder)
    if not records:
        raise MissingInputError(
            f'{folder} holds no scan of bids_muscle.', 'Check the path, or run it first.'
        )
    tables = {'scans': pd.DataFrame([_described(record) for record in records])}
    for name, key in _TABLES.items():
        ending = re.escape(name_ending(key, seg='SEG')).replace('SEG', '[^_]+')
        pattern = re.compile(f'.*{ending}')
        frames = [
            table for record in records if (table := _table(folder, record, pattern)) is not None
        ]
        tables[name] = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    tables |= {path.stem: read_tsv(path) for path in sorted(folder.glob('group_*.tsv'))}
    return tables


def _described(record: ScanRecord) -> dict[str, object]:
    return {
        **_identity(record),
        'region': record.region,
        'status': record.status,
        'problem': str(record.problem) if record.problem else None,
        'warnings': ' '.join(record.warnings),
    }


def _identity(record: ScanRecord) -> dict[str, object]:
    return {
        'participant_id': f'sub-{record.participant}',
        'session_id': f'ses-{record.session}' if record.session else None,
        'scan': record.scan,
    }


def _table(folder: Path, record: ScanRecord, name: re.Pattern[str]) -> pd.DataFrame | None:
    """Return a table of a scan with columns that say which scan; None where it has none."""
    path = next((folder / each for each in record.outputs if name.fullmatch(each)), None)
    # A record is a file that anybody may have edited.
    if path is None or not path.is_file() or not _is_below(path, folder):
        return None
    table = read_tsv(path)
    for place, (column, value) in enumerate(_identity(record).items()):
        table.insert(place, column, value)
    return table


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _bundle(model: str | Path | None, region: str, orientation: str | None) -> ModelBundle:
    from bids_muscle.segmentation.catalogue import find_model

    known = REGIONS if model is None else (*REGIONS, *OTHER_REGIONS)
    if region not in known:
        raise UsageError(f'The region {region!r} is unknown.', f'Use one of: {", ".join(known)}.')
    return find_model(None if model is None else str(model), region, orientation)


def _loaded(image: Image) -> Nifti1Image:
    return image if isinstance(image, Nifti1Image) else load_image(Path(image))


def _ordered(images: Mapping[str, Image]) -> dict[str, Image]:
    """Return the images in the order of the command: a model may look at the first one alone."""
    return {str(name): images[name] for name in Contrast if name in images}


def _prepare(images: Mapping[str, Image], *, bias_correction: bool) -> PreparedScan:
    """Bring the images to one grid and to RAS+ voxel order; say what is odd about them."""
    from bids_muscle.imaging.prepare import prepare_scan

    contrasts = [str(contrast) for contrast in Contrast]
    unknown = [name for name in images if name not in contrasts]
    if unknown or not images:
        what = f'The contrast {unknown[0]!r} is unknown.' if unknown else 'There is no image.'
        raise UsageError(what, f'Give images by one of: {", ".join(contrasts)}.')
    loaded = {name: _loaded(image) for name, image in _ordered(images).items()}
    for name, image in loaded.items():
        if len(image.shape) != 3:
            raise BadDataError(
                f'The {name} image has {len(image.shape)} dimensions.', 'Give one volume.'
            )
    prepared = prepare_scan(loaded, bias_correction=bias_correction)
    for text in (*prepared.warnings, *plane_warnings(grid_of(prepared.native))):
        warnings.warn(text, stacklevel=3)
    return prepared


def _scan_images(prepared: PreparedScan, contrast: str, labels: Nifti1Image) -> ScanImages:
    """Return what is measured in a scan, of which `contrast` is the first image given."""
    from bids_muscle.imaging.quality import clipped_fraction
    from bids_muscle.measurement.brightness import known_only
    from bids_muscle.measurement.images import ScanImages, check_grid

    mask, raw = prepared.body_mask, prepared.images.get(contrast)
    check_grid(mask.shape, mask.affine, labels, contrast)
    body = np.asarray(mask.dataobj) > 0
    images = ScanImages(
        contrast='dixon',
        water=prepared.images.get('water'),
        fat=prepared.images.get('fat'),
        fat_fraction=prepared.fat_fraction,
        body=body,
        swap=(
            np.asarray(prepared.swap.dataobj) > 0
            if prepared.swap and prepared.swap_searched
            else None
        ),
        bounded=prepared.bounded,
        fat_doubt=prepared.fat_doubt,
    )
    if raw is None or contrast in DIXON:
        return images
    return replace(
        images,
        contrast=contrast,
        intensity=known_only(prepared.corrected[contrast], raw),
        clipped=clipped_fraction(np.asanyarray(raw.dataobj), body),
    )


def _levels(prepared: PreparedScan, labels: Nifti1Image, table: LabelTable) -> SliceLevels | None:
    """Return the vertebral levels of the slices by the atlas of the package, or None."""
    from bids_muscle.imaging.alignment import align_scan, level_probabilities
    from bids_muscle.imaging.atlas import find_atlas, read_atlas, renumbered
    from bids_muscle.imaging.levels import choose_levels
    from bids_muscle.segmentation.stack_discs import find_discs

    atlas = read_atlas(find_atlas(None, table.region))
    labels = renumbered(labels, table, atlas.table)
    images, mask = prepared.corrected, prepared.body_mask
    discs_mm, support = find_discs(images, labels, atlas.table, table.region)
    found = align_scan(images, labels, mask, atlas, discs_mm=discs_mm, support=support)
    shares = level_probabilities(found, atlas, labels)
    levels = choose_levels(shares, (), None, labels.shape[2]).levels
    return levels if any(levels.names) else None
