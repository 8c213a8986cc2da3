"""``bids_muscle-report``: pass the pages of a finished dataset on, or review them with others."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bids_muscle import __version__
from bids_muscle.cli.command import run_command

#: Where the server listens.
PORT = 8765


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='bids_muscle-report',
        description='Share, review and correct the outputs of a dataset.',
    )
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')
    commands = parser.add_subparsers(dest='command', required=True)
    pack = commands.add_parser(
        'pack', help='pack all pages, their pictures and the group tables into one zip file'
    )
    pack.add_argument('output_dir', type=Path, help='the derivatives dataset')
    pack.add_argument('file', type=Path, help='zip file to write')
    pack.set_defaults(run=_pack)
    serve = commands.add_parser(
        'serve',
        help='review and correct the outputs in a browser',
        description='Open the output folder as a web application of this computer: rate scans, '
        'correct label maps, and measure again. docs/review.md describes it.',
    )
    serve.add_argument('output_dir', type=Path, help='the derivatives dataset')
    serve.add_argument(
        '--port', type=int, default=PORT, help=f'port to listen on, 0 for a free one ({PORT})'
    )
    serve.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen on; any but that of the computer itself (127.0.0.1) lets others '
        'in who have the token, without encryption: for trusted networks only',
    )
    serve.add_argument(
        '--allow-host',
        nargs='+',
        default=[],
        metavar='NAME',
        help='further names under which browsers reach the server, such as that of a proxy',
    )
    serve.add_argument('--rater', metavar='NAME', help='who reads (name of the user)')
    serve.set_defaults(run=_serve)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(build_parser(), lambda args: args.run(args), argv)


def _pack(args: argparse.Namespace) -> None:
    from bids_muscle.reports.pack import pack_reports

    count = pack_reports(args.output_dir, args.file)
    print(f'{args.file}: {count} files, {args.file.stat().st_size / 1e6:.1f} MB')


def _serve(args: argparse.Namespace) -> None:
    from bids_muscle.review.serve import serve

    serve(
        args.output_dir,
        host=args.host,
        port=args.port,
        names=args.allow_host,
        rater=args.rater,
    )


if __name__ == '__main__':
    sys.exit(main())
