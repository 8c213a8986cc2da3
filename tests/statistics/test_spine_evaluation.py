"""Vertebrae and discs of two datasets compared."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_muscle.workflows.evaluation import evaluate

AFFINE = np.diag([4.0, 1.0, 1.0, 1.0])


def write(root: Path, sub: str, shift: int, taller: int = 0, ses: str = '') -> None:
    """Write L4, L5 and the disc between, moved to the front and with a taller disc."""
    anat = root / f'sub-{sub}' / (f'ses-{ses}' if ses else '') / 'anat'
    anat.mkdir(parents=True)
    bones, disc = np.zeros((6, 60, 100), np.uint8), np.zeros((6, 60, 100), np.uint8)
    place = (slice(1, 5), slice(10 + shift, 45 + shift))
    bones[(*place, slice(10, 38))], bones[(*place, slice(50, 78))] = 24, 23
    disc[(*place, slice(39, 49 + taller))] = 123
    for seg, data, names in (
        ('vertebrae', bones, {24: 'L5', 23: 'L4'}),
        ('discs', disc, {123: 'L4-L5'}),
    ):
        who = f'sub-{sub}_ses-{ses}' if ses else f'sub-{sub}'
        stem = anat / f'{who}_acq-sag_seg-{seg}_dseg'
        nib.save(nib.Nifti1Image(data, AFFINE), f'{stem}.nii.gz')
        rows = ''.join(f'{number}\t{name}\n' for number, name in names.items())
        Path(f'{stem}.tsv').write_text(f'index\tname\n{rows}', encoding='utf-8')


def test_dice_heights_and_centroids_by_level(tmp_path: Path) -> None:
    for k, sub in enumerate(('01', '02', '03')):
        write(tmp_path / 'mine', sub, shift=2 * k, taller=k)
        write(tmp_path / 'truth', sub, shift=0)
    page, left_out = evaluate(tmp_path / 'mine', tmp_path / 'truth', tmp_path / 'out')
    assert page.name == 'evaluation_spine.html' and not left_out
    rows = pd.read_csv(tmp_path / 'out/evaluation_spine.tsv', sep='\t')
    l5 = rows[rows['name'] == 'L5'].sort_values('participant_id')
    assert l5['centroid_error_mm'].tolist() == pytest.approx([0, 2, 4])
    assert l5['dice'].tolist() == pytest.approx([1, 33 / 35, 31 / 35])
    summary = pd.read_csv(
        tmp_path / 'out/evaluation_spine_summary.tsv', sep='\t', na_values='n/a'
    ).set_index('name')
    assert summary.loc['L4-L5', 'height_mae_mean_mm'] == pytest.approx(1)
    assert summary.loc['L5', 'centroid_error_mean_mm'] == pytest.approx(2)
    # Student's t with two degrees of freedom.
    assert summary.loc['L5', 'centroid_error_ci_mm'] == pytest.approx(4.303 * 2 / 3**0.5, rel=1e-3)
    assert summary.loc['all', 'n'].tolist() == [3, 6]
    assert 'Hess 2022' in page.read_text(encoding='utf-8')


def test_several_sessions_of_the_same_people_add_nobody(tmp_path: Path) -> None:
    for k, sub in enumerate(('01', '02', '03')):
        for ses in ('1', '2'):
            write(tmp_path / 'mine', sub, shift=2 * k, taller=k, ses=ses)
            write(tmp_path / 'truth', sub, shift=0, ses=ses)
    evaluate(tmp_path / 'mine', tmp_path / 'truth', tmp_path / 'out')
    rows = pd.read_csv(tmp_path / 'out/evaluation_spine.tsv', sep='\t')
    assert len(rows[rows['name'] == 'L5']) == 6
    summary = pd.read_csv(
        tmp_path / 'out/evaluation_spine_summary.tsv', sep='\t', na_values='n/a'
    ).set_index('name')
    assert summary.loc['L5', 'n'] == 3 and summary.loc['all', 'n'].tolist() == [3, 6]
    assert summary.loc['L5', 'centroid_error_ci_mm'] == pytest.approx(4.303 * 2 / 3**0.5, rel=1e-3)
    assert summary.loc['L4-L5', 'height_mae_ci_mm'] == pytest.approx(4.303 / 3**0.5, rel=1e-3)


def test_what_the_test_lacks_counts_as_nothing(tmp_path: Path) -> None:
    write(tmp_path / 'mine', '01', shift=0)
    write(tmp_path / 'truth', '01', shift=0)
    lookup = tmp_path / 'mine/sub-01/anat/sub-01_acq-sag_seg-vertebrae_dseg.tsv'
    lookup.write_text('index\tname\n24\tvertebra 1\n23\tL4\n', encoding='utf-8')
    evaluate(tmp_path / 'mine', tmp_path / 'truth', tmp_path / 'out')
    rows = pd.read_csv(tmp_path / 'out/evaluation_spine.tsv', sep='\t').set_index('name')
    assert rows.loc['L5', 'dice'] == 0 and rows.loc['L5', 'reason'] == 'not in the test'
    assert rows.loc['L4', 'dice'] == 1


def test_one_map_of_vertebrae_and_discs_is_a_reference_for_both(tmp_path: Path) -> None:
    write(tmp_path / 'mine', '01', shift=0, taller=2)
    write(tmp_path / 'apart', '01', shift=0)
    source, anat = tmp_path / 'apart/sub-01/anat', tmp_path / 'truth/sub-01/anat'
    anat.mkdir(parents=True)
    bones, discs = (
        np.asarray(nib.load(source / f'sub-01_acq-sag_seg-{seg}_dseg.nii.gz').dataobj)
        for seg in ('vertebrae', 'discs')
    )
    nib.save(
        nib.Nifti1Image(np.maximum(bones, discs), AFFINE),
        anat / 'sub-01_acq-sag_seg-lumbarspine_dseg.nii.gz',
    )
    lookup = 'index\tname\n23\tL4\n24\tL5\n123\tL4-L5\n'
    (anat / 'sub-01_acq-sag_seg-lumbarspine_dseg.tsv').write_text(lookup, encoding='utf-8')
    _, left_out = evaluate(tmp_path / 'mine', tmp_path / 'truth', tmp_path / 'out')
    assert not left_out
    rows = pd.read_csv(tmp_path / 'out/evaluation_spine.tsv', sep='\t').set_index('name')
    assert rows.loc[['L4', 'L5'], 'dice'].tolist() == [1, 1]
    disc = rows.loc['L4-L5']
    assert disc['height_test_mm'] - disc['height_reference_mm'] == pytest.approx(2)
    assert disc['mean_height_reference_mm'] == pytest.approx(10)
    assert (tmp_path / 'out/figures/disc_heights.png').is_file()
