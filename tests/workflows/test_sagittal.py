"""A sagittal scan through the participant level: maps, table, picture, page."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohort import call

from bids_muscle.anatomy.labels import SPINE
from bids_muscle.dataset.scan import Scan
from bids_muscle.engine.outcome import Key, NodeOutcome, RunReport, Status
from bids_muscle.settings import Settings
from bids_muscle.workflows.participant_run import ParticipantRun
from bids_muscle.workflows.planning import RunInputs

AXIAL = ('2', '2', '8')


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def test_vertebrae_of_a_phantom_are_named_and_measured(tmp_path: Path) -> None:
    from bids_muscle.cli.phantom import main

    bids_dir, out = tmp_path / 'bids', tmp_path / 'out'
    words = ['--participants', '1', '--seed', '5', '--nprocs', '1', '--contrasts', 't2w']
    shape = ['--plane', 'sagittal', '--shape', '9', '230', '180']
    assert main([str(bids_dir), *words, *shape]) == 0
    truth = rows(next(bids_dir.glob('derivatives/truth/sub-01/anat/*spine_morph.tsv')))
    result = call(bids_dir, out, 'participant', '--nprocs', 1)
    assert result.returncode == 0, result.stderr

    anat = out / 'sub-01/anat'
    found = {row['name']: row for row in rows(anat / 'sub-01_acq-T2w_desc-spine_morph.tsv')}
    assert {'L1', 'L2', 'L3', 'L4', 'L5', 'S1'} <= set(found)
    for disc in truth[1:5]:
        mine = found[disc['name']]
        # The phantom gives the height in the middle of the disc.
        assert float(mine['mean_height_mm']) == pytest.approx(float(disc['height_mm']), abs=2.5)
        assert float(mine['z_ras_mm']) == pytest.approx(float(disc['z_mm']), abs=3)
        assert 0.5 < float(mine['confidence']) <= 1
    native = nib.load(bids_dir / 'sub-01/anat/sub-01_T2w.nii.gz')
    labels = nib.load(anat / 'sub-01_acq-T2w_seg-vertebrae_dseg.nii.gz')
    assert labels.shape == native.shape
    assert np.allclose(labels.affine, native.affine)
    names = {int(r['index']): r['name'] for r in rows(anat / f'{labels_stem(labels)}.tsv')}
    assert {n for n in np.unique(np.asarray(labels.dataobj)) if n} == set(names)
    record = json.loads((out / 'logs/sub-01/sub-01_acq-T2w.json').read_text(encoding='utf-8'))
    assert (record['status'], record['region']) == ('done', 'spine')
    assert all((out / name).is_file() for name in record['outputs'])
    page = (out / 'sub-01.html').read_text(encoding='utf-8')
    assert 'heights of the discs' in page and 'L4-L5' in page
    # Nothing is looked for in it that is not of the spine, and nothing is done twice.
    assert not list(anat.glob('*muscles*'))
    before = (anat / 'sub-01_acq-T2w_desc-spine_morph.tsv').stat().st_mtime_ns
    assert call(bids_dir, out, 'participant', '--nprocs', 1).returncode == 0
    assert (anat / 'sub-01_acq-T2w_desc-spine_morph.tsv').stat().st_mtime_ns == before
    corrected_maps_replace_those_of_the_network(bids_dir, out)


def corrected_maps_replace_those_of_the_network(bids_dir: Path, out: Path) -> None:
    """Run again with maps in which a person named each vertebra one level higher, without S1."""
    anat = out / 'sub-01/anat'
    stem = 'sub-01_acq-T2w_seg-'
    network = (anat / f'{stem}vertebrae_dseg.nii.gz').read_bytes()
    table = {row['name']: row for row in rows(anat / 'sub-01_acq-T2w_desc-spine_morph.tsv')}
    for kind, first in (('vertebrae', 0), ('discs', 100)):
        image = nib.load(anat / f'{stem}{kind}_dseg.nii.gz')
        data = np.asarray(image.dataobj)
        named = (data > first) & (data < first + 25)
        path = anat / f'{stem}{kind}_desc-manual_dseg.nii.gz'
        nib.save(
            nib.Nifti1Image(np.where(named, data - 1, 0).astype(np.uint8), image.affine), path
        )
    result = call(bids_dir, out, 'participant', '--nprocs', 1)
    assert result.returncode == 0, result.stderr
    now = {row['name']: row for row in rows(anat / 'sub-01_acq-T2w_desc-spine_morph.tsv')}
    assert 'S1' not in now
    for here, there in (('L5', 'L4'), ('L4', 'L3'), ('L4-L5', 'L3-L4')):
        assert now[there]['volume_ml'] == table[here]['volume_ml']
        assert now[there]['mean_height_mm'] == table[here]['mean_height_mm']
        assert now[there]['confidence'] == 'n/a'
    assert (anat / f'{stem}vertebrae_desc-network_dseg.nii.gz').read_bytes() == network
    names = rows(anat / f'{stem}vertebrae_dseg.tsv')
    assert [row['name'] for row in names][-1] == 'L4'
    assert 'that a person corrected' in (out / 'sub-01.html').read_text(encoding='utf-8')


def test_a_patient_who_moved_between_the_planes_is_said(tmp_path: Path) -> None:
    from bids_muscle.cli.phantom import main

    bids_dir, axial = tmp_path / 'bids', tmp_path / 'axial'
    words = ['--participants', '1', '--seed', '5', '--nprocs', '1', '--contrasts', 't2w']
    shape = ['--plane', 'sagittal', '--shape', '13', '160', '120']
    assert main([str(bids_dir), *words, *shape]) == 0
    assert main([str(axial), *words, '--shape', '160', '130', '16', '--voxel-size', *AXIAL]) == 0
    anat = bids_dir / 'sub-01/anat'
    for kind in ('nii.gz', 'json'):
        (anat / f'sub-01_T2w.{kind}').rename(anat / f'sub-01_acq-sag_T2w.{kind}')
        (axial / f'sub-01/anat/sub-01_T2w.{kind}').rename(anat / f'sub-01_T2w.{kind}')
    shift = np.array([-8.0, 7, 10])
    path = anat / 'sub-01_acq-sag_T2w.nii.gz'
    image = nib.load(path)
    data = np.asarray(image.dataobj)
    image.affine[:3, 3] -= shift
    nib.save(nib.Nifti1Image(data, image.affine), path)
    for name in ('sub-01_T2w', 'sub-01_acq-sag_T2w'):
        sidecar = json.loads((anat / f'{name}.json').read_text())
        content = json.dumps(sidecar | {'FrameOfReferenceUID': f'1.2.{len(name)}'})
        (anat / f'{name}.json').write_text(content)
    out = tmp_path / 'out'
    result = call(bids_dir, out, 'participant', '--nprocs', 1)
    assert result.returncode == 0, result.stderr

    joined = rows(out / 'sub-01/anat/sub-01_desc-joined_morph.tsv')
    assert {'L2', 'L3', 'L4'} <= {row['level'] for row in joined}
    for row in joined:
        measured = [float(row[f'moved_{axis}_ras_mm']) for axis in 'xyz']
        # Fat is displaced by its chemical shift, by two pixels along the readout.
        assert measured == pytest.approx(shift, abs=3.5)
        assert 'have different frames of reference' in row['reason']
        assert 'mm to the left' in row['reason'] and 'mm up' in row['reason']
    assert 'The patient moved between the scans' in (out / 'sub-01.html').read_text()


def test_an_axial_scan_names_the_sagittal_one_that_failed(tmp_path: Path) -> None:
    settings = Settings(bids_dir=tmp_path, output_dir=tmp_path, level='participant')
    spine, other = (
        Scan((('sub', '01'), ('ses', session)), 'T2w', SPINE, ()) for session in ('a', 'b')
    )
    axial = Scan((('sub', '01'), ('ses', 'a')), 'T1w', 'lumbar', ())
    run = ParticipantRun(RunInputs(settings, {}, {}, {}), '01', (spine, other, axial), {}, {})
    [warning] = run.missing_spines(axial, RunReport(()))
    assert warning.startswith(f'{spine.name} failed')
    assert not run.missing_spines(spine, RunReport(()))
    key = Key(spine.name, 'publish')
    done = NodeOutcome(name='publish', fullname='publish', key=key, status=Status.DONE)
    assert not run.missing_spines(axial, RunReport((done,)))


def labels_stem(labels: nib.Nifti1Image) -> str:
    return Path(str(labels.get_filename())).name.split('.')[0]
