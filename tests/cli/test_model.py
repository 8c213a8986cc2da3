"""``bids_muscle-model``: from a BIDS dataset to models, figures and comparisons."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from html5lib import HTMLParser

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.cli.model import main
from bids_muscle.errors import ExitCode, UsageError
from bids_muscle.segmentation.bundle import CARD, WEIGHTS
from bids_muscle.workflows.training import read_split

RECIPE = """
name = 'tiny'
version = '1'
region = 'lumbar'
description = 'Boxes.'
seed = 1
spacing_mm = 4.0
window_px = [32, 24]
iterations = 4
batch_size = 2
learning_rate = 1e-2
weight_decay = 0.0
ema_decay = 0.9
validate_every = 2
[network]
name = 'UNet'
spatial_dims = 2
in_channels = 1
out_channels = 9
channels = [4, 8]
strides = [2]
num_res_units = 1
[[source]]
name = 'cohort'
kind = 'bids'
seg = 'back'
bias_correction = false
"""
#: Number in the maps -> name in the lookup table; 9 is no muscle of the lumbar table.
LOOKUP = {7: 'MF left', 5: 'right multifidus', 3: 'ES_L', 4: 'erector spinae (right)', 9: 'kidney'}
#: Label of the table -> middle on x, where right is greater.
PLACES = {2: 20, 1: 34, 4: 12, 3: 42}


def boxes(shift: int = 0) -> np.ndarray:
    """Labels of the lumbar table as four boxes in 56 x 32 x 3 voxels."""
    labels = np.zeros((56, 32, 3), np.uint8)
    for label, x in PLACES.items():
        labels[x - 3 + shift : x + 3 + shift, 8:20] = label
    return labels


def save(path: Path, data: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.diag([3.0, 3.0, 8.0, 1.0])), path)


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    """Three people with water and fat, and labels in numbers of their own."""
    root = tmp_path / 'cohort'
    random = np.random.default_rng(0)
    own = {2: 7, 1: 5, 4: 3, 3: 4}
    for person in ('1', '2', '3'):
        labels = boxes(int(person))
        body = 100.0 * (labels > 0) + random.normal(50, 3, labels.shape)
        for contrast, image in (('water', body), ('fat', 150 - body)):
            name = f'sub-{person}_acq-dixon{contrast}_T1w.nii.gz'
            save(root / f'sub-{person}/anat' / name, np.maximum(image, 0).astype(np.float32))
        codes = np.zeros_like(labels)
        for label, code in own.items():
            codes[labels == label] = code
        codes[:3, :3] = 9
        name = f'sub-{person}_acq-dixonwater_seg-back_dseg.nii.gz'
        save(root / f'derivatives/manual/sub-{person}/anat' / name, codes)
    for folder in (root, root / 'derivatives/manual'):
        content = {'Name': 'Cohort', 'BIDSVersion': '1.10.0', 'License': 'CC0'}
        (folder / 'dataset_description.json').write_text(json.dumps(content))
    lines = ''.join(f'{number}\t{name}\n' for number, name in LOOKUP.items())
    (root / 'derivatives/manual/seg-back_dseg.tsv').write_text(f'index\tname\n{lines}')
    (tmp_path / 'tiny.toml').write_text(RECIPE)
    return root


Train = Callable[..., int]


@pytest.fixture
def train(bids: Path, tmp_path: Path) -> Train:
    def run(*options: str, recipe: str | None = None) -> int:
        path = tmp_path / 'tiny.toml'
        if recipe is not None:
            path.write_text(recipe)
        arguments = [str(path), '--data', str(bids), '--output', str(tmp_path / 'out'), *options]
        return main(['train', *arguments])

    return run


def test_cross_validation_becomes_one_model(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / 'out'
    assert train('--folds', '3', '--fold', '1') == ExitCode.OK
    assert not (out / 'validation').exists()
    assert main(['package', str(out), '--name', 'mine']) == ExitCode.BAD_DATA
    assert 'fold-0, fold-2' in capsys.readouterr().err
    assert train('--folds', '3') == ExitCode.OK
    # A training that was killed before the people held out were segmented is none.
    path = out / 'fold-0' / CARD
    whole = path.read_bytes()
    cut = {k: v for k, v in json.loads(whole).items() if k not in ('datasets', 'fold', 'measured')}
    path.write_text(json.dumps(cut))
    assert main(['package', str(out), '--name', 'mine']) == ExitCode.BAD_DATA
    assert 'fold-0 of' in capsys.readouterr().err
    path.write_bytes(whole)

    cards = [json.loads((out / f'fold-{k}' / CARD).read_text()) for k in range(3)]
    held = [{e['participant'] for e in card['training']['held_out']} for card in cards]
    assert set().union(*held) == {'cohort/sub-1', 'cohort/sub-2', 'cohort/sub-3'}
    for card, people in zip(cards, held, strict=True):
        assert people.isdisjoint(e['participant'] for e in card['training']['data'])
        assert card['training']['data'][0]['annotated'] == [1, 2, 3, 4]
        (dataset,) = card['datasets']
        assert (dataset['name'], dataset['license']) == ('Cohort', 'CC0')
        assert {f'cohort/{name}' for name in dataset['participants']} == set().union(
            *held
        ) - people
    text = (out / 'fold-0/MODEL_CARD.md').read_text()
    assert '| Cohort | CC0 | 2 |' in text
    assert re.search(r'left multifidus \| \d\.\d{3}', text)
    rows = pd.read_csv(out / 'validation/evaluation.tsv', sep='\t')
    assert sorted(rows['participant_id'].unique()) == ['sub-1', 'sub-2', 'sub-3']
    assert len(rows) == 12

    monkeypatch.setenv('BIDS_MUSCLE_MODELS', str(tmp_path / 'models'))
    assert main(['package', str(out), '--name', 'mine']) == ExitCode.OK
    card = json.loads((tmp_path / 'models/mine' / CARD).read_text())
    assert len(card['weights']) == len(card['folds']) == 3
    assert card['datasets'][0]['participants'] == ['sub-1', 'sub-2', 'sub-3']
    assert main(['package', str(out), '--name', 'mine']) == ExitCode.CANNOT_CREATE
    assert main(['package', str(out), '--name', '../x']) == ExitCode.USAGE
    capsys.readouterr()
    assert main(['list']) == ExitCode.OK
    assert 'model   mine 1, lumbar' in capsys.readouterr().out
    assert main(['show', 'mine']) == ExitCode.OK
    assert '- Folds: 3' in capsys.readouterr().out


def test_training_on_everybody_goes_on_where_it_ended(train: Train, tmp_path: Path) -> None:
    assert train() == ExitCode.OK
    before = (tmp_path / 'out' / WEIGHTS).read_bytes()
    assert train() == ExitCode.OK
    assert (tmp_path / 'out' / WEIGHTS).read_bytes() == before
    first = (tmp_path / 'out').rename(tmp_path / 'first')
    assert train('--iterations', '2', '--start', str(first)) == ExitCode.OK
    assert (tmp_path / 'out' / WEIGHTS).read_bytes() != before
    card = json.loads((tmp_path / 'out' / CARD).read_text())
    assert card['training']['start']['sha256'] == json.loads((first / CARD).read_text())['sha256']


def test_a_training_does_not_go_on_with_other_images(
    train: Train, bids: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert train('--iterations', '1') == ExitCode.OK
    # The outlines stay, but a scan is replaced, such as by one with water and fat named rightly.
    path = bids / 'sub-2/anat/sub-2_acq-dixonwater_T1w.nii.gz'
    save(path, 150 - np.asarray(nib.load(path).dataobj))
    assert train('--iterations', '1') == ExitCode.BAD_DATA
    assert 'checkpoint.pt was written with other images' in capsys.readouterr().err
    # A checkpoint of an earlier version does not tell its images.
    kept = tmp_path / 'out/checkpoint.pt'
    saved = torch.load(kept, weights_only=True)
    torch.save({key: value for key, value in saved.items() if key != 'images'}, kept)
    assert train('--iterations', '1') == ExitCode.OK


@pytest.mark.parametrize(
    ('old', 'new', 'options', 'code', 'said'),
    [
        ('', '', ['--device', 'cuda:99'], ExitCode.TEMPORARY, '--device cpu'),
        ('', '', ['--folds', '4'], ExitCode.USAGE, '3 participants'),
        ('', '', ['--folds', '2', '--fold', '2'], ExitCode.USAGE, 'fold 2 does not exist'),
        ('', '', ['--start', 'nobody'], ExitCode.BAD_DATA, 'no model'),
        ('', '', ['--exclude', 'typo'], ExitCode.USAGE, 'no source'),
        ("'back'", "'front'", [], ExitCode.NO_INPUT, 'seg-front_dseg'),
        ("'lumbar'", "'cervical'", [], ExitCode.BAD_DATA, 'contains no label'),
        ("'bids'", "'web'", [], ExitCode.USAGE, 'files, bids'),
        ("seed = 1", "seed = 1\nchannels = ['inphase']", [], ExitCode.BAD_DATA, 'no inphase'),
        ('', '', ['--iterations', '0'], ExitCode.USAGE, 'iterations must be above 0'),
        ('', '', ['--threads', '0'], ExitCode.USAGE, '--threads 0'),
        ('', '', ['--workers', '-1'], ExitCode.USAGE, '--workers -1'),
        ('batch_size = 2', 'batch_size = 0', [], ExitCode.USAGE, 'batch_size must be above 0'),
        ('= 1e-2', '= -1', [], ExitCode.USAGE, 'learning_rate must be above 0'),
        ('ema_decay = 0.9', 'ema_decay = 1.5', [], ExitCode.USAGE, 'ema_decay must be below 1'),
        ("'back'", "'back'\nweight = 0", [], ExitCode.USAGE, 'weight of the source cohort'),
        ('[32, 24]', '[31, 24]', [], ExitCode.USAGE, 'window_px must be 2 multiples of 2'),
        ('[32, 24]', "'32x24'", [], ExitCode.USAGE, 'window_px must be'),
        ('[2]', '[2, 2]', [], ExitCode.USAGE, 'one stride fewer'),
        ('num_res_units', 'num_res_unit', [], ExitCode.USAGE, "'num_res_unit'"),
        ('out_channels = 9', '', [], ExitCode.USAGE, 'out_channels'),
        ('out_channels = 9', 'out_channels = 10', [], ExitCode.USAGE, 'from 2 to 9'),
        ('out_channels = 9', 'out_channels = 6', [], ExitCode.USAGE, 'right and the left'),
        ("seed = 1", "seed = 1\nnumbers = [0,1,3,5,7,2,4,6,8]", [], ExitCode.USAGE, 'in turn'),
        ('in_channels = 1', 'in_channels = 2', [], ExitCode.USAGE, 'channels has 1'),
        ('seed = 1', "seed = 1\nloss = 'dyce'", [], ExitCode.USAGE, "The loss 'dyce'"),
    ],
)  # fmt: skip
def test_says_what_is_wrong(
    train: Train, capsys: pytest.CaptureFixture, tmp_path: Path,
    old: str, new: str, options: list[str], code: int, said: str,
) -> None:  # fmt: skip
    assert train(*options, recipe=RECIPE.replace(old, new) if old else None) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / 'out' / WEIGHTS).exists()


def test_a_muscle_that_was_not_outlined_is_not_taught_as_background(
    train: Train, bids: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    # The lookup table is the same for all, but nobody outlined left multifidus in one of them.
    drawn = (bids / 'derivatives/manual').rename(tmp_path / 'drawn')
    description = {'Name': 'Outlines', 'BIDSVersion': '1.10.0', 'License': 'CC-BY-4.0'}
    (drawn / 'dataset_description.json').write_text(json.dumps(description))
    path = drawn / 'sub-2/anat/sub-2_acq-dixonwater_seg-back_dseg.nii.gz'
    codes = np.asarray(nib.load(path).dataobj).copy()
    save(path, np.where(codes == 7, 0, codes))
    options = '--iterations', '1', '--labels', str(drawn)
    stranger = drawn / 'sub-03/anat/sub-03_acq-dixonwater_seg-back_dseg.nii.gz'
    save(stranger, codes)
    assert train(*options) == ExitCode.OK
    said = capsys.readouterr().out
    assert '3 label maps; with right multifidus 3, left multifidus 2,' in said
    assert '1 participants of' in said and 'no --data has sub-03' in said
    assert 'left quadratus lumborum 0' in said
    card = json.loads((tmp_path / 'out' / CARD).read_text())
    data = card['training']['data']
    assert [each['annotated'] for each in data] == [[1, 2, 3, 4], [1, 3, 4], [1, 2, 3, 4]]
    # The card tells the licence of the images as well as that of outlines that lie elsewhere.
    assert [(each['name'], each['license']) for each in card['datasets']] == [
        ('Cohort', 'CC0'),
        ('Outlines', 'CC-BY-4.0'),
    ]
    save(path, np.where(codes == 9, 9, 0).astype(np.uint8))
    assert train(*options) == ExitCode.BAD_DATA
    assert 'none of the numbers' in capsys.readouterr().err
    path.write_bytes(path.read_bytes()[:200])
    assert train(*options) == ExitCode.BAD_DATA
    assert path.name in capsys.readouterr().err


def test_a_map_with_exchanged_sides_is_not_learned_from_nor_a_reference(
    train: Train, bids: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    lines = [f'{number}\t{name}\n' for number, name in LOOKUP.items()]
    swapped = {'MF left': 'MF right', 'right multifidus': 'left multifidus'}
    swapped |= {'ES_L': 'ES_R', 'erector spinae (right)': 'erector spinae (left)'}
    for old, new in swapped.items():
        lines = [line.replace(old, f'{new} ') for line in lines]
    path = bids / 'derivatives/manual/sub-2/anat/sub-2_acq-dixonwater_seg-back_dseg.tsv'
    path.write_text(''.join(['index\tname\n', *lines]))
    assert train('--iterations', '1') == ExitCode.BAD_DATA
    said = capsys.readouterr().err
    assert path.stem in said and 'sides exchanged' in said
    assert evaluate(bids, predict(bids, 'net', 1), tmp_path / 'eval') == ExitCode.OK
    rows = pd.read_csv(tmp_path / 'eval/evaluation.tsv', sep='\t')
    assert set(rows['participant_id']) == {'sub-1', 'sub-3'}
    assert 'sides exchanged' in capsys.readouterr().err


def test_label_maps_of_a_careless_site_are_told(
    train: Train, bids: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Numbers without a name, headers beside the image or mirrored, interpolated labels."""
    first, second, third = sorted((bids / 'derivatives/manual').glob('sub-*/anat/*.nii.gz'))
    image = nib.load(first)
    codes = np.asarray(image.dataobj).copy()
    codes[codes == 3] = 101  # left erector spinae
    half_a_voxel = image.affine.copy()
    half_a_voxel[0, 3] += 1.5
    nib.save(nib.Nifti1Image(codes, half_a_voxel), first)
    assert train('--iterations', '1') == ExitCode.OK
    said = capsys.readouterr().out
    assert f'does not name: 101 (first in {first.name}). They count as background' in said
    assert f'up to 1.5 mm ({first.name})' in said
    net = predict(bids, 'net', 1)
    # A program that turned the voxels of one map, but not its header: up is down.
    image = nib.load(second)
    nib.save(nib.Nifti1Image(image.dataobj, image.affine @ np.diag([1, 1, -1, 1])), second)
    mixed = np.asarray(nib.load(third).dataobj).astype(np.float32)
    save(third, (mixed + np.roll(mixed, 1, axis=1)) / 2)
    assert evaluate(bids, net, tmp_path / 'eval') == ExitCode.OK
    said = capsys.readouterr().err
    assert '101: the lookup tables do not name these numbers of 1 pairs' in said
    assert f'up to 1.5 mm ({first.name})' in said
    assert f'{second.name}: ' in said and 'RAS and RAI and lie 16 mm apart' in said
    assert f'{third.name}: ' in said and 'is interpolated' in said
    rows = pd.read_csv(tmp_path / 'eval/evaluation.tsv', sep='\t')
    assert set(rows['participant_id']) == {'sub-1'}
    assert train('--iterations', '1') == ExitCode.BAD_DATA
    assert f'{third.name} is interpolated' in capsys.readouterr().err
    save(third, np.zeros_like(codes))  # begun, and left for another day
    assert train('--iterations', '1') == ExitCode.BAD_DATA
    assert f'{third.name} is empty: it contains none of the' in capsys.readouterr().err
    # One reader wrote the names in another language.
    lookup = Path(str(third).replace('.nii.gz', '.tsv'))
    lookup.write_text('index\tname\n7\tlinker Multifidus\n5\trechter Multifidus\n')
    assert evaluate(bids, net, tmp_path / 'again') == ExitCode.OK
    said = capsys.readouterr().err
    assert f'{third.name}: its lookup table names no known muscle (linker Multifidus, r' in said


def test_a_split_is_of_people_whatever_they_are_called(
    train: Train, bids: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    split = tmp_path / 'split.tsv'
    split.write_text('participant_id\tsplit\nsub-1\ttrain\nsub-2\ttest\nsub-3\ttrain\n')
    # Outlines of all are also learned from without their images.
    alone = """
    [[source]]
    name = 'outlines'
    labels = 'derivatives/manual/sub-*/anat/*_dseg.nii.gz'
    codes = { 7 = 2, 5 = 1, 3 = 4, 4 = 3 }
    annotated = [1, 2, 3, 4]
    """
    options = '--iterations', '1', '--split', str(split)
    assert train(*options, recipe=RECIPE + alone) == ExitCode.OK
    card = json.loads((tmp_path / 'out' / CARD).read_text())
    assert card['measured']['scans'] == 1
    assert not any('sub-2' in each['participant'] for each in card['training']['data'])
    # The same person came a second time, and got another number.
    for path in (bids / 'sub-2/anat').iterdir():
        shutil.copy(path, bids / 'sub-3/anat' / path.name.replace('sub-2', 'sub-3'))
    assert train(*options) == ExitCode.BAD_DATA
    said = capsys.readouterr().err
    assert 'cohort/sub-2 and cohort/sub-3 have the same images' in said


def test_label_maps_stay_with_the_dataset_that_they_were_drawn_on(
    train: Train, bids: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = shutil.copytree(bids, tmp_path / 'site2')
    manual = bids / 'derivatives/manual'
    words = ['train', str(tmp_path / 'tiny.toml'), '--output', str(tmp_path / 'out')]
    words += ['--iterations', '1', '--data', str(bids), str(other), '--labels']
    assert main([*words, str(manual)]) == ExitCode.OK
    data = json.loads((tmp_path / 'out' / CARD).read_text())['training']['data']
    assert [each['participant'] for each in data] == [f'cohort/sub-{k}' for k in '123']
    drawn = manual.rename(tmp_path / 'drawn')
    assert main([*words, str(drawn)]) == ExitCode.USAGE
    assert 'sub-1 is in several --data folders' in capsys.readouterr().err


def test_half_an_image_is_told(train: Train, bids: Path, capsys: pytest.CaptureFixture) -> None:
    image = bids / 'sub-2/anat/sub-2_acq-dixonwater_T1w.nii.gz'
    image.write_bytes(image.read_bytes()[:2000])
    assert train() == ExitCode.BAD_DATA
    assert image.name in capsys.readouterr().err


def test_a_person_has_one_role_in_a_split(tmp_path: Path) -> None:
    path = tmp_path / 'split.tsv'
    head = 'participant_id\tsession_id\tsplit\n'
    path.write_text(f'{head}sub-1\tses-1\ttrain\nsub-1\tses-2\ttrain\nsub-2\tses-1\ttest\n')
    people = ['cohort/sub-1', 'cohort/sub-2']
    roles = read_split(str(path), people, 0)
    assert roles == {'cohort/sub-1': 'train', 'cohort/sub-2': 'test'}
    path.write_text(f'{head}sub-1\tses-1\ttrain\nsub-2\tses-1\ttest\nsub-1\tses-2\ttest\n')
    with pytest.raises(UsageError, match=r'sub-1 is in the split .* as train and as test'):
        read_split(str(path), people, 0)


def test_a_map_of_two_runs_is_evaluated_in_both(train: Train, bids: Path, tmp_path: Path) -> None:
    for path in list((bids / 'sub-2/anat').iterdir()):
        for run in '12':
            shutil.copy(path, path.with_name(path.name.replace('_T1w', f'_run-{run}_T1w')))
        path.unlink()
    split = tmp_path / 'split.tsv'
    split.write_text('participant_id\tsplit\nsub-1\ttrain\nsub-2\ttest\nsub-3\ttrain\n')
    assert train('--iterations', '1', '--split', str(split)) == ExitCode.OK
    rows = pd.read_csv(tmp_path / 'out/test/evaluation.tsv', sep='\t')
    assert rows['scan'].nunique() == 2 and set(rows['participant_id']) == {'sub-2'}
    assert len(list((tmp_path / 'out/test/cohort/sub-2/anat').glob('*_dseg.nii.gz'))) == 2
    measured = json.loads((tmp_path / 'out' / CARD).read_text())['measured']
    assert (measured['participants'], measured['scans']) == (1, 2)


def test_two_datasets_of_one_name_are_not_mixed_up(
    train: Train, bids: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = shutil.copytree(bids, tmp_path / 'site2/cohort')
    words = [str(tmp_path / 'tiny.toml'), '--output', str(tmp_path / 'out'), '--data']
    assert main(['train', *words, str(bids), str(other)]) == ExitCode.USAGE
    assert 'Rename one' in capsys.readouterr().err


def predict(bids: Path, name: str, shift: int, people: str = '123') -> Path:
    """Write label maps in numbers of the lumbar table, shifted along x, with a fat fraction."""
    out = bids.parent / name
    for person in people:
        stem = out / f'sub-{person}/anat/sub-{person}_acq-dixon'
        save(Path(f'{stem}_seg-lumbarmuscles_dseg.nii.gz'), boxes(int(person) + shift))
        ramp = np.broadcast_to(np.linspace(0, 0.55, 56)[:, None, None], (56, 32, 3))
        save(Path(f'{stem}_fatfrac.nii.gz'), np.array(ramp, np.float32))
        # Voxels with more fat are brighter, so they weigh more in a ratio of means.
        for name, image in (('water', 100 * (1 - ramp)), ('fat', 200 * ramp)):
            save(Path(f'{stem}{name}_desc-preproc_T1w.nii.gz'), np.array(image, np.float32))
    return out


def evaluate(bids: Path, predictions: Path, output: Path) -> int:
    reference = bids / 'derivatives/manual'
    words = ['--predictions', predictions, '--reference', reference, '--output', output]
    return main(['evaluate', *map(str, words)])


def test_evaluates_against_maps_in_other_numbers(
    bids: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert evaluate(bids, predict(bids, 'net', 1, '12'), tmp_path / 'eval') == ExitCode.OK
    assert 'sub-3_acq-dixonwater_seg-back_dseg.nii.gz: no prediction' in capsys.readouterr().err
    rows = pd.read_csv(tmp_path / 'eval/evaluation.tsv', sep='\t')
    assert rows['index'].tolist() == [1, 2, 3, 4] * 2
    # Boxes six voxels wide, shifted by one of 3 mm: the fat fraction rises 1 point per voxel.
    assert rows['dice'].tolist() == pytest.approx([10 / 12] * 8)
    assert rows['volume_ratio'].tolist() == [1] * 8
    assert rows['hd95_mm'].tolist() == pytest.approx([3] * 8)
    assert (rows['mfi_test_pct'] - rows['mfi_reference_pct']).tolist() == pytest.approx([1] * 8)
    for which in ('test', 'reference'):
        share = rows[f'mfi_{which}_pct'] / 100  # linear along x, so water and fat have this mean
        ratio = 100 * 2 * share / (2 * share + 1 - share)
        assert rows[f'mfi_ratio_{which}_pct'].tolist() == pytest.approx(ratio.tolist(), rel=1e-5)
    agreed = pd.read_csv(tmp_path / 'eval/evaluation_agreement.tsv', sep='\t')
    assert agreed['measure'].unique().tolist() == ['mfi_ratio_pct', 'mfi_pct', 'volume_ml']
    assert rows['volume_test_ml'].tolist() == pytest.approx([6 * 12 * 3 * 72 / 1000] * 8)
    for table in (tmp_path / 'eval').glob('*.tsv'):
        columns = table.read_text().split('\n')[0].split('\t')
        assert list(json.loads(table.with_suffix('.json').read_text())) == columns
    page = (tmp_path / 'eval/evaluation.html').read_text()
    HTMLParser(strict=True).parse(page)
    assert '0.83\xa0±\xa00.00' in page
    assert page.count('data:image/webp') == 2
    assert 'Highest mean Dice 0.83: sub-1' in page and 'Lowest mean Dice 0.83: sub-2' in page
    assert not re.search(r'(src|href)="(https?:)?//', page)


def test_a_map_is_not_compared_with_itself(
    bids: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    both = ['--reference', str(predict(bids, 'net', 0)), '--output', str(tmp_path / 'eval')]
    both += ['--predictions', both[1]]
    assert main(['evaluate', *both]) == ExitCode.NOTHING_SELECTED
    assert '3 label maps are prediction and reference at once' in capsys.readouterr().err
    path = tmp_path / 'net/sub-2/anat/sub-2_acq-dixon_seg-lumbarmuscles_desc-manual_dseg.nii.gz'
    save(path, boxes(3))
    assert main(['evaluate', *both]) == ExitCode.OK
    rows = pd.read_csv(tmp_path / 'eval/evaluation.tsv', sep='\t')
    assert set(rows['participant_id']) == {'sub-2'} and (rows['dice'].dropna() < 1).all()
    assert '2 label maps are prediction' in (tmp_path / 'eval/evaluation.html').read_text()


def test_says_what_could_not_be_compared(
    bids: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    predictions, manual = predict(bids, 'net', 1), bids / 'derivatives/manual'
    stem = 'anat/sub-{0}_acq-dixonwater_seg-back_dseg'
    first, second, third = (manual / f'sub-{k}' / stem.format(k) for k in '123')
    # Numbers that a program saved with a scale are read as what they mean.
    codes = np.asarray(nib.load(f'{first}.nii.gz').dataobj)
    scaled = nib.Nifti1Image((codes / 0.0005).astype(np.int16), np.diag([3.0, 3.0, 8.0, 1.0]))
    scaled.header.set_slope_inter(0.00050001, 0)
    nib.save(scaled, f'{first}.nii.gz')
    # Nothing outlined yet, and names of other muscles than the predictions have.
    save(Path(f'{second}.nii.gz'), np.zeros_like(codes))
    Path(f'{third}.tsv').write_text('index\tname\n7\tleft psoas major\n5\tleft kidney\n')
    (predictions / 'seg-lumbarmuscles_dseg.tsv').write_text(
        'index\tname\n1\tright multifidus\n2\tleft multifidus\n'
    )
    assert evaluate(bids, predictions, tmp_path / 'eval') == ExitCode.OK
    rows = pd.read_csv(tmp_path / 'eval/evaluation.tsv', sep='\t')
    assert rows['dice'].tolist() == pytest.approx([10 / 12] * 2)
    said = capsys.readouterr().err
    assert f'{second.name}.nii.gz: ' in said and 'is empty' in said
    assert f'{third.name}.nii.gz: ' in said and 'name no muscle in common' in said
    assert 'left erector spinae: the lookup tables of the predictions do not name it; 1' in said


def test_structures_that_both_lookup_tables_name_are_compared_too(
    bids: Path, tmp_path: Path
) -> None:
    predictions = predict(bids, 'net', 1)
    names = [f'{label.index}\t{label.name}\n' for label in load_label_table('lumbar')]
    (predictions / 'seg-lumbarmuscles_dseg.tsv').write_text(''.join(['index\tname\n', *names]))
    for folder in (predictions, bids / 'derivatives/manual'):
        for path in list(folder.rglob('*dseg.tsv')):
            path.write_text(path.read_text() + '40\tvertebral body\n')
        for path in folder.rglob('*dseg.nii.gz'):
            image = nib.load(path)
            data = np.asarray(image.dataobj).copy()
            data[:4, :, 0] = 40
            nib.save(nib.Nifti1Image(data, image.affine), path)
        # One map names another structure that comes first in the alphabet.
        (path,) = folder.glob('sub-1/anat/*dseg.nii.gz')
        lookup = next(folder.glob('*dseg.tsv')).read_text() + '41\taorta\n'
        Path(str(path).replace('.nii.gz', '.tsv')).write_text(lookup)
    assert evaluate(bids, predictions, tmp_path / 'eval') == ExitCode.OK
    rows = pd.read_csv(tmp_path / 'eval/evaluation.tsv', sep='\t')
    bone = rows[rows['name'] == 'vertebral body']
    assert bone['index'].tolist() == [102] * 3 and bone['side'].tolist() == ['unsided'] * 3
    assert bone['dice'].tolist() == [1] * 3
    assert '<th scope="row">vertebral body</th>' in (tmp_path / 'eval/evaluation.html').read_text()


def test_loads_of_both_datasets_stand_side_by_side(bids: Path, tmp_path: Path) -> None:
    predictions = predict(bids, 'net', 1)
    for folder, more in ((predictions, 100), (bids / 'derivatives/manual', 0)):
        for person in '123':
            path = folder / f'sub-{person}/anat/sub-{person}_acq-sag_loads.tsv'
            lines = [
                f'flexion\t{level}\t{2000 + 10 * int(person) * place + more}'
                for place, level in enumerate(('L4', 'L5'), start=1)
            ]
            path.write_text('\n'.join(['task\tlevel\tcompression_n', *lines, '']))
    assert evaluate(bids, predictions, tmp_path / 'eval') == ExitCode.OK
    found = pd.read_csv(tmp_path / 'eval/evaluation_loads.tsv', sep='\t')
    assert found['level'].tolist() == ['all', 'L4', 'L5']
    assert found['mae_n'].tolist() == pytest.approx([100] * 3)
    assert found['pearson_r'].tolist() == pytest.approx([1] * 3)
    page = (tmp_path / 'eval/evaluation.html').read_text()
    HTMLParser(strict=True).parse(page)
    assert '100\xa0±\xa00' in page


def test_the_same_evaluation_gives_the_same_bytes(bids: Path, tmp_path: Path) -> None:
    predictions = predict(bids, 'net', 1)
    for name in ('a', 'b'):
        assert evaluate(bids, predictions, tmp_path / name) == ExitCode.OK
    for path in (tmp_path / 'a').rglob('*.*'):
        other = tmp_path / 'b' / path.relative_to(tmp_path / 'a')
        assert path.read_bytes() == other.read_bytes(), path.name


def test_grids_that_differ_are_left_out(
    bids: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    predictions = predict(bids, 'net', 0, '12')
    path = predictions / 'sub-1/anat/sub-1_acq-dixon_seg-lumbarmuscles_dseg.nii.gz'
    save(path, boxes()[:-1])
    assert evaluate(bids, predictions, tmp_path / 'eval') == ExitCode.OK
    assert 'not on the same grid' in capsys.readouterr().err
    shutil.rmtree(predictions / 'sub-2')
    assert evaluate(bids, predictions, tmp_path / 'x') == ExitCode.NOTHING_SELECTED
    assert not (tmp_path / 'x').exists()


def test_compares_models_on_the_scans_that_all_have(
    bids: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folders = []
    for name, shift, people in (('good', 0, '123'), ('fair', 1, '123'), ('poor', 2, '12')):
        folders.append(str(tmp_path / f'eval-{name}'))
        assert evaluate(bids, predict(bids, name, shift, people), Path(folders[-1])) == 0
    output = ['--output', str(tmp_path / 'compared')]
    # Every person is alike in these boxes; give them their own.
    for place, folder in enumerate(folders):
        path = Path(folder) / 'evaluation.tsv'
        table = pd.read_csv(path, sep='\t')
        table['dice'] -= 0.01 * ((np.arange(len(table)) * (3 + place)) % 7)
        table.to_csv(path, sep='\t', index=False, na_rep='n/a')
    assert main(['compare', *folders, *output]) == ExitCode.OK
    pairs = pd.read_csv(tmp_path / 'compared/comparison_pairs.tsv', sep='\t')
    assert set(pairs['within']) == {
        'all', 'right multifidus', 'left multifidus', 'right erector spinae',
        'left erector spinae',
    }  # fmt: skip
    assert (pairs['n'] == 2).all()
    anova = pd.read_csv(tmp_path / 'compared/comparison_anova.tsv', sep='\t')
    assert anova['effect'].tolist() == ['model', 'label', 'model x label']
    assert pairs.groupby('outcome').size().tolist() == [15, 15]
    volumes = pd.read_csv(tmp_path / 'compared/comparison_agreement.tsv', sep='\t')
    assert set(volumes['model']) == {'eval-good', 'eval-fair', 'eval-poor'}
    assert (tmp_path / 'compared/figures/comparison_dice.png').is_file()
    page = (tmp_path / 'compared/comparison.html').read_text()
    HTMLParser(strict=True).parse(page)
    assert 'Volume ICC(2,1) (95 % CI)' in page and 'Table 1 of Xia 2019' in page
    assert 'eval-good against the others' in page
    assert main(['compare', *folders[:2], *output, '--factor', 'depth=2D,3D']) == ExitCode.OK
    anova = pd.read_csv(tmp_path / 'compared/comparison_anova.tsv', sep='\t')
    assert anova['effect'].tolist() == ['depth', 'label', 'depth x label']
    # People held out in a training are the same people, whatever the folder is called.
    held_out = [tmp_path / name / 'fold-0/validation' for name in ('x', 'y')]
    for folder, source in zip(held_out, folders, strict=False):
        table = pd.read_csv(Path(source) / 'evaluation.tsv', sep='\t')
        table['scan'] = 'cohort/' + table['scan']
        folder.mkdir(parents=True)
        table.to_csv(folder / 'evaluation.tsv', sep='\t', index=False, na_rep='n/a')
    assert main(['compare', folders[2], *map(str, held_out), *output]) == ExitCode.OK
    summary = pd.read_csv(tmp_path / 'compared/comparison_summary.tsv', sep='\t')
    assert summary['model'].nunique() == 3
    assert 'x/fold-0/validation' in set(summary['model'])
    assert (summary['n'] == 2).all()
    assert main(['compare', folders[0], folders[0], *output]) == ExitCode.USAGE
    assert main(['compare', folders[0], *output]) == ExitCode.USAGE
    assert main(['compare', *folders, *output, '--factor', 'a=1,2']) == ExitCode.USAGE
    assert main(['compare', str(bids), *folders, *output]) == ExitCode.NO_INPUT
    assert 'evaluate has written' in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    found = subprocess.run(
        [sys.executable, '-m', 'bids_muscle.cli.model', 'list'],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (found.returncode, found.stderr) == (ExitCode.OK, b'')


def test_shows_and_lists_what_is_in_the_package(capsys: pytest.CaptureFixture) -> None:
    assert main(['list']) == ExitCode.OK
    listed = capsys.readouterr().out
    assert 'recipe  lumbar' in listed
    name = listed.split()[1]
    assert main(['show', name, '--json']) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)['name'] == name
    assert main(['show', 'nonsense']) == ExitCode.BAD_DATA
    assert main(['nonsense']) == ExitCode.USAGE
