"""Errors for the user: what happened, to which file, what to do, and the exit code.

The exit codes are those of the BIDS execution specification.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path

#: What readers of JSON and TOML raise; the second where brackets nest deeper than Python goes.
PARSE_ERRORS = (ValueError, RecursionError)

_UNFORESEEN = 'Run again (bids_muscle with -vv). If it fails again, report all that it prints.'
#: A disk with less free space is full: images take more.
_HARDLY_ANY_BYTES = 2**24


class ExitCode(IntEnum):
    """Exit codes of the BIDS execution specification."""

    OK = 0
    FAILURE = 1
    INVALID_INPUT = 16
    UNKNOWN_LEVEL = 17
    NOTHING_SELECTED = 18
    USAGE = 64
    BAD_DATA = 65
    NO_INPUT = 66
    CANNOT_CREATE = 73
    IO_ERROR = 74
    TEMPORARY = 75


@dataclass(frozen=True)
class Problem:
    """An error as data, as it is written into logs and shown in reports.

    Parameters
    ----------
    kind
        Name of the error class, e.g. ``'GridMismatchError'``.
    message
        One sentence that says what happened and names the file.
    remedy
        One sentence that says what to do.
    exit_code
        Exit code of the BIDS execution specification.
    """

    kind: str
    message: str
    remedy: str
    exit_code: int = ExitCode.FAILURE

    def as_dict(self) -> dict[str, str | int]:
        """Return the problem as a JSON-ready dictionary."""
        return {**asdict(self), 'exit_code': int(self.exit_code)}

    def __str__(self) -> str:
        return f'{self.message} {self.remedy}'


class BidsMuscleError(Exception):
    """Base of all errors meant for the user.

    Parameters
    ----------
    message
        One sentence that says what happened and names the file.
    remedy
        One sentence that says what to do.

    Examples
    --------
    >>> error = UnreadableImageError('x.nii.gz ends early.', 'Copy the file again.')
    >>> print(error)
    x.nii.gz ends early. Copy the file again.
    >>> int(error.exit_code)
    65
    """

    exit_code = ExitCode.FAILURE

    def __init__(self, message: str, remedy: str) -> None:
        # Both go to Exception so that the error survives pickling between processes.
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f'{self.message} {self.remedy}'

    @property
    def problem(self) -> Problem:
        """The error as data."""
        return Problem(type(self).__name__, self.message, self.remedy, self.exit_code)


class UsageError(BidsMuscleError):
    """The command line or the settings file cannot be understood."""

    exit_code = ExitCode.USAGE


class UnknownLevelError(UsageError):
    """The analysis level is neither participant nor group."""

    exit_code = ExitCode.UNKNOWN_LEVEL


class InvalidDatasetError(BidsMuscleError):
    """The input is not a BIDS dataset."""

    exit_code = ExitCode.INVALID_INPUT


class NothingSelectedError(BidsMuscleError):
    """Labels and filters leave nothing to do."""

    exit_code = ExitCode.NOTHING_SELECTED


class MissingInputError(BidsMuscleError):
    """An input file or folder is absent or cannot be read."""

    exit_code = ExitCode.NO_INPUT


class BadDataError(BidsMuscleError):
    """A file is there but its content cannot be used."""

    exit_code = ExitCode.BAD_DATA


class UnreadableImageError(BadDataError):
    """The image is truncated, corrupt or not NIfTI."""


class ImageShapeError(BadDataError):
    """The image has the wrong number of dimensions or no extent."""


class EmptyImageError(BadDataError):
    """The image is all zero, constant, or has no finite value."""


class GridMismatchError(BadDataError):
    """Images of one scan, or an image and its labels, do not share a grid."""


class IncompleteScanError(BadDataError):
    """A scan lacks the partner image it needs, such as water without fat."""


class UnknownRegionError(BadDataError):
    """Nothing says whether the scan shows the neck or the lumbar spine."""


class ModelError(BadDataError):
    """Weights are missing, changed, or do not fit the network or the request."""


class SegmentationError(BadDataError):
    """The network found no muscle where some must be."""


class OutputError(BidsMuscleError):
    """The output folder cannot be made or written."""

    exit_code = ExitCode.CANNOT_CREATE


class FullDiskError(BidsMuscleError):
    """There is no space left to write an output."""

    exit_code = ExitCode.IO_ERROR


class OutputGoneError(BidsMuscleError):
    """The output folder was removed while a run wrote into it."""

    exit_code = ExitCode.IO_ERROR


class SchedulerError(BidsMuscleError):
    """Slurm is not there or refuses a job."""


class TemporaryError(BidsMuscleError):
    """Something that another run may not meet: device lost, out of memory, worker killed."""

    exit_code = ExitCode.TEMPORARY


class DeviceError(TemporaryError):
    """The requested computing device is not there or was lost."""


class NotEnoughMemoryError(TemporaryError):
    """A step needs more memory than it may use."""


class WorkerDiedError(TemporaryError):
    """The process that ran a step was killed."""


def _full_folders(error: OSError) -> list[Path]:
    """Return those of the folders that a step writes into in which no space is left."""
    folders = [Path(error.filename).parent] if isinstance(error.filename, str) else []
    full = []
    for folder in (*folders, Path.cwd(), Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            if shutil.disk_usage(folder).free < _HARDLY_ANY_BYTES:
                full.append(folder)
    return full


def problem_of(error: BaseException, what: str, remedy: str = _UNFORESEEN) -> Problem:
    """Describe any exception to the user.

    Parameters
    ----------
    error
        The exception.
    what
        What failed, as the beginning of a sentence: ``'The step sub_01.segment'``.
    remedy
        What to do about an error that nobody foresaw.

    Returns
    -------
    Problem
        That of the error itself if it is meant for the user.

    Examples
    --------
    >>> problem_of(KeyError('x'), 'Reading the plan').message
    "Reading the plan failed with KeyError: 'x'."
    >>> int(problem_of(OSError(5, 'Input/output error'), 'The run').exit_code)
    74
    """
    if isinstance(error, BidsMuscleError):
        return error.problem
    kind = type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        remedy = 'Run the same command again to continue.'
        return Problem(kind, 'Interrupted.', remedy, ExitCode.TEMPORARY)
    # torch's error of a full GPU is a RuntimeError of this name.
    if isinstance(error, MemoryError) or kind == 'OutOfMemoryError':
        return Problem(
            kind,
            f'{what} ran out of memory{f": {error}" if str(error) else ""}.',
            'Run again with more memory or with a smaller --nprocs.',
            ExitCode.TEMPORARY,
        )
    if kind == 'AcceleratorError' or (
        isinstance(error, RuntimeError) and re.search('CUDA|cuDNN', str(error))
    ):
        return Problem(
            kind,
            f'{what} lost its GPU: {str(error).splitlines()[0]}.',
            'Run again. If it fails again, use --device cpu.',
            ExitCode.TEMPORARY,
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        full = _full_folders(error)
        return Problem(
            kind,
            f'{what} failed because no disk space is left'
            f'{f" in {full[0]}" if full else ""}: {error}.',
            'Free space there and run again. Intermediate files are in --work-dir, or else in '
            'TMPDIR.',
            ExitCode.IO_ERROR,
        )
    return Problem(
        kind,
        f'{what} failed with {kind}: {error}.',
        remedy,
        ExitCode.IO_ERROR if isinstance(error, OSError) else ExitCode.FAILURE,
    )
