"""What there is to do: the participants of a dataset and the scans of each."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bids_muscle.anatomy.labels import REGIONS, SPINE
from bids_muscle.dataset.bidsignore import is_image_ignored
from bids_muscle.dataset.contrasts import ContrastRule, classify, load_contrast_rules
from bids_muscle.dataset.folders import PARTICIPANT
from bids_muscle.dataset.image_names import allowed, read_labels, why_unknown
from bids_muscle.dataset.index import Filters, IndexedImage, index_participant
from bids_muscle.dataset.names import ENTITIES
from bids_muscle.dataset.planes import is_sagittal, lost_gaps, plane_warnings, turned
from bids_muscle.dataset.regions import find_region
from bids_muscle.dataset.repeats import mark_unlike
from bids_muscle.dataset.scaling import doubt_origins, doubt_scales
from bids_muscle.dataset.scan import DIXON, Contrast, Scan, ScanImage
from bids_muscle.dataset.witnesses import Entities, ImageGroup, join_partners, settle, word
from bids_muscle.errors import (
    BadDataError,
    BidsMuscleError,
    ImageShapeError,
    IncompleteScanError,
    MissingInputError,
    NothingSelectedError,
    UnknownRegionError,
)
from bids_muscle.imaging.conform import read_grid, reconcile_grids
from bids_muscle.imaging.dixon import FatSource, fat_source
from bids_muscle.imaging.multi_echo import EchoTrain

#: Suffix of derived images by that of the source; all others become T1w. An echo of MEGRE is no
#: longer one when several are put together, and MuscleMap's ``_water`` is not BIDS.
_DERIVED_SUFFIX = {'T2w': 'T2w', 'PDw': 'PDw', 'T2starw': 'T2starw', 'MEGRE': 'T2starw'}
_ECHO_SUFFIX = 'MEGRE'
_UNCLEAR = (
    'its name or sidecar names a Dixon scan, but not which of its images, so fat is not measured. '
    'Define its contrast with --contrast-rules'
)
#: Labels of acquisitions that suppress fat, and what DICOM calls it among the scan options.
_FAT_SUPPRESSED = re.compile(
    r'.*(?:fatsat|fatsup|spair|spir|stir).*|fs(?!e|pgr).*|.*fs', re.IGNORECASE
)
_FAT_SATURATION = 'FS'


def find_scans(
    bids_dir: Path,
    participant: str,
    *,
    rules: tuple[ContrastRule, ...] | None = None,
    sessions: Sequence[str] = (),
    region: str | None = None,
    otherwise: str | None = None,
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
        Of all scans, or None to find out.
    otherwise
        Region of a scan of which nothing tells it; None where that is a problem.
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
    index = index_participant(bids_dir, participant, filters)
    groups: dict[Entities, ImageGroup] = defaultdict(ImageGroup)
    left_alone: dict[tuple[str | None, str], list[str]] = defaultdict(list)
    wanted = {allowed(each) for each in sessions}
    for image in index.images:
        session = image.entities.get('ses')
        if wanted and session not in wanted:
            continue
        if is_image_ignored(bids_dir, image.path.relative_to(bids_dir).as_posix()):
            continue
        try:
            match = classify(rules, image.suffix, image.entities, image.metadata)
        except BadDataError as error:
            # Only echoes lead here: they are of a Dixon scan that cannot be identified.
            entities = _echo_entities(image)
            remark = BadDataError(f'{image.path} is not used. {error.message}', error.remedy)
            groups[entities].unusable.append((image, remark))
            continue
        if match is None and image.suffix == _ECHO_SUFFIX:
            # Neither in phase nor opposed, but the fit of all echoes takes it.
            groups[_echo_entities(image)].echoes.append(image)
            continue
        if match is None or match.contrast is None:
            if why := match.left_alone if match else why_unknown(image.suffix, image.problem):
                left_alone[session, why].append(image.path.name)
            continue
        if image.path not in index.selected.get(match.contrast, {image.path}):
            continue
        entities = _scan_entities(match.entities, match.contrast, image.suffix)
        groups[entities].members.append((match, image))
        if image.suffix == _ECHO_SUFFIX:
            groups[entities].echoes.append(image)
    for group in groups.values():
        settle(group)
    join_partners(groups)
    # Echoes that nothing can be made of are worth a word only where there is nothing else.
    alone = not any(group.members for group in groups.values())
    scans = [
        _make_scan(entities, group, region, otherwise)
        for entities, group in groups.items()
        if group.members or group.unusable or alone
    ]
    for name, why in index.stray.items():
        session = read_labels(Path(name))[0].get('ses')
        if not wanted or session in wanted:
            left_alone[session, why].append(name)
    scans += [
        scan
        for folder, why in index.unreadable.items()
        if (scan := _unreadable(bids_dir, folder, why, participant))
        and (not wanted or scan.session is None or scan.session in wanted)
    ]
    scans = mark_unlike(sorted(scans, key=lambda scan: scan.name))
    return _with_left_alone(scans, left_alone, participant)


def _unreadable(bids_dir: Path, folder: str, why: str, participant: str) -> Scan:
    """Return what stands for the scans of a folder that cannot be listed."""
    session = read_labels(Path(folder, '_'))[0].get('ses')  # of its folders alone
    problem = MissingInputError(
        f'The folder {bids_dir / folder} cannot be read: {why}.', 'Check its permissions.'
    ).problem
    session_label = (('ses', session),) if session else ()
    return Scan((('sub', participant), *session_label), 'T1w', None, (), problem=problem)


def _with_left_alone(
    scans: list[Scan], left_alone: Mapping[tuple[str | None, str], list[str]], participant: str
) -> list[Scan]:
    """Return which images are left alone and why, at the first scan of their session."""
    for (session, why), names in left_alone.items():
        shown = ', '.join(names[:3]) + (f' and {len(names) - 3} others' if names[3:] else '')
        remark = f'Not used: {shown}, because each {why}.'
        if not scans:
            problem = NothingSelectedError(
                f'sub-{participant} has no image that is used. {remark}',
                'Use --dry-run, and define the contrasts of the images with --contrast-rules.',
            ).problem
            return [Scan((('sub', participant),), 'T1w', None, (), problem=problem)]
        place = next((n for n, scan in enumerate(scans) if scan.session == session), 0)
        scan = scans[place]
        scans[place] = replace(scan, warnings=(*scan.warnings, remark))
    return scans


def _echo_entities(image: IndexedImage) -> Entities:
    unnamed = {key: value for key, value in image.entities.items() if key != 'echo'}
    return _scan_entities(unnamed, Contrast.IN_PHASE, image.suffix)


def _scan_entities(entities: Mapping[str, str], contrast: Contrast, suffix: str) -> Entities:
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


def _make_scan(
    entities: Entities, group: ImageGroup, region: str | None, otherwise: str | None
) -> Scan:
    """Put the images of a group together and check what can be checked without reading them."""
    name = '_'.join(f'{key}-{label}' for key, label in entities)
    warnings = list(group.remarks)
    problem = next((image.problem for image in group.images if image.problem), None)
    images: dict[Contrast, IndexedImage] = {}
    suppressed: list[str] = []
    echoes: list[IndexedImage] = []
    train = None
    spine = False
    try:
        _check_folders(group)
        train = _echo_train(group, warnings)
        echoes = group.echoes if train else []
        images = _one_per_contrast(group, warnings, fitted=bool(train))
        if not train:
            _check_complete(images, warnings)
        grids = {image.path.name: read_grid(image.path) for image in (*images.values(), *echoes)}
        warnings += reconcile_grids(grids)[1]
        grid = next(iter(grids.values()))
        spine = is_sagittal(grid) and not set(images) & set(DIXON)
        warnings += [] if spine else plane_warnings(grid)
        first = next(iter(images.values()))
        warnings += [*turned(first, grid), *lost_gaps(first, grid)]
        suppressed = _fat_suppressed(images)
        warnings += [
            f'{name} is fat-suppressed, so fat cannot be measured by thresholds.'
            for name in suppressed
        ]
    except BidsMuscleError as error:
        # A file of several volumes may lack its partner, or an echo time, for that reason alone.
        problem = problem or (_shape_problem(group.images) or error).problem
    sources = [image for _, image in group.members] + [image for image, _ in group.unusable]
    sources = sources or group.echoes
    labels = dict(entities)
    own_region = find_region(
        (image.metadata for image in sources), labels.get('ses'), labels.get('acq')
    )
    if not spine and {region, own_region} == set(REGIONS):
        warnings.append(
            f'--region {region} is used for {name}, but its sidecar or labels name the region '
            f'{own_region}. If they are right, run the scans of each region without --region.'
        )
    region = region or own_region or otherwise
    if spine:
        region = SPINE
    if region is None and problem is None:
        problem = UnknownRegionError(
            f'The body region of {name} is not known.',
            'Give --region cervical or --region lumbar if all scans show it, else write BodyPart '
            '(NECK or LSPINE) into the sidecar.',
        ).problem
    unclear = not spine and any(match.unclear for match, _ in group.members)
    if unclear:
        warnings.append(f'The contrast of {sources[0].path.name} is not known: {_UNCLEAR}.')
    doubt = doubt_origins(images, echoes) or doubt_scales(images, echoes)
    warnings += [f'{doubt}.'] if doubt else []
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
        frame_of_reference=_first_text(sources, 'FrameOfReferenceUID'),
        acquired=_first_text(sources, 'AcquisitionTime'),
        warnings=(*warnings, *left_out),
        problem=problem,
        fat_doubt=_UNCLEAR if unclear else doubt,
    )


def _check_folders(group: ImageGroup) -> None:
    """Raise BadDataError where images of several folders would be one scan."""
    by_folder = {image.path.parent: image for image in group.images}
    if len(by_folder) > 1:
        first, second, *_ = (image.path for image in by_folder.values())
        raise BadDataError(
            f'{first} and {second} have the same labels but are in different folders.',
            'Give them different labels, or exclude one with .bidsignore.',
        )


def _shape_problem(images: Iterable[IndexedImage]) -> ImageShapeError | None:
    for image in images:
        try:
            read_grid(image.path)
        except ImageShapeError as error:
            return error
        except BidsMuscleError:
            continue
    return None


def _echo_train(group: ImageGroup, warnings: list[str]) -> EchoTrain | None:
    """Return the times of the echoes where fat can be fitted to them, else say why not."""
    if not group.echoes or fat_source(group.contrasts) in (
        FatSource.WATER_AND_FAT,
        FatSource.SCANNER,
    ):
        return None
    if any(
        not isinstance(image.metadata.get(key), int | float)
        for image in group.echoes
        for key in ('EchoTime', 'MagneticFieldStrength')
    ):
        warnings.append(
            'Fat is not fitted to the echoes, because echo times or field strength are not known.'
        )
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


def _first_text(images: Sequence[IndexedImage], key: str) -> str | None:
    values = (image.metadata.get(key) for image in images)
    return next((value for value in values if isinstance(value, str) and value), None)


def _one_per_contrast(
    group: ImageGroup, warnings: list[str], *, fitted: bool
) -> dict[Contrast, IndexedImage]:
    """Choose one image per contrast: the earliest echo, in the order of :class:`Contrast`."""
    if not group.members and group.unusable:
        raise group.unusable[0][1]
    if not group.members:
        raise IncompleteScanError(
            f'{group.echoes[0].path} and the other echoes of its scan are not used, because fat '
            'and water are neither in phase nor opposed at any echo time.',
            'Leave the scan out with --bids-filter-file, or correct EchoTime in the sidecars.',
        )
    warnings += [str(remark) for _, remark in group.unusable]
    candidates: dict[Contrast, list[IndexedImage]] = defaultdict(list)
    for contrast, (_, image) in zip(group.contrasts, group.members, strict=True):
        candidates[contrast].append(image)
    chosen = {}
    for contrast in sorted(candidates, key=list(Contrast).index):
        first, *others = sorted(candidates[contrast], key=lambda image: _echo_time_s(image) or 0)
        if any(_echo_time_s(image) == _echo_time_s(first) for image in others):
            names = ' and '.join(image.path.name for image in (first, *others))
            raise IncompleteScanError(
                f'{names} are both the {contrast} image of one scan.',
                'Select one of them with --bids-filter-file, or give them different labels.',
            )
        if not fitted:
            warnings += [
                f'{image.path.name} is a later {contrast} echo and is not used.'
                for image in others
            ]
        chosen[contrast] = first
    return chosen


def _check_complete(images: dict[Contrast, IndexedImage], warnings: list[str]) -> None:
    """Raise IncompleteScanError where a partner image is missing that fat needs.

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
        what, missing = word(lone), word(partner)
        if source is None:
            raise IncompleteScanError(
                f'{path} is the {what} image of a scan without {missing} image.',
                f'Add the {missing} image, or define its name with --contrast-rules.',
            )
        if source is FatSource.PHASES:
            warnings.append(f'{path.name} has no matching {missing} image and is not used.')
            del images[lone]


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
