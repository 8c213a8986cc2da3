"""``bids_muscle-status``: how far a folder is, whatever runs in it or has run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bids_muscle import __version__
from bids_muscle.cli.process import own_process
from bids_muscle.cli.slurm_job import JOBS
from bids_muscle.cli.slurm_status import print_jobs
from bids_muscle.dataset.records import read_records
from bids_muscle.errors import ExitCode, MissingInputError, problem_of
from bids_muscle.workflows.run_log import read_logs
from bids_muscle.workflows.summary import summary

_EPILOG = """
exit codes: 0 all scans are done; 1 something failed; 66 nothing was run; 75 something is running
or waiting.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='bids_muscle-status',
        description='Show which scans of a folder are done, need a check or failed (and why), '
        'where the pages are, and the progress of runs and Slurm jobs that are not finished.',
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('output_dir', type=Path, help='the derivatives dataset')
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:
        return ExitCode.USAGE if stop.code else ExitCode.OK
    with own_process():
        try:
            return int(print_status(args.output_dir.absolute()))
        except (Exception, KeyboardInterrupt) as error:
            problem = problem_of(error, 'bids_muscle-status')
            print(f'bids_muscle-status: {problem}', file=sys.stderr)
            return int(problem.exit_code)


def print_status(output_dir: Path) -> ExitCode:
    """Print how far an output folder is, and every cause of failure.

    Returns
    -------
    ExitCode
        OK if all is done, TEMPORARY while something runs or is left to run, FAILURE if all has
        run and something failed.

    Raises
    ------
    MissingInputError
        If nothing was run with this output folder.
    """
    records, logs = read_records(output_dir), read_logs(output_dir)
    has_jobs = (output_dir / JOBS).is_dir()
    if not (records or logs or has_jobs):
        raise MissingInputError(
            f'{output_dir} has no output of bids_muscle.', 'Check the path, or run it first.'
        )
    for line in summary(records, output_dir) if records else ['no scan has ended']:
        print(line)
    running = [log for log in logs if log.is_running]
    for log in running or logs[-1:]:
        print(f'{log.path.name} {log.state}: {log.last_line}')
    left = print_jobs(output_dir, records) if has_jobs else False
    if running or left:
        return ExitCode.TEMPORARY
    return ExitCode.FAILURE if any(each.problem for each in records) else ExitCode.OK


if __name__ == '__main__':
    sys.exit(main())
