"""What the small commands beside ``bids_muscle`` share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from bids_muscle.cli.process import end_in_order, own_process
from bids_muscle.errors import ExitCode, problem_of


def run_command(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None,
) -> int:
    """Parse a command line and run it; returns the exit code, and says what went wrong.

    Parameters
    ----------
    parser
        Of the command.
    run
        Does what the arguments say.
    argv
        The words after the command, or None for those of this process.
    """
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return ExitCode.USAGE if stop.code else ExitCode.OK
    end_in_order()
    with own_process():
        try:
            run(args)
        except (Exception, KeyboardInterrupt) as error:
            problem = problem_of(error, parser.prog)
            print(f'{parser.prog}: {problem}', file=sys.stderr)
            return int(problem.exit_code)
    return ExitCode.OK
