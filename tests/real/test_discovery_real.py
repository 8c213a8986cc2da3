"""Discovery on the real datasets and their traps; see their README."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bids_muscle.dataset.discovery import find_scans
from bids_muscle.dataset.folders import list_participants
from bids_muscle.dataset.plan import format_plan


def found(root: Path, **options: object) -> dict[str, tuple[str | None, list[str], str | None]]:
    """Region, contrasts and problem by scan name."""
    return {
        scan.name: (
            scan.region,
            [str(image.contrast) for image in scan.images],
            scan.problem.kind if scan.problem else None,
        )
        for label in list_participants(root)
        for scan in find_scans(root, label, **options)
    }


def test_dixon_lumbar_shares_the_affine_that_was_not_lost(real_data: Path) -> None:
    root = real_data / 'dixon-lumbar'
    assert found(root) == {'sub-TUM01_acq-dixon': ('lumbar', ['water', 'fat'], None)}
    (scan,) = find_scans(root, 'TUM01')
    (warning,) = scan.warnings
    assert warning.startswith('sub-TUM01_acq-dixonwater_T1w.nii.gz has lost its position')


def test_inout_abdomen_lacks_one_in_phase_image(real_data: Path) -> None:
    assert found(real_data / 'inout-abdomen') == {
        'sub-10_acq-dixon': ('lumbar', ['opposedphase'], 'IncompleteScanError'),
        'sub-10_acq-spirT2w': ('lumbar', ['T2w'], None),
        'sub-11_acq-dixon': ('lumbar', ['inphase', 'opposedphase'], None),
        'sub-11_acq-spirT2w': ('lumbar', ['T2w'], None),
    }


def test_neck_needs_the_region_where_sidecars_say_spine(real_data: Path) -> None:
    root = real_data / 'neck'
    pairs = [f'sub-{s}_acq-MT{state}T1w' for s in ('01', '03') for state in ('off', 'on')]
    assert found(root) == {
        **dict.fromkeys(pairs, (None, ['T1w'], 'UnknownRegionError')),
        'sub-ms_acq-T2w': ('cervical', ['T2w'], None),
    }
    assert found(root, region='cervical') == {
        **dict.fromkeys(pairs, ('cervical', ['T1w'], None)),
        'sub-ms_acq-T2w': ('cervical', ['T2w'], None),
    }


def test_oblique_and_sagittal(real_data: Path) -> None:
    assert found(real_data / 'oblique-lumbar') == {'sub-0001_acq-T2w': ('lumbar', ['T2w'], None)}
    sagittal = found(real_data / 'sagittal-lumbar', region='lumbar')
    assert len(sagittal) == 9
    assert {problem for _, _, problem in sagittal.values()} == {None}


def test_plan_names_what_is_there(real_data: Path) -> None:
    root = real_data / 'inout-abdomen'
    scans = [scan for label in list_participants(root) for scan in find_scans(root, label)]
    text = format_plan(scans, {}, root)
    assert 'sub-10/anat/sub-10_acq-dixonout_T1w.nii.gz' in text
    assert 'without in-phase image' in text


@pytest.mark.parametrize('n_bytes', [0, 100, 100_000])
def test_a_truncated_copy(real_data: Path, tmp_path: Path, n_bytes: int) -> None:
    """A cut header is told at once; cut voxels only when they are read."""
    root = tmp_path / 'bids'
    shutil.copytree(real_data / 'inout-abdomen/sub-11', root / 'sub-11')
    path = root / 'sub-11/anat/sub-11_acq-dixonin_T1w.nii.gz'
    path.chmod(0o644)
    path.parent.chmod(0o755)
    path.write_bytes(path.read_bytes()[:n_bytes])
    problem = 'UnreadableImageError' if n_bytes < 348 else None
    assert found(root) == {
        'sub-11_acq-dixon': ('lumbar', ['inphase', 'opposedphase'], problem),
        'sub-11_acq-spirT2w': ('lumbar', ['T2w'], None),
    }


def test_real_scans_are_warned_of_with_cause_only(real_data: Path) -> None:
    """Each warning about names, sidecars and repeats is one that the README calls for."""
    warnings = {
        scan.name: scan.warnings
        for folder in (
            'dixon-lumbar',
            'inout-abdomen',
            'neck',
            'oblique-lumbar',
            'sagittal-lumbar',
        )
        for label in list_participants(real_data / folder)
        for scan in find_scans(
            real_data / folder, label, region='cervical' if folder == 'neck' else 'lumbar'
        )
    }
    said = {name: ' '.join(each) for name, each in warnings.items() if each}
    pairs = {f'sub-{s}_acq-MT{state}T1w' for s in ('01', '03') for state in ('off', 'on')}
    assert {name for name, text in said.items() if 'cohort' in text} == pairs
    others = {name for name in said if name not in pairs}
    assert others == {'sub-TUM01_acq-dixon', 'sub-10_acq-spirT2w', 'sub-11_acq-spirT2w'}
    assert all(len(warnings[name]) == 1 for name in said)
