"""What must be known of a model of another program, and the small things its readers share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.errors import PARSE_ERRORS, ModelError
from bids_muscle.files import read_small
from bids_muscle.segmentation.model import ANY

if TYPE_CHECKING:
    from torch import nn

    from bids_muscle.segmentation.procedure import Procedure

#: Pixel sizes that a model may ask for.
SPACINGS_MM = (0.05, 50.0)
#: Limits of what a configuration may ask for, far above any network in use. Names of arguments
#: that count layers are those of MONAI and nnU-Net.
MOST_STAGES, MOST_UNITS, MOST_CHANNELS = 32, 64, 16384
MOST_PARAMETERS, MOST_WINDOW_PX = 2_000_000_000, 512**3
COUNTS = {
    'n_stages',
    'num_res_units',
    'blocks_down',
    'blocks_up',
    'n_conv_per_stage',
    'n_conv_per_stage_decoder',
    'n_blocks_per_stage',
}
#: Arguments that are never 0.
POSITIVE = {'channels', 'features_per_stage', 'kernel_sizes', 'strides'}
#: Ending of weights without pickle, into which those of fetched models are converted.
SAFE = '.safetensors'
#: Characters of a reason.
MOST_TEXT = 300


@dataclass(frozen=True, eq=False)
class Spec:
    """A model of another program, known from its configuration; the weights are not read yet.

    Parameters
    ----------
    kind, name, version
        Whose model it is, and what the outputs say about it.
    config
        The file that says how it is built.
    named_in
        The file that names its classes, if that is another one.
    weights
        One file, or one per fold.
    build
        Makes the network, in the layout (batch, channels, x, y[, z]).
    n_classes
        Classes of the network, background included.
    classes
        Name of each class but the background.
    codes
        Number of each class in the label maps of its own program; empty where that is the class.
    procedure
        What its program does around the network; views that are mirrored are in the weights.
    channels, postprocess
        As in :class:`~bids_muscle.segmentation.model.Model`.
    orientation
        Voxel order, such as ``'RAS'``, in which the network sees images; None if nothing tells it.
    state
        Picks the weights out of what the file holds.
    safe
        Types that the file may hold beside numbers.
    beside
        Picks what the program needs beside the weights out of what the file holds.
    mirrors
        Mirrored views of the procedure, from `beside` of the first fold.
    remedy
        Where to get the model.
    """

    kind: str
    name: str
    version: str
    config: Path
    weights: tuple[Path, ...]
    build: Callable[[], nn.Module]
    n_classes: int
    classes: Mapping[int, str]
    procedure: Procedure
    remedy: str
    channels: tuple[str, ...] = (ANY,)
    postprocess: tuple[str, ...] = ()
    orientation: str | None = 'RAS'
    state: Callable[[Any], Mapping[str, Any]] = lambda loaded: loaded
    safe: tuple[Any, ...] = ()
    beside: Callable[[Any], Mapping[str, str]] = lambda loaded: {}
    mirrors: Callable[[Mapping[str, str]], tuple[tuple[int, ...], ...]] = lambda beside: ()
    codes: Mapping[int, int] = field(default_factory=dict)
    named_in: Path | None = None

    @property
    def numbers(self) -> tuple[int, ...]:
        """Number in the label map of each class, 0 for the background."""
        return tuple(
            self.codes.get(index, index) if index in self.classes else 0
            for index in range(self.n_classes)
        )


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a configuration.

    Raises
    ------
    ModelError
        If it is missing or is not a JSON object.
    """
    try:
        content = json.loads(read_small(path))
    except (OSError, *PARSE_ERRORS) as error:
        raise ModelError(f'{path} cannot be read: {error}.', remedy) from error
    if not isinstance(content, dict):
        raise ModelError(f'{path} is not a JSON object.', remedy)
    return content


def need(path: Path, remedy: str) -> Path:
    """Return a path of weights that is there: that of a checkpoint, or of safetensors beside it.

    Raises
    ------
    ModelError
        If neither is, or both: nothing says whether one was made from the other.
    """
    there = [each for each in (path, path.with_suffix(SAFE)) if each.is_file()]
    if not there:
        raise ModelError(f'The weights {path} are missing.', remedy)
    if len(there) > 1:
        raise ModelError(
            f'The weights {path} and {there[1].name} lie beside each other.',
            'Delete the one that is not to be used.',
        )
    return there[0]


@contextmanager
def reading(what: str, remedy: str) -> Iterator[None]:
    """Turn whatever a configuration can raise while it is read or built into one sentence.

    Raises
    ------
    ModelError
        If anything is raised.
    """
    try:
        yield
    except ModelError:
        raise
    except KeyError as error:
        raise ModelError(f'{what} cannot be used: it lacks {error.args[0]!r}.', remedy) from error
    except Exception as error:
        raise ModelError(f'{what} cannot be used: {reason_of(error)}.', remedy) from error


def reason_of(error: Exception) -> str:
    """Return what an error says on one line, shortly."""
    text = ' '.join(str(error).split()) or type(error).__name__
    return text[:MOST_TEXT].rstrip('.')


def spacing_of(value: Any) -> float | None:
    """Return a pixel size in mm; -1 is that of the scan, None.

    Raises
    ------
    ValueError
        If it is no size that a scan can have.
    """
    size = float(value)
    if size == -1:
        return None
    if not SPACINGS_MM[0] <= size <= SPACINGS_MM[1]:
        raise ValueError(f'it has a pixel size of {size:g} mm')
    return size


def window_of(extents: Sequence[Any]) -> tuple[int, int, int]:
    """Return the pixels (x, y, planes) of a window; one plane where two are given.

    Raises
    ------
    ValueError
        If they are not two or three, not positive, or too many.
    """
    window = [int(extent) for extent in extents]
    if len(window) not in (2, 3) or min(window) < 1 or math.prod(window) > MOST_WINDOW_PX:
        raise ValueError(f'it has a window of {"x".join(map(str, window))[:MOST_TEXT]} pixels')
    return window[0], window[1], window[2] if len(window) == 3 else 1


def check_size(arguments: Any, key: str = '') -> None:
    """Refuse numbers in the arguments of a network that no network has.

    Raises
    ------
    ValueError
        If one is too large, negative or not finite.
    """
    if isinstance(arguments, Mapping):
        for name, value in arguments.items():
            check_size(value, str(name))
    elif isinstance(arguments, list | tuple):
        if len(arguments) > MOST_STAGES:
            raise ValueError(f'its network has {len(arguments)} values of {key}')
        for value in arguments:
            check_size(value, key)
    elif isinstance(arguments, int | float):
        most = MOST_UNITS if key in COUNTS else MOST_CHANNELS
        if not (1 if key in POSITIVE else 0) <= arguments <= most:
            raise ValueError(f'its network has {key} {arguments:g}')
