"""Reading the images that steps hand to each other."""

from __future__ import annotations

from collections.abc import Mapping

import nibabel as nib


def load(path: str) -> nib.Nifti1Image:
    """Open an image written by an earlier step."""
    return nib.Nifti1Image.from_filename(path)


def load_all(paths: Mapping[str, str]) -> dict[str, nib.Nifti1Image]:
    """Open the images of a scan, by contrast."""
    return {contrast: load(path) for contrast, path in paths.items()}
