"""Both levels on images that are not what they are called: no number that is not true."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from cohort import Run, call
from conftest import SHAPE, VOXEL_MM


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t', quoting=csv.QUOTE_NONE))


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One person with a good scan and one of each fault."""
    from bids_muscle.cli.phantom import main

    root = tmp_path_factory.mktemp('misleading')
    simulated, bids_dir = root / 'phantom', root / 'bids'
    shape, voxel = (list(map(str, numbers)) for numbers in (SHAPE, VOXEL_MM))
    words = [str(simulated), '--participants', '1', '--seed', '7', '--nprocs', '1']
    words += ['--contrasts', 'dixon', 'inout', 't1w']
    assert main([*words, '--shape', *shape, '--voxel-size', *voxel]) == 0
    source = simulated / 'sub-01/anat'
    images = {
        name: source / f'sub-01_{name}T1w'
        for name in ('', 'acq-dixonwater_', 'acq-dixonfat_', 'acq-dixonin_', 'acq-dixonout_')
    }
    named = {
        'acq-goodwater': images['acq-dixonwater_'],
        'acq-goodfat': images['acq-dixonfat_'],
        'acq-turneddixonin': images['acq-dixonout_'],
        'acq-turneddixonout': images['acq-dixonin_'],
        'acq-copywater': images['acq-dixonwater_'],
        'acq-copyfat': images['acq-dixonwater_'],
        'acq-goodwater_rec-2': images['acq-dixonwater_'],
        'acq-goodfat_rec-2': images['acq-dixonfat_'],
        'acq-a': images[''],
        'acq-dixonX': images[''],
    }
    folder = bids_dir / 'sub-01/anat'
    folder.mkdir(parents=True)
    shutil.copy(simulated / 'dataset_description.json', bids_dir)
    for name, stem in named.items():
        path = folder / f'sub-01_{name}_T1w.nii.gz'
        shutil.copy(f'{stem}.nii.gz', path)
        sidecar = {'BodyPart': 'LSPINE'}
        sidecar |= {'ImageType': ['ORIGINAL', 'PRIMARY', 'P']} if 'rec-2' in name else {}
        path.with_name(path.name.replace('.nii.gz', '.json')).write_text(json.dumps(sidecar))
    output_dir = root / 'out'
    return Run(
        bids_dir,
        output_dir,
        call(bids_dir, output_dir, 'participant', '--nprocs', 2),
        call(bids_dir, output_dir, 'group'),
    )


def _morph(run: Run, scan: str) -> list[dict[str, str]]:
    return _rows(run.output_dir / f'sub-01/anat/sub-01_{scan}_seg-lumbarmuscles_morph.tsv')


def test_every_scan_is_there_and_the_good_one_has_fat(run: Run) -> None:
    assert run.participant.returncode == run.group.returncode == 0, run.participant.stderr
    records = sorted(path.stem for path in run.output_dir.glob('logs/sub-01/sub-*.json'))
    kinds = ('aT1w', 'copydixon', 'dixonXT1w', 'gooddixon', 'turneddixon')
    assert records == [f'sub-01_acq-{kind}' for kind in kinds]
    assert any(row['mfi_mean_of_voxels_pct'] != 'n/a' for row in _morph(run, 'acq-gooddixon'))
    record = json.loads((run.output_dir / 'logs/sub-01/sub-01_acq-aT1w.json').read_text())
    assert 'acq-goodwater_rec-2' in ' '.join(record['warnings'])


@pytest.mark.parametrize(
    ('scan', 'word'),
    [
        ('acq-turneddixon', '--fix-swaps'),
        ('acq-copydixon', 'copy'),
        ('acq-dixonXT1w', 'names a Dixon scan'),
    ],
)
def test_fat_is_missing_with_the_reason(run: Run, scan: str, word: str) -> None:
    rows = _morph(run, scan)
    found = [row for row in rows if int(row['n_voxels']) >= 10]
    assert len(found) == 8
    for row in found:
        fat = {
            name: value
            for name, value in row.items()
            if name.startswith(('mfi_', 'fat_', 'threshold_fat')) and not name.endswith('voxels')
        }
        assert fat
        assert set(fat.values()) == {'n/a'}
        assert word in row['reason']
        assert float(row['volume_ml']) > 0
    page = (run.output_dir / 'sub-01.html').read_text(encoding='utf-8')
    assert word in page


def test_images_of_one_grid_do_not_count_in_the_cohort(run: Run) -> None:
    scans = {row['scan']: row for row in _rows(run.output_dir / 'group_scans.tsv')}
    excluded = {name for name, row in scans.items() if row['excluded'] == 'yes'}
    assert excluded == {'sub-01_acq-aT1w', 'sub-01_acq-dixonXT1w'}
    assert 'marks it as a repeat' in scans['sub-01_acq-aT1w']['exclusion_reason']
    complete = {row['scan']: row for row in _rows(run.output_dir / 'group_completeness.tsv')}
    assert complete['sub-01_acq-aT1w']['status'] == 'excluded'
