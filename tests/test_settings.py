"""Settings come from flags, a TOML file and defaults, in that order."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from bids_muscle.config import build_settings, read_config
from bids_muscle.errors import ExitCode, MissingInputError, UnknownLevelError, UsageError
from bids_muscle.settings import Settings

FLAGS: dict[str, Any] = {'bids_dir': '/in', 'output_dir': '/out', 'level': 'participant'}

EVERYTHING: dict[str, Any] = {
    **FLAGS,
    'participants': ['01', 'sub-02'],
    'sessions': ['ses-a'],
    'region': 'lumbar',
    'contrast_rules': '/rules.tsv',
    'bids_filter_file': '/filter.json',
    'derivatives': ['/derivatives/spine'],
    'norms': '/norms.json',
    'loading': True,
    'loading_strength': 'lean',
    'skip_bids_validation': True,
    'model': 'small',
    'model_orientation': 'LPS',
    'models': {'spine': '/models/spine', 'neck': 'large'},
    'model_overlap': 0.5,
    'bias_correction': False,
    'fat_method': 'gmm3',
    'tta': True,
    'fix_swaps': True,
    'qc_ratings': ['/ratings.tsv'],
    'exclude': '/exclude.tsv',
    'formula': 'volume_ml ~ age',
    'group': ['group', 'Pain score'],
    'sdc': '/sdc.tsv',
    'session_order': ('pre', 'post'),
    'harmonise_sites': False,
    'atlas': '/atlas',
    'register': 'deformable',
    'levels': '/levels.tsv',
    'work_dir': '/work',
    'nprocs': 4,
    'omp_nthreads': 2,
    'memory_gb': 8,
    'device': 'cuda:1',
    'stop_on_first_crash': True,
    'overwrite': True,
    'clean_workdir': True,
    'dry_run': True,
    'reports_only': True,
    'write_graph': True,
    'output_level': 'full',
    'use_plugin': 'SGE',
    'verbosity': 2,
    'quiet': True,
}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_everything_differs_from_the_defaults_here() -> None:
    assert set(EVERYTHING) == {each.name for each in dataclasses.fields(Settings)}
    defaults, other = build_settings(FLAGS), build_settings(EVERYTHING)
    for name in set(EVERYTHING) - set(FLAGS):
        assert getattr(defaults, name) != getattr(other, name)


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = write(tmp_path / 's.toml', '[execution]\nnprocs = 2\nomp_nthreads = 1\n')
    settings = build_settings({**FLAGS, 'nprocs': 3, 'device': None}, read_config(path))
    assert (settings.nprocs, settings.omp_nthreads, settings.device) == (3, 1, 'auto')


def test_labels_lose_their_prefix_and_come_once() -> None:
    flags = {**FLAGS, 'participants': ['sub-01', '01', '02'], 'sessions': ['ses-1']}
    settings = build_settings(flags)
    assert (settings.participants, settings.sessions) == (('01', '02'), ('1',))


def test_paths_are_absolute() -> None:
    settings = build_settings({**FLAGS, 'bids_dir': 'here', 'work_dir': '~/w'})
    assert settings.bids_dir == Path.cwd() / 'here'
    assert settings.work_dir == Path.home() / 'w'


@pytest.mark.parametrize('values', [FLAGS, EVERYTHING])
def test_toml_gives_the_same_settings_back(tmp_path: Path, values: dict[str, Any]) -> None:
    settings = build_settings(values)
    path = write(tmp_path / 'settings.toml', settings.to_toml())
    again = build_settings({}, read_config(path))
    assert again == settings
    assert hash(again) == hash(settings)
    assert again.to_toml() == settings.to_toml()


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('region', 'thoracic'),
        ('device', 'gpu'),
        ('device', 'cuda:'),
        ('nprocs', 0),
        ('nprocs', True),
        ('nprocs', 2.5),
        ('omp_nthreads', -1),
        ('memory_gb', 0),
        ('memory_gb', float('nan')),
        ('memory_gb', '8'),
        ('participants', '01'),
        ('participants', [1]),
        ('participants', ['../01']),
        ('sessions', ['']),
        ('work_dir', ''),
        ('bias_correction', 'no'),
        ('model', 3),
    ],
)
def test_a_wrong_value_is_named(name: str, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        build_settings({**FLAGS, name: value})
    shown = value[0] if isinstance(value, list) and value != [1] else value
    assert str(shown) in caught.value.message
    assert caught.value.remedy


def test_an_unknown_level_has_its_own_exit_code() -> None:
    with pytest.raises(UnknownLevelError) as caught:
        build_settings({**FLAGS, 'level': 'session'})
    assert caught.value.exit_code == ExitCode.UNKNOWN_LEVEL


def test_the_folders_are_needed() -> None:
    with pytest.raises(UsageError, match='output_dir'):
        build_settings({'bids_dir': '/in', 'level': 'group'})


@pytest.mark.parametrize(
    ('text', 'named', 'remedy'),
    [
        ('[execution]\nnproc = 2\n', "'nproc' in [execution]", 'Did you mean nprocs?'),
        ('[science]\nnprocs = 2\n', "'nprocs' in [science]", 'table [execution]'),
        ('[sciences]\nmodel = "x"\n', 'table [sciences]', 'Did you mean science?'),
        ('nprocs = 2\n', "key 'nprocs'", 'table [execution]'),
        ('[execution]\nqqq = 2\n', "'qqq'", 'Known are: output_level, work_dir,'),
        ('[execution]\nnprocs = "2"\n', "nprocs is '2'", 'a whole number'),
        ('[input]\nparticipants = "01"\n', "participants is '01'", 'a list of strings'),
        ('[science]\nbias_correction = 1\n', 'bias_correction is 1', 'true or false'),
        ('[models]\ncervical = "x"\n', "'cervical' in [models]", 'Known are: neck, lumbar, spine'),
        ('[models]\nneck = 3\n', '[models] neck is 3', 'name of a model'),
        ('[model]\nneck = "x"\n', 'table [model]', 'Did you mean models?'),
        ('[execution\n', 'not TOML', 'Correct it'),
    ],
)
def test_a_mistake_in_the_file_is_named_with_the_file(
    tmp_path: Path, text: str, named: str, remedy: str
) -> None:
    path = write(tmp_path / 'wrong.toml', text)
    with pytest.raises(UsageError) as caught:
        read_config(path)
    assert named in caught.value.message
    assert str(path) in caught.value.message
    assert remedy in caught.value.remedy


def test_a_settings_file_that_is_not_text_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / 'binary.toml'
    path.write_bytes(b'\xff\xfe\x00')
    with pytest.raises(UsageError, match='not TOML'):
        read_config(path)


def test_a_missing_settings_file_is_missing_input(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match='No such file'):
        read_config(tmp_path / 'none.toml')


def test_models_of_a_site_are_known_by_region(tmp_path: Path) -> None:
    path = write(tmp_path / 's.toml', '[models]\nlumbar = "b"\nneck = "a"\n')
    settings = build_settings(FLAGS, read_config(path))
    assert settings.models == (('cervical', 'a'), ('lumbar', 'b'))
    assert 'models' not in build_settings(FLAGS).to_toml()
