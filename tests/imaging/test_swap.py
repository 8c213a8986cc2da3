"""Fat-water swaps planted in phantoms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dixon_phantom import DixonPhantom, make_dixon
from scipy import ndimage

from bids_muscle.imaging import swap
from bids_muscle.imaging.conform import make_image
from bids_muscle.imaging.impossible import SWAPPED_BACK
from bids_muscle.imaging.mask import body_mask
from bids_muscle.imaging.prepare import prepare_scan
from bids_muscle.imaging.swap import Swaps, exchange, find_swaps

#: Neighbours in the plane.
FLAT = np.ones((3, 3, 1))


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
    # On the coarse grid alone, one in ten of these is wrong.
    border = ndimage.binary_dilation(scan.swap, FLAT, 2) & ~ndimage.binary_erosion(
        scan.swap, FLAT, 2
    )
    assert (found.mask == scan.swap)[border & tissue(scan)].mean() > 0.96


def cylinder(block: float = 0.0, brighter: float = 3.0) -> tuple[np.ndarray, ...]:
    """Return water, fat, body and a block in the middle of muscle with lumps of fat and a fat rim.

    Parameters
    ----------
    block
        Where above 0, the fat fraction of the block goes this far below and above one half, and
        its brightness goes with the fraction of water, as in a swap.
    brighter
        Signal of fat over that of water.
    """
    x, y = np.mgrid[:60, :60]
    radius = np.hypot(x - 29.5, y - 29.5)
    fraction = np.where((radius > 22) | ((x // 4 + y // 4) % 4 == 0), 0.95, 0.05)
    body, inside = radius < 28, (np.abs(x - 30) < 7) & (np.abs(y - 30) < 7) & (block > 0)
    fraction[inside] = 0.5 + block * np.where((x + 2 * y) % 5 < 2, 1, -1)[inside]
    fraction, body, inside = (
        np.repeat(part[..., None], 6, 2) for part in (fraction, body, inside)
    )
    noise = 1 + 0.02 * np.random.default_rng(0).standard_normal(body.shape)
    total = 100 * brighter ** np.where(inside, 1 - fraction, fraction) * noise * body
    return (1 - fraction) * total, fraction * total, body, inside


def test_a_mixture_of_water_and_fat_is_no_swap() -> None:
    for block, share in ((0.15, 0), (0.4, 1)):
        water, fat, body, inside = cylinder(block)
        found = find_swaps(water, fat, body, (3, 3, 4))
        assert found is not None
        assert found.mask[inside].mean() == share
        assert not found.mask[~inside].any()


def test_brightness_decides_on_the_whole_scan_unless_the_skin_contradicts_it() -> None:
    water, fat, body, _ = cylinder()
    exchanged = find_swaps(fat, water, body, (3, 3, 4))
    assert exchanged is not None
    assert exchanged.everywhere
    assert np.array_equal(exchanged.mask, body)
    # Fat that is darker than water, under the skin of a scan that is named rightly.
    water, fat, body, _ = cylinder(brighter=1 / 3)
    assert find_swaps(water, fat, body, (3, 3, 4)) is None


def test_equally_bright_water_and_fat_cannot_be_told() -> None:
    water = np.tile([100.0, 0.0], (40, 20, 4))
    mask = np.ones(water.shape, bool)
    assert find_swaps(water, 100 - water, mask, (3, 3, 4)) is None


@pytest.mark.parametrize(('brighter', 'searched'), [(1.0, False), (3.0, True)])
def test_a_search_that_was_not_possible_is_said(brighter: float, *, searched: bool) -> None:
    water, fat, _, _ = cylinder(brighter=brighter)
    affine = np.diag([3.0, 3, 4, 1])
    images = {'water': make_image(water, affine), 'fat': make_image(fat, affine)}
    for signals in (images, dict(reversed(images.items()))):
        scan = prepare_scan(signals, bias_correction=False)
        assert scan.swap_searched == searched
        assert any('could not be searched' in text for text in scan.warnings) != searched
    # Fat is not measured here in any case.
    copied = prepare_scan({'water': images['fat'], 'fat': images['fat']}, bias_correction=False)
    assert not any('could not be searched' in text for text in copied.warnings)


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
    assert any(warning.endswith(SWAPPED_BACK) for warning in fixed.warnings)
    expected = exchange(*swapped, mask)
    for name, data in zip(('water', 'fat'), expected, strict=True):
        assert np.array_equal(np.asarray(fixed.images[name].dataobj), data)
    truth = scan.fat / np.maximum(scan.water + scan.fat, 1)
    error = np.abs(np.asarray(fixed.fat_fraction.dataobj) - truth)[scan.swap & tissue(scan)]
    assert np.nanmean(error) < 0.1


def test_the_mean_around_is_that_of_known_voxels_alone() -> None:
    water, fat, body, _ = cylinder()
    scan = swap._describe(water, fat, body, np.array([2.0, 2.0, 4.0]))
    even = replace(scan, brightness=np.full_like(scan.brightness, 5), fraction=np.ones(body.shape))
    rest, lean = swap._beside_those_around(even, np.full(body.shape[2], 2.0))
    assert np.abs(rest[scan.known]).max() < 1e-4
    assert np.abs(lean[scan.known]).max() < 1e-4


def test_the_search_ends_when_the_slopes_have_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    water, fat, body, _ = cylinder()
    scan = swap._describe(water, fat, body, np.array([2.0, 2.0, 4.0]))
    slopes = iter([1.0, 2.0, 2.01, 5.0])
    solved = []
    monkeypatch.setattr(swap, '_slopes', lambda levels: np.full(body.shape[2], next(slopes)))
    monkeypatch.setattr(
        swap, '_solve', lambda field, pairs, free: solved.append(free) or np.zeros_like(free)
    )
    _, slope = swap._regions(scan)
    assert len(solved) == 2
    assert (slope == 2.01).all()


def test_a_border_stays_along_axes_that_were_not_thinned_out() -> None:
    water, fat, body, _ = cylinder()
    region = np.zeros_like(body)
    region[25:33, 25:33, 1:5] = True
    slope, spacing_mm = np.full(body.shape[2], 1.0, np.float32), np.array([2.0, 2.0, 4.0])
    same = swap._refine(region, water, fat, body, slope, np.array([1, 1, 1]), spacing_mm)
    moved = swap._refine(region, water, fat, body, slope, np.array([2, 2, 1]), spacing_mm)
    assert np.array_equal(same, region)
    assert not np.array_equal(moved, region)
