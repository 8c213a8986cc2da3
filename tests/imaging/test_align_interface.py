"""Where the levels of a scan come from: the atlas, a label map of vertebrae, or a person."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.anatomy.structures import model_table
from bids_muscle.errors import BadDataError
from bids_muscle.imaging.atlas import CARD, find_atlas, renumbered
from bids_muscle.imaging.levels import read_levels
from bids_muscle.interfaces.align import AlignScan


def test_vertebrae_win_over_the_atlas_and_marks_over_both(tmp_path: Path) -> None:
    affine = np.diag([4.0, 4.0, 10.0, 1.0])
    image = np.zeros((60, 50, 12), np.float32)
    image[5:55, 5:45] = 100
    paths = {}
    for name, data in (('corrected', image), ('mask', (image > 0).astype(np.uint8))):
        paths[name] = str(tmp_path / f'{name}.nii')
        nib.save(nib.Nifti1Image(data, affine), paths[name])
    paths['labels'] = str(tmp_path / 'labels.nii')
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), affine), paths['labels'])
    # Sagittal, of the same scanner: L4 at 70 to 110 mm, L5 at 20 to 60 mm.
    anat = tmp_path / 'sub-01/anat'
    anat.mkdir(parents=True)
    vertebrae = np.zeros((6, 40, 60), np.uint8)
    vertebrae[:, 10:20, 35:55], vertebrae[:, 10:20, 10:30] = 4, 5
    drawn = anat / 'sub-01_seg-vertebrae_dseg.nii.gz'
    nib.save(nib.Nifti1Image(vertebrae, np.diag([4.0, 2.0, 2.0, 1.0])), drawn)
    (anat / 'sub-01_seg-vertebrae_dseg.tsv').write_text('index\tname\n4\tL4\n5\tL5\n')
    # Another map of the session shows the neck, far above.
    neck = anat / 'sub-01_acq-neck_seg-vertebrae_dseg.nii.gz'
    high = np.diag([4.0, 2.0, 2.0, 1.0])
    high[2, 3] = 500
    nib.save(nib.Nifti1Image(vertebrae, high), neck)
    neck.with_name('sub-01_acq-neck_seg-vertebrae_dseg.tsv').write_text(
        'index\tname\n4\tC4\n5\tC5\n'
    )
    marks = tmp_path / 'marks.tsv'
    marks.write_text('participant_id\tslice\tlevel\n01\t4\tS1\n')

    def run(
        native: str | Path = paths['corrected'], *, atlas: bool = False, **sources: object
    ) -> tuple[dict[str, object], tuple[str | None, ...] | None, list[str]]:
        step = AlignScan(
            in_atlas=True,
            native=str(native),
            corrected={'water': paths['corrected']},
            body_mask=paths['mask'],
            labels=paths['labels'],
            atlas_card=str(find_atlas(None, 'lumbar') / CARD) if atlas else None,
            table=load_label_table('lumbar'),
            participant='01',
            **sources,
        )
        made = step.run(cwd=str(tmp_path)).outputs
        levels = read_levels(Path(made.levels))
        return made.alignment, levels.names if levels else None, made.warnings

    facts, names, warnings = run(atlas=True)
    assert facts['Trusted'] is False
    assert names is None
    assert any('no muscle was segmented' in line for line in warnings)
    facts, names, warnings = run(
        atlas=True,
        vertebrae=[str(neck), str(drawn)],
        sagittal={str(neck): paths['mask'], str(drawn): paths['corrected']},
        frame_of_reference='1.2.3',
        sagittal_frames={str(neck): '1.2.3', str(drawn): '1.2.4'},
    )
    assert facts['LevelSource'] == 'segmentation'
    assert names is not None
    assert names[7] == names[8] == 'L4'
    assert names[4] == names[5] == 'L5'
    # An image of one brightness says nothing about movement.
    assert (facts['MovementFrom'], facts['MovementMm']) == ('corrected.nii', None)
    frame = 'This scan and corrected.nii have different frames of reference (FrameOfReferenceUID)'
    assert any(frame in line for line in warnings)
    assert any('cannot be excluded: no shift of the images fits' in line for line in warnings)
    # A sixth lumbar vertebra has no level, and a person has to know.
    sixth = anat / 'sub-01_acq-sixth_seg-vertebrae_dseg.nii.gz'
    six = np.zeros((6, 40, 60), np.uint8)
    for number, low in ((4, 45), (5, 31), (6, 17), (7, 3)):
        six[:, 10:20, low : low + 11] = number
    nib.save(nib.Nifti1Image(six, np.diag([4.0, 2.0, 2.0, 1.0])), sixth)
    sixth.with_name('sub-01_acq-sixth_seg-vertebrae_dseg.tsv').write_text(
        'index\tname\n4\tL4\n5\tL5\n6\tL6\n7\tS1\n'
    )
    _, names, warnings = run(vertebrae=[str(neck), str(sixth)])
    assert names is not None
    assert (names[10], names[7], names[4]) == ('L4', 'L5', None)
    assert any(f'In {sixth.name} L6 lies between L5 and S1' in line for line in warnings)
    # Without a position nothing can be said about the other image, be it the map or the scan.
    lost = anat / 'sub-01_acq-lost_seg-vertebrae_dseg.nii.gz'
    for path, data in ((lost, vertebrae), (tmp_path / 'native.nii', image)):
        header = nib.Nifti1Header()
        header.set_data_dtype(data.dtype)
        header.set_data_shape(data.shape)
        header.set_zooms((4.0, 2.0, 2.0) if path == lost else (4.0, 4.0, 10.0))
        nib.save(nib.Nifti1Image(data, None, header), path)
    lost.with_name('sub-01_acq-lost_seg-vertebrae_dseg.tsv').write_text(
        'index\tname\n4\tL4\n5\tL5\n'
    )
    facts, _, warnings = run(vertebrae=[str(lost)])
    assert facts['LevelSource'] == 'none'
    assert any(f'vertebrae in {lost.name}' in line for line in warnings)
    facts, _, warnings = run(tmp_path / 'native.nii', vertebrae=[str(drawn)])
    assert facts['LevelSource'] == 'none'
    assert any(f'vertebrae in {drawn.name}' in line for line in warnings)
    facts, _, warnings = run(vertebrae=[str(lost), str(drawn)])
    assert facts['LevelSource'] == 'segmentation'
    assert any(f'vertebrae in {lost.name}' in line for line in warnings)
    facts, names, _ = run(atlas=True, vertebrae=[str(neck), str(drawn)], levels_file=str(marks))
    assert facts['LevelSource'] == 'file'
    assert names == (*(None,) * 4, 'S1', *(None,) * 7)
    # Marks of another scan of the session: of the neck, then of other heights.
    marks.write_text('participant_id\tslice\tlevel\n01\t4\tC5\n')
    facts, _, warnings = run(vertebrae=[str(drawn)], levels_file=str(marks))
    assert facts['LevelSource'] == 'segmentation'
    assert not any('--levels' in line for line in warnings)
    marks.write_text('participant_id\tz_mm\tlevel\n01\t900\tL5\n')
    facts, _, warnings = run(vertebrae=[str(drawn)], levels_file=str(marks))
    assert facts['LevelSource'] == 'segmentation'
    assert 'No mark in --levels lies within this scan.' in warnings
    marks.write_text('participant_id\tslice\tlevel\n01\t4\tL4\n01\t6\tL5\n')
    with pytest.raises(BadDataError, match=r'marks\.tsv for sub-01 contradict'):
        run(levels_file=str(marks))


def test_vertebrae_of_the_model_tell_the_levels_where_there_is_no_atlas(tmp_path: Path) -> None:
    affine = np.diag([4.0, 4.0, 10.0, 1.0])
    image = np.full((20, 20, 12), 100, np.float32)
    labels = np.zeros(image.shape, np.int16)
    labels[8:12, 8:12, 7:11], labels[8:12, 8:12, 2:6], labels[2:6, 8:12] = 304, 305, 7131
    paths = {}
    for name, data in (('image', image), ('mask', image > 0), ('labels', labels)):
        paths[name] = str(tmp_path / f'{name}.nii')
        nib.save(nib.Nifti1Image(data.astype(np.int16), affine), paths[name])
    names = {304: 'vertebrae_L4', 305: 'vertebrae_L5', 7131: 'rectus femoris left'}
    made = (
        AlignScan(
            in_atlas=True,
            native=paths['image'],
            corrected={'T2w': paths['image']},
            body_mask=paths['mask'],
            labels=paths['labels'],
            table=model_table(names),
            participant='01',
        )
        .run(cwd=str(tmp_path))
        .outputs
    )
    assert made.alignment['LevelSource'] == 'segmentation'
    assert 'Atlas' not in made.alignment
    assert list(made.aligned) == ['levels']
    levels = read_levels(Path(made.levels))
    assert levels is not None
    assert (levels.names[7], levels.names[5]) == ('L4', 'L5')


def test_labels_of_another_model_are_those_of_the_atlas() -> None:
    ours = load_label_table('lumbar')
    theirs = model_table({5101: 'left thoracolumbar multifidus', 7131: 'left sartorius'})
    labels = nib.Nifti1Image(np.array([[[0, 5101, 7131]]], np.int16), np.eye(4))
    assert np.asarray(renumbered(labels, theirs, ours).dataobj).ravel().tolist() == [0, 2, 0]
    assert renumbered(labels, ours, ours) is labels
