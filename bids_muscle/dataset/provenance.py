"""Where an output comes from and what made it, as fields of its sidecar."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bids_muscle import __version__
from bids_muscle.dataset.names import map_keys
from bids_muscle.dataset.scan import Scan

if TYPE_CHECKING:
    from bids_muscle.segmentation.bundle import ModelBundle

#: What wrote the outputs.
SOFTWARE = f'bids_muscle {__version__}'


def source_uris(scan: Scan, bids_dir: Path) -> list[str]:
    """Return the BIDS URIs of the images of a scan.

    Examples
    --------
    >>> from bids_muscle.dataset.scan import Contrast, ScanImage
    >>> image = ScanImage(Contrast.T2W, Path('/data/sub-1/anat/sub-1_T2w.nii.gz'))
    >>> source_uris(Scan((('sub', '1'),), 'T2w', 'lumbar', (image,)), Path('/data'))
    ['bids:raw:sub-1/anat/sub-1_T2w.nii.gz']
    """
    paths = dict.fromkeys([*(image.path for image in scan.images), *scan.echoes])
    return [raw_uri(path, bids_dir) for path in paths]


def own_uri(path: PurePath) -> str:
    """Return the BIDS URI of a file of the derivatives dataset.

    Examples
    --------
    >>> own_uri(PurePath('sub-1/anat/sub-1_acq-dixon_fatfrac.nii.gz'))
    'bids::sub-1/anat/sub-1_acq-dixon_fatfrac.nii.gz'
    """
    return f'bids::{quote(path.as_posix(), safe="/+")}'


def maker_fields(
    scan: Scan, model: ModelBundle, settings: Mapping[str, Any], keys: Sequence[str] = ()
) -> dict[str, Any]:
    """Return who made the label maps of some keys, by default all of a scan."""
    keys = keys or map_keys(scan)
    manual = [path for key, path in scan.manual if key in keys]
    maker: dict[str, Any] = {
        'ModelName': model.name,
        'ModelVersion': model.version,
        'ModelSHA256': model.sha256,
    }
    # Fetched models have both.
    stated = {'license': 'ModelLicense', 'citation': 'ModelCitation'}
    maker |= {name: model.card[key] for key, name in stated.items() if key in model.card}
    if len(manual) == len(keys):
        maker = {}
    if manual:
        names = [path.name for path in manual]
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in manual]
        maker['LabelsFile'] = names if names[1:] else names[0]
        maker['LabelsSHA256'] = digests if digests[1:] else digests[0]
    return {
        'Manual': bool(manual),
        # Objects would pass for the definitions of columns in a data dictionary.
        'SoftwareVersion': SOFTWARE,
        **maker,
        **setting_fields(settings),
    }


def setting_fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as sidecar fields; a bias correction is named by its method."""
    fields = {camel(key): value for key, value in settings.items()}
    if 'bias_correction' in settings:
        fields['BiasCorrection'] = 'N4' if settings['bias_correction'] else 'none'
    return fields


def camel(name: str) -> str:
    """Return the name of a setting as sidecars write it.

    Examples
    --------
    >>> camel('fat_method')
    'FatMethod'
    """
    return ''.join(word.capitalize() for word in name.split('_'))


def raw_uri(path: Path, bids_dir: Path) -> str:
    """Return the BIDS URI of a file of the raw dataset."""
    return f'bids:raw:{quote(path.relative_to(bids_dir).as_posix(), safe="/+")}'
