"""Parts of one body through both levels, with known outlines in the place of the network's."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.anatomy.levels import SliceLevels
from bids_muscle.cli.main import main
from bids_muscle.dataset.names import derivative_path
from bids_muscle.dataset.records import ScanRecord, read_records
from bids_muscle.dataset.scan import Contrast, Scan
from bids_muscle.dataset.writer import write_image, write_json, write_tsv
from bids_muscle.engine.outcome import Key, NodeOutcome, RunReport, Status
from bids_muscle.errors import BadDataError, ExitCode
from bids_muscle.imaging.conform import load_image
from bids_muscle.imaging.levels import slice_level_rows
from bids_muscle.measurement.images import ScanImages
from bids_muscle.measurement.rows import morph_dictionary
from bids_muscle.measurement.table import measure_scan
from bids_muscle.reports.outputs import ScanOutputs, read_scans, segmentations
from bids_muscle.reports.parts import settle_parts
from bids_muscle.reports.ratings import keep_rating, merge_ratings, read_ratings, saved_ratings
from bids_muscle.workflows import run as running

TABLE = load_label_table('lumbar')
SHAPE, VOXEL_MM = (40, 30, 30), (4.0, 4.0, 6.0)
MULTIFIDUS = 'right multifidus'
LEVELS = ('L5', 'L4', 'L3', 'L2', 'L1')
#: Of all muscles in all parts.
PREDICTED_DICE = 0.9
#: In the name of scans of which the network is not sure of one muscle.
UNSURE = 'nowhere'


def world(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    grid = np.moveaxis(np.array(np.meshgrid(*map(np.arange, shape), indexing='ij')), 0, -1)
    return np.moveaxis(nib.affines.apply_affine(affine, grid), -1, 0)


def outlines(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Eight leaning muscles."""
    x, y, z = world(affine, shape)
    numbers = np.zeros(shape, np.uint8)
    for place, label in enumerate(TABLE):
        pair, side = divmod(place, 2)
        middle = (1 if side else -1) * (10 + 18 * pair) + (z - 90) * 0.03
        inside = (np.abs(x - middle) < 8) & (np.abs(y) < 20 + 3 * pair + 5 * side)
        numbers[inside & (z > 8) & (z < 166)] = label.index
    return numbers


def fraction(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    x, _, z = world(affine, shape)
    return 0.35 - z / 700 + 0.05 * np.sin(x / 9)


def add(bids_dir: Path, name: str, low: int = 0, high: int = SHAPE[2], gain: float = 1.0) -> None:
    """Write slices of the body as water and fat images (``{}`` in the name), or as one image."""
    who = name.split('_')[0]
    folder = bids_dir / who / 'anat'
    folder.mkdir(parents=True, exist_ok=True)
    description = bids_dir / 'dataset_description.json'
    description.write_text('{"Name": "parts", "BIDSVersion": "1.10.0"}')
    shape = (*SHAPE[:2], high - low)
    affine = np.diag([*VOXEL_MM, 1.0])
    affine[:3, 3] = [-80, -60, low * VOXEL_MM[2]]
    fat = fraction(affine, shape)
    y = world(affine, shape)[1]
    bright = 1000 * gain * (1 + 0.1 * np.cos(y / 20)) * (np.abs(y) < 55)  # air around the body
    images = {'water': (1 - fat) * bright, 'fat': fat * bright}
    if '{}' not in name:
        rng = np.random.default_rng(0)
        spots = rng.random(SHAPE)[..., low:high] < fat
        images = {'': np.where(spots, 900, 300) * gain + rng.normal(0, 20, shape)}
    for contrast, data in images.items():
        image = nib.Nifti1Image(data.astype(np.float32), affine)
        image.header['descrip'] = name  # equal files would be copies of one scan
        nib.save(image, folder / f'{name.format(contrast)}.nii.gz')


def swapped(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return a region that holds a part of the right multifidus."""
    x, _, z = world(affine, shape)
    return (x > -30) & (x < 40) & (z > 60) & (z < 120)


def publish(
    scan: Scan, output_dir: Path, *, unsearched: str = 'nowhere', fixed: bool = False
) -> list[str]:
    """Write what the steps of a scan leave, with the true outlines.

    Swaps could not be searched where the name of the scan has `unsearched` in it. With `fixed`,
    those of :func:`swapped` were found, and swapped back.
    """
    images = {contrast: load_image(path) for contrast, path in scan.paths.items()}
    first = next(iter(images.values()))
    names: list[str] = []

    def place(key: str, **fields: Any) -> Path:
        path = derivative_path(scan, key, **fields)
        names.append(str(path))
        return output_dir / path

    def image(data: np.ndarray) -> nib.Nifti1Image:
        return nib.Nifti1Image(data, first.affine, first.header)

    signals = {}
    for contrast, each in images.items():
        write_image(each, place('preproc', contrast=contrast))
    labels = image(outlines(first.affine, first.shape))
    write_image(labels, place('dseg'))
    if Contrast.WATER in images:
        signals = {'water': images[Contrast.WATER], 'fat': images[Contrast.FAT]}
        fat, water = (np.asarray(signals[name].dataobj) for name in ('fat', 'water'))
        write_image(image(fat / (fat + water)), place('fat_fraction'))
        found = swapped(first.affine, first.shape) & fixed
        write_image(image(found.astype(np.uint8)), place('swap_mask'))
    else:
        signals = {'intensity': next(iter(images.values()))}
    z = first.affine[2, 3] + np.arange(first.shape[2]) * VOXEL_MM[2]
    at = np.clip(((z - 5) // 35).astype(int), 0, len(LEVELS) - 1)
    known = SliceLevels(tuple(LEVELS[k] for k in at), np.full(len(z), 0.9), 'atlas')
    write_tsv(slice_level_rows(known, {}, first.affine), place('levels'))
    kind = 'dixon' if 'fat' in signals else str(scan.images[0].contrast)
    seen = ScanImages(contrast=kind, **signals)
    if kind == 'dixon' and unsearched not in scan.name:
        seen = replace(seen, swap=np.zeros(first.shape, bool))
    measures = measure_scan(labels, TABLE, seen, levels=known)
    measures.muscles['dice_predicted'] = PREDICTED_DICE
    if UNSURE in scan.name:
        measures.muscles.loc[measures.muscles['name'] == MULTIFIDUS, 'dice_predicted'] = 0.4
    for key, table in (
        ('morph', measures.muscles),
        ('morph_slices', measures.slices),
        ('morph_levels', measures.levels),
    ):
        write_tsv(table, place(key))
        write_json(morph_dictionary(key), place(f'{key}_json'))
    return names


@pytest.fixture(autouse=True)
def run_of_scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put outlines in the place of the steps of scans; return which were run."""
    ran: list[str] = []

    def steps(machine, runs, before, work_dir, *, spines) -> RunReport:
        outcomes = []
        scans = [scan for run in runs for scan in run.left if not scan.problem and not spines]
        for scan in scans:
            ran.append(scan.name.split('_', 1)[1])
            step = {'name': 'publish', 'fullname': scan.name, 'key': Key(scan.name, 'publish')}
            try:
                paths = publish(scan, runs[0].inputs.settings.output_dir)
                outcomes.append(NodeOutcome(**step, status=Status.DONE, outputs={'paths': paths}))
            except BadDataError as error:
                outcomes.append(NodeOutcome(**step, status=Status.FAILED, problem=error.problem))
        return RunReport(tuple(outcomes))

    monkeypatch.setattr(running, '_run_plane', steps)
    monkeypatch.setattr('bids_muscle.engine.worker.start_forkserver', lambda: None)
    return ran


def participant(bids_dir: Path, *words: object) -> int:
    words = (bids_dir, bids_dir.parent / 'out', 'participant', '--region', 'lumbar', *words)
    return main([*map(str, words), '--nprocs', '1'])


def records(bids_dir: Path) -> dict[str, ScanRecord]:
    found = read_records(bids_dir.parent / 'out')
    return {record.scan.split('_', 1)[1]: record for record in found}


def table(bids_dir: Path, scan: str, key: str = '', who: str = 'sub-01') -> pd.DataFrame:
    folder = bids_dir.parent / 'out' / who / 'anat'
    path = folder / f'{who}_{scan}_seg-lumbarmuscles{key}_morph.tsv'
    return pd.read_csv(path, sep='\t', na_values='n/a', keep_default_na=False)


def muscle(bids_dir: Path, scan: str, who: str = 'sub-01') -> pd.Series:
    return table(bids_dir, scan, who=who).set_index('name').loc[MULTIFIDUS]


def assert_alike(joined: pd.Series, whole: pd.Series, columns: Sequence[str]) -> None:
    for name in columns:
        assert joined[name] == pytest.approx(whole[name], rel=0.01), name


MEASURES = (
    'volume_ml', 'mfi_ratio_of_means_pct', 'mfi_mean_of_voxels_pct', 'mean_csa_cm2',
    'max_csa_cm2', 'length_mm', 'volume_asymmetry_pct', 'mfi_asymmetry_points', 'dice_predicted',
)  # fmt: skip


def test_the_joined_scan_is_the_whole(tmp_path: Path, run_of_scans: list[str]) -> None:
    bids_dir = tmp_path / 'bids'
    add(bids_dir, 'sub-whole_acq-dixon{}_T1w')
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-1_T1w', 13)
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-2_T1w', 0, 16, gain=0.2)
    assert participant(bids_dir) == ExitCode.OK
    joined = muscle(bids_dir, 'acq-dixonjoined')
    whole = muscle(bids_dir, 'acq-dixon', 'sub-whole')
    assert_alike(joined, whole, MEASURES)
    assert (joined['truncated'], joined['levels']) == (False, 'L1 L2 L3 L4 L5')
    assert muscle(bids_dir, 'acq-dixon_chunk-1')['truncated']
    slices, of_whole = (
        table(bids_dir, scan, '_desc-slices', who)
        for scan, who in (('acq-dixonjoined', 'sub-01'), ('acq-dixon', 'sub-whole'))
    )
    assert slices['csa_cm2'].to_list() == pytest.approx(of_whole['csa_cm2'].to_list())
    assert slices['level'].to_list() == of_whole['level'].to_list()
    record = records(bids_dir)['acq-dixonjoined']
    assert record.parts == ('sub-01_acq-dixon_chunk-1', 'sub-01_acq-dixon_chunk-2')
    sidecar = json.loads((tmp_path / 'out' / record.outputs[1]).read_text())
    assert 'bids:raw:sub-01/anat/sub-01_acq-dixonfat_chunk-2_T1w.nii.gz' in sidecar['Sources']
    own = 'bids::sub-01/anat/sub-01_acq-dixon_chunk-1_seg-lumbarmuscles_dseg.nii.gz'
    assert own in sidecar['Sources']
    page = (tmp_path / 'out/sub-01.html').read_text()
    assert 'Joined from parts of one body' in page
    assert page.count('This scan is one part of <code>sub-01_acq-dixonjoined</code>') == 2
    # Nothing changed, so nothing is done again.
    before = (tmp_path / 'out/logs/sub-01/sub-01_acq-dixonjoined.json').stat().st_mtime_ns
    run_of_scans.clear()
    assert participant(bids_dir) == ExitCode.OK
    assert run_of_scans == []
    after = (tmp_path / 'out/logs/sub-01/sub-01_acq-dixonjoined.json').stat().st_mtime_ns
    assert after == before


def test_fat_by_thresholds_over_parts_of_other_brightness(tmp_path: Path) -> None:
    bids_dir = tmp_path / 'bids'
    add(bids_dir, 'sub-whole_T1w')
    add(bids_dir, 'sub-01_run-1_T1w', 14)
    add(bids_dir, 'sub-01_run-2_T1w', 0, 15, gain=1.4)
    assert participant(bids_dir) == ExitCode.OK
    joined = muscle(bids_dir, 'acq-T1wjoined')
    whole = muscle(bids_dir, 'acq-T1w', 'sub-whole')
    assert_alike(joined, whole, ['volume_ml', 'fat_kmeans2_pct', 'fat_gmm2_pct'])


def test_a_muscle_that_the_model_of_the_parts_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        return np.where(drawn(affine, shape) >= 7, 0, drawn(affine, shape)).astype(np.uint8)

    drawn = outlines
    monkeypatch.setitem(globals(), 'outlines', without)
    monkeypatch.setitem(globals(), 'measure_scan', partial(measure_scan, unlabelled=[7]))
    bids_dir = tmp_path / 'bids'
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-1_T1w', 15)
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-2_T1w', 0, 15)
    assert participant(bids_dir) == ExitCode.OK
    reasons = table(bids_dir, 'acq-dixonjoined').set_index('index')['reason']
    assert reasons[7] == 'the model has no such muscle'
    assert reasons[8] == 'not found in the field of view'


def test_a_part_that_changes_or_vanishes(tmp_path: Path, run_of_scans: list[str]) -> None:
    bids_dir = tmp_path / 'bids'
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-1_T1w', 15)
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-2_T1w', 0, 15)
    assert participant(bids_dir) == ExitCode.OK
    before = muscle(bids_dir, 'acq-dixonjoined')['volume_ml']
    run_of_scans.clear()
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-2_T1w', 5, 15)
    assert participant(bids_dir) == ExitCode.OK
    assert run_of_scans == ['acq-dixon_chunk-2']
    assert muscle(bids_dir, 'acq-dixonjoined')['volume_ml'] < 0.9 * before
    # A table that was lost is made again, from the parts as they are.
    lost = tmp_path / 'out' / records(bids_dir)['acq-dixonjoined'].outputs[0]
    lost.unlink()
    run_of_scans.clear()
    assert participant(bids_dir) == ExitCode.OK
    assert lost.is_file()
    assert run_of_scans == []
    for path in bids_dir.glob('sub-01/anat/*chunk-2*'):
        path.unlink()
    assert participant(bids_dir) == ExitCode.OK
    assert list(records(bids_dir)) == ['acq-dixon_chunk-1']
    assert not list((tmp_path / 'out').rglob('*joined*'))
    page = (tmp_path / 'out/sub-01.html').read_text()
    assert 'no other part was found' in page


def test_parts_that_a_further_scan_makes_repeats(tmp_path: Path) -> None:
    bids_dir = tmp_path / 'bids'
    add(bids_dir, 'sub-01_run-1_T1w', 15)
    add(bids_dir, 'sub-01_run-2_T1w', 0, 15)
    assert participant(bids_dir) == ExitCode.OK
    assert 'acq-T1wjoined' in records(bids_dir)
    add(bids_dir, 'sub-01_run-0_T1w')
    assert participant(bids_dir) == ExitCode.OK
    assert set(records(bids_dir)) == {f'acq-T1w_run-{number}' for number in range(3)}
    assert not list((tmp_path / 'out').rglob('*joined*'))


def test_a_correction_of_a_replaced_part_is_not_measured_in_silence(
    tmp_path: Path, run_of_scans: list[str]
) -> None:
    bids_dir, name = tmp_path / 'bids', 'acq-dixon_run-2'
    add(bids_dir, 'sub-01_acq-dixon{}_run-1_T1w', 15)
    add(bids_dir, 'sub-01_acq-dixon{}_run-2_T1w', 0, 15)
    assert participant(bids_dir) == ExitCode.OK
    stem = tmp_path / f'out/sub-01/anat/sub-01_{name}_seg-lumbarmuscles'
    drawn, sidecar = (Path(f'{stem}_desc-manualAnna_dseg{end}') for end in ('.nii.gz', '.json'))
    drawn.write_bytes(Path(f'{stem}_dseg.nii.gz').read_bytes())

    def warnings(**facts: str) -> list[str]:
        """Save the correction with these facts, run, and return what is said of it."""
        write_json({'Rater': 'Anna', 'SavedAt': '2026', 'Passed': True, **facts}, sidecar)
        run_of_scans.clear()
        assert participant(bids_dir) == ExitCode.OK
        assert set(run_of_scans) <= {name}
        return [each for each in records(bids_dir)[name].warnings if drawn.name in each]

    digest = records(bids_dir)[name].images_sha256
    assert warnings(ImagesSHA256=digest) == []
    add(bids_dir, 'sub-01_acq-dixon{}_run-2_T1w', 0, 15, gain=1.2)
    [said] = warnings(ImagesSHA256=digest)
    assert said.startswith('The images have changed')
    assert 'save it again' in said
    # Saved before this was noted, or without the editor.
    assert warnings() == []
    [said] = warnings(ImagesSHA256=digest)
    # Saved again as it is.
    assert warnings(ImagesSHA256=records(bids_dir)[name].images_sha256) == []
    assert run_of_scans == [name]


def test_a_narrowed_run_leaves_the_joined_scan_of_others_alone(tmp_path: Path) -> None:
    bids_dir = tmp_path / 'bids'
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-1_T1w', 15)
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-2_T1w', 0, 15)
    assert participant(bids_dir) == ExitCode.OK
    chosen = tmp_path / 'filter.json'
    chosen.write_text(json.dumps({name: {'chunk': 1} for name in ('water', 'fat')}))
    assert participant(bids_dir, '--bids-filter-file', chosen) == ExitCode.OK
    assert 'acq-dixonjoined' in records(bids_dir)
    # What is about to change is no longer joined until all its parts are run.
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-1_T1w', 14)
    assert participant(bids_dir, '--bids-filter-file', chosen) == ExitCode.OK
    assert 'acq-dixonjoined' not in records(bids_dir)
    assert not list((tmp_path / 'out').rglob('*joined*'))
    assert participant(bids_dir) == ExitCode.OK
    assert 'acq-dixonjoined' in records(bids_dir)


def test_a_narrowed_run_joins_no_smaller_number_of_parts(tmp_path: Path) -> None:
    bids_dir = tmp_path / 'bids'
    for number, (low, high) in enumerate([(20, 30), (10, 20), (0, 10)], start=1):
        add(bids_dir, f'sub-01_acq-dixon{{}}_chunk-{number}_T1w', low, high)
    chosen = tmp_path / 'filter.json'
    chosen.write_text(json.dumps({name: {'chunk': [1, 2]} for name in ('water', 'fat')}))
    # In a new folder, what is left out is left out.
    assert participant(bids_dir, '--bids-filter-file', chosen) == ExitCode.OK
    assert len(records(bids_dir)['acq-dixonjoined'].parts) == 2
    assert participant(bids_dir) == ExitCode.OK
    whole = records(bids_dir)['acq-dixonjoined']
    volume_ml = muscle(bids_dir, 'acq-dixonjoined')['volume_ml']
    assert len(whole.parts) == 3
    assert participant(bids_dir, '--bids-filter-file', chosen) == ExitCode.OK
    assert records(bids_dir)['acq-dixonjoined'] == whole
    assert muscle(bids_dir, 'acq-dixonjoined')['volume_ml'] == volume_ml
    # One of them changes: there is no sum of all until all are run, however often.
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-1_T1w', 19, 30)
    for _ in range(2):
        participant(bids_dir, '--bids-filter-file', chosen)
        record = records(bids_dir)['acq-dixonjoined']
        assert record.status == 'failed'
        assert 'leaves out sub-01_acq-dixon_chunk-3.' in str(record.problem)
        assert not list((tmp_path / 'out').rglob('*joined*morph*'))
    assert participant(bids_dir) == ExitCode.OK
    assert records(bids_dir)['acq-dixonjoined'].status == 'done'


def test_minimal_outputs_leave_no_joined_scan_of_other_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bids_dir = tmp_path / 'bids'
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-1_T1w', 20)
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-2_T1w', 10, 20)
    assert participant(bids_dir) == ExitCode.OK
    joined = records(bids_dir)['acq-dixonjoined']
    minimal = '--output-level', 'minimal'
    assert participant(bids_dir, *minimal) == ExitCode.OK
    assert records(bids_dir)['acq-dixonjoined'] == joined
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-3_T1w', 0, 10)
    capsys.readouterr()
    assert participant(bids_dir, *minimal) == ExitCode.OK
    assert 'acq-dixonjoined' not in records(bids_dir)
    assert not list((tmp_path / 'out').rglob('*joined*'))
    assert 'dixonjoined of an earlier run is removed' in capsys.readouterr().err


def test_a_part_that_fails_leaves_no_sum_of_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bids_dir = tmp_path / 'bids'
    for chunk, (low, high) in enumerate([(20, 30), (10, 20), (0, 10)], start=1):
        add(bids_dir, f'sub-01_acq-dixon{{}}_chunk-{chunk}_T1w', low, high)
    assert participant(bids_dir) == ExitCode.OK
    lost = bids_dir / 'sub-01/anat/sub-01_acq-dixonfat_chunk-2_T1w.nii.gz'
    kept = lost.read_bytes()
    lost.unlink()
    assert participant(bids_dir) == ExitCode.BAD_DATA
    record = records(bids_dir)['acq-dixonjoined']
    assert record.status == 'failed'
    assert record.problem is not None
    assert 'sub-01_acq-dixon_chunk-2 failed' in record.problem.message
    assert 'sub-01_acq-dixonjoined failed' in capsys.readouterr().err
    assert not list((tmp_path / 'out/sub-01').rglob('*joined*'))
    assert main([str(bids_dir), str(tmp_path / 'out'), 'group']) == ExitCode.OK
    counted = pd.read_csv(tmp_path / 'out/group_muscles.tsv', sep='\t', keep_default_na=False)
    assert set(counted['excluded']) == {'yes'}
    lost.write_bytes(kept)
    assert participant(bids_dir) == ExitCode.OK
    assert muscle(bids_dir, 'acq-dixonjoined')['volume_ml'] > 0


def test_doubt_about_the_fat_of_one_part_is_one_about_the_joined_scan(tmp_path: Path) -> None:
    bids_dir = tmp_path / 'bids'
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-1_T1w', 15)
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-2_T1w', 0, 15)
    water, fat = (
        bids_dir / f'sub-01/anat/sub-01_acq-dixon{name}_chunk-2_T1w.nii.gz'
        for name in ('water', 'fat')
    )
    fat.write_bytes(water.read_bytes())
    assert participant(bids_dir) == ExitCode.OK
    joined = muscle(bids_dir, 'acq-dixonjoined')
    assert joined['volume_ml'] > 0
    assert np.isnan([joined['mfi_ratio_of_means_pct'], joined['mfi_mean_of_voxels_pct']]).all()
    assert 'copy' in joined['reason']


def test_an_outline_not_to_be_used_is_none_in_the_joined_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), 'PREDICTED_DICE', 0.4)
    bids_dir = tmp_path / 'bids'
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-1_T1w', 15)
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-2_T1w', 0, 15)
    assert participant(bids_dir) == ExitCode.OK
    joined = muscle(bids_dir, 'acq-dixonjoined')
    assert joined['dice_predicted'] == pytest.approx(0.4)
    assert joined['reason'].startswith('predicted Dice 0.40: do not use')


def test_an_outline_that_is_bad_in_one_part_is_so_in_the_joined_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), 'UNSURE', 'chunk-2')
    bids_dir = tmp_path / 'bids'
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-1_T1w', 10)
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-2_T1w', 0, 10)
    assert participant(bids_dir) == ExitCode.OK
    joined = table(bids_dir, 'acq-dixonjoined').set_index('name')
    assert joined['dice_predicted'].min() > 0.6
    part = 'sub-01_acq-dixon_chunk-2'
    said = f'predicted Dice 0.40 in {part}: do not use without correcting the outline'
    doubted = joined['reason'].str.contains(said, regex=False, na=False)
    assert list(joined.index[doubted]) == [MULTIFIDUS]
    [warning] = [w for w in records(bids_dir)['acq-dixonjoined'].warnings if 'outlines' in w]
    assert warning.startswith(f'The outlines of {MULTIFIDUS} in {part} are likely to be wrong')


@pytest.mark.parametrize(('border', 'counts'), [(4, True), (12, False)])
def test_the_end_of_a_muscle_in_one_part_does_not_cost_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, border: int, counts: bool
) -> None:
    monkeypatch.setitem(globals(), 'UNSURE', 'chunk-2')
    bids_dir = tmp_path / 'bids'
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-1_T1w', border)
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-2_T1w', 0, border)
    assert participant(bids_dir) == ExitCode.OK
    part, joined = (muscle(bids_dir, f'acq-dixon{end}') for end in ('_chunk-2', 'joined'))
    assert part['dice_predicted'] == 0.4
    assert part['volume_ml'] > 0
    assert (part['volume_ml'] < 0.1 * joined['volume_ml']) == counts
    # The mean of the whole has the doubt in it, by its share.
    assert 0.6 < joined['dice_predicted'] < 0.9
    assert ('do not use' in str(joined['reason'])) == (not counts)
    said = [each for each in records(bids_dir)['acq-dixonjoined'].warnings if 'outlines' in each]
    assert bool(said) == (not counts)
    [labels] = (tmp_path / 'out').rglob('*chunk-2*muscles_dseg.nii.gz')
    write_json({'PredictedDice': {MULTIFIDUS: 0.4}}, labels.with_suffix('').with_suffix('.json'))
    scans = settle_parts(read_scans(tmp_path / 'out', '01'))
    [whole] = [scan for scan in scans if scan.record.parts]
    assert bool(whole.exclusion({'name': MULTIFIDUS})) == (not counts)


@pytest.mark.parametrize(('unsearched', 'known'), [('nowhere', True), ('chunk-2', False)])
def test_swaps_are_counted_where_all_parts_were_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsearched: str, *, known: bool
) -> None:
    searched = partial(publish, unsearched=unsearched)
    monkeypatch.setitem(globals(), 'publish', searched)
    bids_dir = tmp_path / 'bids'
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-1_T1w', 15)
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-2_T1w', 0, 15)
    assert participant(bids_dir) == ExitCode.OK
    joined = muscle(bids_dir, 'acq-dixonjoined')
    assert (joined['mfi_swapped_voxels'] == 0) == known
    assert np.isnan(joined['mfi_swapped_voxels']) != known
    assert joined['mfi_ratio_of_means_pct'] > 0


def test_what_was_swapped_back_in_the_parts_is_so_in_the_joined_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), 'publish', partial(publish, fixed=True))
    bids_dir = tmp_path / 'bids'
    add(bids_dir, 'sub-whole_acq-dixon{}_T1w')
    for name, low, high in (('chunk-1', 15, 30), ('chunk-2', 0, 15)):
        add(bids_dir, f'sub-01_acq-dixon{{}}_{name}_T1w', low, high)
        paths = [
            bids_dir / f'sub-01/anat/sub-01_acq-dixon{kind}_{name}_T1w.nii.gz'
            for kind in ('water', 'fat')
        ]
        water, fat = (nib.load(path).get_fdata(dtype=np.float32) for path in paths)
        affine = nib.load(paths[0]).affine
        there = swapped(affine, water.shape)
        for path, one, other in zip(paths, (water, fat), (fat, water), strict=True):
            nib.save(nib.Nifti1Image(np.where(there, other, one), affine), path)
    assert participant(bids_dir, '--fix-swaps') == ExitCode.OK
    joined, whole = (
        muscle(bids_dir, *scan) for scan in (('acq-dixonjoined',), ('acq-dixon', 'sub-whole'))
    )
    assert_alike(joined, whole, MEASURES)


def test_parts_at_one_place_are_not_joined(tmp_path: Path) -> None:
    bids_dir = tmp_path / 'bids'
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-1_T1w', 0, 16)
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-2_T1w', 2, 18)
    assert participant(bids_dir) == ExitCode.BAD_DATA
    problem = records(bids_dir)['acq-dixonjoined'].problem
    assert problem is not None
    assert 'the same position' in problem.message
    # It is tried again.
    assert participant(bids_dir) == ExitCode.BAD_DATA


def test_a_gap_and_a_repeated_part_are_said(tmp_path: Path) -> None:
    bids_dir = tmp_path / 'bids'
    add(bids_dir, 'sub-01_acq-dixon{}_run-1_T1w', 17)
    add(bids_dir, 'sub-01_acq-dixon{}_run-2_T1w', 0, 15)
    add(bids_dir, 'sub-01_acq-dixon{}_run-3_T1w', 16)
    assert participant(bids_dir) == ExitCode.OK
    record = records(bids_dir)['acq-dixonjoined']
    assert record.aside == ('sub-01_acq-dixon_run-3',)
    assert any(warning.startswith('12 mm between the parts') for warning in record.warnings)
    assert any('run-3 repeats a part' in warning for warning in record.warnings)
    assert muscle(bids_dir, 'acq-dixonjoined')['truncated']


def test_the_plan_names_the_joined_scan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bids_dir = tmp_path / 'bids'
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-1_T1w', 15)
    add(bids_dir, 'sub-01_acq-dixon{}_chunk-2_T1w', 0, 15)
    assert participant(bids_dir, '--dry-run') == ExitCode.OK
    said = capsys.readouterr().out
    assert 'sub-01_acq-dixonjoined\n' in said
    assert 'sub-01_acq-dixonjoined_seg-lumbarmuscles_morph.tsv' in said


def cohort(bids_dir: Path, scans: Mapping[str, tuple[int, int]], n: int = 4) -> None:
    for person in range(1, n + 1):
        for name, (low, high) in scans.items():
            add(bids_dir, f'sub-{person:02d}_{name}', low, high)


def group(bids_dir: Path, *words: object) -> pd.DataFrame:
    assert main([str(bids_dir), str(bids_dir.parent / 'out'), 'group', *map(str, words)]) == 0
    path = bids_dir.parent / 'out/group_muscles.tsv'
    return pd.read_csv(path, sep='\t', dtype=str, keep_default_na=False)


def test_the_cohort_counts_the_joined_scan_and_no_part(tmp_path: Path) -> None:
    bids_dir = tmp_path / 'bids'
    parts = {'acq-dixon{}_chunk-1_T1w': (15, 30), 'acq-dixon{}_chunk-2_T1w': (0, 15)}
    cohort(bids_dir, parts)
    add(bids_dir, 'sub-05_acq-dixon{}_T1w')
    add(bids_dir, 'sub-06_acq-dixon{}_chunk-1_T1w', 15)
    assert participant(bids_dir) == ExitCode.OK
    rows = group(bids_dir)
    counts = rows[rows['excluded'] == 'no']
    assert set(counts['scan']) == {
        *(f'sub-0{person}_acq-dixonjoined' for person in range(1, 5)), 'sub-05_acq-dixon',
    }  # fmt: skip
    reasons = rows.set_index('scan')['exclusion_reason'].to_dict()
    assert reasons['sub-01_acq-dixon_chunk-1'] == 'part of sub-01_acq-dixonjoined'
    assert 'a part alone' in reasons['sub-06_acq-dixon_chunk-1']
    means = pd.read_csv(tmp_path / 'out/group_stats_means.tsv', sep='\t')
    volume = means[(means['measure'] == 'volume_ml') & (means['muscle'] == 'multifidus')]
    assert volume['n'].item() == 5
    joined = table(bids_dir, 'acq-dixonjoined').set_index('name')['volume_ml']
    expected = joined[['left multifidus', 'right multifidus']].mean()
    assert volume['mean'].item() == pytest.approx(expected, rel=1e-6)
    assert not (tmp_path / 'out/group_stats_agreement.tsv').exists()
    there = pd.read_csv(tmp_path / 'out/group_completeness.tsv', sep='\t', keep_default_na=False)
    assert set(there['kind']) == {'acq-dixon'}
    assert sorted(there['status']) == ['done'] * 5 + ['excluded']
    page = (tmp_path / 'out/group.html').read_text()
    assert 'parts of a joined scan' in page


def test_what_is_excluded_of_a_part_is_excluded_of_the_joined_scan(tmp_path: Path) -> None:
    bids_dir = tmp_path / 'bids'
    cohort(bids_dir, {'acq-dixon{}_run-1_T1w': (15, 30), 'acq-dixon{}_run-2_T1w': (0, 15)}, 3)
    assert participant(bids_dir) == ExitCode.OK
    listed = tmp_path / 'exclude.tsv'
    listed.write_text(
        'participant_id\tscan\tmuscle\treason\n'
        'sub-01\tsub-01_acq-dixon_run-2\tn/a\tmotion\n'
        'sub-02\tsub-02_acq-dixon_run-1\tleft multifidus\toutline\n'
    )
    rows = group(bids_dir, '--exclude', listed)
    joined = rows[rows['scan'].str.endswith('joined')].set_index(['participant_id', 'name'])
    assert set(joined.loc['sub-01']['exclusion_reason']) == {'sub-01_acq-dixon_run-2: motion'}
    excluded = joined.loc['sub-02'].query('excluded == "yes"')
    assert list(excluded.index) == ['left multifidus']
    assert set(joined.loc['sub-03']['excluded']) == {'no'}


def test_a_rating_of_a_joined_scan_is_of_the_maps_of_its_parts(tmp_path: Path) -> None:
    bids_dir, output_dir = tmp_path / 'bids', tmp_path / 'out'
    cohort(bids_dir, {f'acq-dixon{{}}_run-{k}_T1w': (30 - 15 * k, 45 - 15 * k) for k in (1, 2)}, 1)
    add(bids_dir, 'sub-01_acq-dixon{}_run-3_T1w', 16)  # which is not joined
    assert participant(bids_dir) == ExitCode.OK

    def seen() -> ScanOutputs:
        [scan] = [each for each in read_scans(output_dir, '01') if each.record.parts]
        return scan

    rated = seen()
    name = rated.record.scan
    row = {'rating': 'pass', 'muscles': [], 'comment': '', 'rater': 'Anna', 'rated_at': '2026'}
    row |= {'scan': name, 'segmentation': rated.segmentation}
    keep_rating(output_dir / 'ratings/Anna.tsv', row)

    def counts() -> bool:
        ratings = read_ratings(saved_ratings(output_dir))
        return name in merge_ratings(ratings, segmentations([seen()])).verdicts

    assert counts()
    for number, after in ((3, True), (2, False)):
        run = f'sub-01/anat/sub-01_acq-dixon_run-{number}_seg-lumbarmuscles_dseg.nii.gz'
        labels = nib.load(output_dir / run)
        changed = np.asarray(labels.dataobj).copy()
        changed[changed == 1] = 0
        write_image(nib.Nifti1Image(changed, labels.affine), output_dir / run)
        assert counts() is after


def test_repeats_of_all_parts_agree_as_joined_scans(tmp_path: Path) -> None:
    bids_dir = tmp_path / 'bids'
    cohort(
        bids_dir,
        {
            f'acq-dixon{{}}_run-{run}_chunk-{chunk}_T1w': (low, low + 15)
            for run in (1, 2)
            for chunk, low in ((1, 15), (2, 0))
        },
    )
    assert participant(bids_dir) == ExitCode.OK
    rows = group(bids_dir)
    assert set(rows[rows['excluded'] == 'no']['scan'].str.split('_').str[-1]) == {'run-1', 'run-2'}
    found = pd.read_csv(tmp_path / 'out/group_stats_agreement.tsv', sep='\t')
    assert set(found['test']) == {'scan 2'}
    assert set(found['n']) == {4}


def test_times_of_files_change_nothing(tmp_path: Path, run_of_scans: list[str]) -> None:
    bids_dir = tmp_path / 'bids'
    cohort(bids_dir, {'run-1_T1w': (15, 30), 'run-2_T1w': (0, 15)}, 1)
    assert participant(bids_dir) == ExitCode.OK
    for path in bids_dir.rglob('*.nii.gz'):
        os.utime(path, (1, 1))
    run_of_scans.clear()
    assert participant(bids_dir) == ExitCode.OK
    assert run_of_scans == []
