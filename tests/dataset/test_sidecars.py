"""What a sidecar says of how a file was made is true of that file."""

from __future__ import annotations

from pathlib import Path

import pytest

from bids_muscle.dataset.scan import Contrast, Scan, ScanImage
from bids_muscle.dataset.sidecars import preproc_sidecar, swap_sidecar

BIDS = Path('/data')


def scan(*contrasts: Contrast) -> Scan:
    images = tuple(
        ScanImage(contrast, BIDS / f'sub-1/anat/sub-1_acq-{contrast}_T1w.nii.gz')
        for contrast in contrasts
    )
    return Scan((('sub', '1'), ('acq', 'dixon')), 'T1w', 'lumbar', images)


def uri(contrast: Contrast) -> str:
    return f'bids:raw:sub-1/anat/sub-1_acq-{contrast}_T1w.nii.gz'


@pytest.mark.parametrize(('corrected', 'said'), [(True, 'N4'), (False, 'none')])
def test_a_scanned_image_comes_from_itself(corrected: bool, said: str) -> None:
    both = scan(Contrast.WATER, Contrast.FAT)
    fields = preproc_sidecar(both, BIDS, Contrast.FAT, bias_correction=corrected)
    assert fields['Sources'] == [uri(Contrast.FAT)]
    assert fields['Computed'] is False
    assert fields['BiasCorrection'] == said


def test_a_computed_image_comes_from_all_that_it_was_computed_from() -> None:
    phases = scan(Contrast.IN_PHASE, Contrast.OPPOSED_PHASE)
    fields = preproc_sidecar(phases, BIDS, Contrast.FAT, bias_correction=True)
    assert fields['Sources'] == [uri(Contrast.IN_PHASE), uri(Contrast.OPPOSED_PHASE)]
    assert fields['Computed'] is True


@pytest.mark.parametrize('fixed', [True, False])
def test_a_mask_of_swaps_says_whether_they_were_corrected(fixed: bool) -> None:
    three = scan(Contrast.WATER, Contrast.FAT, Contrast.IN_PHASE)
    fields = swap_sidecar(three, BIDS, fixed=fixed)
    assert fields['Corrected'] is fixed
    assert fields['Sources'] == [uri(Contrast.WATER), uri(Contrast.FAT)]
