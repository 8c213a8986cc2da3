"""``bids_muscle-phantom``: simulate a BIDS dataset of muscle scans with known truth."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bids_muscle import __version__
from bids_muscle.cli.command import run_command
from bids_muscle.errors import UsageError

#: Options that go with ``--sample``.
_WITH_SAMPLE = {'bids_dir', 'sample', 'dicom', 'nprocs', 'overwrite'}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='bids_muscle-phantom',
        description='Simulate water/fat, T1w and T2w scans of the neck and the lumbar spine as a '
        'BIDS dataset, with the true label maps, volumes and fat fractions in derivatives/truth.',
    )
    parser.add_argument('bids_dir', type=Path, help='folder of the dataset')
    parser.add_argument('--participants', type=int, metavar='N', help='number of people')
    parser.add_argument(
        '--sample',
        action='store_true',
        help='write the sample dataset: coarse lumbar Dixon scans of four people, always the '
        'same; allows only --dicom, --nprocs and --overwrite',
    )
    parser.add_argument(
        '--region',
        nargs='+',
        default=['lumbar'],
        metavar='REGION',
        help='cervical, lumbar or both (default: lumbar)',
    )
    parser.add_argument('--sessions', type=int, default=1, metavar='K', help='sessions per person')
    parser.add_argument(
        '--runs', type=int, default=1, metavar='R', help='repeated scans per session'
    )
    parser.add_argument(
        '--contrasts',
        nargs='+',
        default=['dixon'],
        metavar='CONTRAST',
        help='dixon (water and fat), inout (in- and opposed-phase), megre (six echoes), t1w, t2w '
        '(default: dixon)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        metavar='S',
        help='random seed; the same seed gives the same bytes',
    )
    parser.add_argument(
        '--effects', type=Path, metavar='TOML', help='cohort model; see docs/phantom.md'
    )
    parser.add_argument(
        '--artefacts',
        nargs='+',
        default=[],
        metavar='NAME[=SHARE]',
        help='artefacts, with the share of scans affected; see docs/phantom.md',
    )
    _add_scan_options(parser)
    parser.add_argument(
        '--naming',
        default='bids',
        metavar='STYLE',
        help='bids (default) or musclemap (_water, _fat, _inphase, _outphase)',
    )
    parser.add_argument(
        '--dicom',
        metavar='VENDOR',
        help='write the scans to sourcedata as DICOM series of siemens, ge or philips, not as '
        'NIfTI; see docs/from-dicom.md',
    )
    parser.add_argument(
        '--nprocs',
        '--n-procs',
        type=int,
        metavar='P',
        help='number of processes (default: number of available CPUs)',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace an existing phantom dataset'
    )
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')
    return parser


def _add_scan_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how the scans are made."""
    parser.add_argument(
        '--shape', type=int, nargs=3, metavar=('NX', 'NY', 'NZ'), help='matrix of the scans'
    )
    parser.add_argument(
        '--voxel-size', type=float, nargs=3, metavar=('DX', 'DY', 'DZ'), help='voxel size in mm'
    )
    parser.add_argument(
        '--oblique', type=float, default=0.0, metavar='DEG', help='tilt of the slices'
    )
    parser.add_argument(
        '--plane', default='axial', metavar='PLANE', help='axial (default) or sagittal slices'
    )
    parser.add_argument(
        '--snr', type=float, default=40.0, help='signal-to-noise ratio of muscle; 0 for no noise'
    )
    parser.add_argument(
        '--bias',
        type=float,
        default=1.0,
        help='strength of the coil sensitivity profile; 0 for none',
    )
    parser.add_argument(
        '--field-strength', type=float, default=3.0, metavar='T', help='1.5 or 3 (default: 3)'
    )


def parse_artefacts(words: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Read ``name`` or ``name=share``.

    Raises
    ------
    UsageError
        If a share is not a number.
    """
    from bids_muscle.phantom.artefacts import ARTEFACTS

    pairs = []
    for word in words:
        name, _, share = word.partition('=')
        try:
            pairs.append((name, float(share) if share else ARTEFACTS.get(name, 0.0)))
        except ValueError:
            raise UsageError(
                f'The share of scans in {word!r} is not a number.', f'Write {name}=0.1.'
            ) from None
    return tuple(pairs)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(build_parser(), _simulate, argv)


def _simulate(args: argparse.Namespace) -> None:
    from bids_muscle.engine.resources import allowed_cpus
    from bids_muscle.phantom.dataset import SAMPLE, write_dataset
    from bids_muscle.phantom.effects import load_effects

    _check_sample(args)
    settings = SAMPLE if args.sample else _settings(args)
    target = write_dataset(
        args.bids_dir,
        effects=load_effects(args.effects),
        overwrite=args.overwrite,
        n_procs=args.nprocs or allowed_cpus(),
        dicom=args.dicom,
        **settings,
    )
    print(f'{settings["participants"]} participants in {target}')


def _check_sample(args: argparse.Namespace) -> None:
    """Check that options are given with which the sample, or another dataset, can be made."""
    parser = build_parser()
    others = [
        name.replace('_', '-')
        for name, value in vars(args).items()
        if name not in _WITH_SAMPLE and value != parser.get_default(name)
    ]
    if args.sample and others:
        raise UsageError(
            f'--{others[0]} cannot be combined with --sample, which is always the same dataset.',
            f'Leave out --sample or --{others[0]}.',
        )
    if not args.sample and args.participants is None:
        raise UsageError(
            'The number of participants is not given.', 'Add --participants, or --sample.'
        )


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    return {
        'participants': args.participants,
        'regions': tuple(args.region),
        'sessions': args.sessions,
        'runs': args.runs,
        'contrasts': tuple(args.contrasts),
        'seed': args.seed,
        'artefacts': parse_artefacts(args.artefacts),
        'shape': tuple(args.shape) if args.shape else None,
        'voxel_mm': tuple(args.voxel_size) if args.voxel_size else None,
        'oblique_deg': args.oblique,
        'snr': args.snr or None,
        'bias': args.bias,
        'field_strength_t': args.field_strength,
        'naming': args.naming,
        'plane': args.plane,
    }


if __name__ == '__main__':
    sys.exit(main())
