"""JSON sidecars: what the numbers of an output mean, where it comes from and what made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.dataset.provenance import (
    SOFTWARE,
    camel,
    maker_fields,
    raw_uri,
    setting_fields,
    source_uris,
)
from bids_muscle.dataset.scan import Contrast, Scan
from bids_muscle.imaging.dixon import FatSource
from bids_muscle.measurement.methods import DEFAULT_THRESHOLD, THRESHOLDS

if TYPE_CHECKING:
    from bids_muscle.segmentation.bundle import ModelBundle

_COMPUTED = 'fat / (fat + water); NaN where their sum is not above the noise'
_FAT_FRACTIONS = {
    FatSource.WATER_AND_FAT: _COMPUTED,
    FatSource.SCANNER: (
        'as given by the scanner, scaled to 0-1; NaN where the in-phase signal, or without it '
        'that of water and opposed phase, is not above the noise'
    ),
    FatSource.ECHOES: (
        'proton density fat fraction: least-squares fit of the magnitudes of all echoes with six '
        'fat peaks (Hamilton 2011) and one R2* of fat and water, inside the body; NaN where no '
        'echo is above the noise'
    ),
    FatSource.PHASES: (
        f'{_COMPUTED}. Fat and water come from magnitude in- and opposed-phase images, which '
        'cannot resolve which signal dominates: no value exceeds 0.5 (Weber 2021).'
    ),
}


def preproc_sidecar(
    scan: Scan, bids_dir: Path, contrast: Contrast | str, *, bias_correction: bool
) -> dict[str, Any]:
    """Return the sidecar of a preprocessed image.

    Parameters
    ----------
    scan, bids_dir
        The scan and the raw dataset.
    contrast
        Which image; water and fat that the scanner did not give are computed from the in- and
        opposed-phase images, or from the echoes.
    bias_correction
        Whether the bias field was removed.
    """
    contrast = Contrast(contrast)
    computed = contrast not in scan.paths
    sources = (
        source_uris(scan, bids_dir) if computed else [raw_uri(scan.paths[contrast], bids_dir)]
    )
    return {
        **_image_fields(sources),
        'Description': f'The {contrast} image of the scan on its own grid.',
        'Contrast': str(contrast),
        'Computed': computed,
        **setting_fields({'bias_correction': bias_correction}),
        'Units': 'arbitrary',
    }


def mask_sidecar(scan: Scan, bids_dir: Path) -> dict[str, Any]:
    """Return the sidecar of the body mask."""
    return {
        **_image_fields(source_uris(scan, bids_dir)),
        'Description': 'Region inside the skin, without air and background.',
        'Type': 'ROI',
    }


def swap_sidecar(scan: Scan, bids_dir: Path, *, fixed: bool) -> dict[str, Any]:
    """Return the sidecar of the mask of fat-water swaps.

    Parameters
    ----------
    scan, bids_dir
        The scan and the raw dataset.
    fixed
        Whether water and fat were swapped back where the mask is 1.
    """
    names = Contrast.WATER, Contrast.FAT
    return {
        **_image_fields([raw_uri(scan.paths[name], bids_dir) for name in names]),
        'Description': 'Region in which the reconstruction of the scanner swapped water and fat.',
        'Type': 'ROI',
        'Corrected': fixed,
    }


def dseg_sidecar(
    scan: Scan,
    bids_dir: Path,
    model: ModelBundle,
    settings: Mapping[str, Any],
    quality: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the sidecar of the label map.

    Parameters
    ----------
    scan, bids_dir
        The scan and the raw dataset.
    model
        The model that made it.
    settings
        The settings that may change it.
    quality
        Predicted Dice by muscle, and how it was computed; None where a person made the labels.
    """
    fields = {
        **_image_fields(source_uris(scan, bids_dir)),
        'Description': f'One number per {_noun(model)} and side; see the lookup table beside this '
        'file.',
        'Region': model.region,
        **maker_fields(scan, model, settings),
    }
    if quality is None:
        return fields
    if model.unlabelled:
        fields['MusclesNotInModel'] = [label.name for label in model.unlabelled]
    if model.renamed:
        fields['ClassesRenamed'] = model.renamed
    calibration = model.card.get('quality') or {}
    computed = {camel(key): value for key, value in quality['computed'].items()}
    return {
        **fields,
        'PredictedDice': quality['predicted_dice'],
        'PredictedDiceError': calibration.get('rmse'),
        'Computed': {
            **computed,
            'OutOfMemory': [
                {camel(key): value for key, value in tried.items()}
                for tried in quality['computed']['out_of_memory']
            ],
        },
    }


def spine_sidecar(
    scan: Scan, bids_dir: Path, kind: str, model: ModelBundle, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the sidecar of a label map of vertebrae or discs.

    Parameters
    ----------
    scan, bids_dir
        The scan and the raw dataset.
    kind
        ``'vertebrae'`` or ``'discs'``.
    model, settings
        As in :func:`dseg_sidecar`.
    """
    return {
        **_image_fields(source_uris(scan, bids_dir)),
        'Description': f'One number for each of the {kind}; see the lookup table beside this '
        'file.',
        **maker_fields(scan, model, settings, [kind]),
    }


def confidence_sidecar(scan: Scan, bids_dir: Path) -> dict[str, Any]:
    """Return the sidecar of the confidence map."""
    return {
        **_image_fields(source_uris(scan, bids_dir)),
        'Description': (
            'Probability that the network assigns to the label of each voxel, including '
            'background, before small components were removed; 0 where the network was not '
            'applied.'
        ),
        'Units': 'percent',
    }


def fat_fraction_sidecar(scan: Scan, bids_dir: Path) -> dict[str, Any]:
    """Return the sidecar of the fat fraction map of a scan that has one.

    Parameters
    ----------
    scan, bids_dir
        The scan and the raw dataset.
    """
    source = scan.fat_source
    if source is None:
        raise ValueError(f'{scan.name} has no fat fraction')
    used = (
        scan.echoes
        if source is FatSource.ECHOES
        else [scan.paths[Contrast(name)] for name in source.value]
    )
    return {
        **_image_fields([raw_uri(path, bids_dir) for path in used]),
        'Description': 'Fat fraction: fat signal over the sum of fat and water signal.',
        'Definition': _FAT_FRACTIONS[source],
        'Bounded': source is FatSource.PHASES,
        'Units': '1',
    }


def fat_map_sidecar(
    scan: Scan, bids_dir: Path, model: ModelBundle, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the sidecar of the map of fat within the muscles.

    Parameters
    ----------
    scan, bids_dir
        The scan and the raw dataset.
    model, settings
        As in :func:`dseg_sidecar`.
    """
    if scan.fat_source:
        definition = 'fat fraction of the voxel'
    else:
        method = settings['fat_method']
        method = method if method in THRESHOLDS else DEFAULT_THRESHOLD
        definition = (
            f'probability that the voxel is fat, from {method} fitted to its muscle (0 or 1 for '
            'k-means). Measures streaks of fat that fill voxels, not diffuse fat between fibres.'
        )
    return {
        **_image_fields(source_uris(scan, bids_dir)),
        'Description': f'Fat within the {_noun(model)}s, 0 to 1; NaN outside of them and where it '
        'is undefined.',
        'Definition': definition,
        'Units': '1',
        **maker_fields(scan, model, settings),
    }


def morph_sidecar(
    scan: Scan,
    bids_dir: Path,
    columns: Mapping[str, Mapping[str, Any]],
    model: ModelBundle,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the data dictionary of the table of measures, with what made it.

    Parameters
    ----------
    scan, bids_dir
        The scan and the raw dataset.
    columns
        Definition of each column of the table: LongName, Description, Units, Source.
    model, settings
        As in :func:`dseg_sidecar`.
    """
    return {
        **{column: dict(definition) for column, definition in columns.items()},
        'Sources': source_uris(scan, bids_dir),
        **maker_fields(scan, model, settings),
    }


def joined_sidecar(
    parts: Sequence[Scan],
    sources: Sequence[str],
    columns: Mapping[str, Mapping[str, Any]],
    model: Mapping[str, str],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the data dictionary of a table of measures over several parts of one body.

    Parameters
    ----------
    parts
        The scans that were joined, from superior to inferior.
    sources
        BIDS URIs of what was read.
    columns
        As in :func:`morph_sidecar`.
    model
        Name, version and SHA-256 of the model that outlined the parts; empty where people did.
    settings
        As in :func:`dseg_sidecar`.
    """
    return {
        **{column: dict(definition) for column, definition in columns.items()},
        'Sources': list(sources),
        'Parts': [scan.name for scan in parts],
        'Joining': (
            'The parts are resampled to the grid of the finest part, by their headers. A voxel in '
            'an overlap counts once. Slices are numbered over all parts. Where muscle brightness '
            'differs between the parts (in water and fat images: by half or more), their signals '
            'are scaled to be equal.'
        ),
        'Manual': any(bool(scan.manual) for scan in parts),
        'SoftwareVersion': SOFTWARE,
        **{
            f'Model{key.upper() if key == "sha256" else camel(key)}': v for key, v in model.items()
        },
        **setting_fields(settings),
    }


def alignment_sidecar(scan: Scan, bids_dir: Path, alignment: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the sidecars of an aligned scan share.

    Parameters
    ----------
    scan, bids_dir
        The scan and the raw dataset.
    alignment
        How it was aligned and how well, from the step ``align``.
    """
    return {'Sources': source_uris(scan, bids_dir), **alignment}


def aligned(scan: Scan, key: str) -> dict[str, Any]:
    """Return what the sidecar of one output of the alignment says besides.

    Parameters
    ----------
    scan
        The scan.
    key
        Key of the output in ``data/io_spec.json``.
    """
    in_atlas = {'SkullStripped': False, 'SpatialReference': 'the image of the atlas'}
    texts: dict[str, dict[str, Any]] = {
        'levels': {
            'Description': 'Vertebral level of each axial slice, from inferior to superior, '
            'numbered from 0; p_L3 is the probability that the slice lies at L3. Levels with a '
            'confidence below 0.6 are n/a, as are all levels where the alignment failed a check.'
        },
        'xfm': {
            'Description': 'ITK affine that resamples the scan onto the atlas (its inverse maps '
            'points of the scan to the atlas).'
        },
        'xfm_field': {
            'Description': 'The full transform, affine and SyN, as an ITK displacement field.'
        },
        'atlas_image': {
            **in_atlas,
            'Description': 'The scan in atlas space. Volumes measured here are those of the '
            'person times VolumeFactor.',
        },
        'atlas_dseg': {
            **in_atlas,
            'Description': 'The segmented muscles in atlas space. Volumes measured here are those '
            'of the person times VolumeFactor.',
            'Manual': bool(scan.manual),
        },
    }
    return texts[key]


def _noun(model: ModelBundle) -> str:
    return 'structure' if model.labels.seg else 'muscle'


def _image_fields(sources: list[str]) -> dict[str, Any]:
    """Fields of every derived image: it lies on the grid of the scan, skin and skull included."""
    return {'Sources': sources, 'SkullStripped': False, 'SpatialReference': 'orig'}
