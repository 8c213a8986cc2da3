"""Label maps of other people's derivatives: what they are of and what their numbers mean."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.dataset.label_maps import (
    LabelMap,
    candidate_scans,
    find_label_maps,
    pair_maps,
    read_lookup,
)
from bids_muscle.dataset.scan import Contrast, Scan, ScanImage
from bids_muscle.errors import BadDataError, MissingInputError

LUMBAR = load_label_table('lumbar')


def save(folder: Path, name: str, shape: tuple[int, int, int] = (4, 4, 2)) -> Path:
    path = folder / name.split('_')[0] / 'anat' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), path)
    return path


def test_the_nearest_lookup_table_says_what_numbers_mean(tmp_path: Path) -> None:
    save(tmp_path, 'sub-1_seg-back_dseg.nii.gz')
    save(tmp_path, 'sub-2_seg-back_dseg.nii.gz')
    (tmp_path / 'seg-back_dseg.tsv').write_text('index\tname\n7\tleft ES\n9\tleft kidney\n')
    (tmp_path / 'sub-2/anat/sub-2_seg-back_dseg.tsv').write_text(
        'index\tname\tside\n3\tmultifidus\tright\n'
    )
    first, second = find_label_maps(tmp_path)
    assert first.codes(LUMBAR) == {7: 4}
    assert second.codes(LUMBAR) == {3: 1}


def test_numbers_without_a_meaning_are_refused(tmp_path: Path) -> None:
    save(tmp_path, 'sub-1_seg-lumbarmuscles_dseg.nii.gz')
    save(tmp_path, 'sub-1_seg-other_dseg.nii.gz')
    own, other = find_label_maps(tmp_path)
    assert own.codes(LUMBAR) == {label.index: label.index for label in LUMBAR}
    with pytest.raises(MissingInputError, match=r'sub-1_seg-other_dseg\.tsv'):
        other.codes(LUMBAR)
    (tmp_path / 'dseg.tsv').write_text('number\tname\n1\tx\n')
    with pytest.raises(BadDataError, match='index'):
        find_label_maps(tmp_path)


def test_a_correction_is_a_reference_and_no_prediction(tmp_path: Path) -> None:
    """Outputs of bids_muscle: the map, the same in the space of the atlas, a correction."""
    for sub in ('1', '2', '3'):
        save(tmp_path, f'sub-{sub}_acq-dixon_seg-lumbarmuscles_dseg.nii.gz')
        save(tmp_path, f'sub-{sub}_acq-dixon_space-atlas_seg-lumbarmuscles_dseg.nii.gz')
    save(tmp_path, 'sub-1_acq-dixon_seg-lumbarmuscles_desc-manual_dseg.nii.gz')
    sidecar = tmp_path / 'sub-3/anat/sub-3_acq-dixon_seg-lumbarmuscles_dseg.json'
    sidecar.write_text('{"Manual": true}')

    def names(**options: bool) -> list[str]:
        found = find_label_maps(tmp_path, 'lumbarmuscles', **options)
        return [each.path.name.replace('_acq-dixon_seg-lumbarmuscles', '') for each in found]

    assert names() == [
        'sub-1_desc-manual_dseg.nii.gz',
        'sub-2_dseg.nii.gz',
        'sub-3_dseg.nii.gz',
    ]
    assert names(predicted=True) == ['sub-1_dseg.nii.gz', 'sub-2_dseg.nii.gz']


def made_up(**entities: str) -> LabelMap:
    return LabelMap(Path('_'.join(f'{k}-{v}' for k, v in entities.items())), entities, {})


def test_pairs_are_of_one_scan() -> None:
    predictions = [
        made_up(sub='1', acq='dixon', seg='a'),
        made_up(sub='1', acq='T2w', seg='a'),
        made_up(sub='2', ses='x', acq='T2w', seg='a'),
    ]
    references = [
        made_up(sub='1', acq='dixonwater', seg='b'),
        made_up(sub='1', seg='b'),
        made_up(sub='2', acq='T2w', seg='b'),
        made_up(sub='2', ses='x', seg='b'),
    ]
    same = made_up(sub='1', acq='dixonwater', seg='c')
    assert pair_maps([*predictions, same], references[:1]) == ([(same, references[0])], [])
    pairs, alone = pair_maps(predictions, references)
    assert pairs == [(predictions[0], references[0]), (predictions[2], references[3])]
    assert [(each, reason.split(':')[0]) for each, reason in alone] == [
        (references[1], 'several fit'),
        (references[2], 'no prediction'),
    ]


def test_a_map_is_of_the_scan_or_of_one_of_its_images(tmp_path: Path) -> None:
    image = save(tmp_path, 'sub-1_acq-dixonwater_T1w.nii.gz')
    dixon = (('sub', '1'), ('acq', 'dixon'))
    scan = Scan(dixon, 'T1w', 'lumbar', (ScanImage(Contrast.WATER, image),))
    for name, shape, fits in (
        ('sub-1_acq-dixon_seg-x', (4, 4, 2), True),
        ('sub-1_acq-dixonwater_seg-x', (4, 4, 2), True),
        ('sub-1_seg-x', (4, 4, 2), True),
        ('sub-1_acq-T2w_seg-x', (4, 4, 2), False),
        ('sub-1_run-1_seg-x', (4, 4, 2), False),
        ('sub-1_acq-dixon_seg-y', (4, 4, 3), False),
    ):
        folder = tmp_path / name
        save(folder, f'{name}_dseg.nii.gz', shape)
        (label_map,) = find_label_maps(folder)
        assert bool(candidate_scans(label_map, [scan])) == fits, name


def test_a_number_with_two_names_is_refused(tmp_path: Path) -> None:
    table = tmp_path / 'seg-manual_dseg.tsv'
    table.write_text('index\tname\tside\n1\tpsoas major\tright\n2\tpsoas major\tleft\n')
    path = tmp_path / 'sub-01_seg-manual_dseg.nii.gz'
    assert read_lookup(path, tmp_path) == {1: 'right psoas major', 2: 'left psoas major'}
    table.write_text('index\tname\n1\tright psoas major\n1\tleft psoas major\n')
    with pytest.raises(BadDataError, match='contains an index twice'):
        read_lookup(path, tmp_path)
