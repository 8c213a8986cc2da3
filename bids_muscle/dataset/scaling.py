"""Whether the images that fat is computed from belong together, and have one scale.

Philips stretches each image to the whole range of the stored numbers. dcm2niix divides by the
scale slope, so that images are comparable, unless it is told to keep the display scale (``-p n``):
the values are then the true ones times rescale slope times scale slope, both of the image.
Source: docs of dcm2niix; Chenevert et al. 2014, PMC3998685.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bids_muscle.dataset.index import IndexedImage
from bids_muscle.dataset.scan import Contrast
from bids_muscle.dataset.witnesses import LONGEST_S, seconds_of
from bids_muscle.imaging.dixon import FatSource, fat_source

#: Scales that differ by no more than this share change fat by a quarter of that at most.
_SAME_SCALE = 0.01
_DAY_S = 86400.0


def doubt_origins(
    images: Mapping[Contrast, IndexedImage], echoes: Sequence[IndexedImage] = ()
) -> str:
    """Return why the images that fat is computed from are not of one scan, or nothing.

    Parameters
    ----------
    images, echoes
        As in :func:`doubt_scales`.
    """
    used = _used(images, echoes)
    people = {str(who) for image in used if (who := image.metadata.get('PatientID'))}
    times = [seconds_of(image.metadata.get('AcquisitionTime')) for image in used]
    known_s = [time for time in times if time is not None]
    apart_s = max(known_s) - min(known_s) if known_s else 0.0
    if len(people) > 1:
        why = 'have different PatientID in their sidecars'
    elif LONGEST_S < apart_s < _DAY_S - LONGEST_S:  # some pass midnight
        why = f'were acquired {apart_s / 60:.0f} minutes apart (AcquisitionTime)'
    else:
        return ''
    names = ' and '.join(image.path.name for image in used)
    return (
        f'{names} {why}, so they are not of one scan and fat is not measured. Give the images of '
        'one acquisition'
    )


def doubt_scales(
    images: Mapping[Contrast, IndexedImage], echoes: Sequence[IndexedImage] = ()
) -> str:
    """Return why the images that fat is computed from are not comparable, or nothing.

    Parameters
    ----------
    images
        The images of a scan.
    echoes
        All echoes that water and fat are fitted to; empty where they are not fitted.
    """
    used = _used(images, echoes)
    scales = [_display_scale(image.metadata) for image in used]
    known = [scale for scale in scales if scale is not None]
    if not known or len(known) < len(scales) or max(known) <= (1 + _SAME_SCALE) * min(known):
        return ''
    names = ' and '.join(image.path.name for image in used)
    return (
        f'{names} have different display scales (Philips, dcm2niix -p n), so fat is not measured. '
        'Convert them again with -p y'
    )


def _used(
    images: Mapping[Contrast, IndexedImage], echoes: Sequence[IndexedImage]
) -> Sequence[IndexedImage]:
    """Return the images that fat is computed from; none where it is not."""
    source = fat_source([*images, *FatSource.ECHOES.value] if echoes else images)
    if source is FatSource.ECHOES:
        return echoes
    return [images[Contrast(name)] for name in source.value] if source else []


def _display_scale(metadata: Mapping[str, Any]) -> float | None:
    """Return what the true values of an image were multiplied with; None where nothing tells.

    Examples
    --------
    >>> slopes = {'PhilipsRescaleSlope': 1.5, 'PhilipsScaleSlope': 0.02}
    >>> _display_scale({**slopes, 'UsePhilipsFloatNotDisplayScaling': 0})
    0.03
    >>> _display_scale({**slopes, 'UsePhilipsFloatNotDisplayScaling': 1})
    1.0
    """
    precise = metadata.get('UsePhilipsFloatNotDisplayScaling')
    slopes: list[Any] = [metadata.get(key) for key in ('PhilipsRescaleSlope', 'PhilipsScaleSlope')]
    if precise == 1:
        return 1.0
    if precise != 0 or not all(isinstance(slope, int | float) and slope > 0 for slope in slopes):
        return None
    return float(slopes[0] * slopes[1])
