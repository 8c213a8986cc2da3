"""The pages in a real browser: rating by keyboard, files out and in, filters, hostile text."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import html5lib
import numpy as np
import pytest
from PIL import Image

from bids_muscle.errors import GridMismatchError
from bids_muscle.imaging.quality import quality_dictionary
from bids_muscle.reports.cohort_input import GroupOptions
from bids_muscle.reports.cohort_values import read_values
from bids_muscle.reports.group import write_group
from bids_muscle.reports.outliers import robust_scores
from bids_muscle.reports.outputs import read_scans, segmentations
from bids_muscle.reports.participant import write_participant_report
from bids_muscle.reports.ratings import merge_ratings, read_ratings
from bids_muscle.reports.review import review_page
from bids_muscle.reports.scan_data import scan_data

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

AddScan = Callable[..., Path]
HOSTILE = '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'
CHROMIUM = os.environ.get('BIDS_MUSCLE_CHROMIUM') or next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
)
PROBLEM = GridMismatchError('fat.nii.gz has another grid.', 'Export it again.').problem

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason='no Chromium: apt-get install chromium, or set BIDS_MUSCLE_CHROMIUM'
)


@pytest.fixture(scope='module')
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of this file."""
    playwright = pytest.importorskip('playwright.sync_api')
    # Chromium's sandbox needs a kernel feature that containers lack.
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu']
        )
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[[Path], Page]]:
    """Give a function that opens a page from disk in a fresh profile.

    Afterwards no page may have complained or asked for anything but files.
    """
    complaints: list[str] = []
    context = browser.new_context(viewport={'width': 1300, 'height': 900})
    page = context.new_page()
    page.on('console', lambda message: complaints.append(f'{message.type}: {message.text}'))
    page.on('pageerror', lambda error: complaints.append(str(error)))

    def check(request: Request) -> None:
        if not request.url.startswith(('file:', 'data:', 'blob:')):
            complaints.append(f'request to {request.url}')

    def failed(request: Request) -> None:
        # A picture that was still being read when the page was left is no failure.
        if request.failure != 'net::ERR_ABORTED':
            complaints.append(f'{request.url}: {request.failure}')

    page.on('request', check)
    page.on('requestfailed', failed)

    def go(path: Path) -> Page:
        page.goto(path.as_uri())
        return page

    yield go
    hacked = page.evaluate('window.hacked')
    context.close()
    assert complaints == []
    assert hacked is None


@pytest.fixture
def cohort(add_scan: AddScan, muscle_rows: Callable[..., list[dict[str, object]]]) -> Path:
    """Six scans whose MFI rises, the last one far out, and one that failed."""
    for number, mfi_pct in enumerate((10.0, 11.0, 12.0, 13.0, 14.0, 70.0)):
        output_dir = add_scan(f'0{number}', rows=muscle_rows(mfi_pct))
    add_scan('99', problem=PROBLEM)
    write_group(output_dir)
    return output_dir


def wall(page: Page) -> list[str]:
    """Names on the wall, in their order."""
    return [
        name.removesuffix('_acq-dixon') for name in page.locator('.tile-name').all_inner_texts()
    ]


def exported(page: Page, kind: str, folder: Path) -> Path:
    """Press an export button and save what comes."""
    with page.expect_download() as download:
        page.click(f'#export-{kind}')
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_rating_by_keyboard_alone(
    visit: Callable[[Path], Page], cohort: Path, tmp_path: Path
) -> None:
    page = visit(cohort / 'group_review.html')
    page.locator('#rater').focus()
    page.keyboard.type('A. B.')
    page.keyboard.press('Tab')
    page.keyboard.press('Enter')
    assert page.inner_text('#viewer-title') == 'sub-00_acq-dixon'
    assert page.locator('#viewer-outlined').is_visible()
    page.keyboard.press('o')
    assert not page.locator('#viewer-outlined').is_visible()
    page.keyboard.press('o')
    page.keyboard.press('p')
    page.keyboard.press('ArrowRight')
    page.keyboard.press('f')
    page.keyboard.press('c')
    page.keyboard.type(f'leaks, pass?\n{HOSTILE}')
    page.keyboard.press('Escape')
    page.keyboard.press('ArrowRight')
    page.keyboard.press('a')
    page.keyboard.press('m')
    page.keyboard.press('Space')
    page.keyboard.press('ArrowLeft')
    # What was typed into the comment rated nothing.
    assert page.locator('[aria-pressed=true].rate').inner_text().startswith('Fail')
    page.keyboard.press('u')
    assert page.inner_text('#viewer-title') == 'sub-03_acq-dixon'
    page.keyboard.press('Escape')
    assert not page.locator('#viewer').is_visible()
    assert page.inner_text('#progress-text') == '3 of 7 rated: 1 pass, 1 artefact, 1 fail'
    ratings = exported(page, 'tsv', tmp_path)
    assert ratings.name == 'ratings_AB.tsv'
    known = segmentations(read_scans(cohort))
    merged = merge_ratings(read_ratings([ratings]), known).verdicts
    assert {name[4:6]: verdict.rating for name, verdict in merged.items()} == {
        '00': 'pass',
        '01': 'fail',
        '02': 'artefact',
    }
    assert merged['sub-02_acq-dixon'].muscles == ('right multifidus',)
    assert merged['sub-01_acq-dixon'].comments == (f'A. B.: leaks, pass? {HOSTILE}',)
    # The cohort page shows the hostile comment as text.
    page = visit(write_group(cohort, GroupOptions(ratings=[ratings]))[-1])
    assert HOSTILE in page.inner_text('section[aria-labelledby=review]')


def open_viewer(visit: Callable[[Path], Page], path: Path) -> Page:
    """Open a participant page and wait until its scroller has its pictures."""
    page = visit(path)
    page.locator('#scan-1-viewer').scroll_into_view_if_needed()
    page.wait_for_selector('.viewer[data-ready]')
    return page


def test_all_slices_by_keyboard_and_mouse(
    visit: Callable[[Path], Page], add_scan: AddScan
) -> None:
    page = open_viewer(visit, write_participant_report(add_scan('01'), '01'))
    axial = page.locator('[data-plane=axial]')
    stage, place = axial.locator('[data-part=stage]'), axial.locator('[data-part=place]')
    image = axial.locator('image')
    stage.focus()
    page.keyboard.press('Home')
    assert place.inner_text() == 'slice 5, z +40 mm'
    seen = {image.get_attribute('x') + image.get_attribute('y')}
    for _ in range(5):
        page.keyboard.press('ArrowDown')
        seen.add(image.get_attribute('x') + image.get_attribute('y'))
    assert place.inner_text() == 'slice 0, z +0 mm'
    assert len(seen) == 6
    page.keyboard.press('ArrowDown')
    assert place.inner_text() == 'slice 0, z +0 mm'
    page.keyboard.press('u')
    assert place.inner_text() == 'slice 2, z +16 mm, least sure'
    stage.hover()
    page.mouse.wheel(0, -100)
    page.wait_for_function(
        "document.querySelector('[data-part=place]').textContent.startsWith('slice 3,')"
    )
    # Six of the eight muscles are in the slice; each can be hidden, and all of them.
    paths = axial.locator('path')
    assert [bool(path.get_attribute('d')) for path in paths.all()] == [True] * 6 + [False] * 2
    page.uncheck('[data-part=muscles] input >> nth=0')
    assert not paths.nth(0).is_visible()
    assert paths.nth(1).is_visible()
    stage.focus()
    page.keyboard.press('o')
    assert not paths.nth(1).is_visible()
    page.keyboard.press(']')
    assert paths.nth(1).get_attribute('fill-opacity') == '0.25'
    page.keyboard.press('+')
    canvas = axial.locator('svg')
    box = [float(n) for n in canvas.get_attribute('viewBox').split()]
    page.keyboard.press('r')
    whole = [float(n) for n in canvas.get_attribute('viewBox').split()]
    assert box[2] == pytest.approx(whole[2] / 1.5)
    assert paths.nth(0).is_visible()
    before = image.evaluate('node => node.style.filter')
    stage.hover()
    page.mouse.down()
    page.mouse.move(300, 300)
    page.mouse.up()
    assert image.evaluate('node => node.style.filter') != before


def test_a_warning_moves_the_scroller_to_its_slice(
    visit: Callable[[Path], Page], add_scan: AddScan
) -> None:
    output_dir = add_scan('01', warnings=('Psoas is missing in slice 2.',))
    page = visit(write_participant_report(output_dir, '01'))
    place = page.locator('[data-plane=axial] [data-part=place]')
    page.click('a[data-slice]')  # before the scroller has started
    page.wait_for_selector('.viewer[data-ready]')
    assert place.inner_text().startswith('slice 2, z +16 mm')
    page.locator('[data-plane=axial] [data-part=stage]').focus()
    page.keyboard.press('Home')
    assert place.inner_text().startswith('slice 5')
    page.click('a[data-slice]')
    assert place.inner_text().startswith('slice 2')


def test_planes_follow_each_other(visit: Callable[[Path], Page], add_scan: AddScan) -> None:
    """The left multifidus of the small scan has its middle at x 49, y 25 mm, in all slices."""
    page = open_viewer(visit, write_participant_report(add_scan('01'), '01'))
    words = page.locator('[data-part=place]')
    page.click('[data-go="2"]')
    assert words.all_inner_texts()[1].endswith(('y +24 mm', 'y +26 mm'))
    assert words.all_inner_texts()[2].endswith(('x +48 mm', 'x +50 mm'))
    for plane in ('coronal', 'sagittal'):
        shown = page.locator(f'[data-plane={plane}] path >> nth=1')
        assert shown.get_attribute('d')
    # A click on the right psoas in the axial slice: the others go there.
    [box] = [page.locator('[data-plane=axial] path >> nth=4').bounding_box()]
    page.mouse.click(box['x'] + box['width'] / 2, box['y'] + box['height'] / 2)
    assert words.all_inner_texts()[1].endswith(('y +60 mm', 'y +62 mm'))
    assert words.all_inner_texts()[2].endswith(('x +76 mm', 'x +78 mm'))
    # Only the psoas is in that coronal slice.
    paths = page.locator('[data-plane=coronal] path')
    drawn = [bool(path.get_attribute('d')) for path in paths.all()]
    assert drawn == [False] * 4 + [True] * 2 + [False] * 2
    hidden = "document.querySelector('.crosshair').style.display"
    assert page.evaluate(hidden) == ''
    # Zooming goes to the crosshair, in all planes.
    page.locator('[data-plane=coronal] [data-part=stage]').focus()
    for _ in range(6):
        page.keyboard.press('+')
    for plane in ('axial', 'coronal', 'sagittal'):
        canvas = page.locator(f'[data-plane={plane}] svg')
        left, top, width, height = (float(n) for n in canvas.get_attribute('viewBox').split())
        across = float(canvas.locator('.crosshair').nth(0).get_attribute('x1'))
        down = float(canvas.locator('.crosshair').nth(1).get_attribute('y1'))
        assert left < across < left + width, plane
        assert top < down < top + height, plane
    page.keyboard.press('x')
    assert page.evaluate(hidden) == 'none'
    page.keyboard.press('ArrowDown')
    assert words.all_inner_texts()[1].endswith(('y +58 mm', 'y +60 mm'))


def test_the_wheel_changes_slices_without_a_click_and_does_not_trap_the_page(
    visit: Callable[[Path], Page], add_scan: AddScan
) -> None:
    page = open_viewer(visit, write_participant_report(add_scan('01'), '01'))
    stage = page.locator('[data-plane=axial] [data-part=stage]')
    slider = page.locator('[data-plane=axial] [data-part=slice]')
    stage.scroll_into_view_if_needed()
    slice_of, scrolled = slider.input_value, lambda: page.evaluate('scrollY')
    box = stage.bounding_box()
    x, y = box['x'] + box['width'] / 3, box['y'] + box['height'] / 3
    page.mouse.move(x, y)
    page.mouse.move(x + 9, y + 9)
    slider.fill('3')
    page.wait_for_timeout(500)  # longer than the pause that ends a turn of the wheel
    before, at = int(slice_of()), scrolled()
    page.mouse.wheel(0, 100)
    page.wait_for_function(
        "wanted => document.querySelector('[data-part=slice]').value === wanted",
        arg=str(before - 1),
    )
    assert scrolled() == at
    # At the last slice a new turn of the wheel belongs to the page.
    slider.fill('0')
    page.wait_for_timeout(500)
    page.mouse.wheel(0, 100)
    page.wait_for_function('at => scrollY > at', arg=at)
    assert slice_of() == '0'


def test_outlines_blink_and_paths_are_copied(
    visit: Callable[[Path], Page], add_scan: AddScan
) -> None:
    label_map = 'sub-01/anat/sub-01_acq-dixon_seg-lumbarmuscles_dseg.nii.gz'
    output_dir = add_scan('01', outputs=(label_map,))
    page = open_viewer(visit, write_participant_report(output_dir, '01'))
    overlay = "document.querySelector('[data-part=canvas] g').style.display"
    page.locator('[data-plane=axial] [data-part=stage]').focus()
    page.keyboard.press('b')
    for shown in ('none', '', 'none'):
        page.wait_for_function(f"() => {overlay} === '{shown}'")
    page.keyboard.press('b')
    assert page.evaluate(overlay) == ''
    page.evaluate("""() => {
      Object.defineProperty(navigator, 'clipboard', { value: {
        writeText: async (text) => { window.copied = text; } } });
    }""")
    page.locator('details', has=page.locator('[data-here]')).evaluate(
        'node => { node.open = true; }'
    )
    page.click('[data-here]')
    page.wait_for_function('() => window.copied')
    assert page.evaluate('window.copied') == str(output_dir / label_map)


def test_paper_has_all_columns_and_few_pages(
    visit: Callable[[Path], Page], add_scan: AddScan
) -> None:
    settings = '[input]\nbids_dir = "/data"\noutput_dir = "/out"\n'
    page = visit(write_participant_report(add_scan('01', settings=settings), '01'))
    page.emulate_media(media='print', color_scheme='dark')
    page.set_viewport_size({'width': 703, 'height': 1030})  # A4 without its margins
    wide = """() => [...document.querySelectorAll('table, figure, pre, p')].filter(
      each => each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML)"""
    assert page.evaluate(wide) == []
    assert page.evaluate(
        "getComputedStyle(document.querySelector('section')).backgroundColor"
    ) == ('rgb(255, 255, 255)')
    assert not page.locator('h3', has_text='All slices').is_visible()
    sheets = len(re.findall(rb'/Type\s*/Page\b', page.pdf(prefer_css_page_size=True)))
    assert 2 <= sheets <= 6


def test_tables_on_paper_have_headings(visit: Callable[[Path], Page], cohort: Path) -> None:
    page = visit(cohort / 'group.html')
    page.emulate_media(media='print')
    buttons = page.locator('thead button:visible')
    assert buttons.count() > 0
    assert all(button.bounding_box()['height'] > 5 for button in buttons.all())
    assert not page.locator('details:not([open])').first.is_visible()


def test_window_and_level_are_grey_levels(
    visit: Callable[[Path], Page], add_scan: AddScan
) -> None:
    page = open_viewer(visit, write_participant_report(add_scan('01'), '01'))
    page.uncheck('[data-part=outlines]')
    page.uncheck('[data-part=crosshair]')
    canvas = page.locator('[data-plane=axial] svg')

    def body_grey() -> float:
        """Grey of the body, which is not at the ends of the scale."""
        picture = np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert('L'))
        high, wide = picture.shape
        return float(
            np.median(picture[int(high * 0.45) : int(high * 0.55), wide // 4 : wide // 2])
        )

    plain = body_grey()
    assert 20 < plain < 120
    for window, level in ((50, 30), (150, 40), (60, 20)):
        page.locator('[data-part=window]').fill(str(window))
        page.locator('[data-part=level]').fill(str(level))
        wanted = 255 * np.clip((plain / 255 - level / 100) / (window / 100) + 0.5, 0, 1)
        assert body_grey() == pytest.approx(wanted, abs=6)


def test_one_slice_and_a_broken_sheet(
    visit: Callable[[Path], Page], add_scan: AddScan, one_slice: dict[str, bytes]
) -> None:
    add_scan('01', pictures=one_slice)
    output_dir = add_scan('02', pictures={**one_slice, 'coronal': b'broken'})
    page = open_viewer(visit, write_participant_report(output_dir, '01'))
    words = page.locator('[data-part=place]')
    assert words.all_inner_texts()[0].startswith('slice 0, z')
    page.locator('[data-plane=axial] .stage').focus()
    for key in ('ArrowDown', 'n', 'u', 'PageUp'):
        page.keyboard.press(key)
    assert words.all_inner_texts()[0].startswith('slice 0, z')
    assert page.locator('[data-plane=axial] path').first.get_attribute('d')
    page = open_viewer(visit, write_participant_report(output_dir, '02'))
    assert words.all_inner_texts()[1] == 'The picture with these slices is broken.'
    assert words.all_inner_texts()[2].startswith('slice ')


def test_pictures_flicker_by_mouse_and_key(
    visit: Callable[[Path], Page], add_scan: AddScan
) -> None:
    page = visit(write_participant_report(add_scan('01'), '01'))
    assert page.locator('.flicker').count() == 3
    for number in range(3):
        frame = page.locator('.flicker').nth(number)
        second = frame.locator('img').nth(1)
        assert frame.locator('img').nth(0).bounding_box() == second.bounding_box()
        page.mouse.move(0, 0)
        assert not second.is_visible()
        frame.hover()
        second.wait_for(state='visible')
        page.mouse.move(0, 0)
        assert not second.is_visible()
        frame.focus()
        page.keyboard.press('f')
        assert second.is_visible()
        assert frame.get_attribute('aria-pressed') == 'true'
        page.keyboard.press('Enter')
        assert not second.is_visible()


def test_outlines_lie_on_the_picture(visit: Callable[[Path], Page], add_scan: AddScan) -> None:
    """Muscles of the small scan are white blocks: what is outlined is white, the rest is not."""
    page = open_viewer(visit, write_participant_report(add_scan('01'), '01'))
    page.locator('[data-part=opacity]').fill('0')
    page.click('[data-go="1"]')
    page.uncheck('[data-part=outlines]')
    page.uncheck('[data-part=crosshair]')
    for plane, shown in (('axial', 6), ('coronal', 4), ('sagittal', 1)):
        canvas = page.locator(f'[data-plane={plane}] svg')
        page.uncheck('[data-part=outlines]')
        picture = np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert('L')).astype(int)
        page.check('[data-part=outlines]')
        frame = canvas.bounding_box()
        paths = [path for path in canvas.locator('path').all() if path.get_attribute('d')]
        assert len(paths) == shown
        for path in paths:
            box = path.bounding_box()
            left, top = box['x'] - frame['x'], box['y'] - frame['y']
            width, height = box['width'], box['height']
            margin = 9  # two thirds of a voxel, over which the picture is smooth
            inside = picture[
                int(top + margin) : int(top + height - margin),
                int(left + margin) : int(left + width - margin),
            ]
            # In axial slices no muscle is whiter than two thirds.
            assert inside.min() > (150 if plane == 'axial' else 170), plane
            beside = picture[
                int(top + margin) : int(top + height - margin),
                max(int(left - margin) - 4, 0) : int(left - margin),
            ]
            if plane == 'coronal' and path is not paths[2]:
                continue  # another muscle lies beside it
            if plane == 'axial':
                beside = picture[
                    int(top - margin) - 4 : int(top - margin), int(left) : int(left + width)
                ]
            assert beside.mean() < 150, plane


@pytest.mark.parametrize('kind', ['tsv', 'json'])
def test_ratings_resume_and_come_back(
    visit: Callable[[Path], Page], cohort: Path, tmp_path: Path, kind: str
) -> None:
    page = visit(cohort / 'group_review.html')
    page.fill('#rater', 'AB')
    page.click('#start')
    for key in ('p', 'ArrowRight', 'f', 'm', 'Space', 'c'):
        page.keyboard.press(key)
    page.keyboard.type('"quoted"\ttab')
    page.reload()
    assert page.inner_text('#progress-text').startswith('2 of 7 rated: 1 pass')
    assert page.input_value('#rater') == 'AB'
    path = exported(page, kind, tmp_path)
    page.evaluate('localStorage.clear()')
    page.reload()
    assert page.inner_text('#progress-text').startswith('0 of 7')
    page.set_input_files('#import-file', path)
    page.get_by_text('2 ratings imported').wait_for()
    assert page.inner_text('#progress-text') == '2 of 7 rated: 1 pass, 0 artefact, 1 fail'
    page.click('[data-scan=sub-01_acq-dixon]')
    assert page.locator('#muscles input:checked').input_value() == 'right multifidus'
    assert page.input_value('#comment').split() == ['"quoted"', 'tab']


def test_ratings_of_another_person_replace_none(
    visit: Callable[[Path], Page], cohort: Path, tmp_path: Path
) -> None:
    page = visit(cohort / 'group_review.html')
    page.fill('#rater', 'AB')
    page.click('#start')
    for key in ('p', 'ArrowRight', 'm', 'Space'):
        page.keyboard.press(key)
    page.keyboard.press('Escape')
    # A mark without a rating would be lost without a word.
    page.get_by_text('Without a rating, marks and comments are not exported: rate 1').wait_for()
    path = exported(page, 'json', tmp_path)
    assert '1 ratings exported. Without a rating' in page.inner_text('#message')
    content = json.loads(path.read_text())
    content['ratings'][0].update(rating='fail', rater='CD', rated_at='2999-01-01T00:00:00Z')
    path.write_text(json.dumps(content))
    page.set_input_files('#import-file', path)
    page.get_by_text('0 ratings imported, left out: 1 of another rater').wait_for()
    assert page.inner_text('#progress-text').startswith('1 of 7 rated: 1 pass')
    # The server keeps a file for each person: theirs are not saved as those of this one.
    scans = read_scans(cohort)
    values = read_values(scans)
    data = scan_data(values, {}, robust_scores(values, ['volume_ml']))
    served = {'rater': 'AB', 'readonly': False, 'ratings': {}}
    own = cohort / 'served.html'
    own.write_text(''.join(review_page(scans, data, cohort, served)))
    page = visit(own)
    page.set_input_files('#import-file', path)
    page.get_by_text('0 ratings imported, left out: 1 of another rater').wait_for()


def test_another_segmentation_is_not_rated_yet(
    visit: Callable[[Path], Page], cohort: Path
) -> None:
    page = visit(cohort / 'group_review.html')
    page.click('#start')
    for key in ('p', 'ArrowRight', 'p'):
        page.keyboard.press(key)
    [labels] = cohort.glob('sub-00/anat/*_dseg.nii.gz')
    labels.write_bytes(b'corrected')
    write_group(cohort)
    page = visit(cohort / 'group_review.html')
    assert page.inner_text('#progress-text').startswith('1 of 7')
    assert 'not rated' in page.inner_text('[data-scan=sub-00_acq-dixon]')
    assert 'pass' in page.inner_text('[data-scan=sub-01_acq-dixon]')


def test_foreign_and_broken_files_change_nothing(
    visit: Callable[[Path], Page], cohort: Path, tmp_path: Path
) -> None:
    page = visit(cohort / 'group_review.html')
    page.click('#start')
    page.keyboard.press('p')
    page.keyboard.press('Escape')
    page.fill('#rater', 'AB')
    path = exported(page, 'json', tmp_path)
    content = json.loads(path.read_text())
    content['ratings'][0].update(scan=HOSTILE)
    for text, said in (
        (json.dumps(content), 'seems to belong to another dataset'),
        ('{"half', 'is not a rating file'),
        (HOSTILE, 'is not a rating file'),
        (path.read_text().replace('"pass"', '"toString"'), 'left out: 1 broken'),
        (path.read_text().replace(content['ratings'][0]['segmentation'], 'x'), 'of another segm'),
        ('{"format": "bids_muscle ratings", "ratings": [null, 5]}', 'left out: 2 broken'),
        (json.dumps({**content, 'ratings': content['ratings'] * 2}), 'rates a scan more than'),
    ):
        path.write_text(text)
        page.set_input_files('#import-file', path)
        page.get_by_text(said).wait_for()
        assert page.inner_text('#progress-text').startswith('1 of 7 rated: 1 pass')
        page.evaluate("document.getElementById('message').textContent = ''")


def test_the_wall_is_sorted_and_filtered(visit: Callable[[Path], Page], cohort: Path) -> None:
    page = visit(cohort / 'group_review.html')
    assert wall(page) == [f'sub-0{k}' for k in range(6)] + ['sub-99']
    page.select_option('#sort', 'score')
    page.check('#descending')
    assert wall(page)[0] == 'sub-05'
    assert wall(page)[-1] == 'sub-99'
    group = page.locator('#sort optgroup').first
    assert group.get_attribute('label') == 'Muscle fat infiltration (%)'
    page.select_option('#sort', group.locator('option').first.get_attribute('value'))
    page.uncheck('#descending')
    # A scan without the measure comes last in either direction.
    assert wall(page) == [f'sub-0{k}' for k in range(6)] + ['sub-99']
    page.check('#filter-outlier')
    assert wall(page) == ['sub-05']
    page.uncheck('#filter-outlier')
    page.select_option('#filter-light', 'failed')
    assert wall(page) == ['sub-99']
    assert page.locator('.no-picture').is_visible()
    page.select_option('#filter-light', '')
    page.click('[data-scan=sub-03_acq-dixon]')
    page.keyboard.press('f')
    page.keyboard.press('Escape')
    page.select_option('#filter-rating', 'fail')
    assert wall(page) == ['sub-03']
    page.select_option('#filter-rating', 'unrated')
    assert 'sub-03' not in wall(page)
    page.fill('#filter-text', 'SUB-04')
    assert wall(page) == ['sub-04']
    page.fill('#filter-text', HOSTILE)
    assert page.inner_text('#page-text') == 'No scan fits the filters.'


def people_of(number: int) -> dict[str, str]:
    """Women in Basel whose age rises, and men in Perth."""
    sex, site = (('F', 'Basel'), ('M', 'Perth'))[number % 2]
    return {'sex': sex, 'site': site, 'age': str(20 + number)}


def described(page: Page) -> dict[str, list[str]]:
    """Return number, median, quartiles and range of each muscle in the summary."""
    page.locator('#summary').evaluate('node => { node.parentElement.open = true; }')
    lines = page.locator('#summary tbody tr').all()
    return {
        line.locator('th').inner_text(): line.locator('td').all_inner_texts() for line in lines
    }


def assert_valid(page: Page) -> None:
    """Check that what the scripts made of a page is HTML."""
    validator = html5lib.HTMLParser()
    validator.parse(page.content())
    assert validator.errors == []


def test_the_cohort_is_filtered(
    visit: Callable[[Path], Page],
    add_scan: AddScan,
    muscle_rows: Callable[..., list[dict[str, object]]],
    tmp_path: Path,
) -> None:
    """Charts, tables and counts follow the filters; what is excluded is in none of the charts."""
    mfi_pct = [10.0, 11.0, 12.5, 13.0, 14.0, 70.0, 15.0, 18.25]
    for number, value in enumerate(mfi_pct):
        add_scan(f'0{number}', rows=muscle_rows(value), participant_info=people_of(number))
    output_dir = add_scan('99', problem=PROBLEM, participant_info=people_of(0))
    exclude = tmp_path / 'exclude.tsv'
    exclude.write_text('participant_id\tmuscle\nsub-07\tright multifidus\n')
    page = visit(write_group(output_dir, GroupOptions(exclude=exclude))[-1])
    assert page.inner_text('#count') == '9 of 9 scans of this series'
    right = np.array(mfi_pct[:-1]) + 1
    low, middle, high = np.percentile(right, [25, 50, 75])
    assert described(page)['right multifidus'] == [
        '7',
        f'{middle:g}',
        f'{low:.3g} to {high:.3g}',
        '11 to 71',
    ]
    assert described(page)['left multifidus'][0] == '8'
    counts = page.locator('#distribution .count').all_text_contents()
    assert counts == ['n = 7', *['n = 8'] * 6, 'no value']
    assert page.locator('#distribution .box').count() == 7
    # One stop of the tabulator for the chart, then from dot to dot with the arrows.
    dots = page.locator('#distribution a')
    assert dots.count() == 7 + 6 * 8
    assert [dot.get_attribute('tabindex') for dot in dots.all()[:2]] == ['0', '-1']
    dots.first.focus()
    page.keyboard.press('ArrowRight')
    assert page.evaluate('document.activeElement.getAttribute("href")') == 'sub-01.html'
    assert 'sub-05' in page.locator('#outliers tbody th').first.inner_text()
    page.select_option('#filter-sex', 'women')
    assert page.inner_text('#count') == '5 of 9 scans of this series'
    assert described(page)['left multifidus'][:2] == ['4', '15.3']
    # Four values are no distribution.
    assert page.locator('#distribution .box').count() == 0
    # The far value is a man's.
    assert page.locator('#outliers tbody tr').count() == 0
    page.locator('#values').evaluate('node => { node.parentElement.open = true; }')
    page.click('#values th:has-text("Age")')
    page.click('#values th:has-text("Age")')
    assert page.locator('#values tbody th').first.inner_text() == 'sub-06_acq-dixon'
    assert page.locator('#values [aria-sort]').get_attribute('aria-sort') == 'descending'
    page.click('#filter-reset')
    page.select_option('#split', 'site')
    assert described(page)['left multifidus Perth'][0] == '4'
    page.select_option('#filter-site', 'Perth')
    page.select_option('#measure', label='Volume (ml)')
    assert described(page)['left multifidus Perth'][:2] == ['4', '41']
    page.click('#filter-reset')
    page.select_option('#filter-light', 'failed')
    assert page.locator('#remarks tbody tr').all_inner_texts() == [
        'sub-99_acq-dixon\tFailed\tn/a\tfat.nii.gz has another grid. Export it again.'
    ]
    assert page.inner_text('#totals tbody').split() == ['acq-dixon', '0', '1', '0', '0']
    assert_valid(page)
    page.fill('#filter-text', 'nobody')
    assert page.inner_text('#count') == '0 of 9 scans of this series'


def test_columns_of_the_participants_filter_split_and_colour(
    visit: Callable[[Path], Page],
    add_scan: AddScan,
    muscle_rows: Callable[..., list[dict[str, object]]],
) -> None:
    for number in range(12):
        info = {
            'arm': 'back pain' if number % 3 else 'control',
            'pain': str(number) if number else 'n/a',
            'sex': 'F' if number % 2 else 'M',
        }
        output_dir = add_scan(
            f'{number:02d}', rows=muscle_rows(10.0 + number), participant_info=info
        )
    page = visit(write_group(output_dir, GroupOptions(groups=['arm']))[-1])
    assert page.locator('#tested').is_hidden()
    page.select_option('#split', 'arm')
    found = described(page)
    assert (found['left multifidus control'][0], found['left multifidus back pain'][0]) == (
        '4',
        '8',
    )
    assert page.inner_text('#tested').startswith('arm was not tested: fewer than two groups')
    page.select_option('#colour', label='arm')
    assert page.locator('#tested').is_visible()
    assert page.locator('#distribution .legend li').all_inner_texts() == [' control', ' back pain']
    colours = page.locator('#distribution .dot').evaluate_all(
        'dots => dots.map(dot => dot.getAttribute("fill"))'
    )
    assert len(set(colours)) == 2
    page.select_option('#split', 'pain')
    assert found.keys() != described(page).keys()
    assert described(page)['left multifidus n/a'][0] == '1'
    page.select_option('#filter-column', label='pain')
    page.fill('#filter-from', '3')
    page.fill('#filter-to', '6.5')
    assert page.inner_text('#count') == '4 of 12 scans of this series'
    page.select_option('#filter-column', label='arm')
    page.select_option('#filter-level', 'control')
    assert page.inner_text('#count') == '4 of 12 scans of this series'
    page.click('#filter-reset')
    assert page.inner_text('#count') == '12 of 12 scans of this series'
    assert_valid(page)


def test_two_of_many_sites_never_look_the_same(
    visit: Callable[[Path], Page], add_scan: AddScan
) -> None:
    """What has no look of its own is grey."""
    for number in range(25):
        output_dir = add_scan(
            f'{number:02d}', pictures=None, participant_info={'site': f'S{number:02d}'}
        )
    page = visit(write_group(output_dir)[-1])
    page.select_option('#colour', 'site')
    looks = page.locator('#distribution .legend .dot').evaluate_all(
        """dots => dots.map(dot => dot.tagName + dot.getAttribute("fill")
          + (dot.getAttribute("d") || "").length)"""
    )
    assert len(set(looks)) == len(looks) == 25
    assert ['#999999' in each for each in looks] == [False] * 24 + [True]


#: The texts of a chart that do not lie within it.
CUT_OFF = """svg => [...svg.querySelectorAll('text')].filter(text => {
  const [box, room] = [text.getBBox(), svg.viewBox.baseVal];
  return box.x < -0.5 || box.x + box.width > room.width + 0.5
    || box.y < -0.5 || box.y + box.height > room.height + 0.5;
}).map(text => text.textContent)"""


def test_no_number_is_cut_off_and_image_quality_has_control_limits(
    visit: Callable[[Path], Page],
    add_scan: AddScan,
    muscle_rows: Callable[..., list[dict[str, object]]],
) -> None:
    """Nine ordinary scans and one far out, whose values need room."""
    ordinary = [10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0]
    for number, value in enumerate([*ordinary, 90.0]):
        rows = muscle_rows(-1e3 * value)
        rows[0]['mfi_ratio_of_means_pct'] = 30 * value**2
        person = {'age': str(20 + number**2), 'sex': 'FM'[number % 2], 'bmi': str(20 + number % 3)}
        output_dir = add_scan(f'{number:02}', rows=rows, participant_info=person)
        iqm = output_dir / f'sub-{number:02}/anat/sub-{number:02}_acq-dixon_iqm.json'
        iqm.write_text(json.dumps({next(iter(quality_dictionary())): value, 'flags': []}))
    page = visit(write_group(output_dir)[-1])
    for kind in ('forest', 'panel', 'fitted'):
        charts = page.locator(f'.chart.{kind}').all()
        assert charts
        assert [text for chart in charts for text in chart.evaluate(CUT_OFF)] == [], kind
    values = np.array([*ordinary, 90.0])
    middle = np.median(values)
    reach = 3 * 1.4826 * np.median(abs(values - middle))
    told = page.locator('#trend desc').text_content()
    assert told == f'Median 14.5 of 10 scans, control limits {middle - reach:.3g} to ' + (
        f'{middle + reach:.3g}'
    )
    ends = [float(line.get_attribute('y1')) for line in page.locator('#trend .limit').all()]
    dots = [float(dot.get_attribute('cy')) for dot in page.locator('#trend circle.dot').all()]
    assert len(dots) == 10
    assert [min(ends) < dot < max(ends) for dot in dots] == [True] * 9 + [False]


def test_two_thousand_scans_come_in_pages_of_fifty(
    visit: Callable[[Path], Page], cohort: Path
) -> None:
    """The page of seven scans, told that it has 2,000."""
    path = cohort / 'group_review.html'
    start, data, end = _data_of(path)
    [one, *_] = data['scans']
    data['scans'] = [{**one, 'scan': f'sub-{k:04d}', 'score': k / 1000} for k in range(2000)]
    path.write_text(start + json.dumps(data) + end)
    page = visit(path)
    assert page.inner_text('#page-text') == '1 to 50 of 2000'
    assert page.locator('.tile').count() == 50
    page.click('#page-next')
    assert wall(page)[0] == 'sub-0050'
    page.select_option('#sort', 'score')
    page.check('#descending')
    assert wall(page)[0] == 'sub-1999'
    page.fill('#filter-text', 'sub-123')
    assert wall(page) == [f'sub-123{k}' for k in reversed(range(10))]


def _data_of(path: Path) -> tuple[str, dict[str, list[dict[str, object]]], str]:
    text = path.read_text()
    start, rest = text.split('id="data">')
    data, end = rest.split('</script>', 1)
    return start + 'id="data">', json.loads(data), '</script>' + end


def test_hostile_text_is_text(
    visit: Callable[[Path], Page],
    add_scan: AddScan,
    muscle_rows: Callable[..., list[dict[str, object]]],
) -> None:
    rows = [{**row, 'name': f'{HOSTILE} {row["index"]}'} for row in muscle_rows()]
    info = {'site': HOSTILE, 'age': '30'}
    warned = (HOSTILE, '</script>')
    add_scan('01', rows=rows, inputs={HOSTILE: HOSTILE}, warnings=warned, participant_info=info)
    problem = GridMismatchError(f'{HOSTILE} broke.', f'Remove {HOSTILE}.').problem
    output_dir = add_scan('02', problem=problem, participant_info={HOSTILE: HOSTILE})
    # A record that somebody else wrote may name its scan as it likes.
    record = output_dir / 'logs/sub-02/sub-02_acq-dixon.json'
    content = json.loads(record.read_text())
    name = 'x <img src=x onerror="window.hacked = 1">'
    record.with_name(f'{name}.json').write_text(json.dumps({**content, 'scan': name}))
    write_group(output_dir)
    page = visit(output_dir / 'group_review.html')
    assert name in page.locator('.tile-name').all_inner_texts()
    assert HOSTILE in page.inner_text('#sort')
    assert HOSTILE in page.inner_text('#filter-series')
    page.click('[data-scan=sub-01_acq-dixon]')
    assert HOSTILE in page.inner_text('#muscles')
    page.keyboard.press('ArrowRight')
    assert HOSTILE in page.inner_text('#viewer-reason')
    page = visit(output_dir / 'group.html')
    for part in ('#series', '#filter-site', '#remarks'):
        assert HOSTILE in page.inner_text(part)
    page.select_option('#split', 'site')
    assert HOSTILE in page.locator('#distribution a').first.get_attribute('aria-label')
    assert page.locator('#distribution text', has_text=HOSTILE).count() >= 7
    assert_valid(page)
    for participant in ('01', '02'):
        page = visit(write_participant_report(output_dir, participant))
        assert HOSTILE in page.inner_text('body')


def test_the_policy_stops_a_script_that_slipped_in(browser: Browser, cohort: Path) -> None:
    path = cohort / 'group_review.html'
    slipped = '<script>document.title = "hacked"</script></main>'
    path.write_text(path.read_text().replace('</main>', slipped))
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.title() == 'Review - bids_muscle'
    assert page.locator('.tile').count() == 7
    page.close()
