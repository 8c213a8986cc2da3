"""A recipe: what a model is trained on and how, read from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from bids_muscle.errors import PARSE_ERRORS, UsageError
from bids_muscle.files import read_small
from bids_muscle.segmentation.postprocess import BRIDGE_MM

#: What some fields of a recipe may be.
CHOICES = {
    'optimizer': ('adamw', 'adam'),
    'schedule': ('rise-hold-fall', 'constant'),
    'plane': ('axial', 'sagittal'),
    'space': ('native', 'atlas'),
    'normalization': ('planes', 'range', 'zscore'),
}


@dataclass(frozen=True)
class Source:
    """Label maps of one kind, with or without the images they were drawn on.

    Parameters
    ----------
    name
        What ``--exclude`` names.
    labels
        Glob of the label maps below a data folder: NIfTI, or a ``.zip`` of PNG planes.
    images
        Image paths of each label map below the data folder. ``{participant}`` is replaced by its
        participant label (``01`` of ``sub-01``), ``{folder}`` by its folder from the participant
        on (``sub-01/ses-1/anat``), ``{scan}`` by the entities of its scan
        (``sub-01_ses-1_run-2``). Empty where there are only labels.
    contrasts
        Contrast of each image; water and fat for two, T2w for one, unless the recipe says more.
    codes
        Number in the map -> number in the label table. Other numbers stay as structures that
        are not muscles of the table; numbers in ``fat_codes`` are also marked as fat.
    annotated
        Labels that the map has; the loss does not ask for the others.
    weight
        Share of this source among the planes seen in training.
    slice_step
        Every how many-th slice is used.
    slices
        First slice and the one after the last in RAS order, or None for all.
    cropped
        True where the map ends at the edge of its field of view; the image is then air beyond.
    bias_correction
        Whether the images are corrected first, as in the application.
    pixel_mm
        Pixel size of the planes in a ``.zip``, mm.
    kind
        ``'files'`` for the patterns above; ``'bids'`` for every ``seg-<seg>_dseg`` in the
        ``derivatives`` of the data folders, which are then BIDS datasets: codes, annotated labels
        and images are found out.
    seg
        The ``seg`` entity for ``kind = 'bids'``.
    all_slices
        True where the map is complete, so that slices that lack some muscle, or all, are used too.
    unknown
        Numbers in the map of pixels that may be anything; the loss leaves them out.
    tissues
        Number in the map -> name of a tissue that is not muscle, of
        :data:`~bids_muscle.segmentation.training.sources.TISSUES`, for synthetic images.
    joined
        Labels that the map does not tell from another: label -> the annotated label whose outline
        contains it.
    """

    name: str
    labels: str = ''
    codes: dict[int, int] = field(default_factory=dict)
    annotated: tuple[int, ...] = ()
    weight: float = 1.0
    images: tuple[str, ...] = ()
    fat_codes: tuple[int, ...] = ()
    slice_step: int = 1
    slices: tuple[int, int] | None = None
    cropped: bool = False
    bias_correction: bool = True
    pixel_mm: float = 1.0
    all_slices: bool = False
    kind: str = 'files'
    seg: str = ''
    contrasts: tuple[str, ...] = ()
    unknown: tuple[int, ...] = ()
    tissues: dict[int, str] = field(default_factory=dict)
    joined: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Patches:
    """How windows are cut from whole volumes and deformed.

    Parameters
    ----------
    choice
        ``'foreground'``: half of the windows are about a pixel of a muscle, half about one of the
        background. ``'uniform'``: anywhere. ``'center'``: about the middle of a plane with labels.
    per_volume
        Windows from each volume that is drawn; a batch has ``batch_size`` times as many.
    pad_px
        How far windows may reach over the edges of the volume (x, y, slices).
    mirror
        Whether half of the windows are mirrored, and right and left labels swapped.
    scale
        Greatest change of size along each axis, as a share.
    rotation_deg, shift_px
        Greatest turn about and shift along (x, y, slices).
    elastic_control_points, elastic_sd_px
        Elastic deformation by a cubic B-spline, as in NiftyNet; 0 for none.
    elastic_sigma_px, elastic_magnitude
        Elastic deformation by smoothed noise, as in MONAI: least and greatest; 0 for none.
    gradient_maps
        Whether half of the windows show the magnitude of the gradient instead of the image.
    """

    choice: str = 'foreground'
    per_volume: int = 1
    pad_px: tuple[int, ...] = (0, 0, 0)
    mirror: bool = False
    scale: float = 0.0
    rotation_deg: tuple[float, ...] = (0.0, 0.0, 0.0)
    shift_px: tuple[float, ...] = (0.0, 0.0, 0.0)
    elastic_control_points: int = 3
    elastic_sd_px: float = 0.0
    elastic_sigma_px: tuple[float, ...] = (0.0, 0.0)
    elastic_magnitude: tuple[float, ...] = (0.0, 0.0)
    gradient_maps: bool = False


@dataclass(frozen=True)
class Recipe:
    """Sources and hyper-parameters of one training.

    Parameters
    ----------
    name, version, region, description
        What the model card says.
    seed
        Of the weights, the order of the data and the augmentation.
    spacing_mm
        Pixel size in plane at which the network works.
    window_px
        Extent of what the network sees in training, (x, y) or (x, y, z).
    iterations, batch_size, learning_rate, weight_decay
        Of the optimizer.
    ema_decay
        Decay of the running average of the weights that becomes the model; 0 for the last weights.
    network
        Configuration for :func:`~bids_muscle.segmentation.networks.build_network`.
    sources
        The data.
    background_weight
        See :class:`~bids_muscle.segmentation.bundle.ModelBundle`.
    neighbours_mm
        See :class:`~bids_muscle.segmentation.model.Model`.
    channels
        What the channels of the network show, in order: ``'any'`` for one image of any contrast,
        or names of contrasts such as ``'inphase'``.
    loss
        See :func:`~bids_muscle.segmentation.training.loss.make_loss`.
    optimizer
        ``'adamw'``, or ``'adam'`` with the weight decay as an L2 penalty.
    schedule
        ``'rise-hold-fall'`` of the learning rate, or ``'constant'`` as in the papers.
    clip_norm
        Greatest norm of the gradient; 0 for no limit.
    start
        Model, by name or folder, whose weights the training begins with; empty to begin with
        random ones.
    displaced_share, ghosted_share, coil_share, fascia_share
        Share of the random views with fat displaced against water (chemical shift), of those
        with ghosts, of those brighter near elements of a coil, and of those with dark lines
        between the muscles.
    echo_share, clipped_share, flow_share, metal_share, faint_share
        Share of the random views that are gradient echoes at any echo time, of those with a
        saturated brightest part, with ghosts of vessels, with a void as of metal, and of those
        from the edge of a slab, with little signal above the noise.
    faded_share
        Share of the random views that fade and get noisy to the front, and of those with a
        saturation band.
    thick_share
        Share of the random views that are reformatted from thick slices across the first axis of
        the plane (from below upwards, in sagittal planes).
    jitter_px
        How much larger or smaller than ``window_px`` random views may be, along each axis.
    doubt_px
        Pixels on either side of the border between multifidus and erector spinae that the loss
        leaves out, since readers differ there.
    cpu_bfloat16
        Whether the network runs in bfloat16 also on the CPU: half the time on those that have it
        (AVX-512 BF16, AMX), slower on others.
    center_labels
        Muscles whose middle is the origin of every plane.
    validate_every, patience
        Where people are held out: iterations between validations, and validations without a
        better Dice after which the training ends early; 0 to train to the end. The best weights
        are kept either way.
    patches
        How windows are cut from whole volumes; None for random views of planes in random
        contrasts. What follows is for windows.
    slice_mm
        Distance of slices at which the network works; 0 for that of the scan.
    plane
        ``'axial'`` or ``'sagittal'``: what the network takes for a plane.
    normalization
        Of the intensities of a scan: ``'planes'`` (by percentiles of each plane), ``'range'``
        (least and greatest become 0 and 1) or ``'zscore'`` (mean 0 and variance 1).
    landmarks
        Landmarks of histogram standardisation by contrast, which goes before; see
        :func:`~bids_muscle.segmentation.intensity.standardize_histogram`.
    numbers
        Number in the label table of each class, with 0 for the background and for classes that
        the table does not have; empty where the classes are those of the table.
    space
        ``'native'``, or ``'atlas'`` where scans are first aligned to an atlas.
    postprocess
        What the label map goes through, see
        :func:`~bids_muscle.segmentation.postprocess.postprocess`.
    bridge_mm
        See :class:`~bids_muscle.segmentation.model.Model`.
    """

    name: str
    version: str
    region: str
    description: str
    seed: int
    spacing_mm: float
    window_px: tuple[int, ...]
    iterations: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    ema_decay: float
    network: dict[str, Any]
    sources: tuple[Source, ...]
    background_weight: float = 1.0
    neighbours_mm: float = 0.0
    center_labels: tuple[int, ...] = (1, 2, 3, 4)
    channels: tuple[str, ...] = ('any',)
    loss: str = 'marginal'
    optimizer: str = 'adamw'
    schedule: str = 'rise-hold-fall'
    clip_norm: float = 5.0
    start: str = ''
    displaced_share: float = 0.0
    ghosted_share: float = 0.0
    coil_share: float = 0.0
    fascia_share: float = 0.0
    echo_share: float = 0.0
    clipped_share: float = 0.0
    flow_share: float = 0.0
    metal_share: float = 0.0
    faint_share: float = 0.0
    faded_share: float = 0.0
    thick_share: float = 0.0
    doubt_px: int = 0
    jitter_px: int = 0
    cpu_bfloat16: bool = False
    validate_every: int = 500
    patience: int = 0
    patches: Patches | None = None
    slice_mm: float = 0.0
    plane: str = 'axial'
    normalization: str = 'planes'
    landmarks: dict[str, tuple[float, ...]] = field(default_factory=dict)
    numbers: tuple[int, ...] = ()
    space: str = 'native'
    postprocess: tuple[str, ...] = ('muscles',)
    bridge_mm: float = BRIDGE_MM

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(
                    f'The {name} {getattr(self, name)!r} of the recipe {self.name} is unknown.',
                    f'Use one of {", ".join(choices)}.',
                )
        if self.loss != 'marginal' and any(source.unknown for source in self.sources):
            raise UsageError(
                f'The recipe {self.name} has a source with unlabelled pixels, which the loss '
                f'{self.loss!r} cannot ignore.',
                "Use loss = 'marginal', which ignores them.",
            )

    def without(self, excluded: tuple[str, ...]) -> Recipe:
        """Return the recipe without the named sources.

        Raises
        ------
        UsageError
            If a name is not a source, or nothing is left.
        """
        names = [source.name for source in self.sources]
        for name in excluded:
            if name not in names:
                raise UsageError(
                    f'The recipe {self.name} has no source {name!r}.',
                    f'Exclude one of {", ".join(names)}.',
                )
        left = tuple(source for source in self.sources if source.name not in excluded)
        if not left:
            raise UsageError('Every source of the recipe is excluded.', 'Exclude fewer.')
        return replace(self, sources=left)

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON-ready data, for the model card."""
        return asdict(self)


def recipe_names() -> list[str]:
    """Return the names of the recipes in the package."""
    return sorted(path.stem for path in _packaged().glob('*.toml'))


def find_recipe(name_or_path: str) -> Recipe:
    """Read a recipe of the package by its name, or one by its path.

    Raises
    ------
    UsageError
        If there is none, or it cannot be used.
    """
    if name_or_path in recipe_names():
        return read_recipe(_packaged() / f'{name_or_path}.toml')
    path = Path(name_or_path)
    if not path.is_file():
        raise UsageError(
            f'The recipe {name_or_path!r} is neither a packaged recipe nor a file.',
            f'Use one of {", ".join(recipe_names())}, or the path of a TOML file.',
        )
    return read_recipe(path)


def _packaged() -> Path:
    return Path(str(resources.files('bids_muscle') / 'data/recipes'))


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    A recipe may name another of the package as its ``base``: it then has the fields of that one,
    but for its own; tables such as ``[network]`` are merged, sources are replaced.

    Raises
    ------
    UsageError
        If the file is missing, is not TOML, or a field is missing, unknown or of another type.
    """
    remedy = 'See docs/models.md, or bids_muscle/data/recipes/lumbar.toml for a complete recipe.'
    try:
        content = _content(path)
        sources = tuple(_source(entry) for entry in content.pop('source', []))
        if not sources:
            raise UsageError('[[source]] is missing', '')
        _check_fields(content, Recipe, {'sources'})
        if 'patches' in content:
            _check_fields(content['patches'], Patches, set())
            content['patches'] = Patches(**tuples(content['patches']))
        content['landmarks'] = tuples(content.get('landmarks', {}))
        return Recipe(**tuples(content), sources=sources)
    except UsageError as error:
        raise UsageError(
            f'The recipe {path} cannot be used: {error.message.rstrip(".")}.',
            error.remedy or remedy,
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f'The recipe {path} cannot be used: {error!r}.', remedy) from error


def _content(path: Path) -> dict[str, Any]:
    """Read the fields of a recipe over those of its base."""
    try:
        own = tomllib.loads(read_small(path).decode())
    except (OSError, *PARSE_ERRORS) as error:
        raise UsageError(f'it cannot be read: {error}', '') from error
    if 'base' not in own:
        return own
    base = own.pop('base')
    if base not in recipe_names():
        raise UsageError(
            f'its base {base!r} is not a packaged recipe',
            f'Use one of {", ".join(recipe_names())}.',
        )
    content = _content(_packaged() / f'{base}.toml')
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(content.get(key), dict)
        content[key] = {**content[key], **value} if both else value
    return content


def tuples(content: Mapping[str, Any]) -> dict[str, Any]:
    """Turn lists into tuples, so that recipes compare and stay as they are."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in content.items()}


def _source(entry: dict[str, Any]) -> Source:
    _check_fields(entry, Source, set())
    kind = entry.get('kind', 'files')
    needed = {'files': ('labels', 'codes', 'annotated'), 'bids': ('seg',)}
    if kind not in needed:
        raise UsageError(
            f'the kind {kind!r} of a source is unknown', f'Use one of {", ".join(needed)}.'
        )
    missing = [name for name in needed[kind] if name not in entry]
    if missing:
        raise UsageError(f'{", ".join(missing)} is missing from the source {entry["name"]}', '')
    return Source(
        **{
            **entry,
            'codes': {int(code): int(label) for code, label in entry.get('codes', {}).items()},
            'annotated': tuple(entry.get('annotated', ())),
            'images': tuple(entry.get('images', ())),
            'fat_codes': tuple(entry.get('fat_codes', ())),
            'slices': tuple(entry['slices']) if 'slices' in entry else None,
            'contrasts': tuple(entry.get('contrasts', ())),
            'unknown': tuple(entry.get('unknown', ())),
            'tissues': {int(code): name for code, name in entry.get('tissues', {}).items()},
            'joined': {int(a): int(b) for a, b in entry.get('joined', {}).items()},
        }
    )


#: Python types by the annotations of the plain fields, and their names in a recipe.
_TYPES: dict[Any, tuple[Any, str]] = {
    'int': (int, 'a whole number'),
    'float': ((int, float), 'a number'),
    'str': (str, 'text'),
    'bool': (bool, 'true or false'),
}


def _check_fields(
    entry: dict[str, Any], kind: type[Recipe | Source | Patches], set_later: set[str]
) -> None:
    """Raise if a field is unknown, missing, or of another type."""
    allowed = {f.name: f for f in fields(kind) if f.name not in set_later}
    unknown = [name for name in entry if name not in allowed]
    if unknown:
        near = get_close_matches(unknown[0], allowed)
        raise UsageError(
            f'the field {unknown[0]} is unknown', f'Did you mean {near[0]}?' if near else ''
        )
    for name, f in allowed.items():
        if name not in entry:
            if f.default is MISSING and f.default_factory is MISSING:
                raise UsageError(f'the field {name} is missing', '')
        elif f.type in _TYPES and not isinstance(entry[name], _TYPES[f.type][0]):
            what = _TYPES[f.type][1]
            raise UsageError(f'the field {name} is {entry[name]!r}, not {what}', '')
