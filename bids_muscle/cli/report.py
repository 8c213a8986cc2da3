"""``bids_muscle-report``: pass the pages of a finished dataset on."""

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
        prog='bids_muscle-report', description='Share the pages of a finished dataset.'
    )
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')
    commands = parser.add_subparsers(dest='command', required=True)
    pack = commands.add_parser(
        'pack', help='pack all pages, their pictures and the group tables into one zip file'
    )
    pack.add_argument('output_dir', type=Path, help='the derivatives dataset')
    pack.add_argument('file', type=Path, help='zip file to write')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(build_parser(), _pack, argv)


def _pack(args: argparse.Namespace) -> None:
    from bids_muscle.reports.pack import pack_reports

    count = pack_reports(args.output_dir, args.file)
    print(f'{args.file}: {count} files, {args.file.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    sys.exit(main())
