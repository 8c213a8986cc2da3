"""From the images of a scan to what segmentation and measurement need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import voxel_sizes

from bids_muscle.errors import EmptyImageError
from bids_muscle.imaging import dixon
from bids_muscle.imaging.bias import estimate_bias_field
from bids_muscle.imaging.conform import grid_of, make_image, reconcile_grids, to_canonical
from bids_muscle.imaging.dixon import FatSource
from bids_muscle.imaging.impossible import (
    SWAPPED_BACK,
    check_images,
    doubt_negatives,
    exclude_lost_slices,
)
from bids_muscle.imaging.mask import body_mask
from bids_muscle.imaging.multi_echo import EchoTrain, fit_water_fat
from bids_muscle.imaging.swap import Swaps, exchange, find_swaps

#: More than this share of a body that is all water would be noise; skin and marrow are fat.
_MOSTLY_INVERTED_PCT = 90.0
_NOT_SEARCHED = (
    'Swaps of water and fat could not be searched, because fat is not clearly brighter than '
    'water, or one of them is nearly absent. Check that fat under the skin is bright in the fat '
    'image, and muscle in the water image.'
)


@dataclass(frozen=True)
class PreparedScan:
    """A scan made ready.

    Parameters
    ----------
    native
        First image on the grid of the scan, native voxel order.
    images
        Raw intensities by contrast, NaN where undefined, canonical; water and fat are added where
        they are computed from in- and opposed-phase, or from echoes (0 outside the body).
    corrected
        `images` divided by the bias field, 0 where undefined; one field for all, so that ratios
        are untouched. A fat fraction is not divided.
    body_mask
        uint8, canonical.
    fat_fraction
        0..1 (NaN where undefined), canonical, from :func:`~bids_muscle.imaging.dixon.fat_source`;
        or None.
    swap
        uint8, canonical, 1 where the scanner swapped water and fat, all 0 where that could not be
        searched; None without these images.
    swap_searched
        Whether swaps could be detected, or are known.
    bounded
        Fat and water come from in- and opposed-phase magnitudes: no fat fraction exceeds 50 %.
    fat_doubt
        Why no number of fat can be trusted, or empty; the fat fraction is NaN then.
    warnings
        Sentences for the report.
    """

    native: Nifti1Image
    images: dict[str, Nifti1Image]
    corrected: dict[str, Nifti1Image]
    body_mask: Nifti1Image
    fat_fraction: Nifti1Image | None
    swap: Nifti1Image | None
    swap_searched: bool
    bounded: bool
    fat_doubt: str = ''
    warnings: tuple[str, ...] = ()


def prepare_scan(
    images: Mapping[str, Nifti1Image],
    *,
    echoes: Sequence[Nifti1Image] = (),
    echo_train: EchoTrain | None = None,
    bias_correction: bool = True,
    fix_swaps: bool = False,
    already_corrected: Mapping[str, Nifti1Image] | None = None,
    known_swaps: Nifti1Image | None = None,
    fat_doubt: str = '',
) -> PreparedScan:
    """Bring the images of one scan to one grid, correct the bias field, compute fat and water.

    Parameters
    ----------
    images
        Image by contrast (values of ``Contrast``), native voxel order, at least one; NaN where
        undefined.
    echoes, echo_train
        All echoes that water and fat are fitted to, and their times; none by default.
    bias_correction
        Whether the bias field is estimated; without it `corrected` equals `images`, but for NaN.
    fix_swaps
        Exchange water and fat where the scanner did, and in- and opposed-phase; without it such
        places are only marked.
    already_corrected
        Images by contrast whose bias field an earlier run has removed, in any voxel order; they
        are taken instead of estimating the field again.
    known_swaps
        Mask of the swaps that an earlier run has found, in any voxel order; it is taken instead of
        searching again, which may find others in images with another bias field.
    fat_doubt
        Why no number of fat can be trusted, if that is known beforehand.

    Returns
    -------
    Prepared
        Everything on one canonical grid. No image is resampled.

    Raises
    ------
    GridMismatchError
        If the images do not share a grid.
    EmptyImageError
        If water and fat are nowhere above 0.
    BadDataError
        If an image has both signs throughout.
    """
    native, canonical, echo_arrays, warnings = _on_one_grid(images, echoes)
    named_echoes = {f'echo {number}': echo for number, echo in enumerate(echo_arrays, start=1)}
    arrays, lost = exclude_lost_slices(
        {key: np.asarray(img.dataobj) for key, img in canonical.items()} | named_echoes
    )
    warnings += lost
    echo_arrays = [arrays.pop(name) for name in named_echoes]
    grid_affine = next(iter(canonical.values())).affine
    source = dixon.fat_source([*arrays, *FatSource.ECHOES.value] if echo_train else arrays)
    checked = check_images(arrays, source, echoes=echo_arrays, fix_swaps=fix_swaps)
    unchecked, arrays = arrays, dict(checked.arrays)
    warnings += checked.warnings
    bounded = source is FatSource.PHASES
    if bounded:
        arrays['water'], arrays['fat'] = dixon.water_fat_from_phases(
            arrays['inphase'], arrays['opposedphase']
        )

    driver = _bias_driver(arrays)
    bright_skin = {'water', 'fat'} <= arrays.keys() or 'inphase' in arrays
    mask = body_mask(driver, voxel_sizes(grid_affine), bright_skin=bright_skin)
    doubt = fat_doubt or checked.doubt or doubt_negatives(unchecked, checked.arrays, mask)
    if source is FatSource.ECHOES and echo_train:
        arrays['water'], arrays['fat'] = fit_water_fat(echo_arrays, echo_train, mask)
        warnings.append(
            f'Water and fat are fitted to the magnitudes of {len(echoes)} echoes. In noisy '
            'regions the fit may swap them in single voxels.'
        )
    if bounded:
        said, inverted = _say_phases(arrays, mask)
        warnings.append(said)
        doubt = doubt or inverted
    corrected = {key: _defined(data) for key, data in arrays.items()}
    if already_corrected:
        corrected |= {
            key: np.asarray(to_canonical(img).dataobj) for key, img in already_corrected.items()
        }
    elif bias_correction and set(arrays) != {'fatfraction'}:
        field = estimate_bias_field(make_image(driver, grid_affine), mask)
        corrected = {
            key: data if key == 'fatfraction' else data / field for key, data in corrected.items()
        }
    swaps = None
    if source is FatSource.WATER_AND_FAT:
        swaps = (
            Swaps(np.asarray(to_canonical(known_swaps).dataobj) > 0, everywhere=False)
            if known_swaps
            else find_swaps(corrected['water'], corrected['fat'], mask, voxel_sizes(grid_affine))
        )
        if swaps is None:
            warnings += [] if doubt else [_NOT_SEARCHED]
        elif swaps.mask.any():
            warnings.append(_swap_warning(swaps, mask, fix_swaps))
            if fix_swaps:
                for signals in (arrays, corrected):
                    signals['water'], signals['fat'] = exchange(
                        signals['water'], signals['fat'], swaps.mask
                    )

    fraction, fraction_warnings = _fat_fraction(arrays, source, mask, echo_arrays)
    if fraction is not None and doubt:
        fraction = np.full_like(fraction, np.nan)
    return PreparedScan(
        native=native,
        images={key: make_image(data, grid_affine) for key, data in arrays.items()},
        corrected={key: make_image(data, grid_affine) for key, data in corrected.items()},
        body_mask=make_image(mask.astype(np.uint8), grid_affine),
        fat_fraction=None if fraction is None else make_image(fraction, grid_affine),
        swap=(
            make_image(
                (swaps.mask if swaps else np.zeros_like(mask)).astype(np.uint8), grid_affine
            )
            if source is FatSource.WATER_AND_FAT
            else None
        ),
        swap_searched=swaps is not None,
        bounded=bounded,
        fat_doubt=doubt,
        warnings=(*warnings, *fraction_warnings),
    )


def _on_one_grid(
    images: Mapping[str, Nifti1Image], echoes: Sequence[Nifti1Image]
) -> tuple[Nifti1Image, dict[str, Nifti1Image], list[np.ndarray], list[str]]:
    """Return the first image as it is, all in canonical order, the echoes so, and warnings."""
    grids = {_file_name(img, key): grid_of(img) for key, img in images.items()}
    grids |= {
        _file_name(img, f'echo {number}'): grid_of(img)
        for number, img in enumerate(echoes, start=1)
    }
    affine, warnings = reconcile_grids(grids)
    located = any(grid.located for grid in grids.values())
    # Images are echoes, too: what is said of both is said once.
    warnings += dict.fromkeys(
        text for img in (*images.values(), *echoes) for text in img.extra.get('warnings', ())
    )

    def canonical(img: Nifti1Image) -> Nifti1Image:
        return to_canonical(_with_affine(img, affine, located))

    return (
        _with_affine(next(iter(images.values())), affine, located),
        {key: canonical(img) for key, img in images.items()},
        [np.asarray(canonical(img).dataobj) for img in echoes],
        warnings,
    )


def _say_phases(arrays: Mapping[str, np.ndarray], mask: np.ndarray) -> tuple[str, str]:
    """Return what limits fat from in- and opposed-phase, and why it is in doubt, or nothing."""
    inverted_pct = 100 * np.mean((arrays['opposedphase'] > arrays['inphase'])[mask])
    said = (
        'Fat and water are computed from in- and opposed-phase magnitudes. A fat fraction '
        'above 50 % therefore appears as its complement (60 % as 40 %). In '
        f'{inverted_pct:.1f} % of the body the opposed-phase signal is higher than the in-phase '
        'signal; fat is set to 0 there.'
    )
    nearly = (
        'the opposed-phase signal is higher than the in-phase signal in nearly all of the body'
    )
    return said, nearly if inverted_pct > _MOSTLY_INVERTED_PCT else ''


def _file_name(img: Nifti1Image, contrast: str) -> str:
    path = img.get_filename()
    return Path(path).name if path else contrast


def _with_affine(img: Nifti1Image, affine: np.ndarray, located: bool) -> Nifti1Image:
    return make_image(np.asarray(img.dataobj, dtype=np.float32), affine, located=located)


def _bias_driver(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Signal with the least contrast between tissues: for Dixon that is water + fat."""
    if {'water', 'fat'} <= arrays.keys():
        total = np.maximum(_defined(arrays['water'] + arrays['fat']), 0)
        if not total.any():
            raise EmptyImageError(
                'Water and fat are 0 or below in all voxels.', 'Convert the scan again.'
            )
        return total
    for key in ('inphase', *arrays):
        if key in arrays and key != 'fatfraction':
            return _defined(arrays[key])
    return _defined(arrays['fatfraction'])


def _swap_warning(swaps: Swaps, mask: np.ndarray, fixed: bool) -> str:
    share_pct = 100 * np.count_nonzero(swaps.mask) / np.count_nonzero(mask)
    nearly_all = swaps.everywhere or share_pct >= 99
    where = 'in nearly all of the body' if nearly_all else f'in {share_pct:.2g} % of the body'
    done = (
        SWAPPED_BACK if fixed else 'Fat is not measured there. To swap them back, use --fix-swaps.'
    )
    return f'The scanner swapped water and fat {where}. {done}'


def _defined(data: np.ndarray) -> np.ndarray:
    """Return the data with 0 for NaN."""
    return np.nan_to_num(data)


def _fat_fraction(
    arrays: Mapping[str, np.ndarray],
    source: FatSource | None,
    mask: np.ndarray,
    echoes: Sequence[np.ndarray],
) -> tuple[np.ndarray | None, list[str]]:
    """Compute the fat fraction from water and fat, else take the scanner's.

    It is undefined where there is no signal above the noise.
    """
    if source is None:
        return None, []
    signal = _signal(arrays, source, echoes)
    floor = 0.0 if signal is None else dixon.noise_floor(signal, mask)
    if source is FatSource.SCANNER:
        fraction, unit = dixon.scale_fat_fraction(arrays['fatfraction'])
        said = [f'The fat fraction image is read in the range 0 to {unit:g}.']
    else:
        fraction = dixon.fat_fraction(arrays['water'], arrays['fat'], floor)
        unused = "The scanner's fat fraction is not used, but computed from water and fat."
        said = [unused] if 'fatfraction' in arrays else []
    if signal is not None and source in (FatSource.SCANNER, FatSource.ECHOES):
        fraction[signal <= floor] = np.nan
    return fraction, said


def _signal(
    arrays: Mapping[str, np.ndarray], source: FatSource, echoes: Sequence[np.ndarray]
) -> np.ndarray | None:
    """Return a magnitude that no tissue lacks, so that noise alone is dark in it; or None.

    Water is dark in fat, and the opposed phase where there is as much fat as water.
    """
    if source is FatSource.ECHOES:
        # Water and fat of the fit go back to time zero, and so are far above the noise in voids.
        return reduce(np.maximum, echoes)
    if source is not FatSource.SCANNER:
        return arrays['water'] + arrays['fat']
    if 'inphase' in arrays:
        return arrays['inphase']
    if {'water', 'opposedphase'} <= arrays.keys():
        return arrays['water'] + arrays['opposedphase']
    return None
