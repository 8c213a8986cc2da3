"""Each experiment of a paper runs at a minimal scale, and has each table and figure."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from bids_muscle.cli.model import PAPERS, SCALES, main
from bids_muscle.dataset.writer import read_tsv
from bids_muscle.errors import ExitCode
from bids_muscle.reports.evaluation_plots import dice_plot
from bids_muscle.reports.reproduction import fill, write_reproduction
from bids_muscle.segmentation.training.recipe import find_recipe
from bids_muscle.tables import read_rows
from bids_muscle.workflows.papers import read_paper
from bids_muscle.workflows.reproduce import Reproduction, scaled

DATA = Path(__file__).parents[2] / 'bids_muscle/data/papers'
DOCS = Path(__file__).parents[2] / 'docs'
#: Tables and figures of each paper that an experiment has a counterpart of.
SHOWN = {
    'weber2021': ('Table 2', 'Table 3', 'Table 4', 'Figure 3', 'Figure 4', 'Figure 5', 'Figure 6'),
    'wesselink2022': ('Table 1', 'Figure 1', 'Figure 2', 'Figures 3 and 4'),
    'hess2022': (*(f'Table {n}' for n in range(3, 9)), 'Figure 4', 'Figure 5', 'Figure 6'),
    'xia2019': ('Table 1', 'Figure 3', 'Figure 4'),
}


@pytest.mark.parametrize('name', PAPERS)
def test_a_description_is_complete(name: str) -> None:
    paper = read_paper(name)
    titles = ' '.join(each['title'] for each in (*paper.tables, *paper.figures))
    assert all(re.search(rf'\b{what}\b', titles) for what in SHOWN[name])
    headings = [each['title'].partition('. ')[0] for each in (*paper.tables, *paper.figures)]
    assert len(set(headings)) == len(headings)
    numbers = {row['table'] for row in read_rows(DATA / f'{name}.tsv')}
    assert numbers <= {table['number'] for table in paper.tables}
    for row in read_rows(DATA / f'{name}.tsv'):
        table = next(each for each in paper.tables if each['number'] == row['table'])
        readers = {'Intra-reader', 'Inter-reader', 'Standard split'}
        assert row['column'] in {each['heading'] for each in table['columns']} | readers
    segs = {labels.seg for labels in paper.labels}
    assert {arm['seg'] for arm in paper.arms} <= segs
    assert set(paper.scales) == set(SCALES)
    for scale in SCALES:
        for arm in paper.arms:
            scaled(paper, arm, Reproduction(Path(), scale=scale))


def test_the_scale_of_the_paper_changes_no_recipe() -> None:
    for name in PAPERS:
        paper = read_paper(name)
        for arm in paper.arms:
            recipe = scaled(paper, arm, Reproduction(Path(), scale='paper'))
            assert recipe == find_recipe(arm['recipe'])


def test_a_cell_without_a_value_takes_the_next_format() -> None:
    spec = {
        'row': '{name}',
        'rename': {'dice': 'Dice'},
        'only': {'kind': ['disc']},
        'columns': [{'heading': 'a', 'cell': ['{mean:.1f} ± {se:.1f}', '{mean:.1f}']},
                    {'heading': 'p', 'cell': ['{p:p}']}],
    }  # fmt: skip
    rows = [
        {'name': 'dice', 'kind': 'disc', 'mean': 1.0, 'se': float('nan'), 'p': 1e-5},
        {'name': 'L4', 'kind': 'disc', 'mean': None, 'se': None, 'p': 0.25},
        {'name': 'L5', 'kind': 'vertebra', 'mean': 1.0, 'se': 0.1, 'p': 0.2},
    ]
    assert fill(spec, rows) == {
        ('Dice', 'a'): '1.0', ('Dice', 'p'): '<0.001', ('L4', 'a'): 'n/a', ('L4', 'p'): '0.250',
    }  # fmt: skip


def test_a_page_without_results_says_what_is_missing(tmp_path: Path) -> None:
    paper = read_paper('hess2022')
    shown = {
        'name': 'hess2022', 'title': paper.title, 'scale': 'tiny', 'data': '<b>', 'arms': [],
        'tables': paper.tables, 'figures': paper.figures,
    }  # fmt: skip
    lacking = {'discs': 'single discs (names such as L4-L5) on sagittal scans'}
    page = write_reproduction(shown, tmp_path, lacking, ['A remark.'], {}).read_text()
    assert '<b>' not in page
    assert 'Not made: The data have no label map of single discs' in page
    assert 'evaluation_sections.tsv was not made' in page
    assert '0.844 ± 0.0567' in page  # the paper's own numbers are there
    text = (tmp_path / 'reproduction.md').read_text()
    assert '<b>' not in text
    assert 'n/a (0.844 ± 0.0567) |' in text


def test_a_page_says_why_a_test_was_not_made(tmp_path: Path) -> None:
    table = {
        'number': 't', 'title': 'Text. Tests', 'file': 'tests.tsv', 'row': '{outcome}',
        'only': {'within': ['all']},
        'columns': [{'heading': 'p', 'where': {'measure': 'dice'}, 'cell': ['{p:p}']}],
    }  # fmt: skip
    (tmp_path / 'tests.tsv').write_text(
        'outcome\twithin\tmeasure\tp\treason\na\tall\tdice\tn/a\t3 people are too few\n'
        'b\tall\tdice\t0.5\tn/a\nc\tdisc\tdice\tn/a\tnobody\n'
        'b\tall\tmfi\tn/a\tnobody\n'
    )
    shown = {
        'name': 'xia2019', 'title': '', 'scale': 'tiny', 'data': '', 'arms': [],
        'tables': [table], 'figures': [],
    }  # fmt: skip
    page = write_reproduction(shown, tmp_path, {}, [], {}).read_text()
    assert '<p>n/a: 3 people are too few.</p>' in page
    assert 'nobody' not in page
    text = (tmp_path / 'reproduction.md').read_text()
    assert '| | p |\n|---|---|\n| a | n/a |\n| b | 0.500 |\n\nn/a: 3 people are too few.' in text


def test_structures_without_sides_are_drawn() -> None:
    table = pd.DataFrame(
        {
            'index': [2],
            'name': ['disc'],
            'side': ['middle'],
            'dice': [0.5],
            'scan': ['a'],
            'participant_id': ['sub-a'],
        }
    )
    assert dice_plot(table).axes


@pytest.mark.slow
@pytest.mark.parametrize('name', PAPERS)
def test_an_experiment_runs_and_is_kept(name: str, tmp_path: Path) -> None:
    options = ['reproduce', name, '--output', str(tmp_path / name), '--scale', 'tiny']
    assert main(options) == ExitCode.OK
    paper = read_paper(name)
    page = (tmp_path / name / 'reproduction.html').read_text(encoding='utf-8')
    missing = re.findall(r'Not made: ([^<]*)', page)
    assert missing == ([] if name != 'hess2022' else missing)
    for table in paper.tables:
        path = tmp_path / name / table['file']
        if path.is_file():
            cells = fill(table, read_tsv(path, ('muscle', 'side')).to_dict('records'))
            assert {heading for _, heading in cells} == {
                column['heading'] for column in table['columns']
            }
    done = {p: p.stat().st_mtime_ns for p in tmp_path.glob(f'{name}/models/**/*.safetensors')}
    assert done
    assert main(options) == ExitCode.OK
    assert {p: p.stat().st_mtime_ns for p in done} == done


@pytest.mark.slow
def test_the_command_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (DOCS / 'reproduce.md').read_text(encoding='utf-8')
    for block in re.findall(r'^```sh\n(.*?)^```$', page, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            program, *options = shlex.split(line)
            assert program == 'bids_muscle-model'
            assert main(options) == ExitCode.OK
