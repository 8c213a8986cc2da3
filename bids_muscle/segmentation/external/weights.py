"""Weights of models that others trained: read as plain numbers, and kept as safetensors."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.errors import ModelError
from bids_muscle.segmentation.external.spec import SAFE, Spec, reading, reason_of

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class Loaded:
    """What a file of weights holds: numbers by name, and what its program needs beside them."""

    numbers: Mapping[str, Any]
    beside: Mapping[str, str] = field(default_factory=dict)


def load_into(network: nn.Module, path: Path, spec: Spec) -> Loaded:
    """Load weights into the network that its configuration describes, and return them.

    Parameters
    ----------
    network
        Changed in place.
    path
        safetensors, or a checkpoint of PyTorch, of which only numbers are unpickled.
    spec
        What is known of the model.

    Raises
    ------
    ModelError
        If the weights cannot be read so, are not all finite, or do not fit the network.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file

    try:
        if path.suffix == SAFE:
            with safe_open(path, 'pt') as stream:
                loaded = Loaded(load_file(path), stream.metadata() or {})
        else:
            with torch.serialization.safe_globals(list(spec.safe)):
                content = torch.load(path, map_location='cpu', weights_only=True)
            loaded = Loaded(spec.state(content), spec.beside(content))
        network.load_state_dict(loaded.numbers)
    except Exception as error:
        raise ModelError(
            f'The weights {path} cannot be loaded as plain tensors into the network of '
            f'{spec.config}: {reason_of(error)}.',
            spec.remedy,
        ) from error
    if not all(bool(torch.isfinite(each).all()) for each in network.state_dict().values()):
        raise ModelError(f'The weights {path} contain values that are not finite.', spec.remedy)
    return loaded


def convert(path: Path, loaded: Loaded) -> Path:
    """Put safetensors in the place of a checkpoint; numbers and data types stay the same.

    Returns
    -------
    Path
        The new file.
    """
    from safetensors.torch import save_file

    # Weights that two layers share, or a part of a larger tensor, are stored as their own copies.
    plain = {name: each.detach().clone().contiguous() for name, each in loaded.numbers.items()}
    save_file(plain, path.with_suffix(SAFE), metadata=dict(loaded.beside))
    shutil.copymode(path, path.with_suffix(SAFE))  # else for nobody but the owner
    path.unlink()
    return path.with_suffix(SAFE)


def digest(spec: Spec) -> str:
    """Return the SHA-256 (hex) of the configuration and all weights, one after the other.

    Raises
    ------
    ModelError
        If a file cannot be read.
    """
    found = hashlib.sha256()
    with reading(f'The {spec.kind} model {spec.config.parent}', spec.remedy):
        for part in (spec.config, *spec.weights):
            with part.open('rb') as stream:
                hashlib.file_digest(stream, lambda: found)
    return found.hexdigest()
