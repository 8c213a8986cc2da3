"""All settings of one run: one frozen object, built once, passed on explicitly.

A value comes from the command line, else from the file given by ``--config-file``, else from the
defaults below (:mod:`bids_muscle.config`). In TOML, the settings are in four tables: ``[input]``,
what is read and where the outputs go; ``[science]``, all that may change a measure; ``[group]``,
how a cohort is analysed; ``[execution]``, how it is run. The command line, its help and
docs/usage.md are made from the fields. A fifth table, ``[models]``, has no option: a site names
its models there.
"""

from __future__ import annotations

import dataclasses
import re
import types
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from bids_muscle.anatomy.labels import OTHER_REGIONS, REGIONS, SPINE
from bids_muscle.errors import UnknownLevelError, UsageError
from bids_muscle.measurement.methods import FAT_METHODS

LEVELS = ('participant', 'group')
#: Of the outputs, from fewest to all.
OUTPUT_LEVELS = ('minimal', 'standard', 'full')
#: What is identified by its own checksum, wherever it lies.
BY_CONTENT = ('model', 'atlas', 'levels')
TABLES = ('input', 'science', 'group', 'execution')
#: Region by key of the table ``[models]``.
MODEL_KEYS = {
    'neck': 'cervical',
    'lumbar': 'lumbar',
    'spine': SPINE,
    **{region: region for region in OTHER_REGIONS},
}
#: Paths that are not files or folders of the user beside the dataset.
_OWN_PLACES = {'bids_dir', 'output_dir', 'work_dir'}

#: Fields of the tables of the participant level that the group level needs or may ignore.
_BOTH_LEVELS = {'bids_dir', 'output_dir', 'level', 'skip_bids_validation'}
#: How only the participant level is run; limits of CPUs and memory hold for both.
_PARTICIPANT_EXECUTION = {
    'clean_workdir',
    'output_level',
    'overwrite',
    'reports_only',
    'stop_on_first_crash',
    'use_plugin',
    'write_graph',
}

_LABEL = re.compile(r'[0-9A-Za-z+]+')
_ORIENTATION = re.compile('[LR][AP][IS]')
_DEVICE = re.compile(r'auto|cpu|cuda(:[0-9]+)?')


@dataclass(frozen=True)
class Option:
    """How a setting is given on the command line, and what describes it.

    Parameters
    ----------
    table
        One of :data:`TABLES`.
    text
        Help of the command line, in whole sentences, with code between backticks.
    more
        What docs/usage.md says beyond the help, in Markdown.
    flags
        Spellings; empty for the name of the field with dashes.
    metavar
        Placeholder of the value in the help.
    choices
        The values allowed, or empty.
    unset
        What holds by default, in words, where the value of the field does not say it.
    """

    table: str
    text: str
    more: str = ''
    flags: tuple[str, ...] = ()
    metavar: str = ''
    choices: tuple[str, ...] = ()
    unset: str = ''


def _setting(table: str, default: Any, text: str, more: str = '', **option: Any) -> Any:
    """Return a field with its option; see :class:`Option`."""
    metadata = {'option': Option(table, text, more, **option)}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one run; equal settings are equal and hash alike.

    The option of each field describes it. None means that no value is given. ``models`` holds
    region and model, one pair for each key of ``[models]``; ``model`` takes precedence.

    Raises
    ------
    UsageError
        If a value is not allowed.
    """

    bids_dir: Path = _setting(
        'input', dataclasses.MISSING, 'The raw BIDS dataset. It is only read.'
    )
    output_dir: Path = _setting('input', dataclasses.MISSING, 'The derivatives dataset to write.')
    level: str = _setting(
        'input',
        dataclasses.MISSING,
        'Measure each participant, or collect the measures in cohort tables.',
        choices=LEVELS,
    )
    participants: tuple[str, ...] = _setting(
        'input',
        (),
        'Only these participants, with or without `sub-`.',
        flags=('--participant-label',),
        metavar='LABEL',
    )
    sessions: tuple[str, ...] = _setting(
        'input',
        (),
        'Only these sessions, with or without `ses-`.',
        flags=('--session-label', '--session-id'),
        metavar='LABEL',
    )
    region: str | None = _setting(
        'input',
        None,
        'Body region of all scans. The package has models for the first two regions.',
        choices=(*REGIONS, *OTHER_REGIONS),
        unset='determined for each scan',
    )
    contrast_rules: Path | None = _setting(
        'input',
        None,
        'Table that defines which BIDS names mean which contrast.',
        metavar='FILE',
        unset='the built-in one',
    )
    bids_filter_file: Path | None = _setting(
        'input', None, 'JSON with pybids filters that select images.', metavar='FILE'
    )
    derivatives: tuple[Path, ...] = _setting(
        'input',
        (),
        'Derivatives of other programs. Their label maps `seg-vertebrae` and `seg-discs` are '
        'measured. Corrected label maps, `desc-manual_dseg`, replace the segmentation.',
        'The vertebral levels of these label maps take precedence over those of sagittal scans. '
        'See [correcting a segmentation](outputs.md#correcting-a-segmentation).',
        flags=('-d', '--derivatives'),
        metavar='FOLDER',
    )
    loading: bool = _setting(
        'input',
        False,
        'Compute the loads on the lumbar discs where the vertebrae are known. Needs '
        "`pip install 'bids_muscle[loading]'`.",
        'In a container, it needs an image built with `EXTRAS=loading` ([hpc.md](hpc.md)). See '
        '[loading.md](loading.md).',
    )
    loading_strength: str = _setting(
        'input',
        'area',
        'Scale muscle strength in the load model by cross-sectional area or by lean area (area '
        'without fat).',
        choices=('area', 'lean'),
    )
    skip_bids_validation: bool = _setting(
        'input', False, 'Do not require a valid `dataset_description.json`.'
    )

    model: str | None = _setting(
        'science',
        None,
        'Segmentation model.',
        metavar='NAME|FOLDER',
        unset='the model of the region',
    )
    model_orientation: str | None = _setting(
        'science',
        None,
        'Voxel order of the training images of a model of another program, if the model does not '
        'declare it (nnU-Net).',
        'See [models.md](models.md#models-of-others).',
        metavar='RAS|LPS|...',
    )
    model_overlap: float | None = _setting(
        'science',
        None,
        'Overlap of neighbouring windows for a model of another program, as a fraction. 0 '
        'segments each voxel once, which is faster, but the labels differ from those of its '
        'program.',
        'Mirrored views are left out. See [models.md](models.md#models-of-others).',
        metavar='SHARE',
        unset='the overlap of its program',
    )
    atlas: Path | None = _setting(
        'science',
        None,
        'Atlas made by `bids_muscle-atlas build`.',
        'See [atlas.md](atlas.md).',
        metavar='FOLDER',
        unset='the atlas of the region',
    )
    register: str = _setting(
        'science',
        'affine',
        'How a scan is aligned with its atlas.',
        choices=('affine', 'deformable'),
    )
    levels: Path | None = _setting(
        'science',
        None,
        'Vertebral levels marked by hand, as a tab-separated table: `participant_id`, '
        '`session_id` where there are sessions, `level` (`L4`), and `slice` (from 0 at the '
        'inferior end) or `z_mm` (RAS+).',
        'Mark every level: see [vertebral levels](atlas.md#vertebral-levels).',
        metavar='FILE',
        unset='vertebrae in `--derivatives`, else those of a sagittal scan of the session, else '
        'the atlas',
    )
    bias_correction: bool = _setting(
        'science',
        True,
        'Do not correct the bias field before segmentation.',
        flags=('--no-bias-correction',),
    )
    fat_method: str = _setting(
        'science',
        'auto',
        'How fat is measured: all methods that a scan allows (`auto`); `ratio` of means or '
        '`mean` of voxels for Dixon scans; a threshold (the other four) for T1w, T2w and PDw '
        'scans.',
        'A scan that does not allow the chosen method is measured as with `auto`, and its fat '
        'map is that of `kmeans2`.',
        choices=FAT_METHODS,
    )
    tta: bool = _setting(
        'science',
        False,
        'Test-time augmentation: also segment the images mirrored left to right, and average. '
        'Doubles the time of the network.',
    )
    fix_swaps: bool = _setting(
        'science',
        False,
        'Swap water and fat back where the scanner confused them, and in- and opposed-phase '
        'images that are swapped.',
        unset='swapped voxels are marked and excluded from the fat measures',
    )

    qc_ratings: tuple[Path, ...] = _setting(
        'group',
        (),
        'Ratings exported from the review page, TSV or JSON, of one or more raters.',
        metavar='FILE',
    )
    exclude: Path | None = _setting(
        'group',
        None,
        'TSV of participants, scans or muscles to exclude: `participant_id`, and optionally '
        '`session_id`, `scan`, `muscle` (`left psoas major`) and `reason`.',
        'A cell that is empty or `n/a` means all of them.',
        metavar='FILE',
    )
    group: tuple[str, ...] = _setting(
        'group',
        (),
        'Columns of participants.tsv to compare: groups, or numbers. Adjusted for age, sex, BMI '
        "and site. `'C(arm)'` takes numbers as codes of groups.",
        'See [statistics.md](statistics.md#groups).',
        metavar='COLUMN',
        unset='the first 12 columns that can be compared, called explored',
    )
    formula: str | None = _setting(
        'group',
        None,
        "Your own linear model, as in R: `'volume_ml ~ age * sex + muscle'`.",
        'Allowed: columns, numbers, `+ - * / : ** ( )`, `C() Q() I() center() standardize()` and '
        '`np.log`, `np.exp`, `np.sqrt`. Anything else is rejected and never evaluated.',
        metavar='MODEL',
    )
    session_order: tuple[str, ...] = _setting(
        'group',
        (),
        'Sessions in the order of time, the earliest first: `--session-order pre post`.',
        'See [statistics.md](statistics.md).',
        metavar='LABEL',
        unset='by `acq_time`, else by a number in `sessions.tsv`, else by the labels',
    )
    sdc: Path | None = _setting(
        'group',
        None,
        'TSV of smallest detectable changes: `measure`, `sdc`, and optionally `muscle`, `region` '
        'and `contrast`.',
        'A cell that is empty or `n/a` means all of them. See '
        '[statistics.md](statistics.md#change).',
        metavar='FILE',
        unset='from scans that are repeated within a session, where there are some',
    )
    norms: Path | None = _setting(
        'group',
        None,
        'Norms of `bids_muscle-norms build`: tables and pages say in which centile values lie.',
        'See [norms.md](norms.md).',
        metavar='FILE',
    )
    harmonise_sites: bool = _setting(
        'group',
        True,
        'Keep differences between sites.',
        flags=('--no-harmonisation',),
        unset='ComBat removes them from the statistics where `participants.tsv` has a `site`',
    )

    output_level: str = _setting(
        'execution',
        'standard',
        'How much of each scan is kept. `full`: everything. `standard`: without tables of labels '
        'for other programs, images in atlas space and fat maps, figures in few files. `minimal`: '
        'at most eight files a scan, namely label map, measures, image quality, record and page; '
        'no levels, no parts joined, no correction in the browser.',
        'Numbers of files and bytes are in [large cohorts](scale.md#files). A finished scan is '
        'processed again if it lacks files of this level; one of a fuller level keeps its files.',
        choices=OUTPUT_LEVELS,
    )
    work_dir: Path | None = _setting(
        'execution',
        None,
        'Folder of intermediate files.',
        'Nipype unpickles files in it, so its subfolder `bids_muscle_wf` must belong to you and '
        'be writable by nobody else. Any other folder is rejected.',
        flags=('-w', '--work-dir'),
        metavar='FOLDER',
        unset='a temporary folder',
    )
    clean_workdir: bool = _setting(
        'execution', False, 'Remove the work folder after a run without failures.'
    )
    nprocs: int | None = _setting(
        'execution',
        None,
        'CPUs used at once by all steps together.',
        flags=('--nprocs', '--nthreads', '--n-cpus'),
        metavar='N',
        unset='all that affinity, cgroup and Slurm allow',
    )
    omp_nthreads: int | None = _setting(
        'execution',
        None,
        'Threads of the segmentation of one scan.',
        metavar='N',
        unset='1, because scans run in parallel',
    )
    memory_gb: float | None = _setting(
        'execution',
        None,
        'Memory for all steps together, with its unit: `8G`, `8000M` (powers of 1000) or `8GiB` '
        '(powers of 1024).',
        'A number without a unit is rejected, because it means MB to some BIDS Apps and GB to '
        'others. In a settings file, it is in GB (10^9 bytes).',
        flags=('--mem',),
        metavar='SIZE',
        unset='nine tenths of what the machine, cgroup and Slurm allow',
    )
    device: str = _setting(
        'execution',
        'auto',
        'Where the network runs: on GPUs if available (`auto`), on the CPU, on all GPUs, or on '
        'one GPU.',
        metavar='auto|cpu|cuda|cuda:N',
    )
    use_plugin: str | None = _setting(
        'execution',
        None,
        "Run each step with one of Nipype's own plugins, such as SGE or PBS: its name, or a YAML "
        'file with `plugin` and `plugin_args`. Needs `--work-dir`.',
        'See [clusters](hpc.md#other-schedulers).',
        metavar='NAME|FILE',
    )
    overwrite: bool = _setting(
        'execution',
        False,
        'Process finished scans again.',
        'All are compared by content, so copies, dates and the work folder do not matter.',
        unset='a scan is skipped if an earlier run finished it with the same images, sidecars, '
        'settings, model and version',
    )
    stop_on_first_crash: bool = _setting(
        'execution',
        False,
        'Start no further step after the first failure.',
        unset='all other scans are still processed',
    )
    dry_run: bool = _setting(
        'execution',
        False,
        'Print for each scan what would be computed from which files, and compute nothing. With '
        '`--quiet`, print only the number of scans of each kind and the problems by cause.',
    )
    reports_only: bool = _setting(
        'execution', False, 'Only make the reports again, from existing outputs.'
    )
    write_graph: bool = _setting(
        'execution', False, 'Write the workflow graph of each participant into the logs.'
    )
    verbosity: int = _setting(
        'execution',
        0,
        '`-v` shows when each step begins and ends, `-vv` also tracebacks and details.',
        flags=('-v', '--verbose'),
        unset='results and problems',
    )
    quiet: bool = _setting(
        'execution',
        False,
        'Show only problems, without progress and summary.',
        flags=('-q', '--quiet'),
    )

    models: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for name, option in OPTIONS.items():
            value = getattr(self, name)
            if option.choices and value not in (None, *option.choices):
                error = UnknownLevelError if name == 'level' else UsageError
                raise error(f"{name} is '{value}'.", f'Use one of: {", ".join(option.choices)}.')
        if not _DEVICE.fullmatch(self.device):
            raise UsageError(
                f"The device '{self.device}' is unknown.", 'Use auto, cpu, cuda or cuda:N.'
            )
        if self.model_orientation is not None:
            if not _ORIENTATION.fullmatch(self.model_orientation):
                raise UsageError(
                    f"The voxel order '{self.model_orientation}' is unknown.",
                    'Give three letters, L or R, A or P, S or I, such as LPS.',
                )
            if self.model is None:
                raise UsageError(
                    'The voxel order of a model is given, but no model.', 'Name it with --model.'
                )
        if self.model_overlap is not None:
            if not 0 <= self.model_overlap < 1:
                raise UsageError(
                    f'The overlap of the windows is {self.model_overlap:g}.',
                    'Give a fraction from 0 to below 1, such as 0.5.',
                )
            if self.model is None and not self.models:
                raise UsageError(
                    'The overlap of the windows of a model is given, but no model.',
                    'Name it with --model.',
                )
        for name in ('nprocs', 'omp_nthreads', 'memory_gb'):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f'{name} is {value}.', 'Give a number above zero.')
        if self.loading and self.output_level == 'minimal':
            raise UsageError(
                'Loads on the discs are computed from tables that --output-level minimal leaves '
                'out.',
                'Use --output-level standard.',
            )
        if self.use_plugin and self.work_dir is None:
            raise UsageError(
                'With --use-plugin, steps may run on other machines.',
                'Give a work folder that all of them can access with --work-dir.',
            )
        for label in (*self.participants, *self.sessions, *self.session_order):
            if not _LABEL.fullmatch(label):
                raise UsageError(
                    f"'{label}' cannot be a BIDS label.",
                    'Use letters and digits only; sub- and ses- may be left out.',
                )

    def inputs(self) -> dict[str, tuple[Path, ...]]:
        """Return the files and folders that are read beside the dataset, by name of the field."""
        named = {
            name: getattr(self, name)
            for name in OPTIONS.keys() - _OWN_PLACES
            if Path in (_TYPES[name], *get_args(_TYPES[name]))
        }
        return {
            name: value if isinstance(value, tuple) else (value,)
            for name, value in sorted(named.items())
            if value
        }

    def to_toml(self) -> str:
        """Return the settings as a settings file, in TOML, without the unset ones."""
        import tomli_w

        tables = {table: self._table(table) for table in TABLES}
        if self.models:
            keys = {region: key for key, region in MODEL_KEYS.items()}
            tables['models'] = {keys[region]: model for region, model in self.models}
        return tomli_w.dumps(tables)

    def science(self) -> dict[str, Any]:
        """Return what may change a number, as JSON-ready values, without `BY_CONTENT`."""
        table = self._table('science')
        return {key: value for key, value in table.items() if key not in BY_CONTENT}

    def _table(self, table: str) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in names_of(table)}
        return {name: _plain(value) for name, value in values.items() if value is not None}


#: Option by name of the field.
OPTIONS: dict[str, Option] = {
    each.name: each.metadata['option'] for each in fields(Settings) if each.metadata
}
_TYPES = get_type_hints(Settings)


def only_at(level: str) -> frozenset[str]:
    """Return the fields that have an effect at one level only.

    Examples
    --------
    >>> 'formula' in only_at('group'), 'region' in only_at('participant')
    (True, True)
    >>> 'nprocs' in only_at('participant') | only_at('group')
    False
    """
    tables = {'participant': ('input', 'science'), 'group': ('group',)}.get(level, ())
    names = {name for table in tables for name in names_of(table)} - _BOTH_LEVELS
    return frozenset(names | _PARTICIPANT_EXECUTION if level == 'participant' else names)


def levels_from(output_level: str) -> tuple[str, ...]:
    """Return the output levels that keep at least as much as one.

    Examples
    --------
    >>> levels_from('standard')
    ('standard', 'full')
    """
    return OUTPUT_LEVELS[OUTPUT_LEVELS.index(output_level) :]


def names_of(table: str) -> list[str]:
    """Return the names of the fields of a table."""
    return [name for name, option in OPTIONS.items() if option.table == table]


def _plain(value: Any) -> Any:
    """Return a value as TOML and JSON know it."""
    if isinstance(value, Path):
        return str(value)
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def value_type(name: str) -> tuple[type, bool]:
    """Return the type of a value of a field, and whether the field takes several.

    Examples
    --------
    >>> value_type('derivatives') == (Path, True), value_type('nprocs') == (int, False)
    (True, True)
    """
    kind = _TYPES[name]
    if get_origin(kind) is tuple:
        return get_args(kind)[0], True
    if get_origin(kind) in (Union, types.UnionType):
        return get_args(kind)[0], False
    return kind, False
