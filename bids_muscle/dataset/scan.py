"""What is computed on: a scan is the images of one acquisition, on one grid."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bids_muscle.errors import Problem
from bids_muscle.imaging.dixon import FatSource, fat_source
from bids_muscle.imaging.multi_echo import EchoTrain


class Contrast(StrEnum):
    """What an image shows; the value is the token used in output names."""

    WATER = 'water'
    FAT = 'fat'
    IN_PHASE = 'inphase'
    OPPOSED_PHASE = 'opposedphase'
    FAT_FRACTION = 'fatfraction'
    T1W = 'T1w'
    T2W = 'T2w'
    PDW = 'PDw'


#: Contrasts that belong together in one Dixon scan, in the order in which they are listed.
DIXON = (
    Contrast.WATER,
    Contrast.FAT,
    Contrast.IN_PHASE,
    Contrast.OPPOSED_PHASE,
    Contrast.FAT_FRACTION,
)


@dataclass(frozen=True)
class ScanImage:
    """One image file of a scan."""

    contrast: Contrast
    path: Path
    echo_time_s: float | None = None


@dataclass(frozen=True)
class Scan:
    """The images of one acquisition, grouped and named before anything is computed.

    Parameters
    ----------
    entities
        BIDS entities of the outputs as (key, label) pairs in BIDS order, short keys:
        ``(('sub', '01'), ('ses', '1'), ('acq', 'dixon'), ('run', '1'))``. ``acq`` always says the
        kind of scan (``dixon``, ``T2w``, ``axT2w``) so that a T1w and a T2w never collide.
    suffix
        Suffix of derived images: that of the source images.
    region
        ``'cervical'``, ``'lumbar'``, another one that only models of other programs know,
        ``'spine'`` for a sagittal scan of any of them, whose vertebrae and discs are segmented, or
        None where nothing tells.
    images
        The images, at most one per contrast, ordered as in :class:`Contrast`.
    echoes, echo_train
        All echoes of a multi-echo scan and their times, where fat can be fitted to them; else
        empty and None.
    fat_suppressed
        Whether fat is dark in a T1w, T2w or PDw image.
    frame_of_reference
        FrameOfReferenceUID of the scanner, where a sidecar has it: places of scans with another
        one cannot be compared.
    acquired
        AcquisitionTime of the scanner, where a sidecar has it.
    warnings
        Sentences for the report about what was found.
    problem
        Why nothing can be computed, or None.
    manual
        Label maps that a person made, which take the place of the network's, as pairs of the key
        in the output names (``dseg``; ``vertebrae``, ``discs``) and the file.
    fat_doubt
        Why no number of its fat can be trusted, or empty.
    left_out
        Why it does not count in the cohort, or empty.
    seg
        Name of its segmentation in file names, where that is not the muscles of its region.
    """

    entities: tuple[tuple[str, str], ...]
    suffix: str
    region: str | None
    images: tuple[ScanImage, ...]
    echoes: tuple[Path, ...] = ()
    echo_train: EchoTrain | None = None
    fat_suppressed: bool = False
    frame_of_reference: str | None = None
    acquired: str | None = None
    warnings: tuple[str, ...] = ()
    problem: Problem | None = None
    manual: tuple[tuple[str, Path], ...] = ()
    fat_doubt: str = ''
    left_out: str = ''
    seg: str = ''

    @property
    def participant(self) -> str:
        """Participant label without ``sub-``."""
        return dict(self.entities)['sub']

    @property
    def session(self) -> str | None:
        """Session label without ``ses-``, or None."""
        return dict(self.entities).get('ses')

    @property
    def name(self) -> str:
        """File stem shared by all outputs of the scan.

        Examples
        --------
        >>> Scan((('sub', '01'), ('acq', 'dixon')), 'T1w', 'lumbar', ()).name
        'sub-01_acq-dixon'
        """
        return '_'.join(f'{key}-{label}' for key, label in self.entities)

    @property
    def is_place(self) -> bool:
        """Whether it stands for a participant or session of which no scan is known."""
        return set(dict(self.entities)) <= {'sub', 'ses'}

    @property
    def paths(self) -> dict[Contrast, Path]:
        """Image path by contrast."""
        return {image.contrast: image.path for image in self.images}

    @property
    def fat_source(self) -> FatSource | None:
        """Images that its fat fraction is taken from, or None."""
        return fat_source([*self.paths, *FatSource.ECHOES.value] if self.echoes else self.paths)
