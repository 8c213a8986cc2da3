"""The models and scans on which other programs and ours are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bids_muscle.anatomy.labels import load_label_table

#: Structures of the drawn scans, from class 1.
MUSCLES = tuple(
    f'{side} {name}' for name in ('multifidus', 'erector spinae') for side in ('right', 'left')
)
#: Name of a structure and code of its left side in MuscleMap's whole body.
CODES = {'multifidus': 5101, 'erector spinae': 5111}


@dataclass(frozen=True)
class RealScan:
    """A scan in the folder of real data.

    Parameters
    ----------
    region
        Whose muscles are labelled.
    files
        Of each channel.
    first
        First of the slices that are used.
    """

    region: str
    files: Mapping[str, str]
    first: int


REAL = {
    'dixon': RealScan(
        'lumbar',
        {
            each: f'dixon-lumbar/sub-TUM01/anat/sub-TUM01_acq-dixon{each}_T1w.nii.gz'
            for each in ('water', 'fat')
        },
        10,
    ),
    'oblique': RealScan('lumbar', {'T2w': 'oblique-lumbar/sub-0001/anat/sub-0001_T2w.nii.gz'}, 6),
    'neck': RealScan('cervical', {'T2w': 'neck/sub-ms/anat/sub-ms_T2w.nii.gz'}, 6),
}


@dataclass(frozen=True)
class Case:
    """A model and a scan.

    Parameters
    ----------
    program
        ``'musclemap'``, ``'nnunet'`` or ``'monai'``.
    shape, zooms_mm, order, tilt_deg
        Grid of the drawn scan, in RAS before it is stored in an order; of a real scan the number
        of its slices alone counts.
    fields
        Of the configuration of the model.
    channels
        Images of the scan.
    folds
        Networks of the model.
    like
        Case whose weights it takes; empty to train its own.
    mirrors
        Axes of the array along which nnU-Net mirrors.
    options
        Of the command line of the program.
    scan
        Name in :data:`REAL`; empty for a drawn scan.
    """

    program: str
    shape: tuple[int, int, int]
    zooms_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    order: str = 'LAS'
    tilt_deg: float = 0.0
    fields: dict[str, Any] = field(default_factory=dict)
    channels: tuple[str, ...] = ('T2w',)
    folds: int = 1
    like: str = ''
    mirrors: tuple[int, ...] = (0, 1)
    options: tuple[str, ...] = ()
    scan: str = ''

    @property
    def region(self) -> str:
        """Region of the scan."""
        return REAL[self.scan].region if self.scan else 'lumbar'

    @property
    def muscles(self) -> tuple[str, ...]:
        """Structures from class 1 on."""
        if not self.scan:
            return MUSCLES
        return tuple(label.name for label in load_label_table(self.region))

    @property
    def spatial_dims(self) -> int:
        """Axes of the network."""
        sizes = {'musclemap': (0, 0), 'nnunet': 'patch_size', 'monai': 'roi_size'}[self.program]
        return len(self.fields[sizes] if isinstance(sizes, str) else sizes)

    @property
    def features(self) -> list[int]:
        """Channels of the stages of the network."""
        return (
            [8, 16, 32, 32, 32]
            if self.scan
            else [8, 8, 16]
            if self.program == 'nnunet'
            else [8, 16, 16]
        )


CASES = {
    'musclemap-abdomen': Case(
        'musclemap',
        (130, 96, 4),
        (1.3, 1.1, 5),
        fields={'roi_size': [96, 80], 'pix_dim': [1.5, 1.5, -1]},
        options=('-r', 'abdomen', '-s', '50'),
    ),
    'musclemap-default': Case(
        'musclemap',
        (110, 90, 3),
        (1.4, 1.3, 5),
        order='LPS',
        tilt_deg=9,
        fields={'roi_size': [96, 80], 'pix_dim': [1.5, 1.5, -1]},
        like='musclemap-abdomen',
        options=('-r', 'abdomen'),
    ),
    'musclemap-wholebody': Case(
        'musclemap',
        (100, 84, 6),
        (1.6, 1.6, 4),
        order='LPS',
        tilt_deg=14,
        fields={'roi_size': [128, 128], 'pix_dim': [1.4, 1.4, 5]},
        like='musclemap-abdomen',
        options=('-r', 'wholebody', '-s', '25'),
    ),
    'nnunet-2d': Case(
        'nnunet',
        (100, 84, 4),
        (1.6, 1.6, 6),
        order='RAS',
        fields={'patch_size': [48, 56], 'spacing': [1.9, 1.8], 'use_mask_for_norm': [True]},
        folds=2,
    ),
    'nnunet-3d': Case(
        'nnunet',
        (96, 72, 9),
        (1.6, 1.7, 6),
        fields={'patch_size': [8, 40, 48], 'spacing': [5.0, 1.8, 1.9]},
        folds=2,
        mirrors=(0, 1, 2),
    ),
    'nnunet-residual': Case(
        'nnunet',
        (70, 56, 16),
        (2.2, 2.3, 4),
        order='LPS',
        tilt_deg=12,
        fields={
            'patch_size': [32, 16, 40],
            'spacing': [2.5, 3.5, 2.4],
            'transpose_forward': [1, 0, 2],
            'residual': True,
        },
        channels=('water', 'fat'),
        mirrors=(2,),
    ),
}

#: Models trained on real scans for some seconds each: their maps are poor, but have every muscle's
#: size and place. Both networks in 3-D see one scan each, since they cost most.
_ON_REAL: dict[str, Case] = {
    'musclemap': Case(
        'musclemap',
        (0, 0, 4),
        fields={'roi_size': [128, 128], 'pix_dim': [2.0, 2.0, -1]},
        options=('-r', 'abdomen'),
    ),
    'nnunet-2d': Case(
        'nnunet', (0, 0, 4), fields={'patch_size': [112, 128], 'spacing': [1.9, 1.9]}
    ),
    'nnunet-3d': Case(
        'nnunet',
        (0, 0, 8),
        fields={'patch_size': [8, 96, 112], 'spacing': [4.5, 3.0, 2.9]},
        mirrors=(0, 1, 2),
    ),
    'nnunet-3d-residual': Case(
        'nnunet',
        (0, 0, 8),
        fields={'patch_size': [4, 112, 96], 'spacing': [4.0, 3.0, 3.0], 'residual': True},
        mirrors=(0, 1, 2),
    ),
    'monai': Case('monai', (0, 0, 4), fields={'roi_size': [128, 112], 'pixdim': [2.0, 2.1, 3.7]}),
}
_SCANS = {'nnunet-3d': ('dixon',), 'nnunet-3d-residual': ('oblique',)}
REAL_CASES = {
    f'{model}-{scan}': replace(
        case,
        scan=scan,
        channels=tuple(REAL[scan].files) if '3d' in model else tuple(REAL[scan].files)[:1],
    )
    for model, case in _ON_REAL.items()
    for scan in _SCANS.get(model, REAL)
}
