"""All settings of one run: one frozen object, built once, passed on explicitly.

A value comes from the command line, else from the file given by ``--config-file``, else from the
defaults below. In TOML the settings stand in four tables: ``[input]``, what is read and where the
outputs go; ``[science]``, all that may change a measure; ``[group]``, how a cohort is analysed;
``[execution]``, how it is run.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from bids_muscle.anatomy.labels import REGIONS
from bids_muscle.errors import PARSE_ERRORS, MissingInputError, UnknownLevelError, UsageError
from bids_muscle.files import read_small
from bids_muscle.measurement.methods import FAT_METHODS

LEVELS = ('participant', 'group')
#: What muscle strength goes with, where loads on the spine are computed.
LOADING_STRENGTH = ('area', 'lean')
#: Ways of aligning a scan with its atlas.
REGISTER = ('affine', 'deformable')
#: What is identified by its own checksum, wherever it lies.
BY_CONTENT = ('model', 'atlas', 'levels')
TABLES = ('input', 'science', 'group', 'execution')
#: Paths that are not files or folders of the user beside the dataset.
_OWN_PLACES = {'bids_dir', 'output_dir', 'work_dir'}

#: Fields of the tables of the participant level that the group level needs or may ignore.
_BOTH_LEVELS = {'bids_dir', 'output_dir', 'level', 'skip_bids_validation'}
#: How the participant level alone is run; limits of CPUs and memory hold for both.
_PARTICIPANT_EXECUTION = {
    'clean_workdir',
    'overwrite',
    'reports_only',
    'stop_on_first_crash',
    'use_plugin',
    'write_graph',
}

_LABEL = re.compile(r'[0-9A-Za-z+]+')
_ORIENTATION = re.compile('[LR][AP][IS]')
_DEVICE = re.compile(r'auto|cpu|cuda(:[0-9]+)?')


INPUT, SCIENCE, GROUP, EXECUTION = ({'table': table} for table in TABLES)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one run; equal settings are equal and hash alike.

    Parameters
    ----------
    bids_dir
        The raw BIDS dataset; only read.
    output_dir
        The derivatives dataset.
    level
        ``'participant'`` or ``'group'``.
    participants
        Participant labels without ``sub-``; empty for all.
    sessions
        Session labels without ``ses-``; empty for all.
    region
        ``'cervical'`` or ``'lumbar'`` for every scan, or None to find out per scan.
    contrast_rules
        Table that replaces the built-in rules from BIDS names to contrasts.
    bids_filter_file
        JSON with pybids filters that narrow down the images.
    derivatives
        Derivatives datasets of other programs, with label maps of vertebrae and discs.
    loading
        Compute the loads on the lumbar spine.
    loading_strength
        ``'area'`` or ``'lean'``: whether muscle strength goes with area or area without fat.
    skip_bids_validation
        Do not ask for a valid ``dataset_description.json``.
    model
        Name or folder of a model bundle, or None for the region's default.
    model_orientation
        Voxel order, such as ``'LPS'``, of the files that a model of another program was trained
        on, where it does not say so.
    bias_correction
        Correct the bias field before segmentation.
    atlas
        Folder of an atlas, or None for the one of the package.
    register
        ``'affine'`` or ``'deformable'``: how a scan is aligned with its atlas.
    levels
        Table of vertebral levels marked by hand, or None to take them from the vertebrae of the
        session, else from the atlas.
    fat_method
        How fat is measured: ``'auto'`` for all ways that a scan allows, or one of
        :data:`bids_muscle.measurement.methods.FAT_METHODS` for the scans that allow it.
    tta
        Segment mirrored images too and average (test-time augmentation).
    fix_swaps
        Exchange water and fat where the scanner confused them, and in- and opposed-phase.
    qc_ratings
        Rating files exported from the review page.
    exclude
        Table of participants, scans or muscles that do not count in the cohort.
    formula
        Linear model of the user, as in R.
    session_order
        Session labels without ``ses-`` in the order of time; empty to find it out.
    harmonise_sites
        Remove differences between sites where ``participants.tsv`` has a ``site``.
    work_dir
        Folder of intermediate files, or None for a temporary one.
    nprocs
        CPUs used at once by all steps together, or None for all that are allowed.
    omp_nthreads
        Threads of the segmentation of one scan, or None for one.
    memory_gb
        Memory (GB, 10^9 bytes) that all steps together may use, or None for what is allowed.
    device
        ``'auto'``, ``'cpu'``, ``'cuda'`` (all GPUs) or ``'cuda:N'`` (one GPU).
    use_plugin
        Name of one of Nipype's own plugins, or a YAML file with its name and arguments, that runs
        the steps instead of processes here; None for processes here.
    stop_on_first_crash
        Start no further step after the first that fails.
    clean_workdir
        Remove the work folder after a run without failures.
    overwrite
        Do scans again that an earlier run finished with the same inputs and settings.
    dry_run
        Print the plan and compute nothing.
    reports_only
        Only make the reports again, from outputs that are there.
    write_graph
        Write the workflow graph of each participant into the logs.
    verbosity
        0 for results and problems, 1 for the steps, 2 for tracebacks and details.

    Raises
    ------
    UsageError
        If a value is not one of those described above.
    """

    bids_dir: Path = field(metadata=INPUT)
    output_dir: Path = field(metadata=INPUT)
    level: str = field(metadata=INPUT)
    participants: tuple[str, ...] = field(default=(), metadata=INPUT)
    sessions: tuple[str, ...] = field(default=(), metadata=INPUT)
    region: str | None = field(default=None, metadata=INPUT)
    contrast_rules: Path | None = field(default=None, metadata=INPUT)
    bids_filter_file: Path | None = field(default=None, metadata=INPUT)
    derivatives: tuple[Path, ...] = field(default=(), metadata=INPUT)
    loading: bool = field(default=False, metadata=INPUT)
    loading_strength: str = field(default='area', metadata=INPUT)
    skip_bids_validation: bool = field(default=False, metadata=INPUT)

    model: str | None = field(default=None, metadata=SCIENCE)
    model_orientation: str | None = field(default=None, metadata=SCIENCE)
    bias_correction: bool = field(default=True, metadata=SCIENCE)
    fat_method: str = field(default='auto', metadata=SCIENCE)
    tta: bool = field(default=False, metadata=SCIENCE)
    fix_swaps: bool = field(default=False, metadata=SCIENCE)
    atlas: Path | None = field(default=None, metadata=SCIENCE)
    register: str = field(default='affine', metadata=SCIENCE)
    levels: Path | None = field(default=None, metadata=SCIENCE)

    qc_ratings: tuple[Path, ...] = field(default=(), metadata=GROUP)
    exclude: Path | None = field(default=None, metadata=GROUP)
    formula: str | None = field(default=None, metadata=GROUP)
    session_order: tuple[str, ...] = field(default=(), metadata=GROUP)
    harmonise_sites: bool = field(default=True, metadata=GROUP)

    work_dir: Path | None = field(default=None, metadata=EXECUTION)
    nprocs: int | None = field(default=None, metadata=EXECUTION)
    omp_nthreads: int | None = field(default=None, metadata=EXECUTION)
    memory_gb: float | None = field(default=None, metadata=EXECUTION)
    device: str = field(default='auto', metadata=EXECUTION)
    use_plugin: str | None = field(default=None, metadata=EXECUTION)
    stop_on_first_crash: bool = field(default=False, metadata=EXECUTION)
    clean_workdir: bool = field(default=False, metadata=EXECUTION)
    overwrite: bool = field(default=False, metadata=EXECUTION)
    dry_run: bool = field(default=False, metadata=EXECUTION)
    reports_only: bool = field(default=False, metadata=EXECUTION)
    write_graph: bool = field(default=False, metadata=EXECUTION)
    verbosity: int = field(default=0, metadata=EXECUTION)

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise UnknownLevelError(
                f"The analysis level '{self.level}' is unknown.",
                f'Use one of: {", ".join(LEVELS)}.',
            )
        if self.region not in (None, *REGIONS):
            raise UsageError(
                f"The region '{self.region}' is unknown.", f'Use one of: {", ".join(REGIONS)}.'
            )
        if self.register not in REGISTER:
            raise UsageError(
                f"The registration '{self.register}' is unknown.",
                f'Use one of: {", ".join(REGISTER)}.',
            )
        if self.loading_strength not in LOADING_STRENGTH:
            raise UsageError(
                f"The strength '{self.loading_strength}' is unknown.",
                f'Use one of: {", ".join(LOADING_STRENGTH)}.',
            )
        if self.fat_method not in FAT_METHODS:
            raise UsageError(
                f"The fat method '{self.fat_method}' is unknown.",
                f'Use one of: {", ".join(FAT_METHODS)}.',
            )
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
        for name in ('nprocs', 'omp_nthreads', 'memory_gb'):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f'{name} is {value}.', 'Give a number above zero.')
        if self.use_plugin and self.work_dir is None:
            raise UsageError(
                'With --use-plugin, steps may run on other machines.',
                'Name a work folder that all of them see with --work-dir.',
            )
        for label in (*self.participants, *self.sessions, *self.session_order):
            if not _LABEL.fullmatch(label):
                raise UsageError(
                    f"'{label}' cannot be a BIDS label.",
                    'Use letters and digits only; sub- and ses- may be left out.',
                )

    @classmethod
    def from_sources(
        cls, flags: Mapping[str, Any], config: Mapping[str, Any] | None = None
    ) -> Settings:
        """Build the settings: flags over the settings file over the defaults.

        Parameters
        ----------
        flags
            Value by field name; None and absent mean not given.
        config
            Value by field name, as returned by :func:`read_config`.

        Returns
        -------
        Settings
            With absolute paths, and labels without ``sub-`` and ``ses-``, each once.

        Raises
        ------
        UsageError
            If a value is not allowed or a needed one is missing.

        Examples
        --------
        >>> flags = {'bids_dir': '/in', 'output_dir': '/out', 'level': 'participant'}
        >>> config = {'nprocs': 2, 'device': 'cpu'}
        >>> settings = Settings.from_sources({**flags, 'nprocs': 4}, config)
        >>> settings.nprocs, settings.device
        (4, 'cpu')
        """
        given = {**(config or {}), **{key: val for key, val in flags.items() if val is not None}}
        values = {key: _convert(key, value) for key, value in given.items()}
        for name in ('bids_dir', 'output_dir', 'level'):
            if name not in values:
                raise UsageError(f'{name} is not given.', 'Give it on the command line.')
        return cls(**values)

    def inputs(self) -> dict[str, tuple[Path, ...]]:
        """Return the files and folders that are read beside the dataset, by name of the field."""
        named = {
            name: getattr(self, name)
            for name in _FIELDS.keys() - _OWN_PLACES
            if Path in (_TYPES[name], *get_args(_TYPES[name]))
        }
        return {
            name: value if isinstance(value, tuple) else (value,)
            for name, value in sorted(named.items())
            if value
        }

    def to_toml(self) -> str:
        """Return the settings as TOML for :func:`read_config`, without the unset ones."""
        import tomli_w

        return tomli_w.dumps({table: self._table(table) for table in TABLES})

    def science(self) -> dict[str, Any]:
        """Return what may change a number, as JSON-ready values, without `BY_CONTENT`."""
        table = self._table('science')
        return {key: value for key, value in table.items() if key not in BY_CONTENT}

    def _table(self, table: str) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in _FIELDS if _table_of(name) == table}
        return {name: _plain(value) for name, value in values.items() if value is not None}


_FIELDS: dict[str, Field[Any]] = {each.name: each for each in fields(Settings)}
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
    fields = {name for name in _FIELDS if _table_of(name) in tables} - _BOTH_LEVELS
    return frozenset(fields | _PARTICIPANT_EXECUTION if level == 'participant' else fields)


def read_config(path: Path) -> dict[str, Any]:
    """Read a settings file.

    Parameters
    ----------
    path
        TOML file with the tables ``[input]``, ``[science]``, ``[group]`` and ``[execution]``.

    Returns
    -------
    dict
        Value by field name of :class:`Settings`.

    Raises
    ------
    MissingInputError
        If the file cannot be read.
    UsageError
        If it is not TOML, or a table or key is unknown, or a value has the wrong type.
    """
    try:
        document = tomllib.loads(read_small(path).decode())
    except OSError as error:
        raise MissingInputError(
            f'The settings file {path} cannot be read: {error.strerror}.', 'Check --config-file.'
        ) from error
    except PARSE_ERRORS as error:
        raise UsageError(
            f'The settings file {path} is not TOML: {error}.', 'Correct it at that place.'
        ) from error
    values: dict[str, Any] = {}
    for table, content in document.items():
        if table not in TABLES or not isinstance(content, dict):
            what = f'table [{table}]' if isinstance(content, dict) else f"key '{table}'"
            raise UsageError(
                f'The settings file {path} has an unknown {what} at its top.',
                _nearest(table, TABLES),
            )
        known = [name for name in _FIELDS if _table_of(name) == table]
        for key, value in content.items():
            if key not in known:
                raise UsageError(
                    f"The settings file {path} has an unknown key '{key}' in [{table}].",
                    _nearest(key, known),
                )
            try:
                values[key] = _convert(key, value)
            except UsageError as error:
                raise UsageError(f'The settings file {path}: {error.message}', error.remedy) from (
                    error
                )
    return values


def _table_of(name: str) -> str:
    table: str = _FIELDS[name].metadata['table']
    return table


def _nearest(name: str, known: Sequence[str]) -> str:
    """Say which known name was probably meant."""
    if name in _FIELDS:
        return f'Move it to the table [{_table_of(name)}].'
    close = difflib.get_close_matches(name, known, n=1)
    return f'Did you mean {close[0]}?' if close else f'Known are: {", ".join(known)}.'


def _plain(value: Any) -> Any:
    """Return a value as TOML and JSON know it."""
    if isinstance(value, Path):
        return str(value)
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


_WANTED = {
    Path: 'a path',
    str: 'a string',
    bool: 'true or false',
    int: 'a whole number',
    float: 'a number',
    tuple: 'a list of strings',
}


def _convert(name: str, value: Any) -> Any:
    """Return a value in the type of its field, or raise UsageError."""
    kind = _TYPES[name]
    if get_origin(kind) in (Union, types.UnionType):
        kind = get_args(kind)[0]
    kind = get_origin(kind) or kind
    # bool is an int for Python, but 'nprocs = true' is a mistake.
    fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if kind is Path and isinstance(value, str | Path) and str(value):
        return Path(value).expanduser().absolute()
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is tuple and isinstance(value, list | tuple):
        fits = all(isinstance(each, str | Path) for each in value)
        if fits and name in ('qc_ratings', 'derivatives'):
            return tuple(dict.fromkeys(Path(each).expanduser().absolute() for each in value))
        if fits:
            prefix = 'sub-' if name == 'participants' else 'ses-'
            return tuple(dict.fromkeys(str(each).removeprefix(prefix) for each in value))
    if not fits:
        raise UsageError(f'{name} is {value!r}.', f'Give {_WANTED[kind]}.')
    return value
