"""Nobody but the reader gets in, nothing but the output folder is touched, no work is lost."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from flask.testing import FlaskClient
from small_output import ORIGIN

from bids_muscle.cli.report import main
from bids_muscle.dataset.corrections import correction_path, find_correction
from bids_muscle.dataset.kept_maps import kept_path
from bids_muscle.dataset.names import derivative_path
from bids_muscle.dataset.records import ScanRecord, write_record
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.writer import write_image, write_json
from bids_muscle.errors import ExitCode
from bids_muscle.reports.ratings import read_ratings
from bids_muscle.review import serve, state
from bids_muscle.review.access import LOOPBACK
from bids_muscle.review.measuring import is_running
from bids_muscle.review.server import create_app
from bids_muscle.review.state import ReviewState
from bids_muscle.workflows.run_log import RunLog

Admitted = Callable[[Path], tuple[ReviewState, FlaskClient]]
NAME = 'sub-1_acq-dixon'
SCAN = Scan((('sub', '1'), ('acq', 'dixon')), 'T1w', 'lumbar', ())
RATING = {
    'scan': NAME,
    'segmentation': '012345abcdef',
    'rating': 'pass',
    'muscles': ['left multifidus'],
    'comment': 'good\tenough',
    'rater': 'A. B.',
}


def drawing(client: FlaskClient) -> bytearray:
    """Return the published map as the browser has it."""
    return bytearray(gzip.decompress(client.get(f'/scan/{NAME}/labels/network').data))


def save(client: FlaskClient, drawn: bytes, revision: str = '', **query: str) -> Any:
    given = {'rater': 'Anna', 'start': 'network', 'startSha256': '', 'passed': 'true', **query}
    return client.post(
        f'/scan/{NAME}/correction',
        query_string={**given, 'revision': revision},
        data=bytes(drawn),
        headers=ORIGIN,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def test_a_token_lets_one_browser_in(output: Path) -> None:
    told: list[str] = []
    review = ReviewState(output, LOOPBACK, on_admission=told.append)
    app = create_app(review)
    token = review.tokens.next
    stranger, reader = app.test_client(), app.test_client()
    for rule in app.url_map.iter_rules():
        address = rule.rule.replace('<path:name>', 'group.html').replace('<name>', NAME)
        answer = stranger.open(
            address, method='POST' if 'POST' in rule.methods else 'GET', headers=ORIGIN
        )
        assert answer.status_code == 401, address
    assert stranger.get('/?token=wrong').status_code == 401
    answer = reader.get(f'/?token={token}')
    cookie = answer.headers['Set-Cookie']
    assert 'HttpOnly' in cookie
    assert 'SameSite=Strict' in cookie
    assert token not in answer.text
    assert reader.get('/group_review.html').status_code == 200
    assert stranger.get(f'/?token={token}').status_code == 401
    # The next reader gets another one.
    assert told == [review.tokens.next]
    assert stranger.get(f'/?token={told[0]}').status_code == 200


@pytest.mark.parametrize('host', ['evil.example', 'localhost.evil.example:80', '', '169.254.1.1'])
def test_another_name_for_this_computer_is_refused(
    output: Path, admitted: Admitted, host: str
) -> None:
    _, client = admitted(output)
    answer = client.get('/group_review.html', headers={'Host': host})
    assert answer.status_code == 403
    assert NAME not in answer.text


@pytest.mark.parametrize('origin', [None, 'null', 'http://evil.example', 'https://localhost:81'])
def test_other_sites_change_nothing(output: Path, admitted: Admitted, origin: str | None) -> None:
    _, client = admitted(output)
    before = files(output)
    headers = {'Origin': origin} if origin else {}
    assert client.post('/rating', json=RATING, headers=headers).status_code == 403
    for what in ('correction', 'measure'):
        assert client.post(f'/scan/{NAME}/{what}', headers=headers).status_code == 403
    assert files(output) == before


def test_a_proxy_that_was_named_is_no_other_site(output: Path) -> None:
    review = ReviewState(output, ['node1'], proxies=['portal.org'])
    client = create_app(review).test_client()
    there = 'http://node1:8765/'
    assert client.get(f'/?token={review.tokens.next}', base_url=there).status_code == 200
    for origin, status in (('https://portal.org', 200), ('https://evil.org', 403)):
        headers = {'Origin': origin}
        answer = client.post('/rating', json=RATING, headers=headers, base_url=there)
        assert answer.status_code == status


def test_nothing_outside_is_read(output: Path, admitted: Admitted, tmp_path: Path) -> None:
    _, client = admitted(output)
    secret = tmp_path / 'secret.json'
    secret.write_text('"hush"')
    (output / 'link.json').symlink_to(secret)
    (output / 'folder').symlink_to(tmp_path)
    (output / '.hidden.json').write_text('"hush"')
    (output / 'other.html').write_text('<script>hush</script>')
    (output / 'group.html').write_text('cohort')
    for address in (
        '/../secret.json',
        '/%2e%2e/secret.json',
        '/..%2fsecret.json',
        f'/{secret}',
        '/link.json',
        '/folder/secret.json',
        '/.hidden.json',
        '/other.html',
        '/logs/sub-1/../../../secret.json',
        '/part/../../../secret.json',
        '/sub-1/anat',
    ):
        answer = client.get(address)
        assert answer.status_code in (403, 404, 422), address
        assert 'hush' not in answer.text
    assert client.get('/group.html').text == 'cohort'


@pytest.mark.parametrize('where', ['ratings', 'sub-1/anat'])
def test_nothing_outside_is_written(
    output: Path, admitted: Admitted, tmp_path: Path, where: str
) -> None:
    _, client = admitted(output)
    drawn = drawing(client)
    outside = tmp_path / 'outside'
    if (output / where).exists():
        (output / where).rename(outside)
    else:
        outside.mkdir()
    (output / where).symlink_to(outside)
    before = files(outside)
    assert save(client, drawn).status_code == (422 if where != 'ratings' else 200)
    answer = client.post('/rating', json=RATING, headers=ORIGIN)
    assert answer.status_code == (422 if where == 'ratings' else 200)
    assert files(outside) == before


def test_pictures_within_an_archive_have_addresses(output: Path, admitted: Admitted) -> None:
    _, client = admitted(output)
    archive = derivative_path(SCAN, 'packed_figures')
    (output / archive).parent.mkdir(parents=True)
    with zipfile.ZipFile(output / archive, 'w') as content:
        content.writestr('thumbnail.webp', b'a picture')
        content.writestr('group.html', b'a page')
    answer = client.get(f'/{archive}/thumbnail.webp')
    assert (answer.data, answer.content_type) == (b'a picture', 'image/webp')
    for name in ('slices.webp', 'group.html'):
        assert client.get(f'/{archive}/{name}').status_code == 404
    (output / archive).write_bytes(b'no archive')
    assert client.get(f'/{archive}/thumbnail.webp').status_code == 404


def test_names_that_are_no_scans_are_refused(output: Path, admitted: Admitted) -> None:
    _, client = admitted(output)
    for name in ('sub-2_acq-dixon', '..', 'sub-1_acq-..', 'sub-1%00', 'group'):
        assert client.get(f'/scan/{name}/facts').status_code == 404, name
        assert client.get(f'/edit/{name}').status_code == 404, name
    assert client.get(f'/scan/{NAME}/image/dseg.nii').status_code == 404
    assert client.get(f'/scan/{NAME}/labels/..%2f..%2fx').status_code == 404
    assert (
        client.post('/rating', json={**RATING, 'scan': '../x'}, headers=ORIGIN).status_code == 404
    )
    assert not (output / 'ratings').exists()


@pytest.mark.parametrize('lie', ['huge', 'short'])
def test_an_image_that_lies_about_its_size_is_a_sentence(
    output: Path, admitted: Admitted, lie: str
) -> None:
    _, client = admitted(output)
    path = next(output.glob('sub-1/anat/*preproc*'))
    content = bytearray(gzip.decompress(path.read_bytes()))
    size = (30000, 30000, 30000) if lie == 'huge' else (60, 50, 40)
    content[42:48] = np.array(size, '<i2').tobytes()
    path.write_bytes(gzip.compress(bytes(content)))
    answer = client.get(f'/scan/{NAME}/image/water.nii')
    assert answer.status_code == 422
    assert path.name in answer.json['message']


def test_a_drawing_that_does_not_fit_is_refused(output: Path, admitted: Admitted) -> None:
    _, client = admitted(output)
    drawn = drawing(client)
    before = files(output)
    assert 'voxels came from the browser' in save(client, drawn[:-1]).json['message']
    drawn[0] = 9
    assert 'there are 8' in save(client, drawn).json['message']
    assert save(client, drawing(client), rater='').status_code == 400
    assert files(output) == before


def test_of_two_windows_the_second_is_told(output: Path, admitted: Admitted) -> None:
    _, client = admitted(output)
    drawn = drawing(client)
    drawn[1] = 3
    first = save(client, drawn)
    path = output / correction_path(SCAN, 'Anna')
    kept = path.read_bytes()
    drawn[1] = 4
    second = save(client, drawn)
    assert second.status_code == 409
    assert 'was saved in another window' in second.json['message']
    assert path.read_bytes() == kept
    # Another rater has a file of his own, and who knows of the first may replace it.
    assert save(client, drawn, rater='Ben').status_code == 200
    assert path.read_bytes() == kept
    assert second.json['revision'] == first.json['revision']
    assert save(client, drawn, second.json['revision']).status_code == 200
    assert path.read_bytes() != kept


def test_a_full_disk_leaves_what_was_there(
    output: Path, admitted: Admitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = admitted(output)
    drawn = drawing(client)
    revision = save(client, drawn).json['revision']
    before = files(output)
    drawn[1] = 3
    calls = []

    def fail(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:  # the map is on the disk by then, its sidecar is not
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', fail)
        answer = save(client, drawn, revision)
    assert answer.status_code == 507
    assert 'Free space' in answer.json['message']
    assert files(output) == before
    assert save(client, drawn, revision).status_code == 200


def test_a_read_only_folder_is_for_looking(
    output: Path,
    admitted: Admitted,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(state, '_can_write', lambda folder: False)
    _, client = admitted(output)
    assert '"readonly": true' in client.get(f'/edit/{NAME}').text
    assert '"readonly": true' in client.get('/group_review.html').text
    before = files(output)
    for answer in (
        save(client, drawing(client)),
        client.post('/rating', json=RATING, headers=ORIGIN),
        client.post(f'/scan/{NAME}/measure', headers=ORIGIN),
    ):
        assert answer.status_code == 403
        assert 'read-only' in answer.json['message']
    assert files(output) == before

    class Server:
        effective_port = 80

        def run(self) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(serve, 'create_server', lambda *args, **options: Server())
    assert main(['serve', str(output)]) == ExitCode.OK
    said = capsys.readouterr().out
    assert 'is read-only: it can be looked at' in said
    assert 'http://127.0.0.1:80/?token=' in said


def test_a_run_at_the_same_time(
    output: Path, admitted: Admitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = admitted(output)
    command = ['bids_muscle', 'bids', 'out', 'participant']
    for words, busy in (
        ([], True),
        (['--participant-label', '2', 'sub-1'], True),
        (['--participant_label', '2', '-v'], False),
    ):
        monkeypatch.setattr(sys, 'argv', [*command, *words])
        log = RunLog(output)
        assert is_running(output, '1') is busy
        if busy:
            answer = client.post(f'/scan/{NAME}/measure', headers=ORIGIN)
            assert answer.status_code == 409
            assert 'working on sub-1' in answer.json['message']
        log.close()
    assert save(client, drawing(client)).status_code == 200
    # Without the raw dataset, which lies beside, there is nothing to measure.
    answer = client.post(f'/scan/{NAME}/measure', headers=ORIGIN)
    assert answer.status_code == 404
    assert 'raw dataset' in answer.json['message']


def test_ratings_are_kept_at_once(output: Path, admitted: Admitted) -> None:
    review, client = admitted(output)
    assert client.post('/rating', json=RATING, headers=ORIGIN).status_code == 200
    assert (
        client.post('/rating', json={**RATING, 'rater': 'Ben'}, headers=ORIGIN).status_code == 200
    )
    answer = client.post('/rating', json={**RATING, 'rating': 'fail'}, headers=ORIGIN)
    paths = sorted((output / 'ratings').iterdir())
    assert len(paths) == 2
    mine = next(each for each in read_ratings(paths) if each.rater == 'A. B.')
    assert (mine.rating, mine.comment, mine.muscles) == (
        'fail',
        'good enough',
        ('left multifidus',),
    )
    assert mine.rated_at == answer.json['rated_at']
    page = client.get('/group_review.html?rater=A.+B.').text
    assert '"rating": "fail"' in page
    assert client.post('/rating', json={**RATING, 'rating': ''}, headers=ORIGIN).status_code == 200
    assert [each.rater for each in read_ratings(paths)] == ['Ben']
    for broken in ({**RATING, 'rater': ''}, {**RATING, 'rating': 'great'}, [1]):
        assert client.post('/rating', json=broken, headers=ORIGIN).status_code in (400, 422)
    assert client.get('/next?rater=Ben').json == {'scan': None}
    assert client.get('/next?rater=Cleo').json == {'scan': NAME}
    assert review.ratings_of('Cleo') == {}


def test_the_sidecar_says_who_when_and_from_what(output: Path, admitted: Admitted) -> None:
    _, client = admitted(output)
    answer = client.get(f'/scan/{NAME}/labels/network')
    drawn = bytearray(gzip.decompress(answer.data))
    drawn[7] = 3
    drawn[8] = 4
    digest = answer.headers['X-SHA256']
    assert save(client, drawn, startSha256=digest, passed='false').status_code == 200
    path = output / correction_path(SCAN, 'Anna')
    sidecar = json.loads(path.with_name(path.name.replace('.nii.gz', '.json')).read_text())
    assert sidecar['Rater'] == 'Anna'
    assert sidecar['StartedFromManual'] is False
    assert sidecar['StartedFrom'] == f'{NAME}_seg-lumbarmuscles_dseg.nii.gz'
    assert sidecar['StartedFromSHA256'] == digest
    assert sidecar['VoxelsChanged'] == 2
    assert sidecar['Passed'] is False
    assert sidecar['Manual'] is True
    facts = client.get(f'/scan/{NAME}/facts').json
    assert facts['own'] == path.name
    assert [each['state'] for each in facts['starts']] == ['', 'draft']
    assert nib.load(path).get_data_dtype() == np.uint8


def test_nothing_drawn_on_replaced_images_is_saved(output: Path, admitted: Admitted) -> None:
    _, client = admitted(output)

    def scan_again(images_sha256: str, shift_mm: float) -> None:
        """Leave what the participant level does after the raw images were replaced."""
        record = output / f'logs/sub-1/{NAME}.json'
        content = json.loads(record.read_text())
        record.write_text(json.dumps({**content, 'images_sha256': images_sha256}))
        published = output / derivative_path(SCAN, 'dseg')
        image = nib.load(published)
        affine = image.affine.copy()
        affine[0, 3] += shift_mm
        write_image(nib.Nifti1Image(np.asarray(image.dataobj), affine), published)

    scan_again('old', 0)
    opened = client.get(f'/scan/{NAME}/facts?rater=Anna').json['imagesSha256']
    saved = save(client, drawing(client), imagesSha256=opened)
    assert saved.json['ImagesSHA256'] == opened == 'old'
    before = files(output)
    scan_again('new', 300)
    drawn = drawing(client)
    drawn[7] = 3
    revision = saved.json['revision']
    for _ in range(2):  # who saves again does not replace anything either
        answer = save(client, drawn, revision, imagesSha256=opened)
        assert answer.status_code == 409
        assert answer.json['message'] == (
            'The scan has changed since the editor was opened. Reload the page.'
        )
        revision = answer.json['revision']
    kept = str(correction_path(SCAN, 'Anna'))
    assert files(output)[kept] == before[kept]
    facts = client.get(f'/scan/{NAME}/facts?rater=Anna').json
    assert [each['onOthers'] for each in facts['starts']] == [False, True]
    answer = save(client, drawn, facts['revision'], imagesSha256=facts['imagesSha256'])
    assert answer.json['ImagesSHA256'] == 'new'
    facts = client.get(f'/scan/{NAME}/facts?rater=Anna').json
    assert [each['onOthers'] for each in facts['starts']] == [False, False]


def test_a_correction_can_be_withdrawn(output: Path, admitted: Admitted) -> None:
    _, client = admitted(output)
    assert save(client, drawing(client)).status_code == 200
    facts = client.get(f'/scan/{NAME}/facts?rater=Anna').json
    assert (facts['begin'], facts['starts'][1]['state']) == (facts['own'], 'counts')
    kept = output / correction_path(SCAN, 'Anna')
    before = kept.read_bytes()
    address = f'/scan/{NAME}/withdraw'
    assert client.post(f'{address}?rater=Ben', headers=ORIGIN).status_code == 404
    assert client.post(f'{address}?rater=Anna', headers=ORIGIN).status_code == 200
    assert kept.read_bytes() == before
    assert find_correction(SCAN, [output]) == ()
    facts = client.get(f'/scan/{NAME}/facts?rater=Anna').json
    assert (facts['begin'], facts['starts'][1]['state']) == ('network', 'withdrawn')
    # Whoever saves it again means it.
    assert save(client, drawing(client), facts['revision']).status_code == 200
    assert find_correction(SCAN, [output]) == (('dseg', kept),)


def test_a_kept_map_of_the_network_is_a_start(output: Path, admitted: Admitted) -> None:
    _, client = admitted(output)
    network = drawing(client)
    published = output / derivative_path(SCAN, 'dseg')
    kept = output / kept_path(SCAN, 'dseg')
    shutil.copy(published, kept)
    data = np.asarray(nib.load(published).dataobj).copy()
    data[data == 1] = 3
    write_image(nib.Nifti1Image(data, nib.load(published).affine), published)
    write_json({'Manual': True}, output / derivative_path(SCAN, 'dseg_json'))
    facts = client.get(f'/scan/{NAME}/facts').json
    assert [each['key'] for each in facts['starts']] == ['network', 'published']
    assert facts['begin'] == 'published'
    assert drawing(client) == network
    assert gzip.decompress(client.get(f'/scan/{NAME}/labels/published').data) != network
    assert save(client, network, start='published').status_code == 200
    path = output / correction_path(SCAN, 'Anna')
    sidecar = json.loads(path.with_name(path.name.replace('.nii.gz', '.json')).read_text())
    assert (sidecar['StartedFrom'], sidecar['StartedFromManual']) == (published.name, True)


def test_a_joined_scan_leads_to_its_parts(output: Path, admitted: Admitted) -> None:
    _, client = admitted(output)
    other = f'{NAME}_chunk-2'
    joined = Scan((('sub', '1'), ('acq', 'dixonjoined')), 'T1w', 'lumbar', ())
    record = ScanRecord(
        participant='1',
        session=None,
        scan=joined.name,
        region='lumbar',
        status='done',
        parts=(NAME, other),
    )
    write_record(record, joined, output)
    answer = client.get(f'/edit/{joined.name}')
    assert answer.status_code == 422
    assert f'<a href="{NAME}">' in answer.text
    assert f'<a href="{other}">' in answer.text
    (output / 'sub-1.html').touch()  # it is made when it is asked for
    page = client.get('/sub-1.html').text
    assert f'<a href="edit/{other}">' in page
    # A part names the others, and no joined scan is in the way to the next one.
    assert f'<a href="{other}">' in client.get(f'/edit/{NAME}').text
    assert f'"edited": ["{NAME}", "{other}"]' in client.get('/group_review.html').text
    assert client.get('/next?rater=Cleo').json == {'scan': NAME}


def test_a_scan_that_cannot_be_edited_says_why(output: Path, admitted: Admitted) -> None:
    _, client = admitted(output)
    record = output / f'logs/sub-1/{NAME}.json'
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, 'status': 'failed'}))
    answer = client.get(f'/edit/{NAME}')
    assert answer.status_code == 422
    assert 'nothing to correct' in answer.text


def test_what_is_no_output_folder_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['serve', str(tmp_path)]) == ExitCode.NO_INPUT
    assert 'is not an output folder' in capsys.readouterr().err
