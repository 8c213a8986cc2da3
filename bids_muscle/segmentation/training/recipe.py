"""A recipe: what a model is trained on and how, read from a TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bids_muscle.errors import UsageError

OPTIMIZERS = ('adamw', 'adam')
SCHEDULES = ('rise-hold-fall', 'constant')


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
        Image paths of each label map, ``{participant}`` replaced by its participant label
        (``01`` of ``sub-01``): water and fat, or one image. Empty where there are only labels.
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
    all_slices
        True where the map is complete, so that slices that lack some muscle, or all, are used too.
    """

    name: str
    labels: str
    codes: dict[int, int]
    annotated: tuple[int, ...]
    weight: float
    images: tuple[str, ...] = ()
    fat_codes: tuple[int, ...] = ()
    slice_step: int = 1
    slices: tuple[int, int] | None = None
    cropped: bool = False
    bias_correction: bool = True
    pixel_mm: float = 1.0
    all_slices: bool = False


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
    center_labels
        Muscles whose middle is the origin of every plane.
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
    center_labels: tuple[int, ...] = (1, 2, 3, 4)
    channels: tuple[str, ...] = ('any',)
    loss: str = 'marginal'
    optimizer: str = 'adamw'
    schedule: str = 'rise-hold-fall'
    clip_norm: float = 5.0

    def __post_init__(self) -> None:
        for field, known in (('optimizer', OPTIMIZERS), ('schedule', SCHEDULES)):
            if getattr(self, field) not in known:
                raise UsageError(
                    f'The recipe {self.name} has the {field} {getattr(self, field)!r}.',
                    f'Use one of {", ".join(known)}.',
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
        return Recipe(**{**self.__dict__, 'sources': left})

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON-ready data, for the model card."""
        return asdict(self)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises
    ------
    UsageError
        If the file is missing, is not TOML, or a field is missing or unknown.
    """
    remedy = 'See bids_muscle/data/recipes/lumbar.toml for a complete recipe.'
    try:
        content = tomllib.loads(path.read_text(encoding='utf-8'))
        sources = tuple(_source(entry) for entry in content.pop('source'))
        for name in ('window_px', 'center_labels'):
            if name in content:
                content[name] = tuple(int(value) for value in content[name])
        if 'channels' in content:
            content['channels'] = tuple(content['channels'])
        return Recipe(**content, sources=sources)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f'The recipe {path} cannot be read: {error}.', remedy) from error
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f'The recipe {path} is not complete: {error!r}.', remedy) from error


def _source(entry: dict[str, Any]) -> Source:
    return Source(
        **{
            **entry,
            'codes': {int(code): int(label) for code, label in entry['codes'].items()},
            'annotated': tuple(entry['annotated']),
            'images': tuple(entry.get('images', ())),
            'fat_codes': tuple(entry.get('fat_codes', ())),
            'slices': tuple(entry['slices']) if 'slices' in entry else None,
        }
    )
