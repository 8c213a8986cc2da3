"""The command ``bids_muscle``: settings in, exit code out."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bids_muscle.cli.process import end_in_order, own_process, silence
from bids_muscle.errors import ExitCode, UsageError, problem_of

if TYPE_CHECKING:
    from bids_muscle.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Parameters
    ----------
    argv
        Words of the command line after the command; those of this process by default.

    Returns
    -------
    int
        Exit code of the BIDS execution specification.
    """
    verbosity = 0
    with own_process() as stdout:
        try:
            from bids_muscle.cli.parser import parse

            settings = parse(sys.argv[1:] if argv is None else argv)
            verbosity = settings.verbosity
            if settings.dry_run:  # what it prints is all that it does
                sys.stdout = stdout
            code = _run(settings)
            sys.stdout.flush()
            return int(code)
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, BrokenPipeError) and sys.stdout is stdout:
                silence(stdout)  # the reader, such as head, has seen enough
                return int(ExitCode.OK)
            problem = problem_of(error, 'The run')
            if verbosity > 1:
                traceback.print_exc()
            print(f'bids_muscle: {problem.message}\n{problem.remedy}', file=sys.stderr)
            return int(problem.exit_code)


def _run(settings: Settings) -> ExitCode:
    if settings.dry_run and settings.level != 'participant':
        raise UsageError(
            '--dry-run is not available at the group level.', 'Use --dry-run with participant.'
        )
    from bids_muscle.cli.folders import check_input, check_output

    needs_raw = settings.level == 'participant' and not settings.reports_only
    if needs_raw:
        check_input(settings)
    check_output(settings)
    # Only now: it imports what takes seconds.
    from bids_muscle.workflows import run

    end_in_order()
    if settings.dry_run:
        run.print_plan(settings)
        return ExitCode.OK
    if settings.level == 'group':
        return run.run_group(settings)
    return run.run_participants(settings)
