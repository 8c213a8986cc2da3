"""What the images are built from is what setup.py asks for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize('extra', ['', 'loading'])
def test_the_lock_holds_every_requirement_with_its_hash(extra: str) -> None:
    locks = ['requirements.lock', *([f'requirements-{extra}.lock'] if extra else [])]
    pinned = {}
    for line in (line for lock in locks for line in (ROOT / lock).read_text().splitlines()):
        if not line.startswith('#'):
            match = re.fullmatch(r'([\w.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}', line)
            assert match, line
            assert canonicalize_name(match[1]) not in pinned, line
            pinned[canonicalize_name(match[1])] = match[2]
    wanted = [Requirement(text) for text in metadata.requires('bids_muscle') or []]
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        needed = not requirement.marker or requirement.marker.evaluate({'extra': extra})
        if name != 'torch' and needed:
            assert name in pinned, f'{name}: run .ci/lock'
            assert requirement.specifier.contains(pinned[name]), f'{name}: run .ci/lock'


def test_the_lock_of_cuda_holds_torch_and_what_it_needs_beside_the_other() -> None:
    pinned = _cuda()
    assert pinned['torch'] == _pinned()['torch'], 'run .ci/lock'
    assert {'triton', 'nvidia-cudnn-cu13', 'nvidia-cublas', 'nvidia-nccl-cu13'} <= set(pinned)
    assert not (set(pinned) - {'torch'}) & {canonicalize_name(name) for name in _pinned()}


def _cuda() -> dict[str, str]:
    lines = [line for line in (ROOT / 'cuda.lock').read_text().splitlines() if line[0] != '#']
    for line in lines:
        assert re.fullmatch(r'[a-z0-9-]+==\S+ --hash=sha256:[0-9a-f]{64}', line), line
    return dict(line.split()[0].split('==') for line in lines)


def test_the_recipes_take_the_same_extras_and_the_lock_of_cuda() -> None:
    for recipe in ('Dockerfile', 'singularity.def'):
        text = (ROOT / recipe).read_text()
        assert '${TORCH_LOCK:+-r /src/${TORCH_LOCK}}' in text
        assert 'TORCH_LOCK=cuda.lock' in text
        assert 'sbom-cuda.cdx.json' in text
        assert '${EXTRAS:+-r /src/requirements-${EXTRAS}.lock}' in text
        assert 'EXTRAS=loading' in text


def test_the_recipes_name_the_version_of_the_package() -> None:
    from bids_muscle import __version__

    for recipe in ('Dockerfile', 'singularity.def'):
        assert re.search(rf'version\W+{re.escape(__version__)}\b', (ROOT / recipe).read_text())


def test_the_recipes_start_from_one_image_pinned_by_its_digest() -> None:
    bases = {
        re.search(r'(?:ARG BASE=|From: )(\S+)', (ROOT / recipe).read_text())[1]  # type: ignore[index]
        for recipe in ('Dockerfile', 'singularity.def')
    }
    assert len(bases) == 1
    assert re.fullmatch(r'python:[\w.-]+@sha256:[0-9a-f]{64}', bases.pop())


def _pinned() -> dict[str, str]:
    lines = [
        line.split()[0].split('==')
        for path in ROOT.glob('requirements*.lock')
        for line in path.read_text().splitlines()
        if not line.startswith('#')
    ]
    torch = re.search("'(torch==[^']+)'", (ROOT / 'setup.py').read_text())
    assert torch
    return dict([*lines, torch[1].split('==')])


def test_the_notice_names_every_package_with_its_licence_and_holds_what_must_be_passed_on() -> (
    None
):
    text = (ROOT / 'NOTICE').read_text()
    named = dict(re.findall(r'^([\w.-]+) (\S+): \S', text, re.M))
    assert named == _pinned(), 'run .ci/notice'
    for words in ('GNU LESSER GENERAL PUBLIC LICENSE', 'Mozilla Public License'):
        assert words in text.replace('\n', ' ')


def test_the_bill_of_materials_is_the_lock() -> None:
    content = json.loads((ROOT / 'sbom.cdx.json').read_text())
    assert content['bomFormat'] == 'CycloneDX'
    found = {each['name']: each['version'] for each in content['components']}
    assert found == _pinned(), 'run .ci/notice'


def test_the_bill_of_materials_with_cuda_is_both_locks() -> None:
    content = json.loads((ROOT / 'sbom-cuda.cdx.json').read_text())
    found = {canonicalize_name(each['name']): each['version'] for each in content['components']}
    pinned = {canonicalize_name(name): version for name, version in _pinned().items()}
    assert found == pinned | _cuda(), 'run .ci/notice'


def test_the_notice_of_an_image_with_cuda_is_made_where_it_is_built(tmp_path: Path) -> None:
    """With packages that are here; those of CUDA are only there."""
    (tmp_path / 'x.lock').write_text(f'# a lock\nnumpy=={metadata.version("numpy")} --hash=x\n')
    command = [sys.executable, ROOT / '.ci/notice', tmp_path / 'x.lock']
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(rf'^numpy {metadata.version("numpy")}: .*BSD', said, re.M)


@pytest.mark.parametrize('recipe', ['Dockerfile', 'singularity.def'])
def test_the_recipes_verify_all_but_torch_before_torch_brings_them_unverified(recipe: str) -> None:
    text = (ROOT / recipe).read_text()
    assert text.index('--require-hashes') < text.index('torch==')
    assert 'NOTICE /src/sbom.cdx.json /opt/bids_muscle/' in text
