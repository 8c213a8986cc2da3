"""What all steps of a scan share."""

from __future__ import annotations

from collections.abc import Mapping

import nibabel as nib
from nipype.interfaces.base import BaseInterfaceInputSpec, traits

from bids_muscle import __version__


class ScanInput(BaseInterfaceInputSpec):
    """Inputs of a step; the version is one, so that a kept work folder never answers for it."""

    version = traits.Str(__version__, usedefault=True, desc='version of bids_muscle')


def sentence(text: str) -> str:
    """Make a sentence of a clause that follows a colon elsewhere.

    Examples
    --------
    >>> sentence('the sacrum is not in view')
    'The sacrum is not in view.'
    """
    return f'{text[0].upper()}{text[1:]}.'


def load(path: str) -> nib.Nifti1Image:
    """Open an image written by an earlier step."""
    return nib.Nifti1Image.from_filename(path)


def load_all(paths: Mapping[str, str]) -> dict[str, nib.Nifti1Image]:
    """Open the images of a scan, by contrast."""
    return {contrast: load(path) for contrast, path in paths.items()}
