"""Label maps of vertebrae and discs of other programs become a table."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from last_steps import finish_sessions

from bids_muscle.config import build_settings
from bids_muscle.dataset.names import derivative_path
from bids_muscle.dataset.records import ScanRecord, write_record
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.writer import read_tsv, write_json, write_tsv
from bids_muscle.settings import Settings
from bids_muscle.workflows.resume import page_path
from bids_muscle.workflows.session import plan_sessions

ANAT = 'sub-01/ses-a/anat'
STEM = f'{ANAT}/sub-01_ses-a_acq-sag'
TABLE = f'{STEM}_desc-spine_morph.tsv'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Two derivatives folders; the first has discs, the second vertebrae and other discs."""
    labels = np.zeros((9, 60, 40), np.uint8)
    labels[2:7, 10:40, 10:16] = 3
    for folder, seg, data in (
        ('one', 'discs', labels),
        ('two', 'discs', labels * 2),
        ('two', 'vertebrae', labels),
        ('two', 'lumbarmuscles', labels),
    ):
        path = tmp_path / folder / f'{STEM}_seg-{seg}_dseg.nii.gz'
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(data, np.diag([4.0, 1, 1, 1])), path)
    (tmp_path / 'one/dseg.tsv').write_text('index\tname\n3\tL4-L5\n')
    flags = {'bids_dir': tmp_path, 'output_dir': tmp_path / 'out', 'level': 'participant'}
    folders = [tmp_path / 'one', tmp_path / 'two']
    return build_settings({**flags, 'derivatives': folders})


def rows(settings: Settings) -> list[dict[str, str]]:
    with (settings.output_dir / TABLE).open(encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def test_maps_are_measured_and_named_by_their_lookup_table(settings: Settings) -> None:
    assert finish_sessions(settings) == []
    found = {row['kind']: row for row in rows(settings)}
    assert found['disc']['name'] == 'L4-L5'
    assert float(found['disc']['height_mm']) == pytest.approx(6)
    assert found['vertebra']['name'] == 'label 3'
    sidecar = json.loads((settings.output_dir / TABLE).with_suffix('.json').read_text())
    assert set(found['disc']) <= set(sidecar)
    before = (settings.output_dir / TABLE).read_bytes()
    finish_sessions(settings)
    assert (settings.output_dir / TABLE).read_bytes() == before


def test_a_broken_map_is_a_problem_and_leaves_nothing_old(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    finish_sessions(settings)
    (settings.derivatives[0] / f'{STEM}_seg-discs_dseg.nii.gz').write_bytes(b'no image')
    (problem,) = finish_sessions(settings)
    assert 'seg-discs_dseg' in problem.message
    assert problem.message in capsys.readouterr().err
    assert not (settings.output_dir / TABLE).exists()


def test_a_broken_lookup_table_is_a_problem(settings: Settings) -> None:
    (settings.derivatives[0] / 'dseg.tsv').write_text('number\tname\n3\tL4-L5\n')
    (problem,) = finish_sessions(settings)
    assert 'lookup table' in problem.message


def test_a_given_map_takes_the_place_of_that_of_the_scan(settings: Settings) -> None:
    folder = settings.output_dir / ANAT
    folder.mkdir(parents=True)
    table = settings.output_dir / TABLE
    names = [f'sub-01_ses-a_acq-sag_seg-{seg}_dseg.nii.gz' for seg in ('vertebrae', 'discs')]
    given = [settings.derivatives[1] / ANAT / names[0], settings.derivatives[0] / ANAT / names[1]]
    for name, source in zip(names, given, strict=True):
        shutil.copy(source, folder / name)
    table.write_text('confidence\n0.9\n')
    scan = Scan((('sub', '01'), ('ses', 'a'), ('acq', 'sag')), 'T2w', 'spine', ())
    record = ScanRecord(
        participant='01',
        session='a',
        scan=scan.name,
        region='spine',
        status='done',
        outputs=(TABLE, *(f'{ANAT}/{name}' for name in names)),
    )
    write_record(record, scan, settings.output_dir)
    # The same maps come back: the scan's own table also has a confidence.
    assert finish_sessions(settings) == []
    assert table.read_text() == 'confidence\n0.9\n'
    # A person has corrected the discs alone; the vertebrae are the scan's own.
    labels = np.zeros((9, 60, 40), np.uint8)
    labels[2:7, 10:40, 10:18] = 3
    nib.save(nib.Nifti1Image(labels, np.diag([4.0, 1, 1, 1])), given[1])
    given[0].unlink()
    assert finish_sessions(settings) == []
    found = {row['kind']: row for row in rows(settings)}
    assert float(found['disc']['height_mm']) == pytest.approx(8)
    assert 'vertebra' in found
    # A dataset of corrections may lie within the outputs.
    inside = settings.output_dir / 'corrected'
    settings.derivatives[0].rename(inside)
    table.unlink()
    assert finish_sessions(replace(settings, derivatives=(inside,))) == []
    assert {row['kind']: row for row in rows(settings)} == found


def test_a_page_that_shows_removed_tables_goes_with_them(settings: Settings) -> None:
    finish_sessions(settings)
    page = page_path(settings.output_dir, '01')
    page.write_text('disc heights')
    ran: list[str] = []
    finish_sessions(settings, ran)
    assert ran == []  # nothing has changed
    assert page.is_file()
    settings = replace(settings, derivatives=())
    finish_sessions(settings)
    assert not page.exists()
    page.write_text('loads')
    (settings.output_dir / ANAT / 'sub-01_ses-a_acq-sag_loads.tsv').write_text('task\n')
    finish_sessions(settings)
    assert not page.exists()


@pytest.mark.parametrize('overwrite', [False, True])
def test_the_table_of_a_map_that_is_elsewhere_stays(settings: Settings, overwrite: bool) -> None:
    finish_sessions(settings)
    before = (settings.output_dir / TABLE).read_bytes()
    path = settings.derivatives[1] / f'{STEM}_seg-vertebrae_dseg.nii.gz'
    content = path.read_bytes()
    path.unlink()
    path.symlink_to('../../../.git/annex/objects/aa/bb/MD5E-s1--x.nii.gz/MD5E-s1--x.nii.gz')
    for _ in range(2):
        [problem] = finish_sessions(replace(settings, overwrite=overwrite))
        assert path.name in problem.message and 'datalad get' in problem.remedy
        assert (settings.output_dir / TABLE).read_bytes() == before
    path.unlink()
    path.write_bytes(content)
    assert finish_sessions(settings) == []
    assert (settings.output_dir / TABLE).read_bytes() == before


def test_a_joined_scan_stands_for_its_parts(settings: Settings) -> None:
    """Half of each part lies at L4: their areas there are those of a cut level."""
    settings = replace(settings, derivatives=())
    folder = settings.output_dir / ANAT
    folder.mkdir(parents=True)
    place = {f'{axis}_ras_mm': [0.0] for axis in 'xyz'}
    bone = {'kind': ['vertebra'], 'name': ['L4'], 'confidence': [0.9], 'reason': [None]}
    spine = pd.DataFrame({**bone, **place, 'height_mm': [30.0]})
    write_tsv(spine, settings.output_dir / TABLE)
    sagittal = Scan((('sub', '01'), ('ses', 'a'), ('acq', 'sag')), 'T2w', 'spine', ())
    record = ScanRecord(
        participant='01',
        session='a',
        scan=sagittal.name,
        region='spine',
        status='done',
        outputs=(TABLE,),
    )
    write_record(record, sagittal, settings.output_dir)
    names = [f'sub-01_ses-a_acq-T2w{end}' for end in ('_chunk-1', '_chunk-2')]
    joined = 'sub-01_ses-a_acq-T2wjoined'
    for name in (*names, joined):
        entities = tuple(tuple(part.split('-')) for part in name.split('_'))
        scan = Scan(entities, 'T2w', 'lumbar', ())
        paths = [derivative_path(scan, key) for key in ('levels_json', 'morph_levels')]
        alignment = {
            'LevelSource': 'segmentation',
            'MovementSpine': 'sub-01_ses-a_acq-sag',
            'MovementMm': [0.0, 0.0, 9.0 if name == names[1] else 1.0],
            'MovementRemarks': [f'{name} moved'],
        }
        muscle = {'level': ['L4'], 'muscle': ['multifidus'], 'side': ['left'], 'reason': [None]}
        area = 8.0 if name == joined else None
        write_tsv(
            pd.DataFrame({**muscle, **place, 'csa_cm2': [area]}), settings.output_dir / paths[1]
        )
        if name != joined:
            write_json(alignment, settings.output_dir / paths[0])
        record = ScanRecord(
            participant='01',
            session='a',
            scan=name,
            region='lumbar',
            status='done',
            parts=tuple(names) if name == joined else (),
            outputs=tuple(map(str, paths[name == joined :])),
        )
        write_record(record, scan, settings.output_dir)
    assert finish_sessions(settings) == []
    [row] = read_tsv(folder / 'sub-01_ses-a_desc-joined_morph.tsv').to_dict('records')
    assert (row['scan'], row['csa_cm2'], row['moved_z_ras_mm']) == (joined, 8.0, 9.0)
    assert all(f'{name} moved' in row['reason'] for name in names)
    # Loads as well are of the muscles of all parts.
    steps = list(plan_sessions(replace(settings, loading=True), '01'))
    [loads] = [step.interface.inputs for step in steps if step.name.endswith('_loads')]
    assert Path(loads.levels).name.startswith(f'{joined}_seg-')
    assert loads.shift_mm == [0.0, 0.0, 9.0]


@pytest.mark.parametrize('located', [True, False])
def test_places_of_a_sagittal_scan_without_position_are_not_compared(
    settings: Settings, *, located: bool
) -> None:
    settings = replace(settings, derivatives=())
    place = {f'{axis}_ras_mm': [0.0] for axis in 'xyz'}
    known = {'level': ['L4'], 'muscle': ['multifidus'], 'side': ['left'], 'csa_cm2': [8.0]}
    bone = {'kind': ['vertebra'], 'name': ['L4'], 'confidence': [0.9], 'height_mm': [30.0]}
    sagittal = Scan((('sub', '01'), ('ses', 'a'), ('acq', 'sag')), 'T2w', 'spine', ())
    axial = Scan((('sub', '01'), ('ses', 'a'), ('acq', 'T2w')), 'T2w', 'lumbar', ())
    for scan, keys, affine in (
        (sagittal, ('vertebrae', 'morph_spine'), np.eye(4) if located else None),
        (axial, ('dseg', 'morph_levels', 'levels_json'), np.eye(4)),
    ):
        paths = [derivative_path(scan, key) for key in keys]
        record = ScanRecord(
            participant='01',
            session='a',
            scan=scan.name,
            region=scan.region,
            status='done',
            outputs=tuple(map(str, paths)),
        )
        write_record(record, scan, settings.output_dir)
        table = pd.DataFrame({**(bone if scan is sagittal else known), **place, 'reason': [None]})
        write_tsv(table, settings.output_dir / paths[1])
        labels = nib.Nifti1Image(np.ones((9, 8, 7), np.uint8), affine)
        nib.save(labels, settings.output_dir / paths[0])
    write_json({'LevelSource': 'segmentation'}, settings.output_dir / paths[2])
    assert finish_sessions(settings) == []
    joined = settings.output_dir / ANAT / 'sub-01_ses-a_desc-joined_morph.tsv'
    assert joined.is_file() == located
    # So it is where the axial scan is a part: the joined scan has no label map of its own.
    entities = (('sub', '01'), ('ses', 'a'), ('acq', 'T2wjoined'))
    whole = Scan(entities, 'T2w', 'lumbar', ())
    name = str(derivative_path(whole, 'morph_levels'))
    write_tsv(table, settings.output_dir / name)
    record = replace(record, scan=whole.name, parts=(axial.name,), outputs=(name,))
    write_record(record, whole, settings.output_dir)
    steps = {
        step.name.rpartition('_')[2]: step.interface.inputs
        for step in plan_sessions(replace(settings, loading=True), '01')
    }
    assert ('morph' in steps) == located
    assert Path(steps['loads'].levels).name.startswith(whole.name)
    assert steps['loads'].in_one_world == located


def test_a_session_that_is_gone_leaves_no_joined_table(settings: Settings) -> None:
    joined = settings.output_dir / 'sub-01/ses-gone/anat/sub-01_ses-gone_desc-joined_morph.tsv'
    joined.parent.mkdir(parents=True)
    joined.write_text('level\n')
    assert finish_sessions(settings) == []
    assert not joined.exists()
