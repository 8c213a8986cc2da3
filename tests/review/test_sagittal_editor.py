"""Vertebrae and discs in the editor: two maps, one drawing, and an image of the raw dataset."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from flask.testing import FlaskClient
from nibabel.affines import from_matvec
from small_output import ORIGIN, SHAPE, write_sagittal

from bids_muscle.dataset.corrections import correction_path, find_correction
from bids_muscle.dataset.label_maps import read_lookup
from bids_muscle.dataset.names import derivative_path
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.spine_maps import find_spine_maps
from bids_muscle.interfaces.spine import SegmentSpine
from bids_muscle.review.state import ReviewState

NAME = 'sub-1_acq-sagT2w'
#: Stored from anterior to posterior, then downwards, then to the left.
AFFINE = np.array([[0, 0, -4.0, 9], [-2, 0, 0, -20], [0, -1.5, 0, 30], [0, 0, 0, 1]])
Admitted = Callable[[Path], tuple[ReviewState, FlaskClient]]


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    """Make an output folder with one sagittal scan beside its raw dataset."""
    scan = write_sagittal(tmp_path / 'out', '1', AFFINE)
    description = {'DatasetLinks': {'raw': '../raw'}}
    (tmp_path / 'out/dataset_description.json').write_text(json.dumps(description))
    return scan


def save(
    client: FlaskClient, drawn: np.ndarray, digest: str = '', images: str = '', status: int = 200
) -> None:
    given = {'rater': 'Anna', 'start': 'network', 'startSha256': digest, 'revision': ''}
    given['imagesSha256'] = images
    answer = client.post(
        f'/scan/{NAME}/correction',
        query_string={**given, 'passed': 'true'},
        data=drawn.tobytes(),
        headers=ORIGIN,
    )
    assert answer.status_code == status, answer.text


def test_the_raw_image_must_be_the_one_that_was_shown(
    scan: Scan, tmp_path: Path, admitted: Admitted
) -> None:
    _, client = admitted(tmp_path / 'out')
    facts = client.get(f'/scan/{NAME}/facts').json
    drawn = np.zeros(np.prod(facts['shape']), np.uint8)
    [raw] = (tmp_path / 'raw').rglob('*.nii.gz')
    shown = raw.read_bytes()
    image = nib.load(raw)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + 1, image.affine), raw)
    save(client, drawn, images=facts['imagesSha256'], status=409)
    assert find_correction(scan, [tmp_path / 'out']) == ()
    raw.write_bytes(shown)
    save(client, drawn, images=facts['imagesSha256'])


def test_a_vertebra_is_renamed_and_both_maps_are_saved(
    scan: Scan, tmp_path: Path, admitted: Admitted
) -> None:
    out = tmp_path / 'out'
    _, client = admitted(out)
    facts = client.get(f'/scan/{NAME}/facts').json
    assert (facts['plane'], facts['images'], facts['begin']) == ('sagittal', ['T2w'], 'network')
    place = {label['name']: n for n, label in enumerate(facts['labels'], start=1)}
    assert {'C1', 'T12', 'S1', 'L5-S1', 'vertebra 1', 'disc 1'} <= set(place)
    answer = client.get(f'/scan/{NAME}/labels/network')
    shape = facts['shape']
    drawn = np.frombuffer(gzip.decompress(answer.data), np.uint8).reshape(shape, order='F').copy()
    # As it is shown, L4 is at the top and L5 at the bottom.
    assert set(drawn[:, :, -1].ravel()) == {place['L4']}
    assert set(drawn[:, :, 0].ravel()) == {place['L5']}
    assert place['L4-L5'] in drawn
    drawn[drawn == place['L4']] = place['L3']
    drawn[0, 0, 0] = place['L5-S1']
    save(client, drawn.ravel(order='F'), answer.headers['X-SHA256'])

    found = dict(find_correction(scan, [out]))
    assert set(found) == {'vertebrae', 'discs'}
    like = nib.load(out / derivative_path(scan, 'vertebrae'))
    for key, numbers in (('vertebrae', {0, 22, 24}), ('discs', {0, 123, 124})):
        image = nib.load(found[key])
        np.testing.assert_array_equal(image.affine, like.affine)
        assert set(np.unique(np.asarray(image.dataobj))) == numbers
        sidecar = json.loads(found[key].with_name(found[key].name[:-7] + '.json').read_text())
        published = out / derivative_path(scan, key)
        assert sidecar['StartedFrom'] == published.name
        assert sidecar['StartedFromSHA256'] in answer.headers['X-SHA256'].split(',')
    assert read_lookup(found['vertebrae'], out) == {22: 'L3', 24: 'L5'}
    # The lowest, most left, most posterior voxel of the body.
    assert np.argwhere(np.asarray(nib.load(found['discs']).dataobj) == 124).tolist() == [[5, 4, 3]]
    # The scan takes its corrections itself.
    assert find_spine_maps([out], '1', {NAME})[0].vertebrae == out / derivative_path(
        scan, 'vertebrae'
    )


def test_the_maps_of_a_person_are_taken_without_the_network(
    scan: Scan, tmp_path: Path, admitted: Admitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / 'out'
    _, client = admitted(out)
    facts = client.get(f'/scan/{NAME}/facts').json
    place = {label['name']: n for n, label in enumerate(facts['labels'], start=1)}
    drawn = np.zeros(facts['shape'], np.uint8)
    drawn[1:4, 1:4, 1:4] = place['T12']  # and no disc at all
    save(client, drawn.ravel(order='F'))
    saved = dict(find_correction(scan, [out]))['vertebrae']
    lost = nib.load(saved)
    lost = nib.Nifti1Image(np.asarray(lost.dataobj), from_matvec(lost.affine[:3, :3]))
    nib.save(lost, saved)  # another program has dropped its position
    work = tmp_path / 'work'
    work.mkdir()
    monkeypatch.chdir(work)
    step = SegmentSpine(
        images={'T2w': str(next((tmp_path / 'raw').rglob('*.nii.gz')))},
        model='nowhere',
        model_card='{}',
        model_sha256='',
        manual={key: str(path) for key, path in find_correction(scan, [out])},
        names={'vertebrae': {}, 'discs': {}},
    )
    results = step.run(cwd=str(work)).outputs
    assert json.loads(Path(results.found).read_text())['names'] == {'19': 'T12'}
    np.testing.assert_array_equal(
        np.asarray(nib.load(results.labels['vertebrae']).dataobj), np.where(drawn, 19, 0)
    )
    assert not np.asarray(nib.load(results.labels['discs']).dataobj).any()
    [warning] = results.warnings
    assert warning.startswith(f'{saved.name} has lost its position')


def test_the_image_is_that_of_the_raw_dataset(
    scan: Scan, tmp_path: Path, admitted: Admitted
) -> None:
    _, client = admitted(tmp_path / 'out')
    answer = client.get(f'/scan/{NAME}/image/T2w.nii')
    image = nib.Nifti1Image.from_bytes(gzip.decompress(answer.data))
    stored = nib.load(next((tmp_path / 'raw').rglob('*.nii.gz')))
    wanted = nib.as_closest_canonical(stored).get_fdata()
    np.testing.assert_array_equal(np.asarray(image.dataobj), wanted)
    assert sorted(image.shape) == sorted(SHAPE)


@pytest.mark.parametrize(
    'name',
    [
        '../secret.nii.gz',
        'sub-1/../../secret.nii.gz',
        'sub-1/anat/link.nii.gz',
        'sub-2/anat/other.nii.gz',
        'sub-1/anat/notes.txt',
        '/etc/passwd',
        'sub-1/anat/gone.nii.gz',
    ],
)
def test_no_other_file_is_read_for_a_record_that_lies(
    scan: Scan, tmp_path: Path, admitted: Admitted, name: str
) -> None:
    out, raw = tmp_path / 'out', tmp_path / 'raw'
    image = next(raw.rglob('*.nii.gz'))
    image.rename(tmp_path / 'secret.nii.gz')
    (raw / 'sub-2/anat').mkdir(parents=True)
    for place in ('sub-1/anat/link.nii.gz', 'sub-1/anat/notes.txt', 'sub-2/anat/other.nii.gz'):
        (raw / place).symlink_to(tmp_path / 'secret.nii.gz')
    record = out / derivative_path(scan, 'record')
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, 'inputs': {'T2w': name}}))
    _, client = admitted(out)
    for address in (f'/edit/{NAME}', f'/scan/{NAME}/image/T2w.nii'):
        answer = client.get(address)
        assert answer.status_code in (404, 422)
        assert name in answer.text


def test_without_the_raw_dataset_there_is_a_sentence(
    scan: Scan, tmp_path: Path, admitted: Admitted
) -> None:
    (tmp_path / 'raw').rename(tmp_path / 'elsewhere')
    _, client = admitted(tmp_path / 'out')
    answer = client.get(f'/edit/{NAME}')
    assert answer.status_code == 404
    assert 'does not exist' in answer.text
    assert correction_path(scan, 'Anna', 'discs').name.endswith(
        '_seg-discs_desc-manualAnna_dseg.nii.gz'
    )
