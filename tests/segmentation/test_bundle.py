"""A model is refused when it is not what its card says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bids_muscle.errors import ModelError
from bids_muscle.segmentation.bundle import CARD, WEIGHTS, ModelBundle, find_model, load_network


@pytest.fixture
def copy(bundle: ModelBundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle.path, tmp_path / 'model'))


def change(folder: Path, **fields: object) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **fields}))


def test_the_packaged_lumbar_model_loads() -> None:
    bundle = find_model(None, 'lumbar')
    assert find_model(bundle.name, 'lumbar') == bundle
    assert sum(p.numel() for p in load_network(bundle).parameters()) > 100_000


def test_there_is_no_cervical_model_yet() -> None:
    with pytest.raises(ModelError, match='--model'):
        find_model(None, 'cervical')


def test_refuses_a_model_for_another_region(copy: Path) -> None:
    with pytest.raises(ModelError, match='lumbar region'):
        find_model(str(copy), 'cervical')


def test_refuses_an_unknown_name() -> None:
    with pytest.raises(ModelError, match='no model'):
        find_model('no-such-model', 'lumbar')


def test_refuses_weights_that_were_changed(copy: Path) -> None:
    content = bytearray((copy / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (copy / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match='SHA-256'):
        load_network(find_model(str(copy), 'lumbar'))


def test_refuses_missing_weights(copy: Path) -> None:
    (copy / WEIGHTS).unlink()
    with pytest.raises(ModelError, match='cannot be read'):
        load_network(find_model(str(copy), 'lumbar'))


@pytest.mark.parametrize(
    ('field', 'value'),
    [('channels', [8, 16, 32]), ('num_res_units', 2), ('name', 'VNet'), ('nonsense', 1)],
)
def test_refuses_weights_of_another_architecture(copy: Path, field: str, value: object) -> None:
    card = json.loads((copy / CARD).read_text())
    change(copy, network={**card['network'], field: value})
    with pytest.raises(ModelError):
        load_network(find_model(str(copy), 'lumbar'))


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
