"""Pages of a participant and of a cohort: whole, self-contained, escaped, deterministic."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import html5lib
import pytest

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.anatomy.lookups import bids_lookup
from bids_muscle.dataset.records import StepCost
from bids_muscle.dictionaries import read_dictionary
from bids_muscle.errors import BadDataError, GridMismatchError, Problem
from bids_muscle.imaging.impossible import SWAPPED_BACK
from bids_muscle.reports.cohort_input import RawTables
from bids_muscle.reports.group import write_group
from bids_muscle.reports.lights import scan_light
from bids_muscle.reports.outputs import read_scans
from bids_muscle.reports.participant import write_participant_report
from bids_muscle.reports.ratings import Verdict
from bids_muscle.segmentation.quality import UNUSABLE_DICE

MuscleRows = Callable[..., list[dict[str, object]]]
AddScan = Callable[..., Path]
Attributes = list[tuple[str, str | None]]
HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)">'
VOID = {'meta', 'img', 'input', 'br', 'link', 'hr'}


def data_block(script: dict[str, str | None]) -> dict[str, str | None]:
    """Attributes of a block of data with the id of this one."""
    return {'type': 'application/json', 'id': script.get('id')}


class Page(HTMLParser):
    """Reads a page; fails where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:  # noqa: D102
        self.tags.append((tag, dict(attrs)))
        self.words.append(' ')
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Attributes) -> None:  # noqa: D102
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:  # noqa: D102
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:  # noqa: D102
        if self.open and self.open[-1] not in ('style', 'script'):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of all elements with this tag."""
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def shown(self) -> str:
        """The text that a reader sees, spaces squeezed."""
        return ' '.join(''.join(self.words).split())


def participant_page(output_dir: Path, participant: str) -> Page:
    """Write and read a participant's page and check what holds for every page."""
    path = write_participant_report(output_dir, participant)
    assert path == output_dir / f'sub-{participant}.html'
    return checked(path)


def group_page(output_dir: Path) -> Page:
    """Write and read the cohort page and check what holds for every page."""
    *_, review, page = write_group(output_dir)
    checked(review)
    return checked(page)


def checked(path: Path) -> Page:
    """Read a page: it is self-contained, every picture has a text, every id is there once."""
    page = Page(path.read_text(encoding='utf-8'))
    validator = html5lib.HTMLParser()
    validator.parse(page.text)
    assert validator.errors == []
    for tag, attributes in page.tags:
        for name in ('src', 'srcset', 'data', 'poster', 'action'):
            assert (attributes.get(name) or 'data:').startswith('data:'), (tag, attributes)
        if '://' in (attributes.get('href') or ''):
            assert tag == 'a'
            assert str(attributes['href']).startswith('https://doi.org/')
        assert not any(name.startswith('on') for name in attributes), attributes
    assert not re.search(r'@import|url\((?!#)', page.text)
    assert all(attributes.get('alt') for attributes in page.all('img'))
    assert not page.all('link')
    # One script, whose checksum the page's policy names; the others are data.
    scripts = re.findall(r'<script>(.*?)</script>', page.text, re.DOTALL)
    assert all(script in ({}, data_block(script)) for script in page.all('script'))
    [policy] = [meta['content'] for meta in page.all('meta') if 'http-equiv' in meta]
    allowed = re.findall(r"'sha256-([^']+)'", str(policy))
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    assert allowed == [base64.b64encode(digest).decode() for digest in digests]
    assert "default-src 'none'" in str(policy)
    assert "script-src 'unsafe" not in str(policy)
    assert len(page.all('h1')) == 1
    ids = [attributes['id'] for _, attributes in page.tags if 'id' in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for name in ('aria-labelledby', 'aria-describedby', 'for'):
            assert set((attributes.get(name) or '').split()) <= set(ids)
        if (attributes.get('href') or '').startswith('#'):
            assert str(attributes['href'])[1:] in ids
    return page


def test_a_finished_scan_is_shown_whole(add_scan: AddScan, figures: dict[str, bytes]) -> None:
    output_dir = add_scan('01', warnings=('The arms wrap around.',))
    page = participant_page(output_dir, '01')
    shown_pictures = {attributes['src'] for attributes in page.all('img')}
    assert shown_pictures == {
        'data:image/webp;base64,' + base64.b64encode(figures[name]).decode()
        for name in set(figures)
        - {'axial', 'coronal', 'sagittal', 'outlines', 'histograms', 'thumbnail'}
    }
    assert page.all('polygon')
    for expected in (
        'The arms wrap around.',
        '1 warning, 1 of 8 muscles with values n/a',
        'left quadratus lumborum: not found',
        'Muscle fat infiltration (%)',
        'lumbar-unet',
        'ab12ab12ab12',
        'corrected with N4',
        'segment 30.0 n/a',
        'sub-01/anat/water.nii.gz',
    ):
        assert expected in page.shown, expected
    assert len(page.text) < 6e6


def test_right_and_left_values_stand_in_their_columns(add_scan: AddScan) -> None:
    page = participant_page(add_scan('01'), '01')
    # Right multifidus is label 1 and left is label 2: MFI 13 and 14 %, volume 20.5 and 41 ml.
    assert 'right left right left multifidus 13 14 20.5 41' in page.shown


def test_the_difference_of_the_sides_stands_beside_them(
    add_scan: AddScan, muscle_rows: MuscleRows
) -> None:
    rows = [
        {**row, 'volume_asymmetry_pct': -66.5, 'mfi_asymmetry_points': 1.25}
        for row in muscle_rows()
    ]
    shown = participant_page(add_scan('01', rows=rows), '01').shown
    assert 'right left left − right right left left − right, % of mean' in shown
    assert 'multifidus 13 14 1.25 20.5 41 -66.5' in shown


def test_percentiles_come_from_the_group_level(add_scan: AddScan, muscle_rows: MuscleRows) -> None:
    for number in range(10):
        output_dir = add_scan(f'0{number}', rows=muscle_rows(10.0 + number))
    assert 'class="rank"' not in participant_page(output_dir, '04').text
    write_group(output_dir)
    page = participant_page(output_dir, '04')
    # The fifth of ten in MFI; all volumes are alike, so each stands in the middle.
    assert 'multifidus 15 P45 16 P45 20.5 P50 41 P50' in page.shown
    assert 'up to 10 scans' in page.shown
    (output_dir / 'group_muscles.tsv').write_text('scan\nbroken\n')
    assert 'class="rank"' not in participant_page(output_dir, '04').text


def test_histograms_say_what_they_show(add_scan: AddScan) -> None:
    page = participant_page(add_scan('01'), '01')
    # Muscles of the small scan have 20 % fat throughout; two of four muscles have both sides.
    assert page.text.count('class="histogram right"') == 3
    assert 'voxels, half of them below 24 %' in page.shown


def test_the_command_and_the_settings_are_shown(add_scan: AddScan) -> None:
    settings = f'[input]\nbids_dir = "/my data"\noutput_dir = "/out"\n# {HOSTILE}\n'
    shown = participant_page(add_scan('01', settings=settings), '01').shown
    assert "bids_muscle '/my data' /out participant --participant-label 01" in shown
    assert '--config-file /out/logs/sub-01/settings.toml' in shown
    assert HOSTILE in shown
    shown = participant_page(add_scan('02', settings='[half'), '02').shown
    assert '[half' in shown
    assert 'repeats the run' not in shown


def test_thirty_sessions_have_one_page(add_scan: AddScan) -> None:
    for number in range(30):
        output_dir = add_scan('01', session=f'{number:02d}', pictures={})
    page = participant_page(output_dir, '01')
    assert 'Of 30 scans: 30 to check' in page.shown
    # The table leads to all scans, and so does the menu, without their subsections.
    assert len([link for link in page.all('a') if '#scan-' in str(link['href'])]) == 60


def test_pictures_that_are_gone_are_named(add_scan: AddScan) -> None:
    output_dir = add_scan('01')
    gone = 'sub-01/figures/sub-01_acq-dixon_desc-bias.webp'
    output_dir = add_scan('01', outputs=(gone,))
    assert 'are gone' not in participant_page(output_dir, '01').shown
    (output_dir / gone).unlink()
    shown = participant_page(output_dir, '01').shown
    assert 'Pictures that were made are gone: sub-01_acq-dixon_desc-bias.webp.' in shown
    assert 'Estimated bias field' not in shown


def test_bars_carry_their_value_and_side(add_scan: AddScan) -> None:
    page = participant_page(add_scan('01'), '01')
    assert 'right multifidus 13; left multifidus 14' in page.shown
    rectangles = [float(str(bar['width'])) for bar in page.all('rect')]
    # Seven of eight muscles have a value in each of the two charts.
    assert len(rectangles) == 14
    assert rectangles[1] / rectangles[0] == pytest.approx(14 / 13, abs=0.01)


def test_remarks_of_the_same_kind_stand_together(
    add_scan: AddScan, muscle_rows: MuscleRows
) -> None:
    rows = [{**row, 'reason': 'bounded'} for row in muscle_rows()]
    rows[0]['reason'] = 'cut off; bounded'
    shown = participant_page(add_scan('01', rows=rows), '01').shown
    assert 'right multifidus: cut off' in shown
    assert 'all muscles: bounded' in shown


def test_a_limit_alone_is_not_to_check(add_scan: AddScan, muscle_rows: MuscleRows) -> None:
    rows = [
        {**row, 'reason': 'cut off', 'volume_ml': 3, 'mfi_ratio_of_means_pct': None}
        for row in muscle_rows()
    ]
    # No muscle has an MFI, as in a T2w scan: that is said in the remarks, not by the light.
    shown = participant_page(add_scan('01', rows=rows), '01').shown
    assert 'No warnings, no value missing' in shown
    assert 'all muscles: cut off' in shown


def test_methods_say_what_ran(add_scan: AddScan) -> None:
    output_dir = add_scan('01', processing={'bias_correction': False, 'bounded': True})
    shown = participant_page(output_dir, '01').shown
    assert 'cannot exceed 50 %' in shown
    assert 'Intensity non-uniformity was not corrected' in shown
    assert 'N4' not in shown
    shown = participant_page(add_scan('02'), '02').shown
    assert 'as reconstructed by the scanner' in shown
    assert '50 %' not in shown.split('Methods')[-1]
    assert 'swapped back' not in shown
    warning = f'The scanner swapped water and fat in 3 % of the body. {SWAPPED_BACK}'
    shown = participant_page(add_scan('03', warnings=(warning,)), '03').shown
    assert 'they were swapped back' in shown.split('Methods')[-1]


def test_references_are_numbered_by_first_use(add_scan: AddScan) -> None:
    page = participant_page(add_scan('01'), '01')
    methods, references = page.shown.split('References')
    references, entries = references.split('BibTeX')
    used = [int(n) for group in re.findall(r'\[(\d[\d, ]*)\]', methods) for n in group.split(',')]
    assert list(dict.fromkeys(used)) == list(range(1, max(used) + 1))
    assert references.count('doi:') == max(used)
    # Each reference once, and each brace closed.
    found = re.findall(r'@(?:article|book|misc)\{.*?, \}', entries)
    assert len(found) == max(used)
    for entry in found:
        assert entry.count('{') == entry.count('}')
        assert all(f' {name} = ' in entry for name in ('author', 'title', 'year', 'doi'))


def test_a_failed_scan_says_why_and_what_to_do(add_scan: AddScan) -> None:
    problem = GridMismatchError('fat.nii.gz has another grid.', 'Export it again.').problem
    page = participant_page(add_scan('01', problem=problem), '01')
    assert 'fat.nii.gz has another grid.' in page.shown
    assert 'What to do: Export it again.' in page.shown
    assert not page.all('img')
    assert 'Methods' not in page.shown


def test_pictures_of_an_earlier_run_are_not_shown(add_scan: AddScan) -> None:
    problem = GridMismatchError('fat.nii.gz has another grid.', 'Export it again.').problem
    add_scan('01')
    page = participant_page(add_scan('01', problem=problem), '01')
    assert not page.all('img')
    assert 'Measures' not in page.shown
    page = participant_page(add_scan('01', processing={'bias_correction': False}), '01')
    assert 'Bias field' not in page.shown


def test_one_failed_session_leaves_the_other(add_scan: AddScan) -> None:
    problem = GridMismatchError('fat.nii.gz has another grid.', 'Export it again.').problem
    add_scan('01', session='a')
    page = participant_page(add_scan('01', session='b', problem=problem), '01')
    assert 'Of 2 scans: 1 failed, 1 to check' in page.shown
    assert len(page.all('img')) == 10
    assert page.text.count('class="viewer"') == 1


def luminance(colour: str) -> float:
    """Relative luminance of a colour, WCAG 2.2."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_contrast_in_light_and_dark(tmp_path: Path) -> None:
    text = participant_page(tmp_path, '01').text
    themes = [
        dict(re.findall(r'--([a-z-]+): (#[0-9a-f]{6});', block))
        for block in re.findall(r':root \{(.*?)\}', text, re.DOTALL)
    ]
    assert len(themes) == 3
    for theme in themes[:2]:  # the third is for paper
        pairs = [(a, b) for a in ('ink', 'soft', 'accent') for b in ('ground', 'sheet')]
        pairs += [(name, f'{name}-ground') for name in ('ok', 'check', 'failed')]
        pairs += [('ink', 'check-ground'), ('ink', 'failed-ground')]
        for one, other in pairs:
            low, high = sorted(luminance(theme[name]) for name in (one, other))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (one, other)


def test_no_result_still_gives_a_page(tmp_path: Path) -> None:
    page = participant_page(tmp_path, '01')
    assert 'No scan was found or processed.' in page.shown


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({'pictures': {}}, 'desc-segmentation.webp is missing'),
        ({'with_table': False}, 'morph.tsv is missing'),
        ({'definitions': None}, 'morph.json is missing or broken'),
    ],
)
def test_a_missing_file_is_said(
    add_scan: AddScan, options: dict[str, object], expected: str
) -> None:
    output_dir = add_scan('01', **options)
    assert expected in participant_page(output_dir, '01').shown
    assert '1 warning' in group_page(output_dir).text


@pytest.mark.parametrize('content', [None, '{"half', '[]', '{"slices": []}'])
def test_a_scan_without_scroller_says_so(add_scan: AddScan, content: str | None) -> None:
    output_dir = add_scan('01')
    [path] = output_dir.rglob('*_desc-outlines.json')
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    page = participant_page(output_dir, '01')
    assert 'files of the slice viewer are missing' in page.shown
    assert 'class="viewer"' not in page.text


def test_a_broken_record_gives_a_page(add_scan: AddScan) -> None:
    output_dir = add_scan('01')
    next((output_dir / 'logs').rglob('*.json')).write_text('{"half')
    assert 'cannot be read' in participant_page(output_dir, '01').shown


def test_hostile_text_stays_text(add_scan: AddScan) -> None:
    problem = GridMismatchError(f'{HOSTILE} broke.', f'Remove {HOSTILE}.').problem
    rows = [
        {
            'index': 1,
            'name': f'right {HOSTILE}',
            'muscle': HOSTILE,
            'side': 'right',
            'mfi_ratio_of_means_pct': HOSTILE,
            'volume_ml': 1.0,
            'reason': HOSTILE,
        }
    ]
    definitions = {'volume_ml': {'LongName': HOSTILE, 'Description': HOSTILE, 'Units': HOSTILE}}
    add_scan(
        '01',
        rows=rows,
        definitions=definitions,
        warnings=(HOSTILE,),
        participant_info={'participant_id': HOSTILE, HOSTILE: HOSTILE},
        inputs={HOSTILE: HOSTILE},
        model={'name': HOSTILE, 'version': HOSTILE, 'sha256': HOSTILE},
        versions={HOSTILE: HOSTILE},
        steps=(StepCost(HOSTILE, 1.0),),
    )
    output_dir = add_scan('02', problem=problem)
    for page in (
        participant_page(output_dir, '01'),
        participant_page(output_dir, '02'),
        group_page(output_dir),
    ):
        # ``checked`` has found no script and no handler; the text is there to be read.
        assert HOSTILE in page.shown


def test_a_label_that_is_no_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataError):
        write_participant_report(tmp_path, '../../x')
    with pytest.raises(BadDataError):
        write_participant_report(tmp_path, HOSTILE)
    assert not list(tmp_path.iterdir())


def test_same_files_same_pages(add_scan: AddScan) -> None:
    add_scan('01')
    output_dir = add_scan('02', participant_info={'participant_id': 'sub-02', 'age': '40'})
    first = [write_participant_report(output_dir, '01').read_bytes()]
    first += [path.read_bytes() for path in write_group(output_dir)]
    second = [write_participant_report(output_dir, '01').read_bytes()]
    second += [path.read_bytes() for path in write_group(output_dir)]
    assert first == second


def test_dots_of_the_cohort_lead_to_pages_that_exist(add_scan: AddScan) -> None:
    for participant in ('01', '02', '03'):
        output_dir = add_scan(participant)
        write_participant_report(output_dir, participant)
    page = group_page(output_dir)
    [data] = re.findall(r'id="data">(.*?)</script>', page.text, re.DOTALL)
    links = {scan['page'] for scan in json.loads(data)['scans']}
    assert links == {'sub-01.html', 'sub-02.html', 'sub-03.html'}
    links |= {str(a['href']) for a in page.all('a') if str(a['href']).endswith('.html')}
    assert 'group_review.html' in links
    assert all((output_dir / link).is_file() for link in links)


def test_failures_are_grouped_by_their_cause(add_scan: AddScan) -> None:
    """Names and numbers in a sentence make no cause of its own."""
    for label in ('01', '02', '03'):
        short = Problem('A', f'/data/sub-{label}/anat/sub-{label}_T2w.nii.gz ends early.', 'Copy.')
        output_dir = add_scan(label, problem=short)
    output_dir = add_scan('04', problem=Problem('B', 'sub-04_T1w.json is broken.', 'Mend it.'))
    page = group_page(add_scan('05'))
    text = (output_dir / 'group_causes.tsv').read_text()
    lines = [line.split('\t')[:5] for line in text.splitlines()[1:]]
    assert lines[:2] == [
        ['failed', '… ends early. Copy.', '3', '3', 'sub-01, sub-02, sub-03'],
        ['failed', '… is broken. Mend it.', '1', '1', 'sub-04'],
    ]
    assert 'failed 3 3 … ends early. Copy. sub-01, sub-02, sub-03' in page.shown
    every = (output_dir / 'group_completeness.tsv').read_text()
    assert every.count('\t… ends early. Copy.\n') == 3


def test_the_cohort_says_which_outlines_a_person_made(add_scan: AddScan) -> None:
    add_scan('01')
    assert 'by hand' not in group_page(add_scan('02')).shown
    assert (
        'drawn or corrected by hand 1'
        in group_page(add_scan('03', processing={'manual': True})).shown
    )


def test_mixed_models_are_said(add_scan: AddScan) -> None:
    add_scan('01')
    output_dir = add_scan('02', model={'name': 'other', 'version': '2', 'sha256': 'ff'})
    assert '2 different models for the lumbar region' in group_page(output_dir).shown


def test_the_head_of_the_cohort_counts_everybody_and_blames_no_rater(add_scan: AddScan) -> None:
    # A dataset without participants.tsv, of which one folder has not been processed.
    add_scan('01', left_out='another reconstruction counts')
    output_dir = add_scan('02')
    *_, path = write_group(output_dir, None, RawTables({}, labels=('01', '02', '03')))
    page = checked(path)
    assert '<div><dt>Participants</dt><dd>3</dd></div>' in page.text
    assert 'In the dataset: 3 participants (2 scans)' in page.text
    count = len(load_label_table('lumbar'))
    assert f'{count} muscles of these scans are excluded' in page.shown
    assert 'Ratings and the exclusion list' not in page.shown


def test_an_empty_cohort_has_a_page(tmp_path: Path) -> None:
    assert 'No results yet' in group_page(tmp_path).shown


def test_predicted_dice_is_shown_and_doubtful_muscles_are_marked(
    add_scan: AddScan,
) -> None:
    output_dir = add_scan('01')
    assert 'Predicted Dice' not in participant_page(output_dir, '01').text
    path = output_dir / 'sub-01/anat/sub-01_acq-dixon_seg-lumbarmuscles_dseg.json'
    dices = {'right multifidus': 0.91, 'left multifidus': 0.62, 'right psoas major': None}
    path.write_text(json.dumps({'PredictedDice': dices}))
    page = participant_page(output_dir, '01').text
    assert '0.91</td>' in page
    assert re.search('0.62 <span class="light check">inspect', page)
    assert page.count('>inspect<') == 1


def test_a_figure_of_image_quality_has_its_unit(add_scan: AddScan) -> None:
    output_dir = add_scan('01')
    path = output_dir / 'sub-01/anat/sub-01_acq-dixon_iqm.json'
    path.write_text(json.dumps({'tilt_deg': 9.5, 'bias_range': 4.1, 'flags': []}))
    page = participant_page(output_dir, '01').text
    assert re.search(r'Tilt of the acquisition \(deg\)</th><td class="number">9.5<', page)
    assert 'Range of the bias field</th>' in page


def test_the_part_of_the_muscles_that_is_measured_is_said(add_scan: AddScan) -> None:
    muscle = {'index': 1, 'name': 'right multifidus', 'muscle': 'multifidus', 'side': 'right'}
    rows, whole = (
        [{**muscle, 'extent': extent, 'volume_ml': 30.0, 'reason': None}]
        for extent in ('T12-S1', 'scan')
    )
    output_dir = add_scan('01', rows=rows)
    shown = participant_page(output_dir, '01').shown
    assert 'within these vertebral levels: T12-S1.' in shown
    assert (
        'Each muscle was measured within its own vertebral levels (T12-S1), as far as the scan '
        'shows them.'
    ) in shown
    add_scan('02', rows=whole)
    shown = participant_page(output_dir, '02').shown
    assert 'which depends on its field of view' in shown
    assert 'Muscles were measured wherever the scan shows them' in shown
    add_scan('04', rows=[*rows, {**whole[0], 'name': 'left psoas major', 'muscle': 'psoas major'}])
    shown = participant_page(output_dir, '04').shown
    assert 'shows them; muscles whose levels were not known were measured wherever' in shown
    (output_dir / 'logs/sub-04/sub-04_acq-dixon.json').unlink()
    add_scan('03', rows=whole)
    told = 'In 2 of 3 lumbar scans (water+fat) muscles are measured wherever the scan shows them'
    shown = group_page(output_dir).shown
    assert told in shown
    assert 'compare only scans of the same vertebral levels' in shown
    add_scan('01', rows=whole)
    assert 'muscles are measured wherever the scan' not in group_page(output_dir).shown


def _predict(output_dir: Path, participant: str, **dice: float) -> None:
    name = f'sub-{participant}_acq-dixon_seg-lumbarmuscles_dseg.json'
    named = {key.replace('_', ' '): value for key, value in dice.items()}
    path = output_dir / f'sub-{participant}/anat/{name}'
    path.write_text(json.dumps({'PredictedDice': named}))


def test_an_outline_that_is_likely_to_be_wrong_makes_the_scan_red_and_does_not_count(
    add_scan: AddScan,
) -> None:
    output_dir = add_scan('01')
    _predict(output_dir, '01', right_multifidus=0.91, left_multifidus=0.59)
    page = participant_page(output_dir, '01')
    assert 'Do not use without correction' in page.shown
    assert 'Lowest predicted Dice 0.59 ( left multifidus)' in ' '.join(page.shown.split())
    (scan,) = read_scans(output_dir, '01')
    assert [row['name'] for row in scan.rows if scan.exclusion(row)] == ['left multifidus']
    assert 'left multifidus' not in {row['name'] for row in scan.kept}
    passed = replace(scan, verdict=Verdict('pass', (), ('me: pass',), ()))
    assert len(passed.kept) == len(scan.rows)
    assert scan_light(passed).level != 'unusable'


def test_names_and_colours_are_those_beside_the_map(add_scan: AddScan) -> None:
    name = 'sub-01/anat/sub-01_acq-dixon_seg-lumbarmuscles_dseg.tsv'
    output_dir = add_scan('01', outputs=(name,))
    packaged = bids_lookup(load_label_table('lumbar'))
    colour = load_label_table('lumbar').by_index[1].color
    (output_dir / name).write_text(packaged.replace(colour, '#123456'))
    for page in (participant_page(output_dir, '01').text, group_page(output_dir).text):
        assert '#123456' in page
    for text in (packaged, 'broken'):
        (output_dir / name).write_text(text)
        page = participant_page(output_dir, '01').text
        assert colour in page
        assert '#123456' not in page


def test_the_limit_of_use_is_the_one_that_is_written(add_scan: AddScan) -> None:
    limit = f'elow {UNUSABLE_DICE:g}'
    assert limit in read_dictionary('morph')['dice_predicted']['Description']
    assert limit in group_page(add_scan('01')).shown


def test_a_person_s_outline_is_never_called_unusable(add_scan: AddScan) -> None:
    output_dir = add_scan('01', processing={'manual': True})
    _predict(output_dir, '01', left_multifidus=0.2)
    assert scan_light(read_scans(output_dir, '01')[0]).level != 'unusable'


def test_a_warning_links_to_its_slice(add_scan: AddScan) -> None:
    output_dir = add_scan(
        '01', warnings=('Psoas is almost missing in slices 3-4. Look.', 'Other.')
    )
    page = participant_page(output_dir, '01').text
    link = re.search(r'Psoas is almost missing in <a href="#(\S+)" [^>]*data-slice="3">', page)
    assert link
    assert f'id="{link[1]}"' in page
    assert '>slices 3-4</a>. Look.' in page
    assert '<li>Other.</li>' in page


def test_limits_of_the_model_are_on_the_pages_and_in_the_methods(add_scan: AddScan) -> None:
    limits = 'Trained on simulated people only. Look at it.'
    model = {'name': 'm', 'version': '1', 'sha256': 'ff', 'limits': limits}
    output_dir = add_scan('01', model=model)
    page = participant_page(output_dir, '01').shown
    assert f'Model m 1: {limits}' in page
    assert '(trained on simulated people only)' in page
    assert f'Model m 1: {limits}' in group_page(output_dir).shown


def test_a_fetched_model_is_cited(add_scan: AddScan) -> None:
    model = {'name': 'm', 'version': '1.4', 'sha256': 'ab' * 32, 'limits': 'Trained on many.'}
    model |= {'external': 'MuscleMap', 'license': 'MIT', 'overlap': '0.5'}
    cited = 'McKay et al. 2024, J Imaging 10:262'
    doi = '10.3390/jimaging10110262'
    model['citation'] = f'{cited}, https://doi.org/{doi}'
    page = participant_page(add_scan('01', model=model), '01').shown
    methods, _, references = page[page.index('Methods') :].partition('References')
    sentence = re.search(r'neural network m 1\.4, .*?\[([\d, ]+)\]', methods)
    assert sentence
    for text in ('SHA-256 abababababab', 'licence MIT', 'steps of MuscleMap', 'overlap by 50 %'):
        assert text in sentence[0]
    assert 'not in the images given to the neural network' in methods
    assert f'{cited}. doi:{doi}' in references
    assert f'@misc{{mckay2024, note = {{{cited}.}}, doi = {{{doi}}}, }}' in references
    model['citation'] = 'Graf et al. 2024, https://arxiv.org/abs/2406.00125'
    page = participant_page(add_scan('01', model=model), '01').shown
    assert 'Graf et al. 2024, https://arxiv.org/abs/2406.00125.' in page


def test_the_menu_leads_to_every_section(add_scan: AddScan) -> None:
    page = participant_page(add_scan('01'), '01').text
    menu = page[page.index('<nav') : page.index('</nav>')]
    for anchor in ('scan-1-title', 'scan-1-viewer', 'scan-1-measures', 'run', 'methods'):
        assert (f'href="#{anchor}"' in menu) == (f'id="{anchor}"' in page), anchor
    assert menu.count('<a ') > 8


def test_a_reason_links_to_its_muscle(add_scan: AddScan, muscle_rows: MuscleRows) -> None:
    rows = [{**row, 'reason': 'cut' if row['index'] == 3 else None} for row in muscle_rows()]
    page = participant_page(add_scan('01', rows=rows), '01').text
    assert re.search(r'data-label="3">right erector spinae</a>:</strong> cut', page)
