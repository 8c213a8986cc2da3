"""``bids_muscle-norms``: make norms of a cohort, and show what a file of norms holds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bids_muscle import __version__
from bids_muscle.cli.command import run_command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='bids_muscle-norms',
        description='Make norms: how a measure of a muscle is distributed by sex, age and body '
        'mass index. bids_muscle ... group --norms FILE says where values lie in them.',
    )
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')
    commands = parser.add_subparsers(dest='command', required=True)
    build = commands.add_parser(
        'build', help='make norms from outputs whose group level has run, without personal data'
    )
    build.add_argument('output_dirs', type=Path, nargs='+', metavar='OUT')
    build.add_argument('--output', type=Path, required=True, metavar='FILE', help='JSON to write')
    build.add_argument(
        '--population',
        required=True,
        metavar='TEXT',
        help='who the people are and how they were scanned, such as '
        '"healthy volunteers of Example City, 3 T Dixon"',
    )
    build.add_argument(
        '--example',
        action='store_true',
        help='the people are simulated: the group level refuses the file as norms',
    )
    show = commands.add_parser('show', help='show the population, limits and calibration of norms')
    show.add_argument('file', type=Path, metavar='FILE')
    commands.add_parser('published', help='show published reference values and their sources')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(build_parser(), _run, argv)


def _run(args: argparse.Namespace) -> None:
    from bids_muscle.reports.norms import doubts, read_norms

    if args.command == 'published':
        from bids_muscle.reports.published import published_lines

        print('\n'.join(published_lines()))
        return
    if args.command == 'show':
        norms = read_norms(args.file)
        print(f'{norms.population}; {norms.people} people')
        for (series, group), curve in norms.curves.items():
            low, high = curve.age_limits_years
            below = ', '.join(
                f'{curve.calibration[key]:g}' for key in curve.calibration if 'share' in key
            )
            print(
                f'{series.region} {series.contrast}: {group.name}, {group.measure}, {group.sex}: '
                f'n = {curve.n}, age {low:g} to {high:g}, left out below P5, 25, 50, 75, 95: '
                f'{below} %'
            )
        print('\n'.join(doubts(norms)))
        return
    from bids_muscle.dataset.writer import write_text
    from bids_muscle.reports.norms_build import build_norms, format_norms

    content, remarks = build_norms(args.output_dirs, args.population, example=args.example)
    write_text(format_norms(content), args.output)
    for sentence in remarks:
        print(f'bids_muscle-norms: {sentence}', file=sys.stderr)
    curves = sum(len(each['curves']) for each in content['series'])
    not_made = sum(len(each['not_made']) for each in content['series'])
    print(f'{args.output}: {curves} curves of {content["people"]} people, {not_made} not made')
    if not args.example:
        print('\n'.join(doubts(read_norms(args.output))))


if __name__ == '__main__':
    sys.exit(main())
