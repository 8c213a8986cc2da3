"""Scan records: what was done with a scan, and how it ended, as JSON under ``logs/``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache, cached_property
from operator import attrgetter
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from bids_muscle.anatomy.people import at_session
from bids_muscle.dataset.names import derivative_path
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.writer import write_json
from bids_muscle.errors import PARSE_ERRORS, BadDataError, OutputError, Problem
from bids_muscle.files import read_small

#: Ending of the record of an earlier run while its scan runs.
_ASIDE = '.earlier'


@dataclass(frozen=True)
class StepCost:
    """What one step of a scan cost.

    Parameters
    ----------
    name
        Name of the step.
    wall_s
        Wall-clock time in seconds.
    peak_mb
        Peak resident memory in MB (10^6 bytes), None where it was not measured.
    """

    name: str
    wall_s: float
    peak_mb: float | None = None


class MadeWith(NamedTuple):
    """What decides the outputs of a scan beside its images.

    Parameters
    ----------
    version
        Of bids_muscle.
    settings
        Digest of the settings.
    model
        SHA-256 of the model's weights; empty where no model was used.
    """

    version: str
    settings: str
    model: str


@dataclass(frozen=True, kw_only=True)
class ScanRecord:
    """How one scan ended; everything that may differ between two equal runs is in here only.

    Parameters
    ----------
    participant, session
        Labels without ``sub-`` and ``ses-``.
    scan
        Name of the scan, the stem of its outputs.
    region
        As in :class:`~bids_muscle.dataset.scan.Scan`.
    status
        ``'done'`` or ``'failed'``.
    problem
        Why it failed, or None.
    warnings
        Sentences for the report.
    inputs
        Path of each input relative to the raw dataset, by contrast.
    outputs
        Files written for the scan, relative to the output folder.
    model
        Name, version and weights SHA-256 of the model, its limits as its card has them; of one of
        another program, which (``external``) and the ``overlap`` of its windows where it was set;
        ``license`` and ``citation`` of a fetched one. Empty where none was used.
    versions
        Version by package.
    device
        Where the network ran: ``'cpu'`` or ``'cuda:0'``; empty where it did not.
    processing
        What was done, for the methods text: ``bias_correction``, ``bounded``, ``fitted_echoes``
        and ``manual`` (the labels are a person's), true or false.
    participant_info
        The participant's row in ``participants.tsv`` of the raw dataset, for the group level; see
        :attr:`person` for what is known at the session.
    session_info
        The session's row in ``sessions.tsv``, with the ``acq_time`` of ``scans.tsv``, likewise.
    left_out
        Why the scan does not count in the cohort, or empty.
    seg
        As in :class:`~bids_muscle.dataset.scan.Scan`.
    settings_digest
        SHA-256 of the settings that may change a number.
    parts
        Names of all scans that show a part of a joined scan; empty for other scans.
    aside
        Those of them that show a part again and were not joined.
    fingerprint
        SHA-256 of all that decides the outputs; a finished scan with the same one is skipped.
    light
        What the page says of the scan: ``'ok'``, ``'check'`` or ``'unusable'``; empty until the
        page is made, and where the scan failed.
    prepared
        SHA-256 of all that decides the prepared images, with which they are used again where only
        the label map has changed.
    images_sha256
        :func:`~bids_muscle.dataset.corrections.images_digest` of its images.
    output_level
        How much of it was kept: ``'minimal'``, ``'standard'`` or ``'full'``.
    steps
        The steps that ran, in order.
    """

    participant: str
    session: str | None
    scan: str
    region: str | None
    status: str
    problem: Problem | None = None
    warnings: tuple[str, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    model: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str = ''
    processing: Mapping[str, bool] = field(default_factory=dict)
    participant_info: Mapping[str, str] = field(default_factory=dict)
    session_info: Mapping[str, str] = field(default_factory=dict)
    left_out: str = ''
    seg: str = ''
    parts: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    settings_digest: str = ''
    fingerprint: str = ''
    light: str = ''
    prepared: str = ''
    images_sha256: str = ''
    output_level: str = ''
    steps: tuple[StepCost, ...] = ()

    @property
    def made_with(self) -> MadeWith:
        """What the scan was processed with."""
        version = self.versions.get('bids_muscle', '')
        return MadeWith(version, self.settings_digest, self.model.get('sha256', ''))

    @cached_property
    def person(self) -> Mapping[str, str]:
        """What is known of the participant at this session; see :func:`at_session`."""
        return at_session(self.participant_info, self.session_info)

    def as_dict(self) -> dict[str, Any]:
        """Return the record as a JSON-ready dictionary."""
        content = {each.name: getattr(self, each.name) for each in fields(self)}
        content['problem'] = self.problem.as_dict() if self.problem else None
        content['steps'] = [vars(step) for step in self.steps]
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ScanRecord:
        """Build a record from what :meth:`as_dict` returned.

        Raises
        ------
        TypeError
            If a field is missing or unknown, or holds something of another type.
        """
        content = dict(content)
        problem = content.get('problem')
        content['problem'] = Problem(**problem) if problem else None
        for name in ('warnings', 'outputs', 'parts', 'aside'):
            content[name] = tuple(content.get(name, ()))
        content['steps'] = tuple(StepCost(**step) for step in content.get('steps', ()))
        record = cls(**content)
        if not _fits(record, cls):
            raise TypeError('a field holds something of another type')
        return record


@dataclass(frozen=True, kw_only=True)
class SessionRecord:
    """How one step of a session ended, such as the loads of one table of vertebrae.

    Parameters
    ----------
    name
        Name of its outputs, without their suffix.
    fingerprint
        Digest of all that decides the outputs; a finished step with the same one is skipped.
    outputs
        SHA-256 of each file written, by path relative to the output folder.
    problem
        Why it failed, or None.
    step
        What it cost; None where it did not run.
    """

    name: str
    fingerprint: str = ''
    outputs: Mapping[str, str] = field(default_factory=dict)
    problem: Problem | None = None
    step: StepCost | None = None


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a value, and all in it, is of a type as annotations name it.

    Examples
    --------
    >>> _fits(StepCost('segment', 2), StepCost), _fits(StepCost('segment', '2'), StepCost)
    (True, False)
    >>> _fits({'a': True}, Mapping[str, bool]), _fits(('a', None), tuple[str, ...])
    (True, False)
    """
    return _check_of(kind)(value)


@cache
def _check_of(kind: Any) -> Callable[[Any], bool]:
    """Return what tells whether a value is of a type; a cohort has millions of values."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        first, *others = map(_check_of, inner)
        return lambda value: first(value) or any(check(value) for check in others)
    if origin is tuple:
        of_item = _check_of(inner[0])
        return lambda value: isinstance(value, tuple) and all(map(of_item, value))
    if origin is Mapping:
        of_value = _check_of(inner[1])
        return lambda value: isinstance(value, dict) and all(map(of_value, value.values()))
    plain = (int, float) if kind is float else kind
    if not is_dataclass(kind):
        return lambda value: isinstance(value, plain)
    hints = get_type_hints(kind)
    checks = [(attrgetter(name), _check_of(hint)) for name, hint in hints.items()]
    return lambda value: (
        isinstance(value, plain) and all(check(get(value)) for get, check in checks)
    )


def write_record(record: ScanRecord, scan: Scan, output_dir: Path) -> None:
    """Write the record of a scan to its place under ``logs/``."""
    write_json(record.as_dict(), output_dir / derivative_path(scan, 'record'))


def write_light(record: ScanRecord, light: str, output_dir: Path) -> None:
    """Write the record of a scan again with what the page says of it, where that is new."""
    if record.light != light:
        write_json(replace(record, light=light).as_dict(), _path(record, output_dir))


def set_record_aside(record: ScanRecord, output_dir: Path) -> None:
    """Take away the record of a scan that is about to run; :func:`read_aside` still finds it.

    Raises
    ------
    OutputError
        If that cannot be done.
    """
    path = _path(record, output_dir)
    try:
        with suppress(FileNotFoundError):  # another job may have done it
            path.replace(path.with_suffix(_ASIDE))
    except OSError as error:
        raise OutputError(
            f'{path} of an earlier run cannot be removed: {error.strerror}.',
            'Make the folder logs/ of the output dataset writable.',
        ) from error


def read_aside(output_dir: Path, participant: str) -> list[ScanRecord]:
    """Read the records that a run set aside and, as it was killed, did not come to remove."""
    folder = output_dir / 'logs' / f'sub-{participant}'
    return [_read_record(path) for path in sorted(folder.glob(f'*{_ASIDE}'))]


def list_aside(output_dir: Path) -> list[str]:
    """Return the scans whose record is set aside: they run, or their run was killed."""
    return sorted(
        path.stem
        for path in output_dir.glob(f'logs/sub-*/*{_ASIDE}')
        if not path.with_suffix('.json').exists()
    )


def remove_aside(record: ScanRecord, output_dir: Path) -> None:
    """Remove a record that was set aside."""
    _path(record, output_dir).with_suffix(_ASIDE).unlink(missing_ok=True)


def _path(record: ScanRecord, output_dir: Path) -> Path:
    return output_dir / 'logs' / f'sub-{record.participant}' / f'{record.scan}.json'


def read_records(output_dir: Path, participant: str | None = None) -> list[ScanRecord]:
    """Read the scan records of one participant or of all, ordered by file name.

    A record that cannot be read comes back as a failed scan that says so: it does not stop the
    others.
    """
    logs = output_dir / 'logs'
    if participant is None:
        return [_read_record(path) for path in sorted(logs.glob('sub-*/*.json'))]
    folder = logs / f'sub-{participant}'
    try:
        with os.scandir(folder) as files:
            names = sorted(file.name for file in files if file.name.endswith('.json'))
    except OSError:
        return []
    return [_read_record(folder / name) for name in names]


def list_recorded(output_dir: Path) -> list[str]:
    """Return the labels of the participants that have a scan record, sorted."""
    found = []
    with suppress(OSError), os.scandir(output_dir / 'logs') as folders:
        for folder in folders:
            if folder.name.startswith('sub-') and folder.is_dir():
                with os.scandir(folder) as files:
                    if any(file.name.endswith('.json') for file in files):
                        found.append(folder.name.removeprefix('sub-'))
    return sorted(found)


def _read_record(path: Path) -> ScanRecord:
    try:
        record = ScanRecord.from_dict(json.loads(read_small(path)))
        # Whatever a record says, it speaks of the scan that its place says.
        return replace(record, participant=path.parent.name.removeprefix('sub-'), scan=path.stem)
    except (OSError, *PARSE_ERRORS, TypeError, AttributeError) as error:
        problem = BadDataError(
            f'The scan record {path} cannot be read ({error}).',
            'Run the participant level again for this participant.',
        ).problem
    return ScanRecord(
        participant=path.parent.name.removeprefix('sub-'),
        session=None,
        scan=path.stem,
        region=None,
        status='failed',
        problem=problem,
    )


def write_session_record(record: SessionRecord, participant: str, output_dir: Path) -> None:
    """Write the record of a step of a session to its place under ``logs/``."""
    content = {
        **vars(record),
        'problem': record.problem.as_dict() if record.problem else None,
        'step': vars(record.step) if record.step else None,
    }
    write_json(content, _session_folder(output_dir, participant) / f'{record.name}.json')


def read_session_records(output_dir: Path, participant: str) -> dict[str, SessionRecord]:
    """Read the records of the steps of a participant's sessions, by name.

    One that cannot be read is left out, so that its step runs again.
    """
    records = {}
    for path in sorted(_session_folder(output_dir, participant).glob('*.json')):
        try:
            content = json.loads(read_small(path))
            problem, step = content.pop('problem'), content.pop('step')
            record = SessionRecord(
                **{**content, 'name': path.stem},
                problem=Problem(**problem) if problem else None,
                step=StepCost(**step) if step else None,
            )
            if _fits(record, SessionRecord):
                records[record.name] = record
        except (OSError, *PARSE_ERRORS, TypeError, AttributeError, KeyError):
            continue
    return records


def remove_session_record(name: str, participant: str, output_dir: Path) -> None:
    """Remove the record of a step of a session, if there is one."""
    (_session_folder(output_dir, participant) / f'{name}.json').unlink(missing_ok=True)


def _session_folder(output_dir: Path, participant: str) -> Path:
    return output_dir / f'logs/sub-{participant}/session'
