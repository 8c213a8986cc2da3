"""The editor in a real Chromium: draw, undo, save, measure again, rate, and find all again.

The browser reaches it below a path of a reverse proxy; that of Firefox reaches it directly.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from cohort import Run, rows
from reverse_proxy import reverse_proxy
from waitress.server import create_server

from bids_muscle.dataset.records import read_records
from bids_muscle.reports.ratings import read_ratings
from bids_muscle.review.access import LOOPBACK
from bids_muscle.review.server import create_app
from bids_muscle.review.state import ReviewState

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = os.environ.get('BIDS_MUSCLE_CHROMIUM') or next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
)
#: Chromium's sandbox needs a kernel feature that containers lack; WebGL without a GPU.
OPTIONS = (
    *('--no-sandbox', '--use-gl=angle', '--use-angle=swiftshader'),
    '--enable-unsafe-swiftshader',
)
PATIENCE_MS = 300_000
SCAN = 'sub-01_acq-dixon'
COUNT = 'editor.nv.drawBitmap.reduce((sum, each) => sum + (each === {}), 0)'
STEM = f'sub-01/anat/{SCAN}_seg-lumbarmuscles'

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason='no Chromium: apt-get install chromium, or set BIDS_MUSCLE_CHROMIUM'
)


@pytest.fixture
def served(run: Run, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Serve a copy of a finished person through a proxy; gives the output folder and the address.

    Nothing may be asked for beside the path under which the proxy has the server.
    """
    bids_dir, output_dir = tmp_path / 'bids', tmp_path / 'out'
    shutil.copytree(run.bids_dir / 'sub-01', bids_dir / 'sub-01')
    shutil.copy(run.bids_dir / 'dataset_description.json', bids_dir)
    for name in ('sub-01', 'logs/sub-01'):
        shutil.copytree(run.output_dir / name, output_dir / name)
    for name in ('dataset_description.json', 'sub-01.html'):
        shutil.copy(run.output_dir / name, output_dir)
    review = ReviewState(output_dir, LOOPBACK[:1], proxies=['localhost'])
    server = create_server(create_app(review), host=LOOPBACK[0], port=0, threads=4)
    thread = threading.Thread(target=server.run)
    thread.start()
    with reverse_proxy(server.effective_port) as (address, astray):
        yield output_dir, f'{address}?token={review.tokens.next}'
    review.measurements.stop()
    server.close()
    thread.join()
    assert astray == []


@pytest.fixture
def page() -> Iterator[Page]:
    """Give a page that must not complain or ask anybody but the server."""
    playwright = pytest.importorskip('playwright.sync_api')
    complaints: list[str] = []
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        page = chromium.new_page(viewport={'width': 1400, 'height': 900})
        page.set_default_timeout(PATIENCE_MS)
        page.on('console', lambda message: complaints.append(f'{message.type}: {message.text}'))
        page.on('pageerror', lambda error: complaints.append(str(error)))
        page.on('dialog', lambda dialog: dialog.accept())
        page.on(
            'request',
            lambda request: (
                None
                if request.url.startswith(('http://localhost:', 'data:', 'blob:'))
                else complaints.append(request.url)
            ),
        )
        yield page
        chromium.close()
    assert [each for each in complaints if 'GPU stall' not in each and 'WebGL' not in each] == []


def stroke(page: Page) -> None:
    """Draw in the upper half of the picture, where no muscle of the back is."""
    box = page.locator('#canvas').bounding_box()
    assert box
    x, y = box['x'] + box['width'] * 0.45, box['y'] + box['height'] * 0.25
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + box['width'] * 0.06, y, steps=4)
    page.mouse.up()


def drawn(page: Page, label: int) -> int:
    """Return how many voxels have a label."""
    found: int = page.evaluate(COUNT.format(label))
    return found


def test_a_reader_corrects_measures_and_rates(served: tuple[Path, str], page: Page) -> None:
    output_dir, address = served
    page.goto(address)
    page.wait_for_url('**/group_review.html*')
    page.fill('#rater', 'Anna')
    page.press('#rater', 'Tab')
    page.wait_for_url('**rater=Anna')
    page.click(f'[data-scan={SCAN}]')
    page.click('#viewer-edit')
    page.wait_for_selector('html[data-ready=yes]')
    place = page.inner_text('#slice')
    page.click('[data-view="0"]')
    page.locator('#canvas').hover()
    page.mouse.wheel(0, 100)
    page.locator('#slice', has_not_text=place).wait_for()
    assert re.search(r'slice \d+ \(0 to 11\), level (L\d|unknown), x ', page.inner_text('#slice'))

    before = drawn(page, 1)
    page.keyboard.press('2')
    page.keyboard.press('s')  # the other side: the right multifidus
    page.keyboard.press('b')
    stroke(page)
    page.wait_for_selector('#undo:enabled')
    after = drawn(page, 1)
    assert after > before
    page.keyboard.press('z')
    page.wait_for_selector('#undo:disabled')
    assert drawn(page, 1) == before
    # Another muscle is not overwritten while the chosen one is locked.
    page.keyboard.press('3')
    stroke(page)
    page.keyboard.press('1')
    there = drawn(page, 3)
    stroke(page)
    assert drawn(page, 3) == there
    page.keyboard.press('z')
    assert drawn(page, 1) == before
    stroke(page)
    page.keyboard.press('l')
    page.keyboard.press('1')
    stroke(page)
    changed = drawn(page, 1)
    assert changed == after
    page.click('#save')
    page.locator('#saved', has_text='Saved').wait_for()
    saved = nib.load(output_dir / f'{STEM}_desc-manualAnna_dseg.nii.gz')
    published = nib.load(output_dir / f'{STEM}_dseg.nii.gz')
    np.testing.assert_array_equal(saved.affine, published.affine)
    assert np.count_nonzero(np.asarray(saved.dataobj) == 1) == changed
    sidecar = json.loads((output_dir / f'{STEM}_desc-manualAnna_dseg.json').read_text())
    [record] = read_records(output_dir, '01')
    assert sidecar['ImagesSHA256'] == record.images_sha256 != ''

    volume = volume_of(output_dir)
    page.click('#measure')
    page.locator('#measuring', has_text=re.compile('^Measured|failed')).wait_for()
    assert page.inner_text('#measuring').startswith('Measured')
    row = page.locator('#measures tr', has_text='right multifidus').inner_text()
    assert '→' in row
    assert volume_of(output_dir) > volume
    assert f'{volume_of(output_dir):.3g}' in row
    assert 'drawn or corrected by hand' in (output_dir / 'sub-01.html').read_text()

    # The map of the network is still a start.
    for key, count in (
        ('network', before),
        (f'{Path(STEM).name}_desc-manualAnna_dseg.nii.gz', changed),
    ):
        with page.expect_response(f'**/labels/{key}'):
            page.select_option('#start', key)
        page.wait_for_timeout(500)
        assert drawn(page, 1) == count

    page.click('[data-rating=pass]')
    page.wait_for_selector('[data-rating=pass][aria-pressed=true]')
    (rating,) = read_ratings([output_dir / 'ratings/Anna.tsv'])
    assert (rating.scan, rating.rating, rating.rater) == (SCAN, 'pass', 'Anna')
    page.reload()
    page.wait_for_selector('html[data-ready=yes]')
    assert drawn(page, 1) == changed
    assert page.locator('.rate[aria-pressed=true]').inner_text() == 'Pass'
    assert 'Measured' in page.inner_text('#measuring')
    page.click('#wall')
    page.wait_for_selector('.badge.pass')


def volume_of(output_dir: Path) -> float:
    table = {row['name']: row for row in rows(output_dir / f'{STEM}_morph.tsv')}
    return float(table['right multifidus']['volume_ml'])
