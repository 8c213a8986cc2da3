"""Header extensions of NIfTI files, checked before nibabel reads them into memory."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.openers import Opener

#: Header with its extensions; a small gzip file may claim, and unpack to, far more.
MAX_HEADER_BYTES = 2**24
_LEAST_EXTENSION_BYTES = 16


def check_extensions(path: Path) -> None:
    """Refuse header extensions that claim more than a header holds: nibabel would read them all.

    Raises
    ------
    ValueError
        If they would end behind `MAX_HEADER_BYTES`, or one is too small to be one.
    """
    with Opener(str(path)) as stream:
        raw = stream.read(nib.Nifti2Header.sizeof_hdr + 4)
        header = _fixed_header(raw)
        if header is None:
            return
        end = header.dtype.itemsize + 4
        if len(raw) < end or not raw[end - 4]:
            return
        stream.seek(end)
        left = float(header['vox_offset']) - end
        while left >= _LEAST_EXTENSION_BYTES:
            head = stream.read(8)
            size = int(np.frombuffer(head[:4], header.dtype['sizeof_hdr'])[0]) if head else 0
            end += size
            if size < _LEAST_EXTENSION_BYTES or end > MAX_HEADER_BYTES:
                raise ValueError(f'a header extension claims {size} bytes')
            stream.read(size - len(head))
            left -= size


def _fixed_header(raw: bytes) -> np.void | None:
    """Return the fixed part of a header in its own byte order; None where it is not NIfTI."""
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        for order in '<>':
            template = kind.template_dtype.newbyteorder(order)  # type: ignore[arg-type]
            if len(raw) < template.itemsize:
                continue
            header = np.frombuffer(raw[: template.itemsize], template)[0]
            if header['sizeof_hdr'] == template.itemsize:
                return header
    return None
