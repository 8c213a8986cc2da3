"""Model bundles: a folder with ``model.json`` and one file of weights, or one per fold."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.anatomy.labels import (
    REGIONS,
    SPINE,
    Label,
    LabelTable,
    load_label_table,
    side_and_structure,
)
from bids_muscle.errors import PARSE_ERRORS, ModelError
from bids_muscle.files import read_small
from bids_muscle.tables import name_some

if TYPE_CHECKING:
    from torch import nn

#: File names in a bundle.
CARD, WEIGHTS = 'model.json', 'weights.safetensors'
#: Version of the layout of ``model.json``.
FORMAT = 1
#: No plane of an image has more pixels along a side.
_LARGEST_WINDOW_PX = 8192
#: Fields of a card that belong to one fold of a cross-validation.
FOLD_FIELDS = ('fold', 'training', 'measured')


@dataclass(frozen=True)
class ModelBundle:
    """A trained model on disk, known from its card; the weights are not read yet.

    Parameters
    ----------
    path
        Folder of the bundle.
    name, version
        What the outputs say about the model.
    region
        ``'cervical'``, ``'lumbar'``, or ``'spine'`` for sagittal scans.
    labels
        The numbers in the label maps that the model makes.
    weights
        Files of weights, one per fold; the probabilities of all folds are averaged.
    sha256
        Checksum of the contents of the weights files, one after the other.
    network
        Configuration for :func:`~bids_muscle.segmentation.networks.build_network`.
    spacing_mm
        Pixel size in plane at which the network works.
    window_px
        Least (x, y) extent of the plane that the network sees, in pixels of ``spacing_mm``.
    card
        The whole of ``model.json``: training data, recipe, seed, measured accuracy.
    background_weight
        Factor on the probability of the background before the likeliest class is taken. A network
        trained with Dice outlines too widely, and a rim of fat around a muscle raises its MFI;
        the factor is chosen on people with known outlines that are not in the training.
    """

    path: Path
    name: str
    version: str
    region: str
    labels: LabelTable
    weights: tuple[Path, ...]
    sha256: str
    network: Mapping[str, Any]
    spacing_mm: float
    window_px: tuple[int, int]
    card: Mapping[str, Any]
    background_weight: float = 1.0

    @property
    def unlabelled(self) -> tuple[Label, ...]:
        """Muscles of the region that the model has no class for."""
        numbers = self.card.get('numbers') or self.labels.by_index
        known = {label.name for label in self.labels if label.index in numbers}
        wanted = load_label_table(self.region) if self.region in (*REGIONS, SPINE) else ()
        return tuple(label for label in wanted if label.name not in known)

    @property
    def renamed(self) -> dict[str, str]:
        """Name here of each class that its own program calls otherwise."""
        return {
            label.source: label.name
            for label in self.labels
            if label.source and side_and_structure(label.source) != side_and_structure(label.name)
        }

    def warnings(self) -> list[str]:
        """Return which muscles of the region the model cannot give."""
        names = name_some(label.name for label in self.unlabelled)
        return [f'The model {self.name} has no class for {names}.'] if names else []

    def remarks(self) -> list[str]:
        """Describe missing muscles and renamed structures."""
        names = name_some(f'{theirs} is {ours}' for theirs, ours in self.renamed.items())
        return [*self.warnings(), *([f'In the model {self.name} {names}.'] if names else [])]


def read_bundle(folder: Path) -> ModelBundle:
    """Read the card of a bundle.

    Raises
    ------
    ModelError
        If the card is missing, not JSON, of another format version, or lacks a field.
    """
    path = folder / CARD
    remedy = 'Copy the model folder again, or use a model made for this version of bids_muscle.'
    try:
        card = json.loads(read_small(path))
    except (OSError, *PARSE_ERRORS) as error:
        raise ModelError(f'The model card {path} cannot be read: {error}.', remedy) from error
    try:
        if card['format'] != FORMAT:
            raise ModelError(f'{path} has format {card["format"]}, not {FORMAT}.', remedy)
        table = load_label_table(card['region'])
        if card['labels'] != {str(label.index): label.name for label in table}:
            raise ModelError(f'The labels in {path} are not those of {table.region}.', remedy)
        if not all(isinstance(card[key], str) for key in ('name', 'version', 'sha256')):
            raise TypeError('name, version and sha256 are texts')
        return ModelBundle(
            path=folder,
            name=card['name'],
            version=card['version'],
            region=card['region'],
            labels=table,
            weights=tuple(folder / Path(name).name for name in card.get('weights', [WEIGHTS])),
            sha256=card['sha256'],
            network=card['network'],
            spacing_mm=_positive(card['spacing_mm']),
            window_px=_window(*card['window_px']),
            background_weight=_positive(card.get('background_weight', 1)),
            card=card,
        )
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise ModelError(f'{path} is not a model card: {error!r}.', remedy) from error


def _positive(value: Any) -> float:
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f'{value!r} is not a positive number')
    return number


def _window(width: Any, height: Any, *depth: Any) -> tuple[int, int]:
    sizes = tuple(int(size) for size in (width, height, *depth))
    if len(sizes) > 3 or not all(0 < size <= _LARGEST_WINDOW_PX for size in sizes):
        raise ValueError(f'{sizes} is not the size of a window')
    return sizes[0], sizes[1]


def load_networks(bundle: ModelBundle) -> tuple[nn.Module, ...]:
    """Build the network of each fold and load its checked weights, in float32, for inference.

    Raises
    ------
    ModelError
        If weights are missing, their SHA-256 is not that of the card, or they do not fit the
        network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from bids_muscle.segmentation.networks import build_network

    remedy = 'Copy the model folder again; the weights and the card belong together.'
    contents = []
    for path in bundle.weights:
        try:
            contents.append(path.read_bytes())
        except OSError as error:
            raise ModelError(f'The weights {path} cannot be read: {error}.', remedy) from error
    digest = _digest(contents)
    if not contents or digest != bundle.sha256:
        raise ModelError(
            f'The weights in {bundle.path} have the SHA-256 {digest[:12]}..., the card says '
            f'{bundle.sha256[:12]}....',
            remedy,
        )
    networks = []
    for path, content in zip(bundle.weights, contents, strict=True):
        network = build_network(bundle.network)
        try:
            network.load_state_dict({n: value.float() for n, value in load(content).items()})
        except (RuntimeError, SafetensorError) as error:
            raise ModelError(
                f'The weights {path} do not fit the network: {error}', remedy
            ) from error
        networks.append(network.eval())
    return tuple(networks)


def write_bundle(folder: Path, network: nn.Module, card: Mapping[str, Any]) -> ModelBundle:
    """Write a bundle: weights in half precision and the card with their SHA-256.

    Parameters
    ----------
    folder
        Folder of the bundle; made if absent.
    network
        The trained network.
    card
        Everything of ``model.json`` except ``format``, ``labels``, ``weights`` and ``sha256``.

    Returns
    -------
    ModelBundle
        As read back from the folder.
    """
    from safetensors.torch import save

    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    # Counters of batch norm are whole numbers and may be too large for half precision.
    halved = {n: v.half() if v.is_floating_point() else v for n, v in state.items()}
    content = save({name: value.contiguous() for name, value in halved.items()})
    return _write(folder, {WEIGHTS: content}, card)


def merge_bundles(bundles: Sequence[ModelBundle], folder: Path, name: str) -> ModelBundle:
    """Write the folds of a cross-validation, or one model, as one bundle under a new name.

    Parameters
    ----------
    bundles
        One per fold; networks and grids must be the same.
    folder
        Folder of the new bundle; made if absent.
    name
        Name of the new model.

    Raises
    ------
    ModelError
        If the bundles do not belong together, or the weights of one are not those of its card.
    """
    first = bundles[0]
    own = {*FOLD_FIELDS, 'datasets', 'sha256'}
    for bundle in bundles:
        for field in sorted((first.card.keys() | bundle.card.keys()) - own):
            if bundle.card.get(field) != first.card.get(field):
                raise ModelError(
                    f'{first.path} and {bundle.path} cannot be one model: {field} differs.',
                    'Package the folds of one training.',
                )
        load_networks(bundle)
    files = [path for bundle in bundles for path in bundle.weights]
    names = [WEIGHTS] if len(files) == 1 else [f'fold-{i}.safetensors' for i in range(len(files))]
    contents = {name: path.read_bytes() for name, path in zip(names, files, strict=True)}
    card = {**first.card, 'name': name}
    if len(bundles) > 1:
        # What was measured, and on whom, is another story in each fold.
        card |= {'folds': [{k: b.card.get(k) for k in FOLD_FIELDS} for b in bundles]}
        card = {key: value for key, value in card.items() if key not in FOLD_FIELDS}
        card['datasets'] = _all_datasets(bundles)
    return _write(folder, contents, card)


def _all_datasets(bundles: Sequence[ModelBundle]) -> list[dict[str, Any]]:
    """Return the datasets of all folds with the participants of any of them."""
    people: dict[tuple[str, str], set[str]] = {}
    for dataset in (each for bundle in bundles for each in bundle.card.get('datasets', ())):
        key = dataset['name'], dataset['license']
        people.setdefault(key, set()).update(dataset['participants'])
    return [
        {'name': name, 'license': terms, 'participants': sorted(people[name, terms])}
        for name, terms in people
    ]


def update_card(bundle: ModelBundle, fields: Mapping[str, Any]) -> ModelBundle:
    """Add fields to the card of a bundle, or replace them; the weights stay as they are."""
    _write_card(bundle.path, {**bundle.card, **fields})
    return read_bundle(bundle.path)


def _write(folder: Path, contents: Mapping[str, bytes], card: Mapping[str, Any]) -> ModelBundle:
    """Write weights first and the card last, so that a card never names what is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    whole = {
        'format': FORMAT,
        **card,
        'labels': {str(label.index): label.name for label in load_label_table(card['region'])},
        'weights': list(contents),
        'sha256': _digest(contents.values()),
    }
    _write_card(folder, whole)
    return read_bundle(folder)


def _write_card(folder: Path, card: Mapping[str, Any]) -> None:
    part = folder / f'{CARD}.part'
    part.write_text(json.dumps(card, indent=2) + '\n', encoding='utf-8')
    part.replace(folder / CARD)


def _digest(contents: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()
