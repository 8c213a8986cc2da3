"""Models of other programs with structures that no label table of the package has."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from cohort import call
from monai.networks.nets import UNet

from bids_muscle.cli.segment import main
from bids_muscle.errors import ExitCode

#: Boxes of one brightness each, in a body of brightness 1: where, and how bright.
BOXES = {
    'left': ((slice(12, 22), slice(20, 44)), 3.0),
    'right': ((slice(42, 52), slice(20, 44)), 5.0),
    'middle': ((slice(28, 36), slice(26, 38)), 8.0),
}
SHAPE, VOXEL_MM = (64, 64, 8), (3.0, 3.0, 10.0)
#: Classes of two models by code: name, side, and the box that it finds.
FIRST = {
    6170: ('femur', 'no side', 'middle'),
    7131: ('rectus femoris', 'left', 'left'),
    7132: ('rectus femoris', 'right', 'right'),
    8131: ('soleus', 'left', 'nowhere'),
}
SECOND = {
    11: ('Rectus_Femoris muscle', 'left', 'left'),
    12: ('Rectus_Femoris muscle', 'right', 'right'),
    13: ('popliteal cyst', 'no side', 'middle'),
}

#: A whole-body model, by codes and names of its program.
BACK = {
    5101: ('thoracolumbar multifidus', 'left', 'left'),
    5102: ('thoracolumbar multifidus', 'right', 'right'),
    6170: ('femur', 'no side', 'nowhere'),
    6180: ('spinal canal', 'no side', 'middle'),
}


def make_image() -> np.ndarray:
    """Return air, a body and the boxes; x runs from left to right, as in LAS files."""
    data = np.zeros(SHAPE, np.float32)
    data[6:58, 10:54] = 1
    for where, value in BOXES.values():
        data[where] = value
    return 100 * data


def write_dataset(folder: Path, parts: Mapping[str, str]) -> Path:
    """Write a dataset with a T2w scan of the given body part of each person."""
    folder.mkdir()
    description = {'Name': 'boxes', 'BIDSVersion': '1.10.0'}
    (folder / 'dataset_description.json').write_text(json.dumps(description))
    noise = np.random.default_rng(1).normal(0, 3, SHAPE).astype(np.float32)
    affine = np.diag([-VOXEL_MM[0], *VOXEL_MM[1:], 1])
    for label, part in parts.items():
        anat = folder / f'sub-{label}/anat'
        anat.mkdir(parents=True)
        image = nib.Nifti1Image(np.abs(make_image() + noise), affine)
        image.header.set_xyzt_units('mm')
        nib.save(image, anat / f'sub-{label}_T2w.nii.gz')
        (anat / f'sub-{label}_T2w.json').write_text(json.dumps({'BodyPart': part} if part else {}))
    return folder


def write_model(folder: Path, classes: Mapping[int, tuple[str, str, str]]) -> Path:
    """Write a MuscleMap model that gives each pixel the class of the nearest brightness.

    Its instance norm makes z-scores of a slice, z. Of the logits 2 m z - m^2 that of the nearest m
    is the greatest.
    """
    folder.mkdir()
    slice_ = make_image()[..., 0]
    values = {name: 100 * value for name, (_, value) in BOXES.items()} | {'nowhere': 1e5}
    wanted = [100.0, *(values[classes[code][2]] for code in sorted(classes))]
    centres = (torch.tensor(wanted) - slice_.mean()) / slice_.std()
    shape = {'spatial_dims': 2, 'in_channels': 1, 'out_channels': len(wanted)}
    shape |= {'channels': [2, 2], 'strides': [1], 'num_res_units': 0, 'act': 'LeakyReLU'}
    network = UNet(**shape, norm='INSTANCE')
    state = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    # Two channels, of z and -z, whose difference undoes the activation.
    state['model.0.conv.weight'][:, 0, 1, 1] = torch.tensor([1.0, -1.0])
    undo = torch.tensor([1, -1]) / 1.01
    state['model.2.conv.weight'][:2, :, 1, 1] = undo[:, None] * 2 * centres
    state['model.2.conv.bias'][:] = -(centres**2)
    labels = [
        {'anatomy': name, 'side': side, 'value': code} for code, (name, side, _) in classes.items()
    ]
    card = {
        'parameters': {'roi_size': list(SHAPE[:2]), 'pix_dim': [*VOXEL_MM[:2], -1]},
        'model': {**shape, 'norm': 'instance', 'version': '1.0'},
        'labels': labels,
    }
    (folder / f'{folder.name}.json').write_text(json.dumps(card))
    torch.save(state, folder / f'{folder.name}.pth')
    return folder


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as stream:
        return {row['name']: row for row in csv.DictReader(stream, delimiter='\t')}


@pytest.fixture(scope='module')
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thighs of two people and the back of one, each segmented by another model; both levels."""
    root = tmp_path_factory.mktemp('thighs')
    bids_dir = write_dataset(root / 'bids', {'01': 'THIGH', '02': 'Thigh', '03': 'LSPINE'})
    for label, classes in (('01', FIRST), ('02', SECOND), ('03', BACK)):
        model = write_model(root / f'net-{label}', classes)
        words = ('--model', model, '--participant-label', label, '--nprocs', 1)
        made = call(bids_dir, root / 'out', 'participant', *words)
        assert made.returncode == ExitCode.OK, made.stderr
    made = call(bids_dir, root / 'out', 'group')
    assert made.returncode == ExitCode.OK, made.stderr
    return root / 'out'


def test_all_structures_of_a_thigh_are_published_and_measured(cohort: Path) -> None:
    stem = cohort / 'sub-01/anat/sub-01_acq-T2w'
    table = rows_of(stem.with_name(f'{stem.name}_seg-net01_dseg.tsv'))
    assert {row['index'] for row in table.values()} == {str(code) for code in FIRST}
    assert table['femur']['kind'] == 'bone'
    labels = nib.load(stem.with_name(f'{stem.name}_seg-net01_dseg.nii.gz'))
    truth = np.zeros(SHAPE, int)
    for code, (_, _, box) in FIRST.items():
        if box in BOXES:
            truth[BOXES[box][0]] = code
    found = np.asarray(labels.dataobj)
    assert np.mean(found == truth) > 0.99
    rows = rows_of(stem.with_name(f'{stem.name}_seg-net01_morph.tsv'))
    # What lies elsewhere and is not found has no row.
    assert set(rows) == {'femur', 'left rectus femoris', 'right rectus femoris'}
    ml = np.prod(VOXEL_MM) / 1000
    assert float(rows['left rectus femoris']['volume_ml']) == pytest.approx(
        ml * np.count_nonzero(found == 7131), rel=1e-6
    )
    assert rows['femur']['side'] == 'unsided'
    assert 'not a known muscle' in rows['femur']['reason']
    assert 'not a known muscle' not in rows['left rectus femoris']['reason']
    levels = json.loads(stem.with_name(f'{stem.name}_levels.json').read_text())
    assert levels['LevelSource'] == 'none'
    record = json.loads((cohort / 'logs/sub-01/sub-01_acq-T2w.json').read_text())
    assert (record['region'], record['seg']) == ('thigh', 'net01')
    assert not any('missing' in warning for warning in record['warnings'])
    assert not any('atlas' in name for name in record['outputs'])


def test_the_page_shows_them(cohort: Path) -> None:
    page = (cohort / 'sub-01.html').read_text(encoding='utf-8')
    for text in ('rectus femoris', 'femur', 'colspan', 'the levels are unknown', 'thigh region'):
        assert text in page
    for text in ('soleus', 'vertebral levels at which muscles', 'is missing'):
        assert text not in page


def test_the_back_has_the_names_of_the_package(cohort: Path) -> None:
    stem = cohort / 'sub-03/anat/sub-03_acq-T2w'
    rows = rows_of(stem.with_name(f'{stem.name}_seg-net03_morph.tsv'))
    assert {'left multifidus', 'right multifidus', 'spinal canal'} <= rows.keys()
    assert float(rows['left multifidus']['volume_ml']) > 50
    sidecar = json.loads(stem.with_name(f'{stem.name}_seg-net03_dseg.json').read_text())
    assert 'left psoas major' in sidecar['MusclesNotInModel']
    assert sidecar['ClassesRenamed']['left thoracolumbar multifidus'] == 'left multifidus'
    record = json.loads((cohort / 'logs/sub-03/sub-03_acq-T2w.json').read_text())
    assert (record['region'], record['model']['external']) == ('lumbar', 'MuscleMap')
    page = (cohort / 'sub-03.html').read_text(encoding='utf-8')
    assert 'run with the processing steps of MuscleMap' in page
    assert 'not in the images given to the neural network' in page


def test_one_muscle_of_two_models_is_one_in_the_cohort(cohort: Path) -> None:
    with (cohort / 'group_muscles.tsv').open(encoding='utf-8', newline='') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    people: dict[str, set[str]] = {}
    for row in rows:
        people.setdefault(row['name'], set()).add(row['participant_id'])
    assert people['left rectus femoris'] == {'sub-01', 'sub-02'}
    assert people['popliteal cyst'] == {'sub-02'}
    assert people['left multifidus'] == people['spinal canal'] == {'sub-03'}
    page = (cohort / 'group.html').read_text(encoding='utf-8')
    assert 'net-01 1.0 (1 scan)' in page
    assert 'net-02 1.0 (1 scan)' in page
    assert {path.name for path in cohort.glob('seg-*.tsv')} == {
        'seg-net01_dseg.tsv',
        'seg-net02_dseg.tsv',
        'seg-net03_dseg.tsv',
    }


def test_the_calls_for_scripts_give_the_same(cohort: Path, tmp_path: Path) -> None:
    images = {'T2w': cohort.parent / 'bids/sub-01/anat/sub-01_T2w.nii.gz'}
    stem = cohort / 'sub-01/anat/sub-01_acq-T2w_seg-net01'
    out, table = tmp_path / 'out.nii.gz', tmp_path / 'out.tsv'
    words = [f'T2w={images["T2w"]}', str(out), '--table', str(table), '--region', 'thigh']
    assert main([*words, '--model', str(cohort.parent / 'net-01')]) == ExitCode.OK
    made, published = nib.load(out), nib.load(f'{stem}_dseg.nii.gz')
    assert np.array_equal(np.asarray(made.dataobj), np.asarray(published.dataobj))
    found, known = rows_of(table), rows_of(Path(f'{stem}_morph.tsv'))
    assert {'left rectus femoris', 'femur'} <= found.keys()
    for name, row in known.items():
        assert float(found[name]['volume_ml']) == pytest.approx(float(row['volume_ml']), rel=1e-4)


def test_regions_that_nobody_named_or_no_model_knows(tmp_path: Path) -> None:
    bids_dir = write_dataset(tmp_path / 'bids', {'01': '', '02': 'NECK', '03': 'THIGH'})
    model = write_model(tmp_path / 'net', FIRST)
    plan = call(bids_dir, tmp_path / 'out', 'participant', '--dry-run', '--model', model).stdout
    assert '1 of' not in plan
    assert '2 of 3 scans' in plan
    assert 'region   body' in plan
    assert 'none of them is a structure of the cervical region' in plan
    plan = call(bids_dir, tmp_path / 'out', 'participant', '--dry-run').stdout
    assert 'The package has no model for the thigh region' in plan
    assert not (tmp_path / 'out').exists()
