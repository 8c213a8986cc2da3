"""``bids_muscle-slurm``: a cohort as a Slurm job array."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from bids_muscle import __version__
from bids_muscle.cli.boutiques import boutiques_descriptor, tracker
from bids_muscle.cli.folders import check_input, check_output
from bids_muscle.cli.parser import memory_gb, parse
from bids_muscle.cli.process import own_process, silence
from bids_muscle.cli.slurm_job import JobArray, submit, unfinished, with_model_paths, write_job
from bids_muscle.errors import ExitCode, problem_of
from bids_muscle.workflows.planning import choose_participants, left_out

_DESCRIPTION = (
    'Write a job array with one task per participant (or chunk of participants) and a group job '
    'that runs after it; --submit also submits them. Finished participants are skipped, so the '
    'same command continues an interrupted run.'
)
_EPILOG = """
bids_muscle-status <output_dir>         shows what is done, what failed and why
bids_muscle-slurm boutiques             prints a Boutiques descriptor of bids_muscle
bids_muscle-slurm tracker               prints the files of a session for a nipoppy tracker

Words after -- are options of bids_muscle, for instance:
bids_muscle-slurm /data /out --container bids_muscle.sif --max-jobs 50 --submit -- --region lumbar
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='bids_muscle-slurm',
        usage='%(prog)s <bids_dir> <output_dir> [options] [-- <options of bids_muscle>]',
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument('bids_dir', type=Path, help='the raw BIDS dataset')
    parser.add_argument('output_dir', type=Path, help='the derivatives dataset')
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        '--container',
        metavar='FILE.sif|IMAGE',
        help='container to run: a file (Apptainer, Singularity) or an image name (Docker)',
    )
    how.add_argument(
        '--native',
        action='store_true',
        help='run the installed bids_muscle without a container (default)',
    )
    parser.add_argument('--partition', metavar='P', help='partition (default: that of the site)')
    parser.add_argument(
        '--gpus', type=int, default=0, metavar='N', help='GPUs per task (default: 0)'
    )
    parser.add_argument(
        '--cpus', type=int, default=2, metavar='N', help='CPUs per task (default: 2)'
    )
    parser.add_argument(
        '--mem',
        type=memory_gb,
        default=8.0,
        metavar='SIZE',
        help='memory per task with its unit, such as 8G (default: 8G)',
    )
    parser.add_argument(
        '--time', default='02:00:00', metavar='T', help='time limit per task (default: 02:00:00)'
    )
    parser.add_argument(
        '--max-jobs',
        type=int,
        metavar='K',
        help='maximum number of concurrent tasks (default: no limit)',
    )
    parser.add_argument(
        '--chunk',
        type=int,
        metavar='C',
        help='participants per task (default: 1, more if the array would exceed 1000 tasks)',
    )
    parser.add_argument(
        '--all',
        action='store_true',
        help='include finished participants; each task skips what has not changed',
    )
    parser.add_argument('--submit', action='store_true', help='also submit the jobs')
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    with own_process() as stdout:
        try:
            if words in (['boutiques'], ['tracker']):
                return int(_describe(words[0], stdout))
            return int(_run(words))
        except SystemExit as stop:
            return ExitCode.USAGE if stop.code else ExitCode.OK
        except (Exception, KeyboardInterrupt) as error:
            problem = problem_of(error, 'bids_muscle-slurm')
            print(f'bids_muscle-slurm: {problem}', file=sys.stderr)
            return int(problem.exit_code)


def _describe(what: str, stdout: TextIO) -> ExitCode:
    """Print a file; where it does not fit on the disk, that is an error."""
    content = boutiques_descriptor() if what == 'boutiques' else tracker()
    try:
        print(json.dumps(content, indent=2), file=stdout, flush=True)
    except BrokenPipeError:
        silence(stdout)  # the reader, such as head, has seen enough
    return ExitCode.OK


def _run(words: Sequence[str]) -> ExitCode:
    split = words.index('--') if '--' in words else len(words)
    args = build_parser().parse_args(words[:split])
    return _write(args, words[split + 1 :])


def _write(args: argparse.Namespace, options: Sequence[str]) -> ExitCode:
    # Options of both levels may be given.
    settings = parse(
        [str(args.bids_dir), str(args.output_dir), 'group', *options], both_levels=True
    )
    settings = with_model_paths(replace(settings, level='participant'))
    check_input(settings)
    check_output(settings)
    choose_participants(settings)
    labels, finished = unfinished(settings, everybody=args.all)
    print(f'{left_out(settings.bids_dir)}{len(labels)} participants to run, {finished} finished')
    if not labels:
        return ExitCode.OK
    job = JobArray(
        settings=replace(settings, participants=()),
        participants=tuple(labels),
        container=args.container,
        partition=args.partition,
        gpus=args.gpus,
        cpus=args.cpus,
        memory_gb=args.mem,
        time_limit=args.time,
        max_jobs=args.max_jobs,
        chunk=args.chunk,
    )
    folder = write_job(job)
    if args.submit:
        array, group = submit(folder)
        print(f'submitted job {array} ({job.n_tasks} tasks) and, after it, the group job {group}')
        print(f'bids_muscle-status {settings.output_dir}')
    else:
        print(
            f'{job.n_tasks} tasks are in {folder}. Nothing was submitted: give the command again '
            'with --submit, which writes new scripts, or submit these, as docs/hpc.md says.'
        )
    return ExitCode.OK


if __name__ == '__main__':
    sys.exit(main())
