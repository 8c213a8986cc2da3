"""What there is to do: the participants of a dataset and the scans of each."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bids_muscle.anatomy.labels import SPINE
from bids_muscle.dataset.bidsignore import is_image_ignored
from bids_muscle.dataset.contrasts import ContrastRule, classify, load_contrast_rules
from bids_muscle.dataset.folders import PARTICIPANT
from bids_muscle.dataset.index import Filters, IndexedImage, index_participant
from bids_muscle.dataset.names import ENTITIES
from bids_muscle.dataset.regions import find_region
from bids_muscle.dataset.scan import DIXON, Contrast, Scan, ScanImage
from bids_muscle.errors import (
    BadDataError,
    BidsMuscleError,
    IncompleteScanError,
    MissingInputError,
    UnknownRegionError,
)
from bids_muscle.imaging.conform import Grid, read_grid, reconcile_grids
from bids_muscle.imaging.dixon import FatSource, fat_source
from bids_muscle.imaging.multi_echo import EchoTrain

#: Suffix of derived images by that of the source; all others become T1w. An echo of MEGRE is no
#: longer one when several are put together, and MuscleMap's ``_water`` is not BIDS.
_DERIVED_SUFFIX = {'T2w': 'T2w', 'PDw': 'PDw', 'T2starw': 'T2starw', 'MEGRE': 'T2starw'}
_ECHO_SUFFIX = 'MEGRE'
#: How messages call the contrasts whose names are one word in file names.
_WORDS = {Contrast.IN_PHASE: 'in-phase', Contrast.OPPOSED_PHASE: 'opposed-phase'}
#: Labels of acquisitions that suppress fat, and what DICOM calls it among the scan options.
_FAT_SUPPRESSED = re.compile(
    r'.*(?:fatsat|fatsup|spair|spir|stir).*|fs(?!e|pgr).*|.*fs', re.IGNORECASE
)
_FAT_SATURATION = 'FS'
#: Thick slices: the voxel is this much longer through the slice than in it.
_THICK_SLICE_RATIO = 1.5
#: A scan of equal voxels is sagittal where it is no wider than this, mm, and this share of its
#: other extents: muscles of both sides are not in it.
_SLAB_MM, _SLAB_SHARE = 130.0, 0.6
#: Headers and sidecars that differ by more than this angle do not describe the same scan.
_TURNED_DEG = 10.0


def find_scans(
    bids_dir: Path,
    participant: str,
    *,
    rules: tuple[ContrastRule, ...] | None = None,
    sessions: Sequence[str] = (),
    region: str | None = None,
    filters: Filters | None = None,
) -> list[Scan]:
    """Find the scans of one participant: images of one acquisition on one grid.

    Only names, sidecars and headers are read. What is wrong with a scan is said in its
    ``problem``, so that it does not stop the others.

    Parameters
    ----------
    bids_dir
        The dataset.
    participant
        Label without ``sub-``.
    rules
        From :func:`~bids_muscle.dataset.contrasts.load_contrast_rules`; by default the package's.
    sessions
        Session labels; empty for all.
    region
        ``'cervical'`` or ``'lumbar'`` for all scans, or None to find out.
    filters
        From :func:`~bids_muscle.dataset.index.read_filters`.

    Returns
    -------
    list of Scan
        Sorted by name.

    Raises
    ------
    MissingInputError
        If the participant is not there.
    """
    label = PARTICIPANT.fullmatch(f'sub-{participant}')
    if not label or not (bids_dir / label[0]).is_dir():
        raise MissingInputError(
            f'The dataset {bids_dir} has no participant {participant!r}.',
            'Check --participant-label.',
        )
    rules = load_contrast_rules() if rules is None else rules
    images, selected = index_participant(bids_dir, participant, filters)
    groups: dict[tuple[tuple[str, str], ...], _Group] = defaultdict(_Group)
    for image in images:
        if sessions and image.entities.get('ses') not in sessions:
            continue
        if is_image_ignored(bids_dir, image.path.relative_to(bids_dir).as_posix()):
            continue
        try:
            found = classify(rules, image.suffix, image.entities, image.metadata)
        except BadDataError as error:
            # Only echoes lead here: they stand for a Dixon scan that cannot be understood.
            entities = _echo_entities(image)
            remark = BadDataError(f'{image.path} is not used. {error.message}', error.remedy)
            groups[entities].unusable.append((image, remark))
            continue
        if found is None and image.suffix == _ECHO_SUFFIX:
            # Neither in phase nor opposed, but the fit of all echoes takes it.
            groups[_echo_entities(image)].echoes.append(image)
            continue
        if found is None or found.contrast is None:
            continue
        if found.contrast in selected and image.path not in selected[found.contrast]:
            continue
        entities = _scan_entities(found.entities, found.contrast, image.suffix)
        groups[entities].members.append((found.contrast, image))
        if image.suffix == _ECHO_SUFFIX:
            groups[entities].echoes.append(image)
    # Echoes that nothing can be made of are worth a word only where there is nothing else.
    alone = not any(group.members for group in groups.values())
    return sorted(
        (
            _make_scan(entities, group, region)
            for entities, group in groups.items()
            if group.members or group.unusable or alone
        ),
        key=lambda scan: scan.name,
    )


@dataclass
class _Group:
    """Images that belong to one scan."""

    members: list[tuple[Contrast, IndexedImage]] = field(default_factory=list)
    unusable: list[tuple[IndexedImage, BadDataError]] = field(default_factory=list)
    echoes: list[IndexedImage] = field(default_factory=list)


def _echo_entities(image: IndexedImage) -> tuple[tuple[str, str], ...]:
    unnamed = {key: value for key, value in image.entities.items() if key != 'echo'}
    return _scan_entities(unnamed, Contrast.IN_PHASE, image.suffix)


def _scan_entities(
    entities: Mapping[str, str], contrast: Contrast, suffix: str
) -> tuple[tuple[str, str], ...]:
    """Return the labels of a scan; ``acq`` says its kind, as label maps have no source suffix.

    Examples
    --------
    >>> _scan_entities({'sub': '1', 'acq': 'ax'}, Contrast.T2W, 'T2w')
    (('sub', '1'), ('acq', 'axT2w'))
    >>> _scan_entities({'sub': '1', 'run': '2'}, Contrast.FAT, 'T1w')
    (('sub', '1'), ('acq', 'dixon'), ('run', '2'))
    >>> _scan_entities({'sub': '1', 'acq': 'dixon'}, Contrast.FAT, 'T2w')
    (('sub', '1'), ('acq', 'T2wdixon'))
    """
    acq = entities.get('acq', '').strip('+')
    if contrast not in DIXON:
        acq += '' if acq.lower().endswith(suffix.lower()) else suffix
    else:
        acq += '' if 'dixon' in acq.lower() else 'dixon'
        acq = _DERIVED_SUFFIX.get(suffix, '') + acq
    labels = {**entities, 'acq': acq}
    return tuple((key, labels[key]) for key, _ in ENTITIES if key in labels)


def _make_scan(entities: tuple[tuple[str, str], ...], group: _Group, region: str | None) -> Scan:
    """Put the images of a group together and check what can be checked without reading them."""
    name = '_'.join(f'{key}-{label}' for key, label in entities)
    warnings: list[str] = []
    problem: BidsMuscleError | None = None
    images: dict[Contrast, IndexedImage] = {}
    suppressed: list[str] = []
    echoes: list[IndexedImage] = []
    train = None
    spine = False
    try:
        train = _echo_train(group, warnings)
        echoes = group.echoes if train else []
        images = _one_per_contrast(group, warnings, fitted=bool(train))
        if not train:
            _check_complete(images, warnings)
        grids = {image.path.name: read_grid(image.path) for image in (*images.values(), *echoes)}
        warnings += reconcile_grids(grids)[1]
        grid = next(iter(grids.values()))
        spine = is_sagittal(grid) and not set(images) & set(DIXON)
        warnings += [] if spine else _plane_warnings(grid)
        warnings += _turned(next(iter(images.values())), grid)
        suppressed = _fat_suppressed(images)
        warnings += [
            f'{name} is fat-suppressed: fat cannot be measured by thresholds.'
            for name in suppressed
        ]
    except BidsMuscleError as error:
        problem = error
    sources = [image for _, image in group.members] + [image for image, _ in group.unusable]
    sources = sources or group.echoes
    labels = dict(entities)
    region = region or find_region(
        (image.metadata for image in sources), labels.get('ses'), labels.get('acq')
    )
    if spine:
        region = SPINE
    if region is None and problem is None:
        problem = UnknownRegionError(
            f'Nothing tells which body region {name} shows.',
            'Say it with --region cervical or --region lumbar, or as BodyPart in the sidecar.',
        )
    left_out = dict.fromkeys(warning for image in sources for warning in image.warnings)
    return Scan(
        entities=entities,
        suffix=_DERIVED_SUFFIX.get(sources[0].suffix, 'T1w'),
        region=region,
        images=tuple(
            ScanImage(contrast, images[contrast].path, _echo_time_s(images[contrast]))
            for contrast in Contrast
            if contrast in images
        ),
        echoes=tuple(image.path for image in echoes),
        echo_train=train,
        fat_suppressed=bool(suppressed),
        frame_of_reference=_frame_of_reference(sources),
        warnings=(*warnings, *left_out),
        problem=problem.problem if problem else None,
    )


def _echo_train(group: _Group, warnings: list[str]) -> EchoTrain | None:
    """Return the times of the echoes where fat can be fitted to them, else say why not."""
    if not group.echoes or fat_source(contrast for contrast, _ in group.members) in (
        FatSource.WATER_AND_FAT,
        FatSource.SCANNER,
    ):
        return None
    if any(
        not isinstance(image.metadata.get(key), int | float)
        for image in group.echoes
        for key in ('EchoTime', 'MagneticFieldStrength')
    ):
        warnings.append('Fat is not fitted to the echoes: their times or field are not known.')
        return None
    fields = {float(image.metadata['MagneticFieldStrength']) for image in group.echoes}
    if len(fields) > 1:
        raise BadDataError(
            f'The echoes of {group.echoes[0].path} differ in MagneticFieldStrength.',
            'Correct it in the sidecars.',
        )
    group.echoes.sort(key=lambda image: image.metadata['EchoTime'])
    times_s = tuple(float(image.metadata['EchoTime']) for image in group.echoes)
    train = EchoTrain(times_s, fields.pop())
    if train.refusal:
        warnings.append(f'Fat is not fitted to the echoes: {train.refusal}.')
        return None
    return train


def _frame_of_reference(images: Sequence[IndexedImage]) -> str | None:
    values = (image.metadata.get('FrameOfReferenceUID') for image in images)
    return next((value for value in values if isinstance(value, str) and value), None)


def _one_per_contrast(
    group: _Group, warnings: list[str], *, fitted: bool
) -> dict[Contrast, IndexedImage]:
    """Choose one image per contrast: the earliest echo, in the order of :class:`Contrast`."""
    if not group.members and group.unusable:
        raise group.unusable[0][1]
    if not group.members:
        raise IncompleteScanError(
            f'{group.echoes[0].path} and the other echoes of its scan are not used: at none of '
            'their echo times are fat and water in phase or opposed.',
            'Leave the scan out with --bids-filter-file, or correct EchoTime in the sidecars.',
        )
    warnings += [str(remark) for _, remark in group.unusable]
    candidates: dict[Contrast, list[IndexedImage]] = defaultdict(list)
    for contrast, image in group.members:
        candidates[contrast].append(image)
    chosen = {}
    for contrast in sorted(candidates, key=list(Contrast).index):
        first, *others = sorted(candidates[contrast], key=lambda image: _echo_time_s(image) or 0)
        if any(_echo_time_s(image) == _echo_time_s(first) for image in others):
            names = ' and '.join(image.path.name for image in (first, *others))
            raise IncompleteScanError(
                f'{names} both claim to be the {contrast} image of one scan.',
                'Keep one of them with --bids-filter-file, or tell them apart by their names.',
            )
        if not fitted:
            warnings += [
                f'{image.path.name} is a later {contrast} echo and is not used.'
                for image in others
            ]
        chosen[contrast] = first
    return chosen


def _check_complete(images: dict[Contrast, IndexedImage], warnings: list[str]) -> None:
    """Raise IncompleteScanError where a partner is missing and fat cannot be told without it.

    Beside a source of fat, an image without its partner still shows where the muscles are. Only
    water or fat is dropped where both are computed from the phases.
    """
    partners = {
        Contrast.WATER: Contrast.FAT,
        Contrast.FAT: Contrast.WATER,
        Contrast.OPPOSED_PHASE: Contrast.IN_PHASE,
    }
    source = fat_source(images)
    for lone, partner in partners.items():
        if lone not in images or partner in images:
            continue
        path = images[lone].path
        word, other = (_WORDS.get(contrast, str(contrast)) for contrast in (lone, partner))
        if source is None:
            raise IncompleteScanError(
                f'{path} is the {word} image of a scan without {other} image.',
                f'Add the {other} image, or say with --contrast-rules how it is named.',
            )
        if source is FatSource.PHASES:
            warnings.append(f'{path.name} has no {other} partner and is not used.')
            del images[lone]


def is_sagittal(grid: Grid) -> bool:
    """Say whether a scan has sagittal slices, told by its affine.

    The slices are where the voxels are long; where they are not, a slab from right to left that
    is too narrow for the muscles of both sides is taken for sagittal.
    """
    world = np.abs(grid.affine[:3, :3]) @ np.eye(3)
    across = int(np.argmax(world[0] / np.linalg.norm(world, axis=0)))
    others = [axis for axis in range(3) if axis != across]
    if grid.zooms[across] >= _THICK_SLICE_RATIO * max(grid.zooms[axis] for axis in others):
        return True
    if max(grid.zooms) >= _THICK_SLICE_RATIO * sorted(grid.zooms)[1]:
        return False
    extent = [n * zoom for n, zoom in zip(grid.shape, grid.zooms, strict=True)]
    least = min(extent[axis] for axis in others)
    return extent[across] <= min(_SLAB_MM, _SLAB_SHARE * least)


def _plane_warnings(grid: Grid) -> list[str]:
    """Warn where thick slices are not axial: muscles are segmented on axial slices."""
    thickest = int(np.argmax(grid.zooms))
    others = [zoom for axis, zoom in enumerate(grid.zooms) if axis != thickest]
    world_axis = int(np.argmax(np.abs(grid.affine[:3, thickest])))
    if world_axis == 2 or grid.zooms[thickest] < _THICK_SLICE_RATIO * max(others):
        return []
    plane = ('sagittal', 'coronal')[world_axis]
    return [
        f'The slices are {plane} and {grid.zooms[thickest]:.3g} mm thick; muscles are outlined on '
        'axial slices, which are coarse here.'
    ]


def _turned(image: IndexedImage, grid: Grid) -> list[str]:
    """Warn where the sidecar turns the slices otherwise than the header.

    Axes are compared without their direction, since programs that store a volume in another voxel
    order mend the header and not the sidecar: an exchange of left and right does not show.
    """
    try:
        given = np.array(image.metadata.get('ImageOrientationPatientDICOM'), float)
        row, column = given.reshape(2, 3)
    except (TypeError, ValueError):
        return []
    axes = np.array([row, column, np.cross(row, column)]) * (-1, -1, 1)  # DICOM is LPS+
    if not np.allclose(axes @ axes.T, np.eye(3), atol=0.01):
        return []
    cosines = np.abs(axes @ (grid.affine[:3, :3] / grid.zooms)).max(axis=1)
    angle = np.rad2deg(np.arccos(min(cosines.min(), 1)))
    if angle < _TURNED_DEG:
        return []
    return [
        f'The header of {image.path.name} turns the slices by {angle:.0f} degrees against '
        'ImageOrientationPatientDICOM in its sidecar. The header is used: check left and right.'
    ]


def _fat_suppressed(images: Mapping[Contrast, IndexedImage]) -> list[str]:
    """Name the images with dark fat among those whose fat would be measured by its brightness."""
    return [
        image.path.name
        for contrast, image in images.items()
        if contrast not in DIXON and _is_fat_suppressed(image)
    ]


def _is_fat_suppressed(image: IndexedImage) -> bool:
    options = image.metadata.get('ScanOptions')
    options = re.split(r'[\\_, ]', options) if isinstance(options, str) else options
    named = _FAT_SUPPRESSED.fullmatch(image.entities.get('acq', ''))
    return named is not None or (isinstance(options, list) and _FAT_SATURATION in options)


def _echo_time_s(image: IndexedImage) -> float | None:
    value = image.metadata.get('EchoTime')
    return float(value) if isinstance(value, int | float) else None
