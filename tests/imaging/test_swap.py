"""Fat-water swaps planted in phantoms."""

from __future__ import annotations

import numpy as np
import pytest
from dixon_phantom import DixonPhantom, make_dixon

from bids_muscle.imaging.conform import make_image
from bids_muscle.imaging.mask import body_mask
from bids_muscle.imaging.prepare import prepare_scan
from bids_muscle.imaging.swap import Swaps, exchange, find_swaps


@pytest.fixture(scope='module', params=['lumbar', 'cervical'])
def scan(request: pytest.FixtureRequest) -> DixonPhantom:
    shape = {'lumbar': (96, 96, 14), 'cervical': (96, 72, 14)}[request.param]
    return make_dixon(request.param, shape, bias=0)


def spacing_mm(scan: DixonPhantom) -> np.ndarray:
    return np.linalg.norm(scan.affine[:3, :3], axis=0)


def search(scan: DixonPhantom, water: np.ndarray, fat: np.ndarray) -> Swaps:
    mask = body_mask(water + fat, spacing_mm(scan))
    found = find_swaps(water, fat, mask, spacing_mm(scan))
    assert found is not None
    return found


def test_nothing_is_found_where_nothing_is_wrong(scan: DixonPhantom) -> None:
    found = search(scan, scan.water, scan.fat)
    assert not found.mask.any()
    assert not found.everywhere


def tissue(scan: DixonPhantom) -> np.ndarray:
    """Voxels with signal in which it matters which is which."""
    total = scan.water + scan.fat
    clear = np.abs(scan.fat / np.maximum(total, 1) - 0.5) > 0.2
    return clear & (total > 0.3 * np.median(total[total > 50]))


def test_a_region_is_found_and_nothing_else(scan: DixonPhantom) -> None:
    found = search(scan, *exchange(scan.water, scan.fat, scan.swap))
    inside, outside = scan.swap & tissue(scan), ~scan.swap & tissue(scan)
    assert inside.sum() > 200
    assert found.mask[inside].mean() > 0.9
    assert found.mask[outside].mean() < 0.02
    assert not found.everywhere


def test_a_scan_exchanged_as_a_whole_and_one_with_an_island(scan: DixonPhantom) -> None:
    whole = search(scan, scan.fat, scan.water)
    assert whole.everywhere
    assert whole.mask[tissue(scan)].mean() > 0.99
    island = search(scan, *exchange(scan.fat, scan.water, scan.swap))
    assert island.everywhere
    assert island.mask[scan.swap & tissue(scan)].mean() < 0.1


def test_what_is_found_does_not_depend_on_scale_or_side(scan: DixonPhantom) -> None:
    water, fat = exchange(scan.water, scan.fat, scan.swap)
    first = search(scan, water, fat).mask
    assert (search(scan, 7 * water, 7 * fat).mask == first).mean() > 0.9999
    mirrored = search(scan, water[::-1], fat[::-1]).mask[::-1]
    assert (mirrored == first).mean() > 0.999


def test_finer_voxels_are_searched_on_a_coarse_grid_and_refined() -> None:
    scan = make_dixon('lumbar', (224, 224, 6), bias=0)
    found = search(scan, *exchange(scan.water, scan.fat, scan.swap))
    inside, outside = scan.swap & tissue(scan), ~scan.swap & tissue(scan)
    assert found.mask[inside].mean() > 0.9
    assert found.mask[outside].mean() < 0.01


def test_equally_bright_water_and_fat_cannot_be_told() -> None:
    water = np.tile([100.0, 0.0], (40, 20, 4))
    mask = np.ones(water.shape, bool)
    assert find_swaps(water, 100 - water, mask, (3, 3, 4)) is None


def test_prepare_marks_and_on_request_corrects(scan: DixonPhantom) -> None:
    swapped = exchange(scan.water, scan.fat, scan.swap)
    images = {
        name: make_image(data, scan.affine)
        for name, data in zip(('water', 'fat'), swapped, strict=True)
    }
    marked, fixed = (
        prepare_scan(images, bias_correction=False, fix_swaps=fix) for fix in (False, True)
    )
    assert marked.swap is not None
    mask = np.asarray(marked.swap.dataobj) > 0
    assert np.array_equal(np.asarray(marked.images['water'].dataobj), swapped[0])
    assert any('--fix-swaps' in warning for warning in marked.warnings)
    assert any('exchanged back' in warning for warning in fixed.warnings)
    expected = exchange(*swapped, mask)
    for name, data in zip(('water', 'fat'), expected, strict=True):
        assert np.array_equal(np.asarray(fixed.images[name].dataobj), data)
    truth = scan.fat / np.maximum(scan.water + scan.fat, 1)
    error = np.abs(np.asarray(fixed.fat_fraction.dataobj) - truth)[scan.swap & tissue(scan)]
    assert np.nanmean(error) < 0.1
