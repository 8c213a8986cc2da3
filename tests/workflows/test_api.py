"""The calls for scripts give what the command writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from cohort import GOOD, Run

import bids_muscle
from bids_muscle.cli.segment import main
from bids_muscle.errors import (
    BadDataError,
    ExitCode,
    GridMismatchError,
    MissingInputError,
    UsageError,
)

STEM = 'sub-01/anat/sub-01_acq-dixon'


@pytest.fixture(scope='module')
def images(run: Run) -> dict[str, Path]:
    return {each: run.bids_dir / f'{STEM}{each}_T1w.nii.gz' for each in ('water', 'fat')}


def canonical(path: Path) -> nib.Nifti1Image:
    return nib.as_closest_canonical(nib.load(path))


def test_a_scan_in_another_voxel_order_gives_what_the_command_publishes(
    run: Run, images: dict[str, Path], tmp_path: Path
) -> None:
    flipped = {name: tmp_path / path.name for name, path in images.items()}
    for name, path in flipped.items():
        nib.save(canonical(images[name]).as_reoriented([[0, -1], [1, 1], [2, -1]]), path)
    out, table = tmp_path / 'out.nii.gz', tmp_path / 'muscles.tsv'
    # The contrast of the water image is told by its name.
    words = [str(flipped['water']), f'fat={flipped["fat"]}', str(out)]
    assert main([*words, '--region', 'lumbar', '--table', str(table)]) == ExitCode.OK
    labels = nib.load(out)
    assert labels.get_data_dtype() == np.uint8
    np.testing.assert_allclose(labels.affine, nib.load(flipped['water']).affine, atol=1e-5)
    stem = run.output_dir / f'{STEM}_seg-lumbarmuscles'
    published = canonical(Path(f'{stem}_dseg.nii.gz'))
    np.testing.assert_array_equal(canonical(out).dataobj, published.dataobj)

    found, known = (
        pd.read_csv(path, sep='\t', na_values='n/a') for path in (table, f'{stem}_morph.tsv')
    )
    assert list(found['name']) == list(known['name'])
    # Only the network tells how sure it is.
    numbers = [name for name in known.select_dtypes('number') if name != 'dice_predicted']
    assert len(numbers) > 20
    assert known['mfi_ratio_of_means_pct'].notna().any()
    pd.testing.assert_frame_equal(
        found[numbers].astype(float), known[numbers].astype(float), rtol=1e-3, atol=1e-3
    )


def test_a_plain_image_is_measured_by_thresholds(run: Run, images: dict[str, Path]) -> None:
    labels = nib.load(run.output_dir / f'{STEM}_seg-lumbarmuscles_dseg.nii.gz')
    found = bids_muscle.measure({'T1w': images['fat']}, labels, region='lumbar')
    assert found['volume_ml'].gt(0).all()
    assert 'mfi_ratio_of_means_pct' not in found or found['mfi_ratio_of_means_pct'].isna().all()


def test_outputs_are_read_as_tables(run: Run) -> None:
    tables = bids_muscle.read_outputs(run.output_dir)
    assert sorted(tables['scans']['status']) == ['done'] * 2 + ['failed'] * 6
    assert len(tables['muscles']) == len(tables['group_muscles']) == 16
    assert list(tables['muscles'].columns[:3]) == ['participant_id', 'session_id', 'scan']
    assert set(tables['slices']['scan']) == {f'sub-{label}_acq-dixon' for label in GOOD}
    assert tables['muscles']['volume_ml'].dtype == float


def test_mistakes_are_told(images: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'T3w' is unknown"):
        bids_muscle.segment({'T3w': images['water']}, region='lumbar')
    with pytest.raises(UsageError, match='no image'):
        bids_muscle.segment({}, region='lumbar')
    with pytest.raises(UsageError, match="'leg' is unknown"):
        bids_muscle.segment(images, region='leg')
    with pytest.raises(UsageError, match='only for a model of another program'):
        bids_muscle.segment(images, region='lumbar', model_overlap=0.5)
    image = nib.load(images['water'])
    series = nib.Nifti1Image(np.zeros((*image.shape, 2)), image.affine)
    with pytest.raises(BadDataError, match='4 dimensions'):
        bids_muscle.segment({'water': series}, region='lumbar')
    with pytest.raises(GridMismatchError):
        bids_muscle.measure(images, image.slicer[:, :, 1:], region='lumbar')
    with pytest.raises(MissingInputError, match='holds no scan'):
        bids_muscle.read_outputs(tmp_path)
    with pytest.raises(AttributeError, match='nothing'):
        bids_muscle.nothing  # noqa: B018


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['scan.nii.gz', 'out.nii.gz'], 'CONTRAST=scan.nii.gz'),
        (['T2w=scan.nii.gz', 'out.nii.gz'], '--region'),
        (['T2w=a.nii.gz', 'sub-1_T2w.nii.gz', 'out.nii.gz'], 'Two images'),
        (['T2w=scan.nii.gz', 'out.nii'], 'not a .nii.gz'),
    ],
)
def test_the_command_says_what_is_missing(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == ExitCode.USAGE
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    'words',
    [
        ['water=sub-1_water.nii.gz', 'sub-1_fat.nii.gz'],  # the label map was forgotten
        ['water=sub-1_water.nii.gz', 'fat=sub-1_fat.nii.gz'],
        ['T2w=scan.nii.gz', 'scan.nii.gz'],
    ],
)
def test_no_image_is_written_over(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ('sub-1_water.nii.gz', 'sub-1_fat.nii.gz', 'scan.nii.gz'):
        (tmp_path / name).write_bytes(b'')
    assert main([*words, '--region', 'lumbar']) == ExitCode.USAGE
    assert 'would be written over the image' in capsys.readouterr().err


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = 'import sys, bids_muscle; assert "numpy" not in sys.modules; assert bids_muscle.segment'
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize(('width', 'told'), [(50, True), (110, False)])
def test_a_slab_too_narrow_for_both_sides_is_told(
    width: int, told: bool, recwarn: pytest.WarningsRecorder
) -> None:
    data = np.zeros((width, 120, 120), np.float32)
    data[5:-5, 10:-10] = 100
    slab = nib.Nifti1Image(data, np.diag([2.0, 2, 2, 1]))
    labels = nib.Nifti1Image(np.zeros((9, 9, 9), np.uint8), np.eye(4))
    with pytest.raises(GridMismatchError):
        bids_muscle.measure({'T1w': slab}, labels, region='lumbar')
    said = [str(each.message) for each in recwarn if 'sagittal slab' in str(each.message)]
    assert ['100 mm wide from left to right' in text for text in said] == [True] * told
