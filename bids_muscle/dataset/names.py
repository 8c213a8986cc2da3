"""Names of the output files; the names themselves are data, in ``data/io_spec.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from bids_muscle.anatomy.labels import REGIONS, SPINE, load_label_table
from bids_muscle.dataset.scan import DIXON, Contrast, Scan
from bids_muscle.errors import BadDataError
from bids_muscle.imaging.dixon import FatSource
from bids_muscle.measurement.methods import BRIGHT_FAT

#: Entities that an output keeps from its source: key in file names and name in pybids, in the
#: order that BIDS 1.11 asks for.
ENTITIES = (
    ('sub', 'subject'),
    ('ses', 'session'),
    ('task', 'task'),
    ('acq', 'acquisition'),
    ('ce', 'ceagent'),
    ('rec', 'reconstruction'),
    ('run', 'run'),
    ('echo', 'echo'),
    ('part', 'part'),
    ('chunk', 'chunk'),
)

#: Keys of the label maps of a sagittal scan.
SPINE_MAPS = ('vertebrae', 'discs')
#: Keys of the table of vertebrae and discs and its data dictionary.
SPINE_TABLE = ('morph_spine', 'morph_spine_json')

_LABEL = re.compile(r'[0-9A-Za-z+]+')
_ENTITY = re.compile(r'([a-z]+)-([0-9A-Za-z+]+)')


@cache
def io_spec() -> dict[str, Any]:
    """Return the content of ``data/io_spec.json``."""
    path = resources.files('bids_muscle') / 'data/io_spec.json'
    spec: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
    return spec


def derivative_path(
    scan: Scan,
    key: str,
    *,
    contrast: Contrast | str | None = None,
    desc: str | None = None,
    atlas: str | None = None,
) -> PurePosixPath:
    """Return the path of one output of a scan, relative to the output folder.

    Parameters
    ----------
    scan
        The scan.
    key
        A key of the table ``scan`` in ``data/io_spec.json``, such as ``'dseg'``; of the table
        ``sagittal`` for a scan of the spine.
    contrast
        Which image is meant; needed for the keys ``preproc`` and ``preproc_json``.
    desc
        Which figure is meant, a key of the table ``figures``; needed for the key ``figure``.

    atlas
        Name of the atlas; by default that of the package for the region.

    Raises
    ------
    BadDataError
        If a label holds anything but letters, digits and ``+``, so that no name found in a
        dataset or in a model can lead out of the output folder.

    Examples
    --------
    >>> scan = Scan((('sub', '01'), ('ses', 'a'), ('acq', 'dixon')), 'T1w', 'lumbar', ())
    >>> str(derivative_path(scan, 'dseg'))
    'sub-01/ses-a/anat/sub-01_ses-a_acq-dixon_seg-lumbarmuscles_dseg.nii.gz'
    >>> str(derivative_path(scan, 'preproc', contrast='fat'))
    'sub-01/ses-a/anat/sub-01_ses-a_acq-dixonfat_desc-preproc_T1w.nii.gz'
    """
    template = _templates(scan)[key]
    sub, anat = _folders(scan.entities)
    fields = {'sub': sub, 'anat': anat, 'scan': scan.name, 'stem': scan.name}
    if '{suffix}' in template:
        fields['suffix'] = _checked(scan.suffix)
    if '{image}' in template:
        if contrast is None:
            raise ValueError(f'{key} is written per contrast: say which')
        fields['image'] = _image_name(scan, Contrast(contrast))
    if '{seg}' in template:
        fields['seg'] = _checked(segmentation(scan))
    if '{atlas}' in template or '{inatlas}' in template:
        fields['atlas'] = _checked(atlas or f'phantom{scan.region}')
        fields['inatlas'] = _in_space(scan, fields['atlas'])
    if '{desc}' in template:
        if desc is None:
            raise ValueError(f'{key} is written several times: say which')
        fields['desc'] = _checked(desc)
        fields['extension'] = io_spec()['figures'][desc]
    return PurePosixPath(template.format(**fields))


@lru_cache(maxsize=64)  # many paths of one scan are asked for, one after the other
def _folders(entities: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    """Return the names of the folders of a participant and of the images; labels are checked."""
    labels = {name: _checked(label) for name, label in entities}
    sub = f'sub-{labels["sub"]}'
    return sub, f'{sub}/ses-{labels["ses"]}/anat' if 'ses' in labels else f'{sub}/anat'


def figure_names(scan: Scan, names: Iterable[str]) -> tuple[PurePosixPath, dict[str, str]]:
    """Return the folder of the figures of a scan, and the names of their files by name.

    Examples
    --------
    >>> scan = Scan((('sub', '01'), ('acq', 'dixon')), 'T1w', 'lumbar', ())
    >>> folder, names = figure_names(scan, ['slices', 'histograms'])
    >>> str(folder), names['histograms']
    ('sub-01/figures', 'sub-01_acq-dixon_desc-histograms.json')
    """
    kinds = io_spec()['figures']
    first, *_ = kinds
    path = derivative_path(scan, 'figure', desc=first)
    # A cohort has millions of figures: one name is checked, the others differ at its end.
    stem = path.name.removesuffix(f'{first}.{kinds[first]}')
    return path.parent, {name: f'{stem}{name}.{kinds[name]}' for name in names}


def map_keys(scan: Scan) -> tuple[str, ...]:
    """Return the keys of the label maps of a scan: one of muscles, or two of the spine."""
    return SPINE_MAPS if scan.region == SPINE else ('dseg',)


def map_path(scan: Scan, key: str, desc: str) -> PurePosixPath:
    """Return where another label map than the published one lies, relative to the output folder.

    Parameters
    ----------
    scan
        The scan.
    key
        One of :func:`map_keys`.
    desc
        What map it is.

    Examples
    --------
    >>> scan = Scan((('sub', '01'), ('acq', 'sag')), 'T2w', 'spine', ())
    >>> map_path(scan, 'discs', 'network').name
    'sub-01_acq-sag_seg-discs_desc-network_dseg.nii.gz'
    """
    path = derivative_path(scan, key)
    return path.with_name(path.name.replace('_dseg.', f'_desc-{_checked(desc)}_dseg.'))


def lookup_of(path: Path) -> Path:
    """Return where the lookup table of a label map lies."""
    return path.with_name(f'{path.name.split(".")[0]}.tsv')


def participant_path(participant: str, key: str) -> PurePosixPath:
    """Return the path of an output of a participant, relative to the output folder.

    Examples
    --------
    >>> str(participant_path('01', 'settings'))
    'logs/sub-01/settings.toml'
    """
    template = io_spec()['participant'][key]
    return PurePosixPath(template.format(sub=f'sub-{_checked(participant)}'))


def spine_path(stem: str, key: str) -> PurePosixPath:
    """Return the path of a table of vertebrae and discs, relative to the output folder.

    Parameters
    ----------
    stem
        Name of the label maps it is made from, up to ``_seg-``.
    key
        A key of the table ``spine`` in ``data/io_spec.json``.

    Examples
    --------
    >>> str(spine_path('sub-01_acq-sag', 'morph_spine'))
    'sub-01/anat/sub-01_acq-sag_desc-spine_morph.tsv'
    """
    parts = (part.partition('-') for part in stem.split('_'))
    entities = tuple((name, _checked(label)) for name, _, label in parts)
    scan = Scan(entities, '', None, ())
    folder = f'sub-{scan.participant}' + (f'/ses-{scan.session}' if scan.session else '')
    return PurePosixPath(io_spec()['spine'][key].format(anat=f'{folder}/anat', stem=scan.name))


def name_ending(key: str, *, seg: str = '') -> str:
    """Return how the names of an output end, after the entities of its scan or session.

    Parameters
    ----------
    key
        A key of the tables ``scan``, ``spine`` or ``session`` in ``data/io_spec.json``.
    seg
        Label of the segmentation; by default the ending begins after it.

    Examples
    --------
    >>> name_ending('morph_levels'), name_ending('morph_levels', seg='lumbarmuscles')
    ('_desc-levels_morph.tsv', '_seg-lumbarmuscles_desc-levels_morph.tsv')
    """
    spec = io_spec()
    template = next(
        spec[table][key] for table in ('scan', 'spine', 'session') if key in spec[table]
    )
    ending = re.sub(r'.*/\{\w+\}', '', template)
    return ending.format(seg=seg) if seg else ending.replace('_seg-{seg}', '')


def session_path(participant: str, session: str | None, key: str) -> PurePosixPath:
    """Return the path of an output of a session, relative to the output folder.

    Examples
    --------
    >>> str(session_path('01', 'a', 'morph_joined'))
    'sub-01/ses-a/anat/sub-01_ses-a_desc-joined_morph.tsv'
    """
    parts = [f'sub-{_checked(participant)}', *([f'ses-{_checked(session)}'] if session else [])]
    template = io_spec()['session'][key]
    return PurePosixPath(template.format(anat='/'.join([*parts, 'anat']), session='_'.join(parts)))


def dataset_path(key: str, *, seg: str = '', analysis: str = '', rater: str = '') -> PurePosixPath:
    """Return the path of an output that belongs to the whole dataset.

    Examples
    --------
    >>> str(dataset_path('lookup', seg='lumbarmuscles'))
    'seg-lumbarmuscles_dseg.tsv'
    """
    template = io_spec()['dataset'][key]
    return PurePosixPath(
        template.format(
            seg=_checked(seg) if '{seg}' in template else '',
            analysis=analysis,
            rater=_checked(rater) if '{rater}' in template else '',
        )
    )


def output_contrasts(scan: Scan) -> tuple[Contrast, ...]:
    """Return the contrasts of which a scan gets a preprocessed image.

    Water and fat are among them where they are computed from in- and opposed-phase images or from
    echoes; the fat fraction is not, as it has a file of its own.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bids_muscle.dataset.scan import ScanImage
    >>> images = [ScanImage(c, Path()) for c in (Contrast.IN_PHASE, Contrast.OPPOSED_PHASE)]
    >>> scan = Scan((('sub', '1'), ('acq', 'dixon')), 'T1w', 'lumbar', tuple(images))
    >>> [str(contrast) for contrast in output_contrasts(scan)]
    ['water', 'fat', 'inphase', 'opposedphase']
    """
    found = set(scan.paths)
    if scan.fat_source in (FatSource.PHASES, FatSource.ECHOES):
        found |= {Contrast.WATER, Contrast.FAT}
    return tuple(c for c in Contrast if c in found and c != Contrast.FAT_FRACTION)


def expected_outputs(
    scan: Scan,
    *,
    bias_correction: bool = True,
    atlas: str | None = None,
    deformable: bool = False,
    level: str = 'full',
) -> list[PurePosixPath]:
    """List all files that a finished scan has, relative to the output folder.

    Parameters
    ----------
    scan
        The scan.
    bias_correction
        Whether the bias field is removed, and so drawn.
    atlas
        As in :func:`derivative_path`.
    deformable
        Whether the scan is deformed to its atlas.
    level
        How much is kept; see :func:`left_out`.
    """
    gone = left_out(level)
    loose, packed = split_figures(
        io_spec()['sagittal_figures' if scan.region == SPINE else 'figures'], level
    )
    if not packed:
        gone |= {'packed_figures'}
    if scan.region == SPINE:
        keys = [key for key in _templates(scan) if key != 'figure' and key not in gone]
        return [
            *(derivative_path(scan, key) for key in keys),
            *(derivative_path(scan, 'figure', desc=name) for name in loose),
        ]
    contrasts = output_contrasts(scan)
    absent = {'spine', *gone, *(('confidence', 'confidence_json') if scan.manual else ())}
    if scan.fat_source is None:
        absent |= {'fat_fraction', 'fat_fraction_json', 'fatfraction', 'histograms'}
        if scan.fat_suppressed or not set(scan.paths) & set(BRIGHT_FAT):
            absent |= {'fat_map', 'fat_map_json'}
    if scan.fat_source is not FatSource.WATER_AND_FAT:
        absent |= {'swap_mask', 'swap_mask_json'}
    if scan.region not in REGIONS:
        absent |= {key for key, template in _templates(scan).items() if 'atlas}' in template}
        absent |= {'alignment', 'template'}
    if not deformable:
        absent |= {'xfm_field', 'xfm_field_json'}
    if not bias_correction or not contrasts:
        absent |= {'uncorrected', 'corrected', 'bias'}
    paths = []
    for key, template in io_spec()['scan'].items():
        if key in gone:
            continue
        if '{image}' in template:
            paths += [derivative_path(scan, key, contrast=contrast) for contrast in contrasts]
        elif '{desc}' in template:
            paths += [derivative_path(scan, key, desc=n) for n in loose if n not in absent]
        elif key not in absent:
            paths.append(derivative_path(scan, key, atlas=atlas))
    return paths


@cache
def left_out(level: str) -> frozenset[str]:
    """Return the keys of the outputs of a scan that a level leaves out.

    Parameters
    ----------
    level
        ``'minimal'``, ``'standard'`` or ``'full'``.

    Examples
    --------
    >>> 'fat_map_json' in left_out('standard'), 'levels' in left_out('standard')
    (True, False)
    """
    keys = io_spec()['output_levels'][level]['left_out']
    return frozenset([*keys, *(key if key.endswith('_json') else f'{key}_json' for key in keys)])


def split_figures(names: Iterable[str], level: str) -> tuple[list[str], list[str]]:
    """Return which figures of a scan are files of their own at a level, and which go together.

    Examples
    --------
    >>> split_figures(['slices', 'surfaces'], 'standard')
    (['slices'], ['surfaces'])
    >>> split_figures(['slices', 'surfaces'], 'minimal')
    ([], ['slices'])
    """
    spec = io_spec()['output_levels'][level]
    drawn = [name for name in names if name in spec.get('figures', (name,))]
    loose = [name for name in drawn if name in spec.get('loose_figures', (name,))]
    return loose, [name for name in drawn if name not in loose]


def joined_outputs(scan: Scan) -> list[PurePosixPath]:
    """List the files of a joined scan, each table with its data dictionary."""
    keys = ('morph', 'morph_slices', 'morph_levels')
    return [derivative_path(scan, f'{key}{end}') for key in keys for end in ('', '_json')]


def _templates(scan: Scan) -> dict[str, str]:
    templates: dict[str, str] = io_spec()['sagittal' if scan.region == SPINE else 'scan']
    if scan.region == SPINE:  # its table is named as that of the label maps of other programs
        templates = {**templates, **{key: io_spec()['spine'][key] for key in SPINE_TABLE}}
    return templates


def _image_name(scan: Scan, contrast: Contrast) -> str:
    """Name of one image: a Dixon scan's ``acq`` label is followed by the contrast."""
    token = str(contrast) if contrast in DIXON else ''
    return '_'.join(
        f'{key}-{label}{token if key == "acq" else ""}' for key, label in scan.entities
    )


def _in_space(scan: Scan, space: str) -> str:
    """Name of the scan with a ``space`` where BIDS wants it: before ``chunk``."""
    parts = [f'{key}-{label}' for key, label in scan.entities]
    place = next((at for at, part in enumerate(parts) if part.startswith('chunk-')), len(parts))
    return '_'.join([*parts[:place], f'space-{space}', *parts[place:]])


def segmentation(scan: Scan) -> str:
    """Return the value of the ``seg`` entity of the label map of a scan."""
    if scan.seg:
        return scan.seg
    if scan.region is None:
        raise ValueError(f'{scan.name} has no region, so its segmentation has no name')
    return load_label_table(scan.region).segmentation


def _checked(label: str) -> str:
    if not _LABEL.fullmatch(label):
        raise BadDataError(
            f'{label!r} cannot be part of a BIDS file name.', 'Use letters and digits only.'
        )
    return label


def read_entities(path: PurePath) -> dict[str, str]:
    """Return the BIDS entities in the name of a file.

    Examples
    --------
    >>> from pathlib import Path
    >>> read_entities(Path('sub-01_seg-discs_dseg.nii.gz'))
    {'sub': '01', 'seg': 'discs'}
    """
    parts = path.name.split('.')[0].split('_')
    matches = (_ENTITY.fullmatch(part) for part in parts)
    return {match[1]: match[2] for match in matches if match}


def anat_path(entities: Mapping[str, str], ending: str) -> PurePosixPath:
    """Return where a file lies in a dataset by the entities in its name.

    Examples
    --------
    >>> str(anat_path({'sub': '01', 'ses': 'a', 'acq': 'x'}, 'T2w.nii.gz'))
    'sub-01/ses-a/anat/sub-01_ses-a_acq-x_T2w.nii.gz'
    """
    parts = {key: f'{key}-{label}' for key, label in entities.items()}
    folders = [parts[key] for key in ('sub', 'ses') if key in parts]
    return PurePosixPath(*folders, 'anat', '_'.join([*parts.values(), ending]))


def sidecar_of(path: Path) -> Path:
    """Return where the sidecar of an image lies."""
    return path.with_name(f'{path.name.split(".")[0]}.json')
