"""Whatever decides the outputs of a scan is part of its fingerprint, one by one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bids_muscle.dataset.scan import Contrast, Scan, ScanImage
from bids_muscle.imaging.atlas import CARD, find_atlas
from bids_muscle.imaging.multi_echo import EchoTrain
from bids_muscle.segmentation.bundle import ModelBundle
from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.settings import Settings
from bids_muscle.workflows import resume


@dataclass
class Inputs:
    """What a fingerprint is made of, in a folder of its own."""

    folder: Path
    settings: Settings
    scan: Scan
    model: ModelBundle
    drawn: list[resume.DrawnMap]

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the scan as it is now."""
        return resume.fingerprint(self.settings, self.scan, self.model, self.drawn)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    bids_dir = tmp_path / 'bids'
    bids_dir.mkdir()
    (bids_dir / 'participants.tsv').write_text('participant_id\theight\nsub-01\t172\n')
    for name in ('water', 'echo', 'manual', 'levels'):
        (bids_dir / name).write_text(name)
    shutil.copytree(find_atlas(None, 'lumbar'), tmp_path / 'atlas')
    scan = Scan(
        (('sub', '01'), ('acq', 'dixon')),
        'T1w',
        'lumbar',
        (ScanImage(Contrast.WATER, bids_dir / 'water', 0.002),),
        echoes=(bids_dir / 'echo',),
        echo_train=EchoTrain((0.001, 0.002), 3.0),
        manual=bids_dir / 'manual',
    )
    settings = Settings(
        bids_dir=bids_dir,
        output_dir=tmp_path / 'out',
        level='participant',
        atlas=tmp_path / 'atlas',
        levels=bids_dir / 'levels',
    )
    model = find_model(None, 'lumbar')
    return Inputs(tmp_path, settings, scan, model, [('a.nii.gz', '0', {1: 'L1'})])


def _append(name: str) -> Callable[[Inputs], None]:
    def change(inputs: Inputs) -> None:
        path = inputs.folder / name
        path.write_text(path.read_text() + ' ')

    return change


def _replace(part: str, **changes: object) -> Callable[[Inputs], None]:
    return lambda inputs: setattr(inputs, part, replace(getattr(inputs, part), **changes))


def _grow(inputs: Inputs) -> None:
    (inputs.folder / 'bids/participants.tsv').write_text('participant_id\theight\nsub-01\t180\n')


CHANGES: dict[str, Callable[[Inputs], None]] = {
    'image': _append('bids/water'),
    'echo': _append('bids/echo'),
    'manual map': _append('bids/manual'),
    'levels': _append('bids/levels'),
    'atlas': _append(f'atlas/{CARD}'),
    'height': _grow,
    'weights': _replace('model', sha256='0' * 64),
    'model card': _replace('model', card={'name': 'other'}),
    'fat suppression': _replace('scan', fat_suppressed=True),
    'echo times': _replace('scan', echo_train=EchoTrain((0.001, 0.003), 3.0)),
    'output name': _replace('scan', entities=(('sub', '01'), ('acq', 'axdixon'))),
    'bias correction': _replace('settings', bias_correction=False),
    'fat method': _replace('settings', fat_method='kmeans2'),
    'mirrored images': _replace('settings', tta=True),
    'voxel order of the model': _replace('settings', model='m', model_orientation='LPS'),
    'swaps': _replace('settings', fix_swaps=True),
    'registration': _replace('settings', register='deformable'),
    'drawn map': lambda inputs: inputs.drawn.append(('b.nii.gz', '1', {1: 'L1'})),
    'drawn name': lambda inputs: inputs.drawn.__setitem__(0, ('a.nii.gz', '0', {1: 'L2'})),
}


@pytest.mark.parametrize('what', CHANGES)
def test_a_change_changes_the_fingerprint(inputs: Inputs, what: str) -> None:
    before = inputs.fingerprint
    assert inputs.fingerprint == before
    CHANGES[what](inputs)
    assert inputs.fingerprint != before


def test_the_version_changes_the_fingerprint(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = inputs.fingerprint
    monkeypatch.setattr(resume, '__version__', '99')
    assert inputs.fingerprint != before


@pytest.mark.parametrize(
    'change',
    [
        _replace('settings', nprocs=7),
        _replace('settings', device='cpu'),
        _replace('settings', participants=('01',)),
        _replace('settings', verbosity=2),
    ],
)
def test_how_it_runs_does_not(inputs: Inputs, change: Callable[[Inputs], None]) -> None:
    before = inputs.fingerprint
    change(inputs)
    assert inputs.fingerprint == before
