"""What a sidecar says of how a file was made is true of that file.

All sidecars of a few scans are compared with those that were last looked at. If a change is meant,
write them anew with ``python tests/dataset/test_sidecars.py`` and look at the difference in Git.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bids_muscle import __version__
from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.dataset import sidecars
from bids_muscle.dataset.scan import Contrast, Scan, ScanImage
from bids_muscle.dataset.sidecars import preproc_sidecar, swap_sidecar
from bids_muscle.segmentation.bundle import ModelBundle

BIDS = Path('/data')
GOLDEN = Path(__file__).with_name('golden_sidecars.json')
MODEL = ModelBundle(
    path=Path('/nowhere'),
    name='test',
    version='1.2',
    region='lumbar',
    labels=load_label_table('lumbar'),
    weights=(),
    sha256='0123456789abcdef' * 4,
    network={},
    spacing_mm=1.5,
    window_px=(128, 128),
    card={'license': 'MIT', 'quality': {'rmse': 0.05}},
)
QUALITY = {
    'predicted_dice': {'right multifidus': 0.9},
    'computed': {'device': 'cpu', 'batch_size': 4, 'out_of_memory': [{'batch_size': 8}]},
}


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


def all_sidecars(folder: Path) -> dict[str, Any]:
    """Return every kind of sidecar of a Dixon scan, of phases, of T2w, and of a corrected T2w."""
    drawn = folder / 'drawn_dseg.nii.gz'
    drawn.write_bytes(b'labels')
    scans = {
        'dixon': scan(Contrast.WATER, Contrast.FAT),
        'phases': scan(Contrast.IN_PHASE, Contrast.OPPOSED_PHASE),
        'T2w': scan(Contrast.T2W),
        'manual': replace(scan(Contrast.T2W), manual=(('dseg', drawn), ('vertebrae', drawn))),
    }
    methods = {'dixon': 'ratio', 'phases': 'auto', 'T2w': 'gmm3', 'manual': 'auto'}
    columns = {'volume_ml': {'Units': 'ml'}}
    found: dict[str, Any] = {}
    for name, each in scans.items():
        settings = {'bias_correction': name != 'T2w', 'fat_method': methods[name]}
        quality = None if each.manual else QUALITY
        found[name] = {
            'dseg': sidecars.dseg_sidecar(each, BIDS, MODEL, settings, quality),
            'vertebrae': sidecars.spine_sidecar(each, BIDS, 'vertebrae', MODEL, settings),
            'confidence': sidecars.confidence_sidecar(each, BIDS),
            'mask': sidecars.mask_sidecar(each, BIDS),
            'fat map': sidecars.fat_map_sidecar(each, BIDS, MODEL, settings),
            'morph': sidecars.morph_sidecar(each, BIDS, columns, MODEL, settings),
            'alignment': sidecars.alignment_sidecar(each, BIDS, {'Trusted': True}),
            'joined': sidecars.joined_sidecar(
                [each, scans['dixon']], ['bids:raw:x'], columns, {'sha256': 'ff'}, settings
            ),
            **{
                key: sidecars.aligned(each, key)
                for key in ('levels', 'xfm', 'xfm_field', 'atlas_image', 'atlas_dseg')
            },
        }
        if each.fat_source:
            found[name]['fat fraction'] = sidecars.fat_fraction_sidecar(each, BIDS)
    return json.loads(json.dumps(found).replace(__version__, 'VERSION'))


def test_all_sidecars_are_as_they_were(tmp_path: Path) -> None:
    assert all_sidecars(tmp_path) == json.loads(GOLDEN.read_text(encoding='utf-8'))


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(all_sidecars(Path(folder)), indent=2, sort_keys=True)
    GOLDEN.write_text(f'{text}\n', encoding='utf-8')
