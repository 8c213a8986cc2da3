"""From the command line to the settings."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bids_muscle import __version__
from bids_muscle.errors import UsageError
from bids_muscle.measurement.methods import FAT_METHODS
from bids_muscle.settings import Settings, only_at, read_config

_PREFIXES = {'k': 1, 'm': 2, 'g': 3, 't': 4}
_BYTES = {
    **{prefix: 1000**power for prefix, power in _PREFIXES.items()},
    **{f'{prefix}b': 1000**power for prefix, power in _PREFIXES.items()},
    **{f'{prefix}ib': 1024**power for prefix, power in _PREFIXES.items()},
}

_DESCRIPTION = (
    'Muscle fat infiltration, volume and cross-sectional area from MRI of the neck and the '
    'lumbar spine, as a BIDS App.'
)
_EPILOG = """
An option may be written with _ for -. Options of the command line win over --config-file.

exit codes: 0 all done; 1 something failed; 16 not a BIDS dataset; 17 unknown analysis level;
18 nothing selected; 64 wrong usage; 65 unusable data; 66 input missing or unreadable;
73 output cannot be created; 74 input/output error; 75 temporary failure, run again.
"""


class _Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would print and exit with 2."""

    def error(self, message: str) -> NoReturn:
        remedy = f'See {self.prog} --help.'
        if 'arguments are required' in message:
            remedy = (
                'Write <bids_dir> <output_dir> participant|group first, then the options: '
                'labels take all words that follow.'
            )
        if match := re.search(r'unrecognized arguments: (--?[\w-]+)', message):
            close = difflib.get_close_matches(match[1], self._option_string_actions, n=1)
            remedy = f'Did you mean {close[0]}?' if close else remedy
        raise UsageError(f'{message[0].upper()}{message[1:].rstrip(".")}.', remedy)


def memory_gb(text: str) -> float:
    """Return an amount of memory in GB (10^9 bytes).

    A number without a unit is refused, since it means MB to some BIDS Apps and GB to others.

    Raises
    ------
    argparse.ArgumentTypeError
        If there is no number or no unit.

    Examples
    --------
    >>> memory_gb('8G'), memory_gb('8000 MB'), memory_gb('1GiB')
    (8.0, 8.0, 1.073741824)
    """
    match = re.fullmatch(r'([0-9]*\.?[0-9]+) *([a-z]+)', text.strip().lower())
    if not match or match[2] not in _BYTES:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not an amount of memory with a unit, such as 8G or 8000M"
        )
    return float(match[1]) * _BYTES[match[2]] / 1e9


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; the destinations are the fields of Settings, None where not given."""
    parser = _Parser(
        prog='bids_muscle',
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument('bids_dir', type=Path, help='the raw BIDS dataset; it is only read')
    parser.add_argument('output_dir', type=Path, help='the derivatives dataset to be written')
    parser.add_argument(
        'level',
        metavar='participant|group',
        help='measure each participant, or collect what was measured into cohort tables',
    )
    _add_input(parser.add_argument_group('what is computed'))
    _add_science(parser.add_argument_group('how it is measured'))
    _add_group(parser.add_argument_group('how the cohort is analysed (group level)'))
    _add_execution(parser.add_argument_group('how it is run'))
    parser.add_argument('--version', action='version', version=f'bids_muscle {__version__}')
    return parser


def parse(argv: Sequence[str], *, both_levels: bool = False) -> Settings:
    """Return the settings from the words of the command line and the settings file they name.

    Parameters
    ----------
    argv
        Words after the command.
    both_levels
        Allow options of the other level; in a settings file they always are.

    Raises
    ------
    UsageError
        If the command line or the settings file cannot be understood.
    MissingInputError
        If the settings file cannot be read.
    SystemExit
        After ``--help`` and ``--version``.
    """
    parser = make_parser()
    flags = vars(parser.parse_args([_with_dashes(word) for word in argv]))
    if not both_levels:
        _check_level(parser, flags)
    config_file = flags.pop('config_file')
    flags.pop('notrack', None)
    return Settings.from_sources(flags, read_config(config_file) if config_file else None)


def _check_level(parser: argparse.ArgumentParser, flags: Mapping[str, Any]) -> None:
    """Raise UsageError where an option has no effect at the level that is to run."""
    level = flags['level']
    other = {'participant': 'group', 'group': 'participant'}.get(level, '')
    foreign = [
        action.option_strings[-1]
        for action in parser._actions
        if flags.get(action.dest) is not None and action.dest in only_at(other)
    ]
    if foreign:
        names = ', '.join(foreign)
        raise UsageError(
            f'At the {level} level {names} would have no effect.', f'Use it with {other}.'
        )


def _add_input(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        '--participant-label',
        dest='participants',
        metavar='LABEL',
        nargs='+',
        action='extend',
        help='only these participants, with or without sub-',
    )
    group.add_argument(
        '--session-label',
        '--session-id',
        dest='sessions',
        metavar='LABEL',
        nargs='+',
        action='extend',
        help='only these sessions, with or without ses-',
    )
    group.add_argument(
        '--region',
        metavar='cervical|lumbar',
        help='region of every scan (default: found out per scan)',
    )
    group.add_argument(
        '--contrast-rules',
        type=Path,
        metavar='FILE',
        help='table that says which BIDS names mean which contrast (default: built in)',
    )
    group.add_argument(
        '--bids-filter-file',
        type=Path,
        metavar='FILE',
        help='JSON with pybids filters that narrow down the images',
    )
    group.add_argument(
        '-d',
        '--derivatives',
        type=Path,
        metavar='FOLDER',
        nargs='+',
        action='extend',
        help='derivatives of other programs: their label maps seg-vertebrae and seg-discs are '
        'measured; corrected label maps desc-manual_dseg take the place of our own',
    )
    group.add_argument(
        '--loading',
        action='store_const',
        const=True,
        help='compute the loads on the discs L1-L2 to L5-S1 where the vertebrae are known; needs '
        "pip install 'bids_muscle[loading]'",
    )
    group.add_argument(
        '--loading-strength',
        metavar='area|lean',
        help='what muscle strength goes with in the model: area (default), or area without fat',
    )
    group.add_argument(
        '--skip-bids-validation',
        action='store_const',
        const=True,
        help='do not ask for a valid dataset_description.json',
    )
    group.add_argument(
        '--dry-run',
        action='store_const',
        const=True,
        help='print what would be computed from which files, and compute nothing',
    )
    group.add_argument(
        '--reports-only',
        action='store_const',
        const=True,
        help='only make the reports again, from outputs that are there',
    )


def _add_science(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        '--model', metavar='NAME|FOLDER', help="segmentation model (default: the region's own)"
    )
    group.add_argument(
        '--model-orientation',
        metavar='RAS|LPS|...',
        help='voxel order of the files that a model of another program was trained on, if it does '
        'not say so (nnU-Net)',
    )
    group.add_argument(
        '--atlas',
        type=Path,
        metavar='FOLDER',
        help='atlas made by bids_muscle-atlas build (default: that of the package)',
    )
    group.add_argument(
        '--register',
        metavar='affine|deformable',
        help='how a scan is aligned with its atlas (default: affine)',
    )
    group.add_argument(
        '--levels',
        type=Path,
        metavar='FILE',
        help='table of vertebral levels marked by hand: participant_id, session_id, slice or '
        'z_mm, level (default: vertebrae of the session, else the atlas)',
    )
    group.add_argument(
        '--no-bias-correction',
        dest='bias_correction',
        action='store_const',
        const=False,
        help='do not correct the bias field before segmentation',
    )
    group.add_argument(
        '--fat-method',
        metavar='|'.join(FAT_METHODS),
        help='how fat is measured: in Dixon scans as ratio of means or mean of voxels, in T1w, '
        'T2w and PDw scans by a threshold (default: auto, all that a scan allows)',
    )
    group.add_argument(
        '--tta',
        action='store_const',
        const=True,
        help='segment mirrored images too and average: twice the time of the network',
    )
    group.add_argument(
        '--fix-swaps',
        action='store_const',
        const=True,
        help='exchange water and fat where the scanner confused them, and in- and opposed-phase '
        'that are exchanged, instead of leaving such places out',
    )


def _add_group(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        '--qc-ratings',
        metavar='FILE',
        nargs='+',
        action='extend',
        help='ratings exported from the review page, TSV or JSON, of one or more raters',
    )
    group.add_argument(
        '--exclude',
        type=Path,
        metavar='FILE',
        help='TSV of participants, scans or muscles that do not count, with the reason',
    )
    group.add_argument(
        '--formula',
        metavar='MODEL',
        help="a linear model of your own, such as 'volume_ml ~ age * sex + muscle'",
    )
    group.add_argument(
        '--session-order',
        metavar='LABEL',
        nargs='+',
        help='sessions in the order of time, the earliest first (default: by acq_time, else a '
        'number in sessions.tsv, else what the labels say)',
    )
    group.add_argument(
        '--no-harmonisation',
        dest='harmonise_sites',
        action='store_const',
        const=False,
        help='keep differences between sites (default: removed by ComBat where participants.tsv '
        'has a site)',
    )


def _add_execution(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        '-w',
        '--work-dir',
        type=Path,
        metavar='FOLDER',
        help='folder of intermediate files (default: a temporary one)',
    )
    group.add_argument(
        '--clean-workdir',
        action='store_const',
        const=True,
        help='remove the work folder after a run without failures',
    )
    group.add_argument(
        '--nprocs',
        '--nthreads',
        '--n-cpus',
        dest='nprocs',
        type=int,
        metavar='N',
        help='CPUs used at once by all steps together (default: all that are allowed here)',
    )
    group.add_argument(
        '--omp-nthreads',
        type=int,
        metavar='N',
        help='threads of the segmentation of one scan (default: 1)',
    )
    group.add_argument(
        '--mem',
        dest='memory_gb',
        type=memory_gb,
        metavar='SIZE',
        help='memory for all steps together, with its unit: 8G, 8000M, 8GiB '
        '(default: nine tenths of what is allowed here)',
    )
    group.add_argument(
        '--device',
        metavar='auto|cpu|cuda|cuda:N',
        help='where the network runs: a GPU if there is one (auto, the default), the CPU, '
        'all GPUs, or one GPU',
    )
    group.add_argument(
        '--use-plugin',
        metavar='NAME|FILE',
        help="run each step by one of Nipype's own plugins, such as SGE or PBS: its name, or a "
        'YAML file with plugin and plugin_args; needs --work-dir',
    )
    group.add_argument(
        '--overwrite',
        action='store_const',
        const=True,
        help='do finished scans again (default: skip those with the same inputs and settings)',
    )
    group.add_argument(
        '--stop-on-first-crash',
        action='store_const',
        const=True,
        help='start no further step after the first that fails',
    )
    group.add_argument(
        '--config-file',
        type=Path,
        metavar='FILE',
        help='TOML with settings, as written into the logs of every run',
    )
    group.add_argument(
        '--write-graph',
        action='store_const',
        const=True,
        help='write the workflow graph of each participant into the logs',
    )
    group.add_argument(
        '-v',
        '--verbose',
        dest='verbosity',
        action='count',
        help='-v names the steps, -vv shows tracebacks and details',
    )
    group.add_argument(
        '--notrack',
        action='store_true',
        default=argparse.SUPPRESS,
        help='accepted for other BIDS Apps; this one never sends anything anywhere',
    )


def _with_dashes(word: str) -> str:
    """Return an option with dashes where BIDS Apps in the wild have underscores."""
    if not word.startswith('--'):
        return word
    option, equals, value = word.partition('=')
    return option.replace('_', '-') + equals + value
