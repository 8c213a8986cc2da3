"""What must be known of a model of another program, and the small things its readers share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.errors import PARSE_ERRORS, ModelError
from bids_muscle.segmentation.model import ANY, Spacing

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, eq=False)
class Spec:
    """A model of another program, known from its configuration; the weights are not read yet.

    Parameters
    ----------
    kind, name, version
        Whose model it is, and what the outputs say about it.
    config
        The file that says how it is built.
    weights
        One file, or one per fold.
    build
        Makes the network, in the layout (batch, channels, x, y[, z]).
    n_classes
        Classes of the network, background included.
    classes
        Name of each class but the background.
    spatial_dims, spacing_mm, normalize, channels, patch_px
        As in :class:`~bids_muscle.segmentation.model.Model`.
    multiple_px
        What the extents must be multiples of.
    state
        Picks the weights out of what the file holds.
    safe
        Types that the file may hold beside numbers.
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
    spatial_dims: int
    spacing_mm: Spacing
    normalize: Callable[[torch.Tensor], torch.Tensor]
    remedy: str
    patch_px: tuple[int, int, int] | None = None
    channels: tuple[str, ...] = (ANY,)
    multiple_px: int = 1
    state: Callable[[Any], Mapping[str, Any]] = lambda loaded: loaded
    safe: tuple[Any, ...] = ()


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a configuration.

    Raises
    ------
    ModelError
        If it is missing or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, *PARSE_ERRORS) as error:
        raise ModelError(f'{path} cannot be read: {error}.', remedy) from error
    if not isinstance(content, dict):
        raise ModelError(f'{path} is not a JSON object.', remedy)
    return content


def need(path: Path, remedy: str) -> Path:
    """Return a path of weights that is there.

    Raises
    ------
    ModelError
        If it is not.
    """
    if not path.is_file():
        raise ModelError(f'The weights {path} are missing.', remedy)
    return path


def z_score(volume: torch.Tensor, nonzero: bool) -> torch.Tensor:
    """Scale a whole volume to mean 0 and standard deviation 1, if asked over what is not zero.

    Zeros then stay zero, as MONAI's ``NormalizeIntensity(nonzero=True)`` leaves them.
    """
    import torch

    chosen = volume != 0 if nonzero else torch.ones_like(volume, dtype=torch.bool)
    if not chosen.any():
        return volume
    values = volume[chosen].double()
    mean, deviation = values.mean(), values.std(correction=0)
    scaled = (volume - mean.float()) / (deviation.float() if deviation > 0 else 1.0)
    return torch.where(chosen, scaled, volume)
