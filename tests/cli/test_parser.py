"""The options of the command line and their spellings in the wild."""

from __future__ import annotations

import dataclasses
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from bids_muscle.cli.parser import describe_option, make_parser, parse
from bids_muscle.errors import ExitCode, UsageError
from bids_muscle.settings import OPTIONS, Settings

BASE = ['/in', '/out', 'participant']


@pytest.mark.parametrize(
    ('words', 'name', 'value'),
    [
        ('--participant-label 01 sub-02', 'participants', ('01', '02')),
        ('--participant_label sub-01', 'participants', ('01',)),
        ('--participant-label 01 --participant-label 02', 'participants', ('01', '02')),
        ('--participant-label=01', 'participants', ('01',)),
        ('--session-label a ses-b', 'sessions', ('a', 'b')),
        ('--session_label a', 'sessions', ('a',)),
        ('--session-id ses-a', 'sessions', ('a',)),
        ('--session_id a', 'sessions', ('a',)),
        ('--nprocs 3', 'nprocs', 3),
        ('--nthreads 3', 'nprocs', 3),
        ('--n_cpus 3', 'nprocs', 3),
        ('--n-cpus 3', 'nprocs', 3),
        ('--omp-nthreads 2', 'omp_nthreads', 2),
        ('--omp_nthreads 2', 'omp_nthreads', 2),
        ('--mem 8G', 'memory_gb', 8.0),
        ('--mem 8000M', 'memory_gb', 8.0),
        ('--mem 8gb', 'memory_gb', 8.0),
        ('--mem 0.5T', 'memory_gb', 500.0),
        ('--mem 2GiB', 'memory_gb', 2.147483648),
        ('-w /w', 'work_dir', Path('/w')),
        ('--work-dir /w', 'work_dir', Path('/w')),
        ('--work_dir=/w_x', 'work_dir', Path('/w_x')),
        ('--bids-filter-file /f.json', 'bids_filter_file', Path('/f.json')),
        ('--skip-bids-validation', 'skip_bids_validation', True),
        ('--skip_bids_validation', 'skip_bids_validation', True),
        ('-d /a /b', 'derivatives', (Path('/a'), Path('/b'))),
        ('--fat-method kmeans3', 'fat_method', 'kmeans3'),
        ('--qc-ratings /a.tsv /b.json', 'qc_ratings', (Path('/a.tsv'), Path('/b.json'))),
        ('--qc-ratings /a.tsv --qc-ratings /a.tsv', 'qc_ratings', (Path('/a.tsv'),)),
        ('--exclude /e.tsv', 'exclude', Path('/e.tsv')),
        ('--formula volume_ml~age', 'formula', 'volume_ml~age'),
        ('--no-harmonisation', 'harmonise_sites', False),
        ('--contrast-rules /r.tsv', 'contrast_rules', Path('/r.tsv')),
        ('--region cervical', 'region', 'cervical'),
        ('--model mine', 'model', 'mine'),
        ('--model mine --model-overlap 0', 'model_overlap', 0.0),
        ('--no-bias-correction', 'bias_correction', False),
        ('--device cuda:1', 'device', 'cuda:1'),
        ('--reports-only', 'reports_only', True),
        ('--use-plugin SGE -w /w', 'use_plugin', 'SGE'),
        ('--stop-on-first-crash', 'stop_on_first_crash', True),
        ('--clean-workdir', 'clean_workdir', True),
        ('--write-graph', 'write_graph', True),
        ('--dry-run', 'dry_run', True),
        ('-v', 'verbosity', 1),
        ('-vv', 'verbosity', 2),
        ('--verbose', 'verbosity', 1),
        ('--notrack', 'verbosity', 0),
    ],
)
def test_each_option_reaches_its_setting(words: str, name: str, value: Any) -> None:
    base = ['/in', '/out', 'group']
    settings = parse([*base, *words.split()], both_levels=True)
    assert getattr(settings, name) == value
    # Before and between the positionals it means the same, unless labels swallow them.
    if name not in ('participants', 'sessions', 'qc_ratings', 'derivatives'):
        assert parse([*words.split(), *base], both_levels=True) == settings
        between = [*base[:2], *words.split(), base[2]]
        assert parse(between, both_levels=True) == settings


def test_options_win_over_the_settings_file(tmp_path: Path) -> None:
    file = tmp_path / 'settings.toml'
    file.write_text('[execution]\nnprocs = 2\n[science]\nbias_correction = false\n')
    settings = parse([*BASE, '--config-file', str(file), '--nprocs', '5'])
    assert (settings.nprocs, settings.bias_correction) == (5, False)


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        ('--mem 8', 'with a unit, such as 8G'),
        ('--mem lots', "'lots'"),
        ('--mem -1G', '--mem'),
        ('--nprocs two', "invalid int value: 'two'"),
        ('--particpant-label 01', 'Did you mean --participant-label?'),
        ('--work', 'Did you mean --work-dir?'),
        ('--device tpu', "'tpu'"),
        ('--region knee', "'knee'"),
        ('--participant-label a/b', "'a/b'"),
        ('--bids-database-dir /d', '--bids-database-dir'),
    ],
)
def test_a_mistake_is_a_usage_error_that_names_it(words: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse([*BASE, *words.split()])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ('level', 'words', 'code'),
    [
        ('group', '--participant-label 01', 64),
        ('group', '--region lumbar', 64),
        ('group', '--fat-method gmm2', 64),
        ('group', '--overwrite', 64),
        ('group', '--nprocs 2 --mem 4G --device cpu -w /w -v --skip-bids-validation --notrack', 0),
        ('group', '--formula mfi~age --no-harmonisation --exclude x.tsv', 0),
        ('participant', '--formula mfi~age', 64),
        ('participant', '--no-harmonisation', 64),
        ('participant', '--qc-ratings r.tsv', 64),
        ('participant', '--region lumbar --overwrite', 0),
    ],
)
def test_options_of_the_other_level_are_refused(level: str, words: str, code: int) -> None:
    if not code:
        parse(['/in', '/out', level, *words.split()])
        return
    with pytest.raises(UsageError, match='would have no effect') as caught:
        parse(['/in', '/out', level, *words.split()])
    assert words.split()[0] in str(caught.value)
    parse(['/in', '/out', level, *words.split()], both_levels=True)


def test_labels_that_swallow_the_folders_are_explained() -> None:
    with pytest.raises(UsageError, match='first, then the options'):
        parse(['--participant-label', '01', *BASE])


def test_the_usage_page_describes_the_options_as_the_parser_does() -> None:
    docs = Path(__file__).parents[2] / 'docs'
    page = (docs / 'usage.md').read_text(encoding='utf-8')
    made = runpy.run_path(str(docs / 'options.py'))['page']()
    assert page == made, 'Run python docs/options.py.'
    for action in make_parser()._actions:
        for option in action.option_strings:
            assert f'`{option}' in page, option


@pytest.mark.parametrize('name', OPTIONS)
def test_every_option_is_described(name: str) -> None:
    text = describe_option(name, more=True)
    assert text.endswith('.') and '..' not in text.replace('...', '')
    default = {each.name: each.default for each in dataclasses.fields(Settings)}[name]
    if isinstance(default, str):
        assert text.count(f'Default: {default}.') == 1


def test_the_settings_file_of_the_usage_page_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / 'docs' / 'usage.md').read_text(encoding='utf-8')
    file = tmp_path / 'settings.toml'
    file.write_text(page.split('```toml\n')[1].split('```')[0])
    settings = parse([*BASE, '--config-file', str(file)])
    assert (settings.participants, settings.memory_gb) == (('01', '02'), 8.0)


def test_the_usage_page_lists_every_exit_code() -> None:
    page = (Path(__file__).parents[2] / 'docs' / 'usage.md').read_text(encoding='utf-8')
    assert [int(code) for code in re.findall(r'^\| (\d+) \|', page, re.M)] == sorted(ExitCode)
