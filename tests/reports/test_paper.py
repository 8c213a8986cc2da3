"""The text for a paper and its flow chart: numbers that add up, and text that stays text."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from bids_muscle.dataset.records import ScanRecord
from bids_muscle.errors import GridMismatchError, NothingSelectedError
from bids_muscle.reports.cohort_input import GroupOptions
from bids_muscle.reports.flow import Flow, FlowStep, flow_of, flow_svg
from bids_muscle.reports.group import write_group
from bids_muscle.reports.outputs import ScanOutputs

AddScan = Callable[..., Path]
MuscleRows = Callable[..., list[dict[str, Any]]]
HOSTILE = '<script>alert(1)</script> & *more*'


def random_scans(rng: np.random.Generator) -> list[ScanOutputs]:
    """Return scans that were finished, failed, excluded, joined, without muscles, or none."""
    scans = []
    for k in range(rng.integers(0, 40)):
        who, end = str(rng.integers(0, 12)), rng.integers(0, 6)
        failed, empty = end == 1, end == 5
        problem = None
        if failed or empty:
            kind = GridMismatchError if failed else NothingSelectedError
            problem = kind(f'Reason {rng.integers(0, 9) * "x"} was found.', 'Do it.').problem
        record = ScanRecord(
            participant=who,
            session=None,
            scan=f'sub-{who}' if empty else f'sub-{who}_acq-dixon_run-{k}',
            region='lumbar',
            status='failed' if problem else 'done',
            inputs={} if empty else {'water': 'w.nii.gz'},
            problem=problem,
        )
        rows = [{'name': name, 'muscle': name} for name in 'ab']
        scans.append(
            ScanOutputs(
                record,
                rows=() if problem or end == 4 else tuple(rows),
                excluded={2: {'': 'moved'}, 3: {'a': 'cut', 'b': 'cut'}}.get(int(end), {}),
                part_of='sub-whole' if rng.random() < 0.1 else '',
            )
        )
    return scans


def number(line: str) -> int:
    return int(line.partition(':')[0])


def test_the_numbers_of_the_flow_add_up() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        scans = random_scans(rng)
        people = [str(k) for k in range(rng.integers(0, 15))]
        unusable = ['sub-x_y'] * int(rng.integers(0, 2))
        flow = flow_of(scans, people, unusable)
        for before, after in pairwise(flow.steps):
            assert before.participants - after.participants_lost == after.participants
            assert before.scans - after.scans_lost == after.scans
            lost = after.scans_lost or after.participants_lost
            assert sum(map(number, after.reasons)) == lost
            assert bool(after.left_out) == bool(after.scans_lost + after.participants_lost)
        kept = [scan for scan in scans if scan.kept]
        assert flow.steps[-1].scans == len(kept)
        assert flow.steps[-1].participants == len({scan.record.participant for scan in kept})
        named = {scan.record.participant for scan in scans if not scan.part_of} | set(people)
        assert flow.steps[0].participants == len(named) + len(unusable)


def test_the_flow_chart_is_a_picture_whatever_a_reason_holds() -> None:
    steps = (FlowStep('All', 3, 4), FlowStep('Left', 2, 2, 'Out', 1, 2, (f'2: {HOSTILE}',)))
    picture = ElementTree.fromstring(str(flow_svg(Flow(steps, (HOSTILE,)))))  # noqa: S314 - our own
    texts = [' '.join(node.itertext()) for node in picture.iter() if node.tag.endswith('}text')]
    assert texts[0] == 'All 3 participants (4 scans)'
    assert any(HOSTILE in text for text in texts)
    assert not [node for node in picture.iter() if node.tag.endswith('}script')]
    # No box begins above the end of the one before it.
    boxes = [node.attrib for node in picture.iter() if node.tag.endswith('}rect')]
    ends = [(float(box['y']), float(box['y']) + float(box['height'])) for box in boxes]
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))
    assert max(end for _, end in ends) < float(picture.attrib['height'])


def test_text_and_page_say_the_same(add_scan: AddScan, tmp_path: Path) -> None:
    for k in range(7):
        info = {'age': str(30 + k), 'sex': 'FM'[k % 2], 'arm': 'ab'[k % 2]}
        output_dir = add_scan(f'0{k}', participant_info=info)
    problem = GridMismatchError('fat.nii.gz has another grid.', 'Export it again.').problem
    add_scan('98', problem=problem, participant_info={'age': '50'})
    listed = tmp_path / 'exclude.tsv'
    listed.write_text(f'participant_id\treason\n06\t{HOSTILE}\n')
    files = write_group(output_dir, GroupOptions(exclude=listed, groups=['arm']))
    assert {path.name for path in files} >= {'group_text.md', 'group_flow.svg'}
    text = (output_dir / 'group_text.md').read_text()
    page = files[-1].read_text()
    plain = re.sub(r'\\(.)', r'\1', text)
    assert 'Of 8 participants (8 scans) in the dataset, 6 participants (6 scans) were' in plain
    assert 'mean age 32.5 years (SD 1.9, 30.0 to 35.0; n = 6)' in plain
    assert '3 women and 3 men' in plain
    assert 'arm: a 3, b 3' in plain
    assert 'lumbar-unet 1.0' in plain
    assert re.search(r'statsmodels \d+\.\d+', plain)
    shown = html.unescape(page)
    for paragraph in plain.split('\n'):
        if paragraph and not re.match(r'[#!]|\d+\. ', paragraph):
            assert paragraph in shown, paragraph
    assert '<script>alert' not in page
    assert '\\<script>' in text
    # References are numbered as in the text, without a gap.
    cited = {int(n) for found in re.findall(r'\[([\d, ]+)\]', plain) for n in found.split(', ')}
    numbers = [int(n) for n in re.findall(r'^(\d+)\. ', plain, re.MULTILINE)]
    assert sorted(cited) == numbers == list(range(1, len(numbers) + 1))
    before = (output_dir / 'group_text.md').read_bytes()
    write_group(output_dir, GroupOptions(exclude=listed, groups=['arm']))
    assert (output_dir / 'group_text.md').read_bytes() == before


def test_the_methods_name_only_what_was_done(add_scan: AddScan, muscle_rows: MuscleRows) -> None:
    for k in range(8):
        rows = muscle_rows(10 + k * k % 5)
        for place, row in enumerate(rows):  # muscles differ, and not by the same in everybody
            if row['mfi_ratio_of_means_pct'] is not None:
                row['mfi_ratio_of_means_pct'] += place * k % 7
        output_dir = add_scan(f'0{k}', rows=rows)
    write_group(output_dir)
    text = (output_dir / 'group_text.md').read_text()
    assert 'Pairs of muscles were compared by paired t tests.' in text
    assert 'by the method of Holm' in text
    for not_done in ('Women and men were compared', 'Partial correlations', 'raters', 'list of'):
        assert not_done not in text, not_done
    # With sex and age these analyses can be made.
    for k in range(8):
        info = {'sex': 'FM'[k % 2], 'age': str(30 + k * k % 11)}
        add_scan(f'0{k}', rows=muscle_rows(10 + k * k % 5), participant_info=info)
    write_group(output_dir)
    text = (output_dir / 'group_text.md').read_text()
    assert 'Women and men were compared' in text
    assert 'Partial correlations' in text


def test_one_person_makes_no_tests(add_scan: AddScan) -> None:
    output_dir = add_scan('01')
    write_group(output_dir)
    text = (output_dir / 'group_text.md').read_text()
    assert 'of 1 participant (1 scan)' in text.lower()
    for not_done in ('were compared', 'were tested', 'Holm', 'two-sided'):
        assert not_done not in text.partition('# Results')[0], not_done
