"""The derivatives dataset as others see it: the BIDS validator, pybids, and racing jobs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bids_muscle import __version__
from bids_muscle.anatomy.lookups import bids_lookup
from bids_muscle.dataset.discovery import find_scans
from bids_muscle.dataset.folders import list_participants
from bids_muscle.dataset.names import (
    dataset_path,
    derivative_path,
    expected_outputs,
    participant_path,
)
from bids_muscle.dataset.plan import format_plan
from bids_muscle.dataset.records import ScanRecord, write_record
from bids_muscle.dataset.scan import Contrast, Scan
from bids_muscle.dataset.sidecars import (
    aligned,
    alignment_sidecar,
    confidence_sidecar,
    dseg_sidecar,
    fat_fraction_sidecar,
    fat_map_sidecar,
    mask_sidecar,
    morph_sidecar,
    preproc_sidecar,
    swap_sidecar,
)
from bids_muscle.dataset.writer import (
    write_dataset_files,
    write_image,
    write_json,
    write_text,
    write_tsv,
)
from bids_muscle.imaging.dixon import FatSource, fat_source
from bids_muscle.segmentation.bundle import ModelBundle

TinyDataset = Callable[..., Path]
Models = dict[str, ModelBundle]
SETTINGS = {'bias_correction': True, 'fat_method': 'auto'}
WHOLE_NUMBERS = ('_dseg.nii.gz', '_mask.nii.gz', '_confidence.nii.gz')
QUALITY = {
    'predicted_dice': {'right multifidus': 0.9},
    'computed': {'device': 'cpu', 'batch_size': 4, 'out_of_memory': [{'batch_size': 8}]},
}


@pytest.fixture
def raw(tiny_dataset: TinyDataset) -> Path:
    """Every kind of scan there is, with and without sessions."""
    names = [
        *(f'sub-01/anat/sub-01_acq-dixon{c}_run-01_T1w' for c in ('water', 'fat', 'in', 'out')),
        'sub-01/anat/sub-01_acq-ax_T2w',
        'sub-01/anat/sub-01_ce-gd_rec-norm_T1w',
        'sub-01/anat/sub-01_part-mag_PDw',
        'sub-01/anat/sub-01_chunk-1_T2w',
        'sub-02/ses-neck/anat/sub-02_ses-neck_echo-1_MEGRE',
        'sub-02/ses-neck/anat/sub-02_ses-neck_echo-2_MEGRE',
        *(f'sub-02/ses-abdomen/anat/sub-02_ses-abdomen_{c}' for c in ('water', 'fat', 'fatfrac')),
        *(f'sub-02/ses-abdomen/anat/sub-02_ses-abdomen_rec-{c}_T2w' for c in ('in', 'out')),
        'sub-03/anat/sub-03_acq-dixonwater_T1w',
    ]
    sidecars = {
        'T1w.json': {'BodyPart': 'LSPINE'},
        'T2w.json': {'BodyPart': 'LSPINE'},
        'PDw.json': {'BodyPart': 'NECK'},
        'MEGRE.json': {'MagneticFieldStrength': 1.5},
    }
    for echo, echo_time_s in ((1, 0.0023), (2, 0.0046)):
        stem = f'sub-02/ses-neck/anat/sub-02_ses-neck_echo-{echo}_MEGRE'
        sidecars[f'{stem}.json'] = {'EchoTime': echo_time_s}
    return tiny_dataset(dict.fromkeys(names), sidecars)


def all_scans(raw: Path) -> list[Scan]:
    return [scan for label in list_participants(raw) for scan in find_scans(raw, label)]


def write_scan(scan: Scan, raw: Path, out: Path, model: ModelBundle) -> None:
    """Write all outputs of a scan with made-up content, as the publishing step does."""
    grid = nib.load(scan.images[0].path)
    values = np.zeros(grid.shape, np.float32)
    sidecars = {
        'body_mask_json': mask_sidecar(scan, raw),
        'fat_map_json': fat_map_sidecar(scan, raw, model, SETTINGS),
        **{
            f'{key}_json': alignment_sidecar(scan, raw, {'Trusted': True}) | aligned(scan, key)
            for key in ('levels', 'xfm', 'atlas_image', 'atlas_dseg')
        },
        **{
            f'{name}_json': morph_sidecar(
                scan, raw, {'volume_ml': {'Units': 'ml'}}, model, SETTINGS
            )
            for name in ('morph', 'morph_slices', 'morph_levels')
        },
        'confidence_json': confidence_sidecar(scan, raw),
        'dseg_json': dseg_sidecar(scan, raw, model, SETTINGS, QUALITY),
        'iqm': {'snr_muscle': 20.0, 'flags': []},
    }
    if fat_source(scan.paths):
        sidecars['fat_fraction_json'] = fat_fraction_sidecar(scan, raw)
    if fat_source(scan.paths) is FatSource.WATER_AND_FAT:
        sidecars['swap_mask_json'] = swap_sidecar(scan, raw, fixed=False)
    paths = {derivative_path(scan, key): content for key, content in sidecars.items()}
    for contrast in Contrast:
        content = preproc_sidecar(scan, raw, contrast, bias_correction=True)
        paths[derivative_path(scan, 'preproc_json', contrast=contrast)] = content
    for relative in expected_outputs(scan):
        path = out / relative
        if relative in paths:
            write_json(paths[relative], path)
        elif path.name.endswith('.nii.gz'):
            kind = np.uint8 if path.name.endswith(WHOLE_NUMBERS) else np.float32
            write_image(nib.Nifti1Image(values.astype(kind), grid.affine), path)
        elif path.suffix == '.tsv':
            write_text(bids_lookup(model.labels), path)
        elif path.parent.name == 'figures' or path.suffix in ('.txt', '.ctbl', '.lut'):
            write_text('picture', path)
    write_record(
        ScanRecord(
            participant=scan.participant,
            session=scan.session,
            scan=scan.name,
            region=scan.region,
            status='done',
        ),
        scan,
        out,
    )


@pytest.fixture
def derivatives(raw: Path, models: Models) -> Path:
    out = raw / 'derivatives/bids_muscle'
    write_dataset_files(out, raw, list(models.values()))
    for scan in all_scans(raw):
        if scan.problem is None:
            write_scan(scan, raw, out, models[scan.region])
    for label in list_participants(raw):
        write_text('<html></html>', out / participant_path(label, 'report'))
        write_text('', out / participant_path(label, 'settings'))
    for key in ('group_muscles', 'group_scans'):
        write_tsv([{'participant_id': 'sub-01', 'x': 1}], out / dataset_path(key))
        write_json({'x': {}}, out / dataset_path(f'{key}_json'))
    write_text('<html></html>', out / dataset_path('group_report'))
    return out


def test_all_scans_are_written(derivatives: Path, raw: Path) -> None:
    scans = {scan.name: scan for scan in all_scans(raw)}
    assert sorted(name for name, scan in scans.items() if scan.problem is None) == [
        'sub-01_acq-PDw_part-mag',
        'sub-01_acq-T1w_ce-gd_rec-norm',
        'sub-01_acq-T2w_chunk-1',
        'sub-01_acq-axT2w',
        'sub-01_acq-dixon_run-01',
        'sub-02_ses-abdomen_acq-T2wdixon',
        'sub-02_ses-abdomen_acq-dixon',
        'sub-02_ses-neck_acq-T2starwdixon',
    ]
    for scan in scans.values():
        for path in expected_outputs(scan) if scan.problem is None else ():
            assert (derivatives / path).is_file()
    assert not [path for path in derivatives.rglob('*') if path.name.endswith('.tmp')]


def test_the_validator_finds_no_error(derivatives: Path) -> None:
    command = Path(sys.executable).with_name('bids-validator-deno')
    result = subprocess.run(
        [command, '--json', derivatives], capture_output=True, text=True, check=False
    )
    issues = json.loads(result.stdout)['issues']['issues']
    assert [issue for issue in issues if issue['severity'] == 'error'] == []
    # What it warns of is known: nothing of it is a fault of a name or of a missing definition.
    assert {issue['code'] for issue in issues} <= {
        'JSON_KEY_RECOMMENDED',
        'SIDECAR_KEY_RECOMMENDED',
        'TOO_FEW_AUTHORS',
        'NO_AUTHORS',
        'README_FILE_MISSING',
        'README_FILE_SMALL',
    }
    assert result.returncode == 0


def test_the_validator_would_find_a_wrong_name(derivatives: Path) -> None:
    (derivatives / 'sub-01/anat/sub-01_label-x_dseg.nii.gz').write_bytes(b'')
    command = Path(sys.executable).with_name('bids-validator-deno')
    result = subprocess.run([command, derivatives], capture_output=True, check=False)
    assert result.returncode == 16


def test_pybids_opens_it(derivatives: Path, raw: Path) -> None:
    from bids import BIDSLayout
    from bids.layout import Query

    layout = BIDSLayout(raw, derivatives=True)
    (found,) = layout.get(
        scope='bids_muscle',
        subject='01',
        run=1,
        suffix='dseg',
        space=Query.NONE,
        extension='.nii.gz',
    )
    metadata = found.get_metadata()
    assert metadata['ModelSHA256'] == '0123456789abcdef' * 4
    assert metadata['BiasCorrection'] == 'N4'
    for uri in metadata['Sources']:
        assert (raw / uri.removeprefix('bids:raw:')).is_file()
    preprocessed = layout.get(
        scope='derivatives', subject='01', run=1, desc='preproc', space=Query.NONE
    )
    assert len(preprocessed) == 8  # four images and their sidecars


def test_description_says_what_made_it(derivatives: Path, raw: Path, models: Models) -> None:
    content = json.loads((derivatives / 'dataset_description.json').read_text())
    app, *generators = content['GeneratedBy']
    assert app == {'Name': 'bids_muscle', 'Version': __version__}
    for generator, model in zip(generators, (models['cervical'], models['lumbar']), strict=True):
        assert (generator['Name'], generator['Version']) == (model.name, model.version)
        assert model.sha256 in generator['Description']
    assert (derivatives / content['DatasetLinks']['raw']).resolve() == raw


def test_description_keeps_what_an_earlier_run_named(
    derivatives: Path, raw: Path, models: Models, tmp_path: Path
) -> None:
    shutil.copy(derivatives / 'dataset_description.json', tmp_path)
    other = replace(models['lumbar'], name='another', version='9')
    write_dataset_files(tmp_path, raw, [other])
    first = (tmp_path / 'dataset_description.json').read_bytes()
    app, *generators = json.loads(first)['GeneratedBy']
    assert app['Name'] == 'bids_muscle'
    assert {each['Name'] for each in generators} == {
        'another',
        *(model.name for model in models.values()),
    }
    write_dataset_files(tmp_path, raw, [other])
    assert (tmp_path / 'dataset_description.json').read_bytes() == first


def test_label_tables_have_colours(derivatives: Path, models: Models) -> None:
    for model in models.values():
        path = derivatives / f'seg-{model.region}muscles_dseg.tsv'
        header, *lines = path.read_text().splitlines()
        assert header.split('\t') == ['index', 'name', 'abbreviation', 'color']
        rows = [line.split('\t') for line in lines]
        assert [(int(row[0]), row[1], row[3]) for row in rows] == [
            (label.index, label.name, label.color) for label in model.labels
        ]
        assert len({row[2] for row in rows}) == len(rows)


def test_dataset_files_do_not_depend_on_the_job(raw: Path, models: Models, tmp_path: Path) -> None:
    """The order of the models and the time do not matter, and what is right is not touched."""
    out = tmp_path / 'out'
    paths = write_dataset_files(out, raw, list(models.values()))
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in paths}
    write_dataset_files(out, raw, list(models.values())[::-1])
    assert {path: (path.read_bytes(), path.stat().st_ino) for path in paths} == before
    paths[0].write_text('{')
    write_dataset_files(out, raw, list(models.values()))
    assert {path: path.read_bytes() for path in paths} == {p: b for p, (b, _) in before.items()}


def _race(out: Path, raw: Path, models: list[ModelBundle], all_here: Any, read: Any) -> None:
    """Write again and again from nothing; each file read in between must be whole."""
    all_here.wait()
    for _ in range(3):
        for path in write_dataset_files(out, raw, models):
            try:
                content = path.read_text()
            except FileNotFoundError:
                continue  # another job has just removed it
            assert content.endswith('\n')
            if path.suffix == '.json':
                json.loads(content)
            with read.get_lock():
                read.value += 1
            path.unlink(missing_ok=True)


def test_fifty_jobs_may_race(raw: Path, models: Models, tmp_path: Path) -> None:
    out, context = tmp_path / 'out', get_context('fork')
    job, read = (out, raw, list(models.values())), context.Value('i')
    all_here = context.Barrier(50)
    racers = [context.Process(target=_race, args=(*job, all_here, read)) for _ in range(50)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert {racer.exitcode for racer in racers} == {0}
    assert read.value > 100
    write_dataset_files(*job)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [
            '.bidsignore',
            'dataset_description.json',
            'descriptions.tsv',
            *(
                f'seg-{region}muscles_dseg.{kind}'
                for region in ('cervical', 'lumbar')
                for kind in ('ctbl', 'label.txt', 'lut', 'tsv')
            ),
        ]
    )


def test_plan(raw: Path, models: Models) -> None:
    text = format_plan(all_scans(raw), models, raw)
    blocks = {block.splitlines()[0]: block for block in text.split('\n\n')}
    dixon = blocks['sub-01_acq-dixon_run-01']
    for expected in (
        'water         sub-01/anat/sub-01_acq-dixonwater_run-01_T1w.nii.gz',
        'region   lumbar',
        'test-lumbar 1.2',
        'sub-01/anat/sub-01_acq-dixon_run-01_seg-lumbarmuscles_dseg.nii.gz',
    ):
        assert expected in dixon
    assert 'test-cervical' in blocks['sub-01_acq-PDw_part-mag']
    for path in expected_outputs(all_scans(raw)[-1]):
        assert str(path) not in text  # what has a problem has no outputs
    assert 'without fat image' in blocks['sub-03_acq-dixon']
    assert 'output' not in blocks['sub-03_acq-dixon']
    assert len(blocks) == 9


def test_what_a_model_lacks_is_in_plan_and_sidecar(raw: Path, models: Models) -> None:
    own = models['lumbar'].labels
    labels = tuple(
        replace(label, source='iliopsoas, L') if label.index == 6 else label for label in own
    )
    models['lumbar'] = replace(
        models['lumbar'], card={'numbers': [0, *range(3, 9)]}, labels=replace(own, labels=labels)
    )
    scan = next(scan for scan in all_scans(raw) if scan.region == 'lumbar')
    text = format_plan([scan], models, raw)
    assert 'has no class for right multifidus, left multifidus.' in text
    assert 'iliopsoas, L is left psoas major.' in text
    fields = dseg_sidecar(scan, raw, models['lumbar'], SETTINGS, QUALITY)
    assert fields['MusclesNotInModel'] == ['right multifidus', 'left multifidus']
    assert fields['ClassesRenamed'] == {'iliopsoas, L': 'left psoas major'}
