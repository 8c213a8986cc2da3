"""Whatever images of a Dixon scan there are: a clear problem, or just the promised outputs."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.anatomy.levels import SliceLevels
from bids_muscle.dataset.discovery import find_scans
from bids_muscle.dataset.names import derivative_path, expected_outputs
from bids_muscle.dataset.records import ScanRecord, write_record
from bids_muscle.dataset.scan import DIXON, Scan
from bids_muscle.dataset.writer import write_tsv
from bids_muscle.imaging.conform import make_image
from bids_muscle.imaging.levels import slice_level_rows
from bids_muscle.interfaces.figures import PlotScan
from bids_muscle.interfaces.measure import MeasureScan
from bids_muscle.interfaces.prepare import PrepareScan
from bids_muscle.interfaces.publish import PublishScan
from bids_muscle.interfaces.quality import AssessScan
from bids_muscle.reports.outputs import read_scans
from bids_muscle.reports.page import data_uri
from bids_muscle.reports.participant import write_participant_report
from bids_muscle.segmentation.catalogue import find_model

SUBSETS = [
    subset for size in range(1, len(DIXON) + 1) for subset in itertools.combinations(DIXON, size)
]
#: What cannot tell fat, and is not the in-phase image alone, lacks a partner.
INCOMPLETE = {
    frozenset(names.split())
    for names in (
        'water',
        'fat',
        'opposedphase',
        'water inphase',
        'fat inphase',
        'water opposedphase',
        'fat opposedphase',
    )
}
AFFINE = np.diag([4.0, 4.0, 8.0, 1.0])
MUSCLE = np.s_[18:22, 14:18, 1:5]
MUSCLE_FAT_PCT = 20.0
UNDEFINED = (23, 10, 3)


def dixon_images() -> dict[str, np.ndarray]:
    """Draw a body with a ring of fat, in air, with a bias field and one undefined voxel."""
    x, y, _ = np.indices((48, 40, 6))
    radius = np.hypot((x - 23.5) / 20, (y - 19.5) / 16)
    share = np.where(radius < 0.8, MUSCLE_FAT_PCT / 100, 0.95)
    total = np.where(radius < 1, 200.0 + 3 * x, 0)
    total[UNDEFINED] = np.nan
    water, fat = total * (1 - share), total * share
    return {
        'water': water,
        'fat': fat,
        'inphase': water + fat,
        'opposedphase': abs(water - fat),
        'fatfraction': 100 * share * np.minimum(total, 1),
    }


def publish(
    scan: Scan, bids_dir: Path, work_dir: Path, bias_correction: bool, level: str = 'full'
) -> Path:
    """Run all steps of a scan but the network and the alignment; return the output folder."""
    output_dir = work_dir / 'out'
    numbers = np.zeros((48, 40, 6), np.uint8)
    numbers[MUSCLE] = 1
    nib.save(make_image(numbers, AFFINE), work_dir / 'labels.nii')
    quality = {'predicted_dice': {}, 'computed': {'out_of_memory': []}}
    (work_dir / 'quality.json').write_text(json.dumps(quality))
    region, labels = 'lumbar', str(work_dir / 'labels.nii')
    settings = {
        'model': None,
        'bias_correction': bias_correction,
        'fat_method': 'auto',
        'fix_swaps': False,
    }

    images = {str(contrast): str(path) for contrast, path in scan.paths.items()}
    made = (
        PrepareScan(images=images, bias_correction=bias_correction).run(cwd=str(work_dir)).outputs
    )
    fraction = made.fat_fraction
    aligned = {key: str(work_dir / key) for key in ('levels', 'xfm', 'atlas_image', 'atlas_dseg')}
    levels = SliceLevels(('L4',) * 6, np.ones(6), 'file')
    for path in aligned.values():
        write_tsv(slice_level_rows(levels, {}, AFFINE), Path(path))
    table = load_label_table(region)
    measure = MeasureScan(
        keep_fat_map=True,
        levels=aligned['levels'],
        labels=labels,
        raw=made.raw,
        corrected=made.corrected,
        body_mask=made.body_mask,
        fat_fraction=fraction,
        bounded=made.bounded,
        swap=made.swap,
        swap_searched=made.swap_searched,
        fix_swaps=False,
        table=table,
        contrast='dixon',
    )
    figures = PlotScan(
        raw=made.raw,
        corrected=made.corrected,
        body_mask=made.body_mask,
        labels=labels,
        fat_fraction=fraction,
        atlas_image=labels,
        atlas_labels=labels,
        levels=aligned['levels'],
        table=table,
        level=level,
    )
    measured = measure.run(cwd=str(work_dir)).outputs
    iqm = AssessScan(
        raw=made.raw,
        corrected=made.corrected,
        body_mask=made.body_mask,
        labels=labels,
        swap=made.swap,
        swap_searched=made.swap_searched,
        table=table,
    )
    PublishScan(
        scan=scan,
        model=str(find_model(None, 'lumbar').path),
        bids_dir=str(bids_dir),
        output_dir=str(output_dir),
        settings=settings,
        level=level,
        native=made.native,
        corrected=made.corrected,
        body_mask=made.body_mask,
        fat_fraction=fraction,
        tables=measured.tables,
        fat_map=measured.fat_map,
        swap=made.swap,
        iqm=iqm.run(cwd=str(work_dir)).outputs.iqm,
        aligned=aligned,
        alignment={'Atlas': 'phantomlumbar'},
        figures=figures.run(cwd=str(work_dir)).outputs.figures,
        labels=labels,
        confidence=labels,
        quality=str(work_dir / 'quality.json'),
    ).run(cwd=str(work_dir))
    return output_dir


@pytest.mark.parametrize('subset', SUBSETS, ids='+'.join)
def test_every_subset_of_dixon_images(
    tiny_dataset: Callable[..., Path], tmp_path: Path, subset: tuple[str, ...]
) -> None:
    drawn = dixon_images()
    bids_dir = tiny_dataset(
        {
            f'sub-1/anat/sub-1_acq-dixon{name}_T1w': make_image(
                drawn[name].astype(np.float32), AFFINE
            )
            for name in subset
        }
    )
    (scan,) = find_scans(bids_dir, '1', region='lumbar')
    if frozenset(subset) in INCOMPLETE:
        assert scan.problem is not None
        assert 'without' in scan.problem.message
        return
    assert scan.problem is None
    left_out = set(subset) - set(scan.paths)
    assert all(any(f'dixon{name}_' in line for line in scan.warnings) for name in left_out)

    bias_correction = len(subset) % 2 == 1
    output_dir = publish(scan, bids_dir, tmp_path, bias_correction)
    found = {path.relative_to(output_dir) for path in output_dir.rglob('*') if path.is_file()}
    record = derivative_path(scan, 'record')  # the run writes it, after all steps
    expected = expected_outputs(scan, bias_correction=bias_correction)
    assert found == {Path(path) for path in expected if path != record}

    sidecar = output_dir / derivative_path(scan, 'fat_fraction_json')
    if subset == ('inphase',):
        assert not sidecar.exists()
        return
    content = json.loads(sidecar.read_text())
    sources = {uri.split('acq-dixon')[1].split('_')[0] for uri in content['Sources']}
    by_scanner = content['Definition'].startswith('as given by the scanner')
    if {'water', 'fat'} <= set(subset):
        assert (sources, by_scanner, content['Bounded']) == ({'water', 'fat'}, False, False)
        # Fat is as bright as water here: swaps cannot be seen, so none must be counted.
        with (output_dir / derivative_path(scan, 'morph')).open() as stream:
            counts = {row['mfi_swapped_voxels'] for row in csv.DictReader(stream, delimiter='\t')}
        assert counts == {'n/a'}
    elif 'fatfraction' in subset:
        assert (sources, by_scanner, content['Bounded']) == ({'fatfraction'}, True, False)
    else:
        assert (sources, by_scanner) == ({'inphase', 'opposedphase'}, False)
        assert content['Bounded']
    fraction = nib.load(output_dir / derivative_path(scan, 'fat_fraction')).get_fdata()
    assert np.isnan(fraction[UNDEFINED])
    assert 100 * fraction[MUSCLE] == pytest.approx(MUSCLE_FAT_PCT, abs=0.01)


@pytest.mark.parametrize(('level', 'most'), [('minimal', 8), ('standard', 34)])
def test_how_much_is_kept(
    tiny_dataset: Callable[..., Path], tmp_path: Path, level: str, most: int
) -> None:
    drawn = dixon_images()
    bids_dir = tiny_dataset(
        {
            f'sub-1/anat/sub-1_acq-dixon{name}_T1w': make_image(
                drawn[name].astype(np.float32), AFFINE
            )
            for name in ('water', 'fat')
        }
    )
    (scan,) = find_scans(bids_dir, '1', region='lumbar')
    output_dir = publish(scan, bids_dir, tmp_path, True, level)
    expected = {str(path) for path in expected_outputs(scan, level=level)}
    files = {path for path in output_dir.rglob('*') if path.is_file()}
    record = str(derivative_path(scan, 'record'))
    assert {str(path.relative_to(output_dir)) for path in files} == expected - {record}
    assert len(expected) + 2 <= most  # the page and the settings of the participant too
    assert expected < {
        *map(str, expected_outputs(scan)),
        str(derivative_path(scan, 'packed_figures')),
    }

    facts = {'bias_correction': True, 'bounded': False}
    write_record(
        ScanRecord(
            participant='1',
            session=None,
            scan=scan.name,
            region='lumbar',
            status='done',
            processing=facts,
            outputs=tuple(sorted(expected - {record})),
        ),
        scan,
        output_dir,
    )
    (read,) = read_scans(output_dir, '1')
    assert read.missing == ()
    assert {'slices', 'segmentation', 'extent', 'histograms'} <= set(read.figures)
    assert ('surfaces' in read.figures) == (level == 'standard')
    page = write_participant_report(output_dir, '1', [read]).read_text(encoding='utf-8')
    for name in ('segmentation', 'extent'):
        assert data_uri(read.figures[name]) in page
    assert ('preproc' in ' '.join(expected)) == (level == 'standard')
