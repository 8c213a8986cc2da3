"""A model is refused when it is not what its card says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bids_muscle.anatomy.labels import REGIONS
from bids_muscle.errors import ModelError
from bids_muscle.segmentation.bundle import (
    CARD,
    WEIGHTS,
    ModelBundle,
    load_networks,
    merge_bundles,
    read_bundle,
    write_bundle,
)
from bids_muscle.segmentation.catalogue import find_model, packaged_models
from bids_muscle.segmentation.compute import Compute
from bids_muscle.segmentation.predictor import Predictor


@pytest.fixture
def copy(bundle: ModelBundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle.path, tmp_path / 'model'))


def change(folder: Path, **fields: object) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **fields}))


@pytest.mark.parametrize('region', REGIONS)
def test_the_packaged_models_load(region: str) -> None:
    bundle = find_model(None, region)
    assert find_model(bundle.name, region) == bundle
    assert sum(p.numel() for p in load_networks(bundle)[0].parameters()) > 100_000


def test_the_packaged_models_are_small() -> None:
    files = packaged_models().glob('*/*.safetensors')
    assert sum(file.stat().st_size for file in files) < 40e6


def test_refuses_a_model_for_another_region(copy: Path) -> None:
    with pytest.raises(ModelError, match='lumbar region'):
        find_model(str(copy), 'cervical')


@pytest.mark.parametrize(
    'fields',
    [
        *(
            {'window_px': value}
            for value in ([], [8], [8, 8, 8, 8], 8, [0, 8], [8, 1e400], [8, 'x'])
        ),
        *({'spacing_mm': value} for value in (0, -1, float('nan'), float('inf'), None, [])),
        *({'background_weight': value} for value in (0, -1, float('nan'), 'x')),
        *({key: value} for key in ('name', 'version', 'sha256') for value in (None, 1, {})),
        *({'weights': value} for value in (1, [1], [None])),
    ],
    ids=str,
)
def test_refuses_a_card_with_impossible_values(copy: Path, fields: dict[str, object]) -> None:
    change(copy, **fields)
    with pytest.raises(ModelError, match='not a model card'):
        read_bundle(copy)


def test_refuses_an_unknown_name() -> None:
    with pytest.raises(ModelError, match='no model'):
        find_model('no-such-model', 'lumbar')


def test_refuses_weights_that_were_changed(copy: Path) -> None:
    content = bytearray((copy / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (copy / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match='SHA-256'):
        load_networks(find_model(str(copy), 'lumbar'))


def test_refuses_missing_weights(copy: Path) -> None:
    (copy / WEIGHTS).unlink()
    with pytest.raises(ModelError, match='cannot be read'):
        load_networks(find_model(str(copy), 'lumbar'))


@pytest.mark.parametrize(
    ('field', 'value'),
    [('channels', [8, 16, 32]), ('num_res_units', 2), ('name', 'VNet'), ('nonsense', 1)],
)
def test_refuses_weights_of_another_architecture(copy: Path, field: str, value: object) -> None:
    card = json.loads((copy / CARD).read_text())
    change(copy, network={**card['network'], field: value})
    with pytest.raises(ModelError):
        load_networks(find_model(str(copy), 'lumbar'))


@pytest.mark.parametrize(
    'fields', [{'format': 99}, {'labels': {'1': 'heart'}}, {'spacing_mm': None}, {'window_px': 3}]
)
def test_refuses_a_card_that_makes_no_sense(copy: Path, fields: dict) -> None:
    change(copy, **fields)
    with pytest.raises(ModelError):
        find_model(str(copy), 'lumbar')


def test_refuses_a_card_that_is_not_json(copy: Path) -> None:
    (copy / CARD).write_text('{')
    with pytest.raises(ModelError, match='cannot be read'):
        find_model(str(copy), 'lumbar')


def test_folds_become_one_model_that_averages_them(bundle: ModelBundle, tmp_path: Path) -> None:
    import torch

    other = load_networks(bundle)[0]
    with torch.no_grad():
        for value in other.parameters():
            value.mul_(0.9)
    second = write_bundle(tmp_path / 'second', other, {**bundle.card, 'measured': 1})
    merged = merge_bundles([bundle, second], tmp_path / 'merged', 'both')
    assert merged.name == 'both'
    assert [path.name for path in merged.weights] == ['fold-0.safetensors', 'fold-1.safetensors']
    assert [fold.get('measured') for fold in merged.card['folds']] == [None, 1]
    planes = torch.rand(1, 1, 32, 24)
    alone = [
        Predictor(one)._predict([planes], Compute('cpu', 'cpu', 1)) for one in (bundle, second)
    ]
    together = Predictor(merged)._predict([planes], Compute('cpu', 'cpu', 1))
    assert torch.allclose(together, (alone[0] + alone[1]) / 2, atol=1e-6)
    assert not torch.allclose(together, alone[0], atol=1e-3)


def test_one_fold_keeps_its_weights_and_checksum(bundle: ModelBundle, tmp_path: Path) -> None:
    copied = merge_bundles([bundle], tmp_path / 'one', 'renamed')
    assert (copied.sha256, copied.name) == (bundle.sha256, 'renamed')
    assert copied.weights == (tmp_path / 'one' / WEIGHTS,)


def test_refuses_a_fold_that_was_changed_or_is_of_another_network(
    bundle: ModelBundle, copy: Path, tmp_path: Path
) -> None:
    change(copy, spacing_mm=9)
    with pytest.raises(ModelError, match='spacing_mm differs'):
        merge_bundles([bundle, find_model(str(copy), 'lumbar')], tmp_path / 'm', 'x')
    merged = merge_bundles([bundle, bundle], tmp_path / 'twice', 'twice')
    shutil.copy(bundle.path / CARD, merged.weights[1])
    with pytest.raises(ModelError, match='SHA-256'):
        load_networks(merged)


def test_finds_a_model_in_the_folder_of_the_user(
    bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge_bundles([bundle], tmp_path / 'models' / 'folder', 'mine')
    monkeypatch.setenv('BIDS_MUSCLE_MODELS', str(tmp_path / 'models'))
    assert find_model('mine', 'lumbar').path == tmp_path / 'models' / 'folder'
