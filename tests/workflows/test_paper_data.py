"""Label maps, splits and images for the experiments of the papers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.cli.model import main
from bids_muscle.dataset.label_maps import LabelMap
from bids_muscle.errors import BadDataError, ExitCode, MissingInputError
from bids_muscle.segmentation.training.recipe import Source, find_recipe
from bids_muscle.segmentation.training.sources import find_cases
from bids_muscle.workflows.papers import prepare, read_paper, within_levels
from bids_muscle.workflows.training_cases import find_all_cases

AXIAL, SAGITTAL = np.diag([4.0, 4.0, 8.0, 1.0]), np.array(
    [[0, 0, -8.0, 0], [-4.0, 0, 0, 0], [0, 4.0, 0, 0], [0, 0, 0, 1]]
)  # fmt: skip
MUSCLES = {5: 'left psoas major', 6: 'MF_L', 7: 'spleen'}
SPINE = {1: 'L4', 2: 'L5', 101: 'L4-L5'}


def save(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)


def describe(folder: Path, kind: str) -> None:
    content = {'Name': folder.name, 'BIDSVersion': '1.10.0', 'DatasetType': kind}
    (folder / 'dataset_description.json').write_text(json.dumps(content))


def add_scan(
    root: Path, image: str, label_map: str, names: Mapping[int, str], affine: np.ndarray,
    offset: float = 0.0,
) -> None:  # fmt: skip
    """Write an image, ``sub-1/ses-2/anat/sub-1_ses-2_T1w``, and a map of boxes on it."""
    labels = np.zeros((24, 20, 6), np.uint8)
    for k, number in enumerate(names):
        labels[2 + 6 * k : 7 + 6 * k, 4:16, 1:5] = number
    save(root / f'{image}.nii.gz', (labels > 0) * 100.0 + 10 + offset, affine)
    path = root / 'derivatives/manual' / Path(image).parent / f'{label_map}_dseg.nii.gz'
    save(path, labels, affine)
    rows = ''.join(f'{number}\t{name}\n' for number, name in names.items())
    path.with_name(f'{label_map}_dseg.tsv').write_text(f'index\tname\n{rows}')


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / 'cohort'
    (folder / 'derivatives/manual').mkdir(parents=True)
    describe(folder, 'raw')
    describe(folder / 'derivatives/manual', 'derivative')
    return folder


def test_a_map_of_another_contrast_is_counted_and_skipped(root: Path) -> None:
    for contrast in ('T1w', 'T2w'):
        name = f'sub-1/anat/sub-1_{contrast}'
        add_scan(root, name, f'sub-1_acq-{contrast}_seg-lumbarmuscles', MUSCLES, AXIAL)
    said: list[str] = []
    (case,) = find_all_cases(find_recipe('wesselink2022-2d'), [root], report=said.append)
    assert case.images['T2w'].name == 'sub-1_T2w.nii.gz'
    assert said == ['1 label maps of the source cohort are not used: the scan has no T2w image']
    with pytest.raises(BadDataError, match='the scan has no inphase and no opposedphase'):
        recipe = find_recipe('weber2021')
        find_all_cases(_of_seg(recipe, 'lumbarmuscles'), [root], report=said.append)


def _of_seg(recipe, seg: str):  # type: ignore[no-untyped-def]
    from dataclasses import replace

    return replace(recipe, region='lumbar', sources=(replace(recipe.sources[0], seg=seg),))


def test_sagittal_maps_go_with_the_image_of_their_own_entities(root: Path) -> None:
    """A map of the T2w scan was once paired with the T1w image, and one session with another."""
    for session, offset in (('a', 0.0), ('b', 50.0)):
        for contrast in ('T1w', 'T2w'):
            scan = f'sub-1_ses-{session}_acq-sag'
            name = f'sub-1/ses-{session}/anat/{scan}_{contrast}'
            seg = f'sub-1_ses-{session}_acq-sag{contrast}_seg-discs'
            add_scan(root, name, seg, SPINE, SAGITTAL, offset)
    cases = find_all_cases(find_recipe('hess2022-discs'), [root], report=lambda _: None)
    assert [case.labels.name.split('_seg')[0] for case in cases] == [
        'sub-1_ses-a_acq-sagT1w',
        'sub-1_ses-b_acq-sagT1w',
    ]
    assert [case.images['T1w'].name for case in cases] == [
        'sub-1_ses-a_acq-sag_T1w.nii.gz',
        'sub-1_ses-b_acq-sag_T1w.nii.gz',
    ]
    # Discs are class 1 of the network; vertebrae are none of its classes.
    assert [case.source.codes for case in cases] == [{101: 1}] * 2


def test_patterns_of_files_know_sessions_runs_and_acquisitions(tmp_path: Path) -> None:
    stem = 'sub-1_ses-2_acq-x_run-3'
    labels = tmp_path / f'derivatives/d/sub-1/ses-2/anat/{stem}_seg-xia2019_dseg.nii.gz'
    image = tmp_path / f'sub-1/ses-2/anat/{stem}_T2w.nii.gz'
    for path in (labels, image):
        save(path, np.ones((2, 2, 2), np.uint8), AXIAL)
    (case,) = find_cases(find_recipe('xia2019').sources[0], [tmp_path])
    assert case.images == {'T2w': image}
    assert isinstance(case.source, Source)


def test_each_muscle_is_cut_to_its_levels(tmp_path: Path) -> None:
    spine = np.zeros((6, 6, 12), np.uint8)
    names = {k: f'C{k}' for k in range(2, 8)}
    for number in names:
        spine[2:4, 2:4, 14 - 2 * number : 16 - 2 * number] = number
    affine = np.diag([5.0, 5.0, 8.0, 1.0])
    save(tmp_path / 'spine.nii.gz', spine, affine)
    found = np.stack([np.full((6, 12), n) for n in (1, 3, 11, 4, 12, 14)])
    cut = within_levels(found, affine, LabelMap(tmp_path / 'spine.nii.gz', {}, names), 'cervical')
    # MFSS C4-C6, LC C3-C6, TR C6, LS C5-C6: slices 0-1 are C7, 2-3 C6 ... 10-11 C2.
    there = [np.flatnonzero(row.any(axis=0)).tolist() for row in cut]
    assert there == [
        list(range(2, 8)), list(range(2, 10)), [2, 3], list(range(2, 10)), [2, 3], [2, 3, 4, 5],
    ]  # fmt: skip


def test_prepares_muscles_vertebrae_and_discs_in_any_numbers(root: Path, tmp_path: Path) -> None:
    add_scan(root, 'sub-1/anat/sub-1_T1w', 'sub-1_seg-mine', MUSCLES, AXIAL)
    add_scan(root, 'sub-1/anat/sub-1_acq-sag_T1w', 'sub-1_acq-sag_seg-spine2', SPINE, SAGITTAL)
    made = prepare(read_paper('hess2022'), root, tmp_path / 'out', lambda _: None)
    assert made.lacking == {}
    assert made.remarks == (
        'No label map has right multifidus, right erector spinae, left erector spinae, right '
        'psoas major, right quadratus lumborum, left quadratus lumborum. All tables are made '
        'without them.',
    )
    found = {
        path.name.split('_seg-')[1].removesuffix('_dseg.nii.gz'): np.unique(
            np.asarray(nib.load(path).dataobj)
        ).tolist()
        for path in sorted((tmp_path / 'out/sub-1/anat').glob('*.nii.gz'))
    }
    assert found == {'lumbarmuscles': [0, 2, 6], 'vertebrae': [0, 1, 2], 'discs': [0, 101]}
    # The recipes find them, with the images of the dataset.
    for recipe in ('muscles', 'vertebrae', 'discs'):
        (case,) = find_all_cases(find_recipe(f'hess2022-{recipe}'), [root], made.labels)
        assert case.participant == 'cohort/sub-1'


def test_says_what_a_paper_needs_and_the_data_lack(root: Path, tmp_path: Path) -> None:
    add_scan(root, 'sub-1/anat/sub-1_T1w', 'sub-1_seg-mine', MUSCLES, AXIAL)
    made = prepare(read_paper('hess2022'), root, tmp_path / 'out', lambda _: None)
    assert sorted(made.lacking) == ['discs', 'vertebrae']
    with pytest.raises(MissingInputError, match='no label map of MFSS, LC, SPCap'):
        prepare(read_paper('weber2021'), root, tmp_path / 'none', lambda _: None)
    code = main(['prepare', 'xia2019', '--data', str(root), '--output', str(tmp_path / 'x')])
    assert code == ExitCode.NO_INPUT


def split_of(path: Path) -> dict[str, str]:
    rows = [line.split('\t') for line in path.read_text().splitlines()[1:]]
    return {person: role for _, person, role in rows}


def run(arguments: Sequence[object]) -> int:
    return main([str(each) for each in arguments])


def test_several_networks_share_the_people_they_are_tested_on(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for k in range(1, 9):
        name = f'sub-{k}/anat/sub-{k}'
        add_scan(root, f'{name}_acq-sag_T1w', f'sub-{k}_acq-sag_seg-discs', SPINE, SAGITTAL)
        if k > 4:
            add_scan(root, f'{name}_T1w', f'sub-{k}_acq-T1w_seg-lumbarmuscles', MUSCLES, AXIAL)
    recipes = ['hess2022-discs-shared', 'hess2022-muscles-shared']
    table = tmp_path / 'split.tsv'
    given = ['split', *recipes, '--data', root, '--output', table, '--shares', '85/15/0']
    assert run([*given, '--shared-test', 3]) == ExitCode.OK
    roles = split_of(table)
    assert sorted(roles) == [f'sub-{k}' for k in range(1, 9)]
    assert sum(role == 'test' for role in roles.values()) == 3
    assert all(int(name[-1]) > 4 for name, role in roles.items() if role == 'test')
    assert run([*given, '--shared-test', 5]) == ExitCode.USAGE
    assert '4 participants have label maps for all' in capsys.readouterr().err


def test_too_few_people_for_a_split_are_said(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    add_scan(root, 'sub-1/anat/sub-1_T2w', 'sub-1_seg-mine', MUSCLES, AXIAL)
    given = ['reproduce', 'wesselink2022', '--data', root, '--output', tmp_path / 'out']
    assert run(given) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert '1 participants have the images and label maps of all networks' in said
    assert 'needs at least 3' in said
    assert not (tmp_path / 'out/models').exists()
    assert run([*given, '--scale', 'paper']) == ExitCode.USAGE
    assert 'another paper, other data or another scale' in capsys.readouterr().err
