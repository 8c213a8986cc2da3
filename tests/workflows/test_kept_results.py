"""What becomes of finished scans beside odd ones, and while the raw images are out of reach.

The plan is real, the steps are not: no network runs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.dataset.kept_maps import keep_network_maps
from bids_muscle.dataset.records import ScanRecord, read_records
from bids_muscle.dataset.writer import write_json
from bids_muscle.engine.outcome import Key, NodeOutcome, RunReport, Status
from bids_muscle.engine.resources import Resources
from bids_muscle.settings import Settings
from bids_muscle.workflows import run as running
from bids_muscle.workflows.participant_run import ParticipantRun
from bids_muscle.workflows.planning import RunInputs, choose_participants
from bids_muscle.workflows.resume import page_path

TinyDataset = Callable[..., Path]
DIXON = {f'sub-01/anat/sub-01_acq-dixon{name}_T1w': None for name in ('water', 'fat')}
LUMBAR = {f'{stem}.json': {'BodyPart': 'LSPINE'} for stem in DIXON}
SESSIONS = {f'sub-01/ses-{n}/anat/sub-01_ses-{n}_T2w': None for n in (1, 2)}
FIRST, SECOND = (f'sub-01_ses-{n}_acq-T2w' for n in (1, 2))


def inputs_of(bids_dir: Path, **chosen: Any) -> RunInputs:
    output_dir = bids_dir.parent / 'out'
    output_dir.mkdir(exist_ok=True)
    settings = Settings(
        bids_dir=bids_dir, output_dir=output_dir, level='participant', device='cpu', **chosen
    )
    return RunInputs.find(settings)


def finish(run: ParticipantRun, done: Collection[str] = ()) -> dict[str, ScanRecord]:
    """End a run in which the steps of some scans went well, each with one file."""
    outcomes = []
    for name in done:
        path = run.inputs.settings.output_dir / f'sub-01/anat/{name}_morph.tsv'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('index\n')
        outputs = {'paths': [f'sub-01/anat/{path.name}']}
        for step in ('prepare', 'segment', 'publish'):
            outcomes.append(
                NodeOutcome(
                    name=step,
                    fullname=step,
                    status=Status.DONE,
                    key=Key(name, step),
                    outputs=outputs if step == 'publish' else {},
                )
            )
    return {record.scan: record for record in run.finish(RunReport(tuple(outcomes)))}


def statuses(inputs: RunInputs) -> dict[str, str]:
    return {record.scan: record.status for record in read_records(inputs.settings.output_dir)}


def tables(inputs: RunInputs) -> list[str]:
    return sorted(path.name for path in inputs.settings.output_dir.rglob('*_morph.tsv'))


@pytest.mark.parametrize(
    ('odd', 'sidecars'),
    [
        ('sub-01/anat/sub-01_acq-legs_T2w', {'BodyPart': 'THIGH'}),
        ('sub-01/anat/sub-01_acq-legs_T2w', {'BodyPartExamined': 'PELVIS'}),
        ('sub-01/ses-术前/anat/sub-01_ses-术前_T2w', {'BodyPart': 'LSPINE'}),
        ('sub-01/anat/sub-01_run-_T2w', {'BodyPart': 'LSPINE'}),
    ],
)
def test_a_good_scan_is_recorded_beside_an_odd_one(
    tiny_dataset: TinyDataset, odd: str, sidecars: dict[str, str]
) -> None:
    inputs = inputs_of(tiny_dataset({**DIXON, odd: None}, {**LUMBAR, f'{odd}.json': sidecars}))
    finish(ParticipantRun.plan(inputs, '01').begin(), ['sub-01_acq-dixon'])
    found = statuses(inputs)
    assert found.pop('sub-01_acq-dixon') == 'done'
    assert list(found.values()) == ['failed']


def test_sessions_whose_labels_have_no_letters_stay_apart(tiny_dataset: TinyDataset) -> None:
    names = [f'sub-01/ses-{label}/anat/sub-01_ses-{label}_T2w' for label in ('术前', '术后')]
    run = ParticipantRun.plan(inputs_of(tiny_dataset(dict.fromkeys(names))), '01')
    assert len({scan.session for scan in run.scans}) == 2
    assert all('ses-术' in scan.problem.message for scan in run.scans if scan.problem)


def drop_image(bids_dir: Path) -> None:
    image = bids_dir / 'sub-01/ses-2/anat/sub-01_ses-2_T2w.nii.gz'
    image.unlink()
    image.symlink_to('../../../.git/annex/objects/aa/bb/MD5E-s1--x.nii.gz/MD5E-s1--x.nii.gz')


def uninstall(bids_dir: Path) -> None:
    shutil.rmtree(bids_dir / 'sub-01')
    (bids_dir / 'sub-01').mkdir()


@pytest.mark.parametrize('folder', ['ses-2', 'ses-2/anat'])
def test_a_folder_that_cannot_be_read_is_of_its_session(
    tiny_dataset: TinyDataset, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    inputs = inputs_of(tiny_dataset(SESSIONS), region='lumbar')
    scandir = os.scandir

    def refuse(path: Any = '.') -> Any:
        if str(path).endswith(f'sub-01/{folder}'):
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    assert [scan.name for scan in ParticipantRun.plan(inputs, '01').scans] == [
        FIRST,
        'sub-01_ses-2',
    ]


@pytest.mark.parametrize(('hide', 'left'), [(drop_image, SECOND), (uninstall, 'sub-01')])
def test_results_stay_while_the_images_are_elsewhere(
    tiny_dataset: TinyDataset,
    hide: Callable[[Path], None],
    left: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inputs = inputs_of(tiny_dataset(SESSIONS), region='lumbar')
    finish(ParticipantRun.plan(inputs, '01').begin(), [FIRST, SECOND])
    assert ParticipantRun.plan(inputs, '01').is_finished
    before = tables(inputs)
    hide(inputs.settings.bids_dir)
    ended = finish(ParticipantRun.plan(inputs, '01').begin())
    assert {name: record.status for name, record in ended.items()} == {left: 'failed'}
    assert statuses(inputs) == {FIRST: 'done', SECOND: 'done'}
    assert tables(inputs) == before
    assert 'datalad get' in (said := capsys.readouterr().err)
    assert 'What an earlier run wrote of it stays.' in said


def test_results_of_a_folder_that_cannot_be_read_stay(
    tiny_dataset: TinyDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = inputs_of(tiny_dataset(SESSIONS), region='lumbar')
    finish(ParticipantRun.plan(inputs, '01').begin(), [FIRST, SECOND])
    scandir = os.scandir

    def refuse(path: Any = '.') -> Any:
        if str(path).endswith('ses-2/anat'):
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    run = ParticipantRun.plan(inputs, '01')
    assert list(run.finished) == [FIRST]
    (record,) = finish(run.begin()).values()
    assert 'ses-2/anat cannot be read: Permission denied' in str(record.problem)
    assert statuses(inputs) == {FIRST: 'done', SECOND: 'done'}
    # Without results of an earlier run, the session is a failed one until it can be read.
    shutil.rmtree(inputs.settings.output_dir / 'logs')
    finish(ParticipantRun.plan(inputs, '01').begin(), [FIRST])
    assert statuses(inputs) == {FIRST: 'done', 'sub-01_ses-2': 'failed'}
    monkeypatch.undo()
    finish(ParticipantRun.plan(inputs, '01').begin(), [SECOND])
    assert statuses(inputs) == {FIRST: 'done', SECOND: 'done'}


def test_what_a_killed_run_left_is_removed_by_the_next(tiny_dataset: TinyDataset) -> None:
    bids_dir = tiny_dataset(SESSIONS)
    inputs = inputs_of(bids_dir, region='lumbar')
    finish(ParticipantRun.plan(inputs, '01').begin(), [FIRST, SECOND])
    output_dir = inputs.settings.output_dir
    more = output_dir / f'sub-01/ses-1/anat/{FIRST}_more.tsv'
    [first, _] = read_records(output_dir)
    write_json(
        first.as_dict() | {'outputs': [*first.outputs, more.relative_to(output_dir).as_posix()]},
        output_dir / f'logs/sub-01/{FIRST}.json',
    )
    more.parent.mkdir(parents=True)
    more.write_text('index\n')
    image = bids_dir / 'sub-01/ses-1/anat/sub-01_ses-1_T2w.nii.gz'
    nib.save(nib.Nifti1Image(np.ones((8, 8, 4), np.uint16), np.eye(4)), image)
    shutil.rmtree(bids_dir / 'sub-01/ses-2')
    for _ in range(2):
        ParticipantRun.plan(inputs, '01').begin()  # and killed
    assert statuses(inputs) == {}
    assert more.exists()
    [said] = running._unfinished(output_dir)
    assert f'killed: {FIRST}, {SECOND}.' in said
    finish(ParticipantRun.plan(inputs, '01').begin(), [FIRST])
    assert statuses(inputs) == {FIRST: 'done'}
    assert running._unfinished(output_dir) == []
    assert tables(inputs) == [f'{FIRST}_morph.tsv']
    assert not more.exists()
    left = {path.name for path in (output_dir / 'logs/sub-01').iterdir()}
    assert left == {f'{FIRST}.json', 'settings.toml'}


@pytest.mark.parametrize('replaced', [False, True])
def test_the_map_of_the_network_goes_with_its_images(
    tiny_dataset: TinyDataset, replaced: bool
) -> None:
    bids_dir = tiny_dataset(SESSIONS)
    inputs = inputs_of(bids_dir, region='lumbar')
    finish(ParticipantRun.plan(inputs, '01').begin(), [FIRST, SECOND])
    output_dir = inputs.settings.output_dir
    image = bids_dir / 'sub-01/ses-1/anat/sub-01_ses-1_T2w.nii.gz'
    native = nib.load(image)

    def save(desc: str, number: int, **facts: bool) -> None:
        stem = output_dir / f'sub-01/ses-1/anat/{FIRST}_seg-lumbarmuscles{desc}_dseg'
        stem.parent.mkdir(parents=True, exist_ok=True)
        data = np.full(native.shape, number, np.uint8)
        nib.save(nib.Nifti1Image(data, native.affine), f'{stem}.nii.gz')
        if facts:
            write_json(facts, stem.with_name(f'{stem.name}.json'))

    # The network labelled the first images; then a person drew a map, twice.
    save('', 1, Manual=False)
    save('_desc-manual', 2)
    run = ParticipantRun.plan(inputs, '01').begin()
    [scan] = [scan for scan in run.left if scan.name == FIRST]
    [kept] = keep_network_maps(scan, output_dir, native)[:1]
    finish(run, [FIRST])
    assert np.all(np.asarray(nib.load(output_dir / kept).dataobj) == 1)
    save('', 2, Manual=True)
    save('_desc-manual', 3)
    if replaced:
        data = np.asarray(native.dataobj) + 1
        nib.save(nib.Nifti1Image(data, native.affine), image)
    ParticipantRun.plan(inputs, '01').begin()
    assert bool(keep_network_maps(scan, output_dir, native)) == (not replaced)


def test_the_map_of_the_network_of_other_images_is_not_kept(tiny_dataset: TinyDataset) -> None:
    bids_dir = tiny_dataset(SESSIONS)
    inputs = inputs_of(bids_dir, region='lumbar')
    finish(ParticipantRun.plan(inputs, '01').begin(), [FIRST, SECOND])
    folder = inputs.settings.output_dir / 'sub-01/ses-1/anat'
    folder.mkdir(parents=True)
    image = bids_dir / 'sub-01/ses-1/anat/sub-01_ses-1_T2w.nii.gz'
    native = nib.load(image)
    labels = nib.Nifti1Image(np.ones(native.shape, np.uint8), native.affine)
    for desc in ('', '_desc-manual'):
        nib.save(labels, folder / f'{FIRST}_seg-lumbarmuscles{desc}_dseg.nii.gz')
    write_json({'Manual': False}, folder / f'{FIRST}_seg-lumbarmuscles_dseg.json')
    nib.save(nib.Nifti1Image(np.asarray(native.dataobj) + 1, native.affine), image)
    run = ParticipantRun.plan(inputs, '01').begin()
    [scan] = [scan for scan in run.left if scan.name == FIRST]
    assert keep_network_maps(scan, inputs.settings.output_dir, native) == []


def test_a_run_of_one_session_forgets_what_is_gone_of_it(tiny_dataset: TinyDataset) -> None:
    bids_dir = tiny_dataset(SESSIONS)
    finish(
        ParticipantRun.plan(inputs_of(bids_dir, region='lumbar'), '01').begin(), [FIRST, SECOND]
    )
    folder = bids_dir / 'sub-01/ses-1/anat'
    (folder / 'sub-01_ses-1_T2w.nii.gz').rename(folder / 'sub-01_ses-1_run-2_T2w.nii.gz')
    inputs = inputs_of(bids_dir, region='lumbar', sessions=('1',))
    renamed = FIRST.replace('T2w', 'T2w_run-2')
    finish(ParticipantRun.plan(inputs, '01').begin(), [renamed])
    assert set(statuses(inputs)) == {renamed, SECOND}


def test_levels_stay_while_the_sagittal_image_is_elsewhere(tiny_dataset: TinyDataset) -> None:
    names = [f'sub-01/ses-2/anat/sub-01_ses-2_{name}' for name in ('acq-ax_T2w', 'T2w')]
    sagittal = nib.Nifti1Image(
        np.random.default_rng(0).integers(9, 99, (4, 8, 8), np.int16), np.diag([4.0, 1, 1, 1])
    )
    bids_dir = tiny_dataset({names[0]: None, names[1]: sagittal})
    inputs = inputs_of(bids_dir, region='lumbar')
    axial = 'sub-01_ses-2_acq-axT2w'
    finish(ParticipantRun.plan(inputs, '01').begin(), [axial, SECOND])
    regions = {each.scan: each.region for each in read_records(inputs.settings.output_dir)}
    assert regions == {axial: 'lumbar', SECOND: 'spine'}
    assert ParticipantRun.plan(inputs, '01').is_finished
    drop_image(bids_dir)
    run = ParticipantRun.plan(inputs, '01')
    assert list(run.finished) == [axial]
    ended = finish(run.begin())
    assert {name: record.status for name, record in ended.items()} == {SECOND: 'failed'}
    assert statuses(inputs) == {axial: 'done', SECOND: 'done'}
    # With other settings it has to run, and says what it lacks.
    inputs = replace(inputs, settings=replace(inputs.settings, fat_method='ratio'))
    record = finish(ParticipantRun.plan(inputs, '01').begin(), [axial])[axial]
    assert any('do not define the levels' in warning for warning in record.warnings)


def test_a_map_of_vertebrae_that_is_elsewhere_fails_its_session_alone(
    tiny_dataset: TinyDataset,
) -> None:
    bids_dir = tiny_dataset(SESSIONS)
    folder = bids_dir.parent / 'maps'
    path = folder / 'sub-01/ses-2/anat/sub-01_ses-2_acq-sag_seg-vertebrae_dseg.nii.gz'
    path.parent.mkdir(parents=True)
    path.write_bytes(b'vertebrae')
    inputs = inputs_of(bids_dir, region='lumbar', derivatives=(folder,))
    finish(ParticipantRun.plan(inputs, '01').begin(), [FIRST, SECOND])
    assert ParticipantRun.plan(inputs, '01').is_finished
    path.unlink()
    path.symlink_to('../../../.git/annex/objects/aa/bb/MD5E-s1--x.nii.gz/MD5E-s1--x.nii.gz')
    run = ParticipantRun.plan(inputs, '01').begin()
    assert [scan.name for scan in run.scans if scan.problem] == [SECOND]
    said = str(finish(run, [FIRST])[SECOND].problem)
    assert path.name in said and 'datalad get' in said
    assert statuses(inputs) == {FIRST: 'done', SECOND: 'done'}


def test_a_participant_whose_steps_cannot_be_planned_stops_no_other(
    tiny_dataset: TinyDataset, tmp_path: Path
) -> None:
    inputs = inputs_of(tiny_dataset(SESSIONS | {'sub-02/anat/sub-02_T2w': None}), region='lumbar')
    runs = [ParticipantRun.plan(inputs, who).begin() for who in ('01', '02')]
    next(inputs.settings.bids_dir.glob('sub-01/ses-2/anat/*.nii.gz')).unlink()
    ran: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            running,
            '_run_graphs',
            lambda machine, settings, work_dir, graphs: (
                ran.extend(graph.name for graph in graphs) or RunReport(())
            ),
        )
        machine = running._Machine(Resources(nprocs=1, memory_gb=4), None, None)
        report = running._run_plane(machine, runs, RunReport(()), tmp_path, spines=False)
    assert ran == ['sub_02']
    assert {each.key.scan for each in report.outcomes} == {FIRST, SECOND}
    assert all(each.problem and 'sub-01_ses-2' in each.problem.message for each in report.outcomes)


def test_a_page_made_meanwhile_is_made_again(tiny_dataset: TinyDataset) -> None:
    bids_dir = tiny_dataset(SESSIONS)
    runs = [
        ParticipantRun.plan(inputs_of(bids_dir, region='lumbar', sessions=(n,)), '01').begin()
        for n in ('1', '2')
    ]
    finish(runs[0], [FIRST])
    page = page_path(runs[0].inputs.settings.output_dir, '01')
    page.write_text('of the first session')
    finish(runs[1], [SECOND])
    assert not page.exists()


def test_a_session_that_nobody_has_is_missed(
    tiny_dataset: TinyDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    bids_dir = tiny_dataset({**SESSIONS, 'sub-02/ses-1/anat/sub-02_ses-1_T2w': None})
    settings = inputs_of(bids_dir, sessions=('1', '2'), participants=('02',)).settings
    assert choose_participants(settings) == (['02'], True)
    settings = inputs_of(bids_dir, sessions=('1', '3')).settings
    assert choose_participants(settings) == (['01', '02'], False)
    assert 'No participant has the session 3' in capsys.readouterr().err
