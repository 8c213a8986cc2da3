"""A person's correction comes back: it replaces the network's labels, and all places say so."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohort import Run, call
from nibabel.affines import from_matvec

from bids_muscle.dataset.label_maps import find_label_maps
from bids_muscle.errors import ExitCode

STEM = 'sub-01/anat/sub-01_acq-dixon_seg-lumbarmuscles'
WATER = 'sub-01/anat/sub-01_acq-dixonwater_desc-preproc_T1w.nii.gz'
MARK = 123.5


@pytest.fixture(scope='module')
def corrected(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Run a finished person again whose right multifidus was deleted by hand."""
    folder = tmp_path_factory.mktemp('correction')
    bids_dir, output_dir = folder / 'bids', folder / 'out'
    shutil.copytree(run.bids_dir / 'sub-01', bids_dir / 'sub-01')
    shutil.copy(run.bids_dir / 'dataset_description.json', bids_dir)
    for name in ('sub-01', 'logs/sub-01'):
        shutil.copytree(run.output_dir / name, output_dir / name)
    # A mark by which the image is known again.
    water = nib.load(output_dir / WATER)
    marked = np.asarray(water.dataobj).copy()
    marked[0, 0, 0] = MARK
    nib.save(nib.Nifti1Image(marked, water.affine), output_dir / WATER)
    image = nib.load(output_dir / f'{STEM}_dseg.nii.gz')
    data = np.asarray(image.dataobj).copy()
    data[data == 1] = 0
    # As some programs save it, without its position.
    lost = from_matvec(image.affine[:3, :3])
    nib.save(nib.Nifti1Image(data, lost), output_dir / f'{STEM}_desc-manual_dseg.nii.gz')
    result = call(bids_dir, output_dir, 'participant', '-v')
    assert result.returncode == ExitCode.OK, result.stderr
    assert call(bids_dir, output_dir, 'group').returncode == ExitCode.OK
    return bids_dir, output_dir, result.stderr


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def test_the_network_does_not_run_and_the_labels_are_the_persons(
    corrected: tuple[Path, Path, str], run: Run
) -> None:
    _, output_dir, said = corrected
    assert 'segment' not in said
    assert 'corrected outlines done' in said
    found, manual = (
        np.asarray(nib.load(output_dir / f'{STEM}{name}_dseg.nii.gz').dataobj)
        for name in ('', '_desc-manual')
    )
    np.testing.assert_array_equal(found, manual)
    # What the network said about its own labels is not true of these.
    assert not list(output_dir.glob('sub-01/anat/*_confidence.*'))
    before, after = (
        {row['name']: row for row in rows(folder / f'{STEM}_morph.tsv')}
        for folder in (run.output_dir, output_dir)
    )
    assert after['right multifidus']['volume_ml'] != before['right multifidus']['volume_ml']
    left = 'left multifidus'
    assert after[left]['volume_ml'] == before[left]['volume_ml']


def test_the_record_says_that_the_map_had_lost_its_position(
    corrected: tuple[Path, Path, str],
) -> None:
    _, output_dir, _ = corrected
    record = json.loads((output_dir / 'logs/sub-01/sub-01_acq-dixon.json').read_text())
    assert any('lost its position' in warning for warning in record['warnings'])


def test_the_map_of_the_network_is_kept(corrected: tuple[Path, Path, str], run: Run) -> None:
    _, output_dir, _ = corrected
    kept = output_dir / f'{STEM}_desc-network_dseg.nii.gz'
    for ending in ('.nii.gz', '.json', '.tsv'):
        published = (run.output_dir / f'{STEM}_dseg{ending}').read_bytes()
        assert kept.with_name(kept.name.replace('.nii.gz', ending)).read_bytes() == published
    record = json.loads((output_dir / 'logs/sub-01/sub-01_acq-dixon.json').read_text())
    assert kept.relative_to(output_dir).as_posix() in record['outputs']
    # A reader is compared with the network.
    [mine] = find_label_maps(output_dir, 'lumbarmuscles', predicted=True)
    [truth] = find_label_maps(output_dir, 'lumbarmuscles')
    assert (mine.path, truth.path) == (kept, output_dir / f'{STEM}_desc-manual_dseg.nii.gz')


def test_the_images_are_not_prepared_again(corrected: tuple[Path, Path, str], run: Run) -> None:
    _, output_dir, _ = corrected
    water, before = (nib.load(folder / WATER) for folder in (output_dir, run.output_dir))
    assert water.dataobj[0, 0, 0] == MARK
    difference = np.asarray(water.dataobj) != np.asarray(before.dataobj)
    assert np.count_nonzero(difference) == 1
    # The same header, too: what is published again is the same file.
    assert water.header == before.header


def test_sidecars_tables_and_page_say_so(corrected: tuple[Path, Path, str]) -> None:
    _, output_dir, _ = corrected
    for name in ('dseg', 'morph'):
        sidecar = json.loads((output_dir / f'{STEM}_{name}.json').read_text())
        assert sidecar['Manual'] is True
        assert sidecar['LabelsFile'].endswith('_desc-manual_dseg.nii.gz')
        assert 'ModelName' not in sidecar
        assert 'PredictedDice' not in sidecar
    for table in ('group_scans', 'group_muscles'):
        assert {row['label_source'] for row in rows(output_dir / f'{table}.tsv')} == {'manual'}
    page = (output_dir / 'sub-01.html').read_text()
    assert 'drawn or corrected by hand' in page
    assert 'convolutional' not in page


def test_a_correction_is_read_once_and_a_broken_one_fails_the_scan(
    corrected: tuple[Path, Path, str],
) -> None:
    bids_dir, output_dir, _ = corrected
    assert ' correct ' not in call(bids_dir, output_dir, 'participant', '-v').stderr
    path = output_dir / f'{STEM}_desc-manual_dseg.nii.gz'
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + np.uint8(40), image.affine), path)
    result = call(bids_dir, output_dir, 'participant')
    assert result.returncode == ExitCode.BAD_DATA
    assert 'labels that are not in the' in result.stderr
    assert path.is_file()  # what a person made is theirs
    kept = output_dir / f'{STEM}_desc-network_dseg.nii.gz'
    assert kept.is_file()
    # Without a correction, the network's map is the published one again.
    network = kept.read_bytes()
    path.unlink()
    assert call(bids_dir, output_dir, 'participant').returncode == ExitCode.OK
    assert not list(output_dir.glob('sub-01/anat/*_desc-network_*'))
    assert (output_dir / f'{STEM}_dseg.nii.gz').read_bytes() == network
