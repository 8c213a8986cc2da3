"""``bids_muscle-model fetch`` against a server on this computer, sound and broken."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import types
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import UNet

from bids_muscle.anatomy.labels import OTHER_REGIONS, REGIONS
from bids_muscle.cli.model import main
from bids_muscle.config import build_settings, read_config
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.sidecars import dseg_sidecar
from bids_muscle.errors import ExitCode, ModelError
from bids_muscle.segmentation import catalogue, registry
from bids_muscle.segmentation.catalogue import find_model, load_model
from bids_muscle.segmentation.registry import Entry, RemoteFile
from bids_muscle.settings import Settings
from bids_muscle.workflows import download, fetching
from bids_muscle.workflows.planning import find_models

WEIGHTS, CARD, ARCHIVE = 'abdomen.pth', 'abdomen.json', 'Dataset001.zip'
NETWORK = {
    'spatial_dims': 2,
    'in_channels': 1,
    'out_channels': 9,
    'channels': [4, 8],
    'strides': [2],
    'num_res_units': 1,
    'act': 'LeakyReLU',
}


def musclemap() -> dict[str, bytes]:
    """Return the two files of a model of MuscleMap."""
    muscles = ('multifidus', 'erector spinae', 'psoas major', 'quadratus lumborum')
    labels = [
        {'anatomy': muscle, 'side': side, 'value': 5101 + 10 * place + right}
        for place, muscle in enumerate(muscles)
        for right, side in enumerate(('left', 'right'))
    ]
    parameters = {'roi_size': [32, 32], 'pix_dim': [2, 2, -1]}
    card = {
        'parameters': parameters,
        'model': {**NETWORK, 'norm': 'instance', 'version': '0.3'},
        'labels': labels,
    }
    torch.manual_seed(0)
    stream = io.BytesIO()
    torch.save(UNet(**NETWORK, norm='INSTANCE').state_dict(), stream)
    return {WEIGHTS: stream.getvalue(), CARD: json.dumps(card).encode()}


@dataclass
class Site:
    """What a server has, and how it misbehaves; by path."""

    files: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    #: Bytes after which the connection breaks.
    breaks: dict[str, int] = field(default_factory=dict)
    #: Path and range of each request.
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ''

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        path, wanted = request.path, request.headers['Range']
        self.asked.append((path, wanted))
        if path in self.redirects:
            request.send_response(302)
            request.send_header('Location', self.redirects[path])
            request.end_headers()
            return
        if path in self.codes or path not in self.files:
            request.send_error(self.codes.get(path, 404))
            return
        content, tag = self.files[path], self.tags.get(path)
        start = 0
        if wanted and request.headers['If-Range'] == tag:
            start = int(wanted.removeprefix('bytes=').removesuffix('-'))
        if start >= len(content):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/*')
        request.send_header('Content-Length', str(len(content) - start))
        if tag:
            request.send_header('ETag', tag)
        request.end_headers()
        request.wfile.write(content[start : self.breaks.get(path, len(content))])


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    site.address = f'http://127.0.0.1:{server.server_port}'
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    site.files = {f'/{name}': content for name, content in musclemap().items()}
    site.tags = {path: f'"{path}"' for path in site.files}
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def entry(site: Site) -> Entry:
    return Entry(
        name='back',
        version='0.3',
        kind='MuscleMap',
        home='https://example.org/home',
        folder=site.address,
        files=(RemoteFile(WEIGHTS), RemoteFile(CARD)),
        license='MIT',
        citation='Someone 2024',
        trained_on='scans of two people',
        regions=('lumbar',),
        read_in='example',
        unverified=('size',),
    )


@pytest.fixture
def models(tmp_path: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of models, where `entry` is the only one that can be fetched."""
    known(monkeypatch, entry)
    monkeypatch.setenv('BIDS_MUSCLE_MODELS', str(tmp_path / 'models'))
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / 'models'


def known(monkeypatch: pytest.MonkeyPatch, entry: Entry) -> None:
    monkeypatch.setattr(registry, 'registry', lambda: {entry.name: entry})
    for module in (fetching, catalogue):
        monkeypatch.setattr(module, 'registry', registry.registry)


def fetch(*words: str | Path) -> int:
    return main(['fetch', 'back', '--accept-licence', *map(str, words)])


def left(models: Path) -> set[str]:
    """Names of all files in the folder of models."""
    return {path.relative_to(models).as_posix() for path in models.rglob('*') if path.is_file()}


WHOLE = {'back/abdomen.json', 'back/abdomen.safetensors', 'back/fetched.json', 'pinned.json'}


def test_a_fetched_model_is_found_by_its_name(
    models: Path, site: Site, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fetch() == ExitCode.OK
    assert left(models) == WHOLE
    # Whoever may read one file, such as the user of a container, may read all.
    assert len({path.stat().st_mode for path in (models / 'back').iterdir()}) == 1
    bundle = find_model('back', 'lumbar')
    assert (bundle.name, bundle.version, bundle.path) == ('back', '0.3', models / 'back')
    assert bundle.card['license'] == 'MIT'
    assert bundle.card['limits'] == 'Trained on scans of two people.'
    state = load_model(bundle).networks[0].state_dict()
    theirs = torch.load(io.BytesIO(site.files[f'/{WEIGHTS}']), weights_only=True)
    assert all(torch.equal(state[name], theirs[name]) for name in theirs)
    # Neither the model nor a second fetch needs the server.
    site.asked.clear()
    monkeypatch.setattr(download, 'download', None)
    assert fetch() == ExitCode.OK
    assert not site.asked
    capsys.readouterr()
    assert main(['list']) == ExitCode.OK
    assert re.search(r'model   back 0.3, MuscleMap, MIT, .*/models/back', capsys.readouterr().out)
    assert main(['show', 'back']) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)['citation'] == 'Someone 2024'


def test_the_licence_is_shown_and_must_be_accepted(
    models: Path, site: Site, capsys: pytest.CaptureFixture
) -> None:
    assert main(['fetch', 'back']) == ExitCode.USAGE
    said = capsys.readouterr()
    assert 'Licence: MIT' in said.out
    assert 'Not verified: size' in said.out
    assert 'licence of back is not accepted: MIT' in said.err
    assert not models.exists()
    assert not site.asked
    main(['list'])
    assert 'fetch   back 0.3, lumbar, MIT' in capsys.readouterr().out


@pytest.mark.parametrize('change', ['nothing', 'content', 'no tag'])
def test_an_interrupted_download_goes_on(
    models: Path, site: Site, capsys: pytest.CaptureFixture, change: str
) -> None:
    """Only where the server says that its file is still the same, else from the start."""
    path, content = f'/{WEIGHTS}', site.files[f'/{WEIGHTS}']
    if change == 'no tag':
        del site.tags[path]
    site.breaks[path] = 1000
    assert fetch() == ExitCode.TEMPORARY
    said = capsys.readouterr().err
    assert f'stopped after 1000 of {len(content)} bytes' in said
    assert 'Run the same command again' in said
    assert not (models / 'back').exists()
    del site.breaks[path]
    if change == 'content':
        stream = io.BytesIO()
        torch.save(UNet(**NETWORK, norm='INSTANCE').state_dict(), stream)
        site.files[path], site.tags[path] = stream.getvalue(), '"new"'
    assert fetch() == ExitCode.OK
    assert left(models) == WHOLE
    pinned = json.loads((models / 'pinned.json').read_text())
    assert pinned['back'][WEIGHTS] == hashlib.sha256(site.files[path]).hexdigest()
    asked = [wanted for name, wanted in site.asked if name == path]
    assert asked == [None, None if change == 'no tag' else 'bytes=1000-']


def test_a_file_that_has_become_shorter_is_fetched_anew(models: Path, site: Site) -> None:
    part = models / '.back-0.3.part'
    part.mkdir(parents=True)
    (part / f'{WEIGHTS}.part').write_bytes(bytes(10**6))
    (part / f'{WEIGHTS}.tag').write_text(site.tags[f'/{WEIGHTS}'])
    assert fetch() == ExitCode.OK
    assert [wanted for _, wanted in site.asked] == ['bytes=1000000-', None, None]


@pytest.mark.parametrize('which', ['list', 'first fetch', 'size'])
def test_other_content_than_known_is_refused(
    models: Path, site: Site, entry: Entry, which: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    if which == 'first fetch':
        assert fetch() == ExitCode.OK
        shutil.rmtree(models / 'back')
        site.files[f'/{WEIGHTS}'] += b' '
    else:
        file = replace(entry.files[0], **{'sha256': '0' * 64} if which == 'list' else {'bytes': 9})
        known(monkeypatch, replace(entry, files=(file, entry.files[1])))
    assert fetch() == ExitCode.BAD_DATA
    said = capsys.readouterr().err
    expected = {
        'list': f'not {"0" * 64} as in the list of models',
        'first fetch': 'at the first download (pinned.json)',
        'size': f'is {len(site.files[f"/{WEIGHTS}"])} bytes, not 9',
    }
    assert expected[which] in said
    assert left(models) <= {'pinned.json'}


def test_redirects_are_followed_but_not_out_of_https(
    models: Path, site: Site, capsys: pytest.CaptureFixture
) -> None:
    site.files['/elsewhere'] = site.files.pop(f'/{WEIGHTS}')
    site.redirects[f'/{WEIGHTS}'] = f'{site.address}/elsewhere'
    assert fetch() == ExitCode.OK
    assert left(models) == WHOLE
    shutil.rmtree(models)
    for target in ('ftp://127.0.0.1/x', 'file:///etc/passwd'):
        site.redirects[f'/{WEIGHTS}'] = target
        assert fetch() in (ExitCode.BAD_DATA, ExitCode.NO_INPUT)
        assert WEIGHTS in capsys.readouterr().err
    site.redirects[f'/{WEIGHTS}'] = f'/{WEIGHTS}'
    assert fetch() == ExitCode.NO_INPUT
    assert left(models) == set()
    request = download.urllib.request.Request('https://example.org/x')
    with pytest.raises(ModelError, match='not HTTPS'):
        download._Redirects().redirect_request(request, None, 302, '', {}, 'http://example.org/')


@pytest.mark.parametrize(
    ('code', 'exit_code', 'said'),
    [
        (404, ExitCode.NO_INPUT, 'answered 404 Not Found: the file is no longer available'),
        (410, ExitCode.NO_INPUT, 'use --from FILE'),
        (503, ExitCode.TEMPORARY, 'Run the same command later'),
    ],
)
def test_answers_of_the_server(
    models: Path, site: Site, capsys: pytest.CaptureFixture, code: int, exit_code: int, said: str
) -> None:
    site.codes[f'/{CARD}'] = code
    assert fetch() == exit_code
    assert said in capsys.readouterr().err
    # What came whole is kept only where another try can succeed.
    whole = {f'.back-0.3.part/{WEIGHTS}'} if exit_code == ExitCode.TEMPORARY else set()
    assert left(models) == whole


def test_without_a_network(
    models: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    known(monkeypatch, replace(entry, folder='http://no-such-host.invalid'))
    assert fetch() == ExitCode.TEMPORARY
    assert 'no-such-host.invalid/abdomen.pth cannot be read' in capsys.readouterr().err
    assert list(models.iterdir()) == []


def test_without_space(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    usage = types.SimpleNamespace(free=10_000)
    monkeypatch.setattr(download.shutil, 'disk_usage', lambda _: usage)
    assert fetch() == ExitCode.IO_ERROR
    assert '0 MB free' in capsys.readouterr().err
    assert list(models.iterdir()) == []


def test_a_disk_that_fills_up(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(fetching.shutil, 'copyfile', full)
    assert fetch() == ExitCode.IO_ERROR
    assert 'no disk space is left' in capsys.readouterr().err
    assert list(models.iterdir()) == []


def record(site: Site, **changes: Any) -> dict[str, Any]:
    """Write a Zenodo record of the files of a site, as its API answers."""
    listed = [
        {
            'key': path[1:],
            'size': len(content),
            'checksum': f'md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}',
            'links': {'self': f'{site.address}{path}'},
        }
        for path, content in site.files.items()
    ]
    metadata = {'version': '7', 'license': {'id': 'cc-by-4.0'}}
    content = {'files': listed, 'metadata': metadata, **changes}
    site.files['/api'] = json.dumps(content).encode()
    return content


@pytest.fixture
def recorded(
    models: Path, site: Site, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    known(monkeypatch, replace(entry, version=None, folder=None, record=f'{site.address}/api'))
    return record(site)


def test_a_record_tells_version_licence_and_checksums(
    models: Path, site: Site, recorded: dict[str, Any], capsys: pytest.CaptureFixture
) -> None:
    assert fetch() == ExitCode.OK
    bundle = find_model('back', 'lumbar')
    assert bundle.version == '7'
    assert bundle.card['license'] == 'MIT; the record states cc-by-4.0'
    assert 'licence: MIT; the record states cc-by-4.0' in capsys.readouterr().err
    shutil.rmtree(models)
    site.files[f'/{WEIGHTS}'] = site.files[f'/{WEIGHTS}'][::-1]
    assert fetch() == ExitCode.BAD_DATA
    assert 'as in its record' in capsys.readouterr().err
    assert left(models) == set()


@pytest.mark.parametrize(
    ('answer', 'code', 'said'),
    [
        ({'files': []}, ExitCode.NO_INPUT, 'files of back are missing'),
        ({'files': None}, ExitCode.NO_INPUT, 'use --from FILE'),
        (
            {'files': [{'key': WEIGHTS, 'links': {'self': 'ftp://x/y'}}]},
            ExitCode.NO_INPUT,
            'missing',
        ),
        ([], ExitCode.BAD_DATA, 'is not valid JSON'),
        (None, ExitCode.BAD_DATA, 'is not valid JSON'),
    ],
)
def test_a_record_that_moved(
    models: Path, site: Site, recorded: dict[str, Any], capsys: pytest.CaptureFixture,
    answer: Any, code: int, said: str,
) -> None:  # fmt: skip
    site.files['/api'] = b'<html>' if answer is None else json.dumps(answer).encode()
    assert fetch() == code
    assert said in capsys.readouterr().err
    assert list(models.iterdir()) == []


def test_files_in_place_of_the_internet(
    models: Path, site: Site, entry: Entry, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    folder = tmp_path / 'stick'
    folder.mkdir()
    for name, content in musclemap().items():
        (folder / name).write_bytes(content)
    assert fetch('--from', folder / WEIGHTS) == ExitCode.NO_INPUT
    said = capsys.readouterr().err
    assert 'abdomen.json is not among' in said
    assert 'https://example.org/home' in said
    assert list(models.iterdir()) == []
    assert fetch('--from', folder / WEIGHTS, folder / CARD) == ExitCode.OK
    first = {path.name: path.read_bytes() for path in (models / 'back').iterdir()}
    shutil.rmtree(models / 'back')
    assert fetch('--from', folder) == ExitCode.OK
    assert {path.name: path.read_bytes() for path in (models / 'back').iterdir()} == first
    assert (folder / WEIGHTS).read_bytes() == musclemap()[WEIGHTS]
    # Where the list does not name a version, and no record was asked, that of the model counts.
    known(monkeypatch, replace(entry, version=None))
    shutil.rmtree(models)
    assert fetch('--from', folder) == ExitCode.OK
    assert json.loads((models / 'back/fetched.json').read_text())['version'] is None
    assert find_model('back', 'lumbar').version == '0.3'
    assert main(['list']) == ExitCode.OK
    assert 'model   back, MuscleMap, MIT' in capsys.readouterr().out
    assert not site.asked


def test_what_is_no_model_is_not_kept(
    models: Path, site: Site, capsys: pytest.CaptureFixture
) -> None:
    site.files[f'/{WEIGHTS}'] = b'<html>Please log in</html>'
    assert fetch() == ExitCode.BAD_DATA
    assert 'cannot be loaded as plain tensors' in capsys.readouterr().err
    assert left(models) == set()


def test_a_model_that_was_changed_after_its_fetch(models: Path) -> None:
    assert fetch() == ExitCode.OK
    path = models / 'back/abdomen.json'
    path.write_text(path.read_text() + ' ')
    with pytest.raises(ModelError, match=r'when it was fetched.*bids_muscle-model fetch back'):
        find_model('back', 'lumbar')
    (models / 'back/fetched.json').write_text('{}')
    with pytest.raises(ModelError, match=r'fetched.json cannot be read'):
        find_model('back', 'lumbar')


def test_a_folder_that_cannot_be_used(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (models / 'back').mkdir(parents=True)
    assert fetch() == ExitCode.CANNOT_CREATE
    assert 'Rename or delete that folder' in capsys.readouterr().err
    monkeypatch.setenv('BIDS_MUSCLE_MODELS', '/proc/models')
    assert fetch() == ExitCode.CANNOT_CREATE
    monkeypatch.delenv('BIDS_MUSCLE_MODELS')
    assert fetch() == ExitCode.USAGE
    assert 'BIDS_MUSCLE_MODELS is not set' in capsys.readouterr().err
    assert main(['fetch', 'no-such']) == ExitCode.USAGE
    with pytest.raises(ModelError, match='BIDS_MUSCLE_MODELS is not set'):
        find_model('back', 'lumbar')


def test_two_at_once(models: Path, capsys: pytest.CaptureFixture) -> None:
    models.mkdir()
    with fetching._alone(models):
        assert fetch() == ExitCode.TEMPORARY
    assert 'Another process is fetching' in capsys.readouterr().err
    assert fetch() == ExitCode.OK


class TinyNet(torch.nn.Module):
    """Takes the place of an nnU-Net."""

    def __init__(self, input_channels: int, num_classes: int, **_: Any) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(num_classes))


def training(top: str, **more: bytes) -> bytes:
    """Return the archive of an nnU-Net training."""
    names = {
        'network_class_name': 'a.PlainConvUNet',
        'arch_kwargs': {'n_stages': 2, 'features_per_stage': [4, 8]},
    }
    plan = {
        'architecture': names,
        'patch_size': [4, 16, 16],
        'spacing': [5.0, 2.0, 2.0],
        'normalization_schemes': ['ZScoreNormalization'],
    }
    state = {'scale': torch.arange(3.0)}
    stream = io.BytesIO()
    torch.save({'network_weights': state, 'init_args': {'plans': plan}}, stream)
    labels = {'background': 0, 'psoas left': 1, 'psoas right': 2}
    dataset = {'name': 'D1', 'labels': labels, 'channel_names': {'0': 'MR'}}
    files = {
        'plans.json': json.dumps({'configurations': {'3d_fullres': plan}}).encode(),
        'dataset.json': json.dumps(dataset).encode(),
        'fold_0/checkpoint_final.pth': stream.getvalue(),
        'fold_0/checkpoint_best.pth': b'not taken',
        'fold_0/../../../../harm': b'harm',
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, 'w') as archive:
        for name, content in files.items():
            archive.writestr(f'{top}/{name}', content)
        for name, content in more.items():
            archive.writestr(name, content)
    return packed.getvalue()


@pytest.fixture
def nnunet(models: Path, site: Site, entry: Entry, monkeypatch: pytest.MonkeyPatch) -> Entry:
    package = 'dynamic_network_architectures'
    unet = types.ModuleType('unet')
    unet.PlainConvUNet = TinyNet  # type: ignore[attr-defined]
    architectures = types.ModuleType('architectures')
    architectures.unet = unet  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    monkeypatch.setitem(sys.modules, f'{package}.architectures', architectures)
    site.files[f'/{ARCHIVE}'] = training('Dataset001/nnUNetTrainer__nnUNetPlans__3d_fullres')
    entry = replace(entry, kind='nnU-Net', files=(RemoteFile(ARCHIVE),), orientation='LPS')
    known(monkeypatch, entry)
    return entry


def test_an_nnunet_training_is_unpacked_and_converted(models: Path, nnunet: Entry) -> None:
    assert fetch() == ExitCode.OK
    inner = 'back/nnUNetTrainer__nnUNetPlans__3d_fullres'
    parts = ('plans.json', 'dataset.json', 'fold_0/checkpoint_final.safetensors')
    assert left(models) == {'pinned.json', 'back/fetched.json', *(f'{inner}/{p}' for p in parts)}
    assert not list(models.parent.rglob('harm'))
    bundle = find_model('back', 'lumbar')
    assert (bundle.name, bundle.path) == ('back', models / inner)
    assert bundle.card['orientation'] == 'LPS'
    (network,) = load_model(bundle).networks
    assert next(iter(network.parameters())).tolist() == [0, 1, 2]
    # Names of classes are in a file of their own: exchanged sides are another model.
    names = models / inner / 'dataset.json'
    text = names.read_text()
    swapped = text.replace('left', 'x').replace('right', 'left').replace('x', 'right')
    names.write_text(swapped)
    with pytest.raises(ModelError, match=r'dataset\.json.* has changed since it was fetched'):
        find_model('back', 'lumbar')
    names.write_text(text)
    # A checkpoint put beside the converted weights is not passed over.
    (models / inner / 'fold_0/checkpoint_final.pth').write_bytes(b'of a later training')
    with pytest.raises(ModelError, match=r'checkpoint_final\.safetensors lie beside each other'):
        find_model('back', 'lumbar')


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda whole: whole[: len(whole) // 2], 'is not a valid archive'),
        (lambda _: training('..'), 'contains 1 nnU-Net trainings'),
        (lambda _: training('a/b', **{'a/c/plans.json': b'{}'}), 'contains 2 nnU-Net trainings'),
        (lambda _: training('a/b__2d'), "it lacks '2d'"),
    ],
)
def test_an_archive_that_is_no_training(
    models: Path, site: Site, nnunet: Entry, capsys: pytest.CaptureFixture, change: Any, said: str
) -> None:
    site.files[f'/{ARCHIVE}'] = change(site.files[f'/{ARCHIVE}'])
    assert fetch() == ExitCode.BAD_DATA
    assert said in capsys.readouterr().err
    assert left(models) == set()


def test_the_list_of_models() -> None:
    """Only encrypted addresses, and each entry says where it is from and what is not known."""
    for name, each in registry.registry().items():
        assert re.fullmatch('[a-z0-9-]+', name)
        assert (each.record is None) != (each.folder is None)
        assert each.source.startswith('https://'), name
        assert each.files, name
        assert all([each.license, each.citation, each.trained_on, each.home, each.read_in]), name
        assert each.regions
        assert set(each.regions) <= {*REGIONS, *OTHER_REGIONS}
        assert 'that the address answers' in each.unverified
        assert name in fetching.describe_model(each)


def settings(tmp_path: Path, text: str, **flags: Any) -> Settings:
    path = tmp_path / 'site.toml'
    path.write_text(text)
    given = {'bids_dir': tmp_path, 'output_dir': tmp_path / 'out', 'level': 'participant'}
    return build_settings({**given, **flags}, read_config(path))


def test_the_models_of_a_site_take_the_place_of_the_shipped_ones(
    models: Path, tmp_path: Path
) -> None:
    site = '[models]\nlumbar = "back"\n'
    found, refusals = find_models(settings(tmp_path, site))
    assert found.keys() == {'cervical', 'spine'}
    assert refusals['lumbar'].message == f'The model back is not in {models}.'
    assert refusals['lumbar'].remedy.endswith('bids_muscle-model fetch back')
    assert fetch() == ExitCode.OK
    found, refusals = find_models(settings(tmp_path, site))
    shipped, _ = find_models(settings(tmp_path, ''))
    assert 'lumbar' not in refusals
    assert found['lumbar'].name == 'back'
    assert {key: found[key] for key in ('cervical', 'spine')} == {
        key: shipped[key] for key in ('cervical', 'spine')
    }
    # What the command line names counts more; where it is for another region it changes nothing.
    found, _ = find_models(settings(tmp_path, site, model='lumbar'))
    assert found['lumbar'] == shipped['lumbar']
    found, _ = find_models(settings(tmp_path, site, model='spine'))
    assert found['lumbar'].name == 'back'


def test_a_model_of_a_site_for_another_region_is_refused(models: Path, tmp_path: Path) -> None:
    assert fetch() == ExitCode.OK
    found, refusals = find_models(settings(tmp_path, '[models]\nneck = "back"\nspine = "back"\n'))
    assert found.keys() == {'lumbar'}
    assert 'none of them is a structure of the cervical region' in refusals['cervical'].message
    assert 'Use a model of bids_muscle for sagittal scans' in refusals['spine'].remedy
    with pytest.raises(ModelError, match='none of them is a structure of the cervical region'):
        find_models(settings(tmp_path, '[models]\nneck = "back"\nlumbar = "cervical"\n'))


def test_sidecars_name_licence_and_citation(models: Path, tmp_path: Path) -> None:
    assert fetch() == ExitCode.OK
    scan = Scan((('sub', '1'),), 'T1w', 'lumbar', ())
    bundle = find_model('back', 'lumbar')
    made = dseg_sidecar(scan, tmp_path, bundle, {}, None)
    assert made['ModelName'] == 'back'
    assert made['ModelVersion'] == '0.3'
    assert made['ModelSHA256'] == bundle.sha256
    assert (made['ModelLicense'], made['ModelCitation']) == ('MIT', 'Someone 2024')
    shipped = dseg_sidecar(scan, tmp_path, find_model(None, 'lumbar'), {}, None)
    assert 'ModelLicense' not in shipped


@pytest.mark.parametrize('recipe', ['Dockerfile', 'singularity.def'])
def test_an_image_may_hold_a_fetched_model(tmp_path: Path, recipe: str) -> None:
    """Its build argument FETCH is what follows ``bids_muscle-model fetch``; none fetches none."""
    text = (Path(__file__).parents[2] / recipe).read_text()
    line = next(line for line in text.splitlines() if '${FETCH:+' in line)
    command = line.strip().removeprefix('RUN ').replace('/models', str(tmp_path / 'models'))
    command = command.replace('/opt/bids_muscle/bin/', '')
    stub = tmp_path / 'bids_muscle-model'
    stub.write_text('#!/bin/sh\necho "$BIDS_MUSCLE_MODELS: $*"\n[ "$2" != moved ]\n')
    stub.chmod(0o755)
    for words in ('', 'back --accept-licence', 'moved'):
        shutil.rmtree(tmp_path / 'models', ignore_errors=True)
        environment = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'FETCH': words}
        done = subprocess.run(
            ['sh', '-ec', command], env=environment, capture_output=True, text=True
        )
        assert bool(done.returncode) == (words == 'moved')
        assert done.stdout == (f'{tmp_path}/models: fetch {words}\n' if words else '')


def test_nothing_but_the_download_asks_the_network() -> None:
    package = Path(fetching.__file__).parents[1]
    network = re.compile(
        r'^\s*(?:from|import) (?:urllib\.(?:request|error)|http|ftplib|requests|urllib3)\b',
        re.MULTILINE,
    )
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob('*.py')
        if network.search(path.read_text(encoding='utf-8'))
    }
    assert found == {'workflows/download.py'}
