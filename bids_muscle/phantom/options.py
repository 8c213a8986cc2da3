"""What to simulate: one frozen object, checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bids_muscle.anatomy.labels import REGIONS
from bids_muscle.errors import UsageError
from bids_muscle.phantom.artefacts import ARTEFACTS
from bids_muscle.phantom.effects import Effects
from bids_muscle.phantom.person import Person
from bids_muscle.phantom.protocol import CENTRE_Y_MM, CONTRASTS, FIELD_OF_VIEW_MM, MATRIX
from bids_muscle.phantom.render import ScanGrid
from bids_muscle.phantom.shapes import load_atlas
from bids_muscle.phantom.spine import make_spine
from bids_muscle.phantom.tissues import FIELD_STRENGTHS_T
from bids_muscle.phantom.vendors import VENDORS

#: The field of view must lie inside the anatomy of everyone in the cohort.
SMALL_PERSON = Person('', 60.0, 'F', 148.0, 25.0, '', 0)

NAMINGS = ('bids', 'musclemap')
PLANES = ('axial', 'sagittal')

#: More voxels than this in one image are taken for a slip of the pen (a 16 GB working set).
MOST_VOXELS = 10**8


@dataclass(frozen=True)
class Options:
    """Settings of a simulated cohort.

    Parameters
    ----------
    participants, sessions, runs
        How many people, sessions per person and repeated scans per session.
    regions, contrasts
        What is scanned; see :data:`REGIONS` and :data:`CONTRASTS`.
    seed
        Two cohorts with the same settings and seed are the same to the byte.
    effects
        Cohort model.
    artefacts
        Artefact -> share of the scans that have it, 0 to 1.
    shape, voxel_mm
        Grid along right-left, anterior-posterior and up-down. With one of them given, the other
        follows from the default field of view of the region.
    oblique_deg
        Tilt of the slices about the right-left axis.
    snr
        Signal of muscle (in phase) over the noise of one channel; None for no noise.
    bias
        Strength of the coil's fall-off; 0 for none.
    field_strength_t
        1.5 or 3.
    naming
        ``'bids'`` or ``'musclemap'``.
    plane
        ``'axial'`` or ``'sagittal'``; shape and voxel size are along the body either way.
    dicom
        Vendor whose DICOM series are written in place of NIfTI; None for NIfTI.
    """

    participants: int
    effects: Effects
    regions: tuple[str, ...] = ('lumbar',)
    sessions: int = 1
    runs: int = 1
    contrasts: tuple[str, ...] = ('dixon',)
    seed: int = 0
    artefacts: tuple[tuple[str, float], ...] = ()
    shape: tuple[int, int, int] | None = None
    voxel_mm: tuple[float, float, float] | None = None
    oblique_deg: float = 0.0
    snr: float | None = 40.0
    bias: float = 1.0
    field_strength_t: float = 3.0
    naming: str = 'bids'
    plane: str = 'axial'
    dicom: str | None = None

    def __post_init__(self) -> None:
        _check_names('region', self.regions, REGIONS)
        _check_names('contrast', self.contrasts, CONTRASTS)
        _check_names('artefact', tuple(name for name, _ in self.artefacts), tuple(ARTEFACTS))
        _check_names('naming', (self.naming,), NAMINGS)
        _check_names('plane', (self.plane,), PLANES)
        _check_names('vendor', (self.dicom,) if self.dicom else (), tuple(VENDORS))
        if self.dicom and self.naming != 'bids':
            raise UsageError(
                f'DICOM series do not have names of the naming {self.naming!r}.',
                'Leave out --naming or --dicom.',
            )
        for name in ('participants', 'sessions', 'runs'):
            if getattr(self, name) < 1:
                raise UsageError(
                    f'The number of {name} is {getattr(self, name)}.', 'Use at least 1.'
                )
        if self.seed < 0:
            raise UsageError(f'The seed is {self.seed}.', 'Use a whole number from 0.')
        for name, share in self.artefacts:
            if not 0 <= share <= 1:
                raise UsageError(f'The share of scans with {name} is {share}.', 'Use 0 to 1.')
        if self.field_strength_t not in FIELD_STRENGTHS_T:
            raise UsageError(
                f'The phantom has no field strength {self.field_strength_t:g} T.', 'Use 1.5 or 3.'
            )
        if self.snr is not None and not (np.isfinite(self.snr) and self.snr > 0):
            raise UsageError(f'The signal-to-noise ratio is {self.snr}.', 'Use a number above 0.')
        if not (np.isfinite(self.bias) and 0 <= self.bias <= 5):
            raise UsageError(f'The strength of the bias field is {self.bias}.', 'Use 0 to 5.')
        if not abs(self.oblique_deg) <= 45:
            raise UsageError(
                f'The slices are tilted by {self.oblique_deg} degrees.', 'Use at most 45.'
            )
        for region in self.regions:
            self._check_grid(region)

    def _check_grid(self, region: str) -> None:
        if self.shape is not None and (len(self.shape) != 3 or min(self.shape) < 4):
            raise UsageError(f'The matrix {self.shape} is too small.', 'Use three numbers from 4.')
        if self.voxel_mm is not None and (
            len(self.voxel_mm) != 3 or not all(0.2 <= size <= 25 for size in self.voxel_mm)
        ):
            raise UsageError(
                f'The voxel size {self.voxel_mm} mm is impossible.',
                'Use three numbers from 0.2 to 25.',
            )
        grid = self.grid(region)
        if np.prod(grid.shape, dtype=float) > MOST_VOXELS:
            raise UsageError(
                f'The matrix {grid.shape} is too large.', 'Use fewer or larger voxels.'
            )
        size = np.asarray(grid.shape) * grid.voxel_mm
        if self.plane == 'sagittal':
            size = size[[2, 0, 1]]
        height = size[2] * np.cos(np.deg2rad(self.oblique_deg))
        limit = 2 * min(np.abs(make_spine(load_atlas(region), SMALL_PERSON).reach_mm))
        if height > limit:
            raise UsageError(
                f'The {region} field of view is {height:.0f} mm high; the anatomy of a small '
                f'person has {limit:.0f} mm.',
                'Use fewer or thinner slices.',
            )
        if size[:2].min() < 60 and self.plane == 'axial':
            raise UsageError(
                f'The {region} field of view is only {size[:2].min():.0f} mm wide.',
                'Use more or larger voxels.',
            )

    def grid(self, region: str) -> ScanGrid:
        """Voxel grid of a region, as from dcm2niix.

        Axial: to the left, to the front, up. Sagittal: to the back, up, to the left.
        """
        protocol = region if self.plane == 'axial' else f'{region} sagittal'
        field = np.array(FIELD_OF_VIEW_MM[protocol])
        if self.shape is None and self.voxel_mm is None:
            shape = np.array(MATRIX[protocol])
            voxel = field / shape
        elif self.voxel_mm is None:
            shape = np.array(self.shape)
            voxel = field / shape
        else:
            voxel = np.array(self.voxel_mm)
            shape = np.array(self.shape or np.maximum(np.round(field / voxel), 4)).astype(int)
        angle = np.deg2rad(self.oblique_deg)
        turn = np.array(
            [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
        )
        affine = np.eye(4)
        if self.plane == 'axial':
            affine[:3, :3] = turn @ np.diag(voxel * (-1, 1, 1))
        else:
            shape, voxel = shape[[1, 2, 0]], voxel[[1, 2, 0]]
            affine[:3, :3] = turn @ np.array([[0, 0, -1], [-1, 0, 0], [0, 1, 0]]) @ np.diag(voxel)
        affine[:3, 3] = (0, CENTRE_Y_MM[region], 0) - affine[:3, :3] @ ((shape - 1) / 2)
        return ScanGrid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def _check_names(what: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    if not names and what in ('region', 'contrast'):
        raise UsageError(f'No {what} is given.', f'Use one or more of {", ".join(known)}.')
    for name in names:
        if name not in known:
            raise UsageError(
                f'The phantom has no {what} {name!r}.', f'Use one or more of {", ".join(known)}.'
            )
    if len(set(names)) < len(names):
        raise UsageError(f'A {what} is given twice: {" ".join(names)}.', 'Give each once.')
