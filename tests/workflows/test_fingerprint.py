"""Whatever decides the outputs of a scan is part of its fingerprint, one by one.

The same for what a scan waits for before it counts as finished.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bids_muscle.anatomy.labels import SPINE
from bids_muscle.dataset.records import ScanRecord, read_records, write_record
from bids_muscle.dataset.scan import Contrast, Scan, ScanImage
from bids_muscle.errors import BadDataError
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
        manual=(('dseg', bids_dir / 'manual'),),
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
    'overlap of its windows': _replace('settings', model='m', model_overlap=0.5),
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
        lambda inputs: _replace('model', card=dict(reversed(inputs.model.card.items())))(inputs),
    ],
)
def test_how_it_runs_does_not(inputs: Inputs, change: Callable[[Inputs], None]) -> None:
    before = inputs.fingerprint
    change(inputs)
    assert inputs.fingerprint == before


def made_up(inputs: Inputs, name: str, region: str, session: str = 'a') -> Scan:
    """Return another scan with an image of its own."""
    path = inputs.folder / f'bids/{name}'
    path.write_text(name)
    labels = (('sub', '01'), ('ses', f'{session}1'), ('acq', name))
    return Scan(labels, 'T2w', region, (ScanImage(Contrast.T2W, path),))


@pytest.fixture
def several(inputs: Inputs) -> dict[str, Scan]:
    """Axial and sagittal scans of two sessions, a third session without a sagittal scan."""
    scans = [
        made_up(inputs, 'axial', 'lumbar'),
        made_up(inputs, 'sagittal', SPINE),
        made_up(inputs, 'axialb', 'lumbar', 'b'),
        made_up(inputs, 'sagittalb', SPINE, 'b'),
        made_up(inputs, 'axialc', 'lumbar', 'c'),
    ]
    return {dict(scan.entities)['acq']: scan for scan in scans}


def prints(inputs: Inputs, scans: Iterable[Scan]) -> dict[str, str]:
    """Return all fingerprints by acq label."""
    models = {'lumbar': inputs.model, SPINE: replace(inputs.model, region=SPINE)}
    found = resume.fingerprints(inputs.settings, list(scans), models)
    return {name.rpartition('acq-')[2]: text for name, text in found.items()}


def test_muscles_depend_on_the_sagittal_scan_of_their_session(
    inputs: Inputs, several: dict[str, Scan]
) -> None:
    before = prints(inputs, several.values())
    assert before.keys() == several.keys()
    assert len(set(before.values())) == 5
    drawn = resume.drawn_maps(inputs.settings, '01')
    alone = resume.fingerprint(inputs.settings, several['axialc'], inputs.model, drawn)
    assert before['axialc'] == alone
    _append('bids/sagittal')(inputs)
    after = prints(inputs, several.values())
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {'axial', 'sagittal'}
    without = prints(inputs, [scan for scan in several.values() if scan.region != SPINE])
    assert {name for name in without if without[name] == after[name]} == {'axialc'}


def test_scans_that_will_fail_have_no_fingerprint(
    inputs: Inputs, several: dict[str, Scan]
) -> None:
    assert resume.fingerprints(inputs.settings, [], {}) == {}
    problem = BadDataError('It is bad.', 'Mend it.').problem
    several['axialb'] = replace(several['axialb'], problem=problem)
    several['axialc'] = replace(several['axialc'], region='cervical')  # without a model
    several['sagittal'].images[0].path.unlink()
    assert prints(inputs, several.values()).keys() == {'axial', 'sagittalb'}
    lookup = inputs.folder / 'out/sub-01/anat/sub-01_seg-discs_desc-manual_dseg.tsv'
    lookup.parent.mkdir(parents=True)
    lookup.with_name('sub-01_seg-discs_desc-manual_dseg.nii.gz').write_bytes(b'')
    lookup.write_text('number\nx\n')
    assert prints(inputs, several.values()) == {}


def finished(output_dir: Path, scans: Iterable[Scan], records: Iterable[ScanRecord]) -> set[str]:
    scans = list(scans)
    found = {scan.name: scan.name for scan in scans if scan.problem is None}
    settings = Settings(bids_dir=output_dir, output_dir=output_dir, level='participant')
    names = resume.finished_scans(settings, list(records), scans, found)
    return {name.rpartition('acq-')[2] for name in names}


def record_of(scan: Scan) -> ScanRecord:
    return ScanRecord(
        participant=scan.participant,
        session=scan.session,
        scan=scan.name,
        region=scan.region,
        status='done',
        outputs=(f'{scan.name}.txt',),
        fingerprint=scan.name,
        output_level='standard',
    )


def test_a_scan_is_finished_where_its_record_says_so(
    tmp_path: Path, several: dict[str, Scan]
) -> None:
    several['axial'] = replace(several['axial'], region='thigh')
    records = {name: record_of(scan) for name, scan in several.items()}
    for record in records.values():
        (tmp_path / record.outputs[0]).touch()
    scans = list(several.values())
    assert finished(tmp_path, scans, records.values()) == several.keys()
    assert finished(tmp_path, scans[:1], records.values()) == {'axial'}
    fuller = {**records, 'axialc': replace(records['axialc'], output_level='full')}
    assert finished(tmp_path, scans, fuller.values()) == several.keys()
    for change in (
        {'status': 'failed'},
        {'fingerprint': 'x'},
        {'outputs': ('gone.txt',)},
        {'output_level': 'minimal'},
        {'output_level': ''},  # of a version that did not write it
    ):
        others = {**records, 'axialc': replace(records['axialc'], **change)}
        assert finished(tmp_path, scans, others.values()) == several.keys() - {'axialc'}
        # Muscles wait for the sagittal scan of their session alone.
        others = {**records, 'sagittal': replace(records['sagittal'], **change)}
        rest = several.keys() - {'axial', 'sagittal'}
        assert finished(tmp_path, scans, others.values()) == rest
        # One that cannot be read tells nothing, so that nobody waits for it.
        problem = BadDataError('It is bad.', 'Mend it.').problem
        bad = [replace(s, problem=problem) if s is several['sagittal'] else s for s in scans]
        assert finished(tmp_path, bad, others.values()) == {*rest, 'axial'}


def test_records_of_finished_scans_follow_the_tables_of_the_dataset(
    inputs: Inputs, several: dict[str, Scan]
) -> None:
    output_dir, scans = inputs.settings.output_dir, list(several.values())
    last = several['axialc']
    page = resume.page_path(output_dir, '01')
    page.parent.mkdir(parents=True)

    def refreshed() -> tuple[ScanRecord, bool]:
        """Return the record after a refresh, and whether the page is still there."""
        page.touch()
        records = {record.scan: record for record in read_records(output_dir, '01')}
        resume.refresh(inputs.settings, scans, records)
        return read_records(output_dir, '01')[0], page.exists()

    write_record(record_of(last), last, output_dir)
    record, kept = refreshed()
    assert (record.participant_info, kept) == ({'height': '172'}, False)
    assert record.settings_digest == resume.settings_digest(inputs.settings)
    assert refreshed() == (record, True)
    _grow(inputs)
    record, kept = refreshed()
    assert (record.participant_info, kept) == ({'height': '180'}, False)
    inputs.settings = replace(inputs.settings, loading=True)
    again, kept = refreshed()
    assert (again.settings_digest != record.settings_digest, kept) == (True, False)
    resume.remove_page(output_dir, '01')
    resume.remove_page(output_dir, '01')  # it may not be there


def test_label_maps_of_people_count_and_those_of_the_program_do_not(inputs: Inputs) -> None:
    theirs = inputs.folder / 'theirs/sub-01/anat/sub-01_seg-discs_dseg.nii.gz'
    own = inputs.folder / 'out/sub-01/anat/sub-01_seg-discs_dseg.nii.gz'
    drawn = own.with_name('sub-01_seg-vertebrae_desc-manual_dseg.nii.gz')
    for path in (theirs, own, drawn):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    settings = replace(inputs.settings, derivatives=(inputs.folder / 'theirs',))
    assert [name for name, _, _ in resume.drawn_maps(settings, '01')] == [theirs.name, drawn.name]
    assert [name for name, _, _ in resume.drawn_maps(inputs.settings, '01')] == [drawn.name]
