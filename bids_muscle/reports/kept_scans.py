"""What the group level has read of each scan, kept in one file: the next run reads what is new."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
import zlib
from array import array
from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from bids_muscle import __version__
from bids_muscle.anatomy.labels import Label, LabelTable
from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.records import ScanRecord, list_recorded
from bids_muscle.errors import Problem, WorkerDiedError
from bids_muscle.processes import map_in_processes
from bids_muscle.reports.alignment import AlignmentFacts, Span
from bids_muscle.reports.figure_files import Packed
from bids_muscle.reports.outputs import ScanOutputs, mark_parts
from bids_muscle.reports.rows import Row, StoredRows, places_of
from bids_muscle.reports.scan_texts import COMMON, FORMAT, Texts, read_texts, signature_of

#: Participants that are read before they are kept: what a killed run has kept is not lost.
_BATCH = 500
#: With fewer participants to read, processes take longer to start than they save.
_MANY = 1000
#: More processes would wait for this one, which keeps what they have read.
_MOST_PROCESSES = 4
_TABLES = """
CREATE TABLE person (label TEXT PRIMARY KEY, signature TEXT);
CREATE TABLE scan (
  id INTEGER PRIMARY KEY, person TEXT, facts TEXT, body BLOB, figures TEXT, checksum INTEGER
);
CREATE INDEX scan_of_person ON scan (person);
CREATE TABLE common (id INTEGER PRIMARY KEY, content TEXT, checksum INTEGER);
"""


@contextmanager
def kept_scans(output_dir: Path, n_procs: int = 1) -> Iterator[list[ScanOutputs]]:
    """Give all scans of a derivatives dataset, as :func:`read_scans` does, with less in memory.

    Scans whose participant has the same files as at the last run, by name, size and times, come
    from a file in ``logs/``; the others are read and kept there. Rows and figures are taken from
    that file whenever they are asked for, until the context ends. Of the records, levels and
    figures it has what the group level uses.

    A file that is broken, or of another version, is made anew. Where it is in use by another run
    or cannot be locked, a temporary one takes its place.

    Parameters
    ----------
    output_dir
        The derivatives dataset.
    n_procs
        Processes that may read; what they give does not depend on it.

    Raises
    ------
    WorkerDiedError
        If one of them is killed.
    """
    path = output_dir / dataset_path('kept_scans')
    for place in (path, path, None):
        store = _Store(output_dir, place, n_procs)
        try:
            scans = store.scans()
            break
        except sqlite3.DatabaseError as error:
            store.close()
            if place is None:
                raise
            if not isinstance(error, sqlite3.OperationalError):  # which are locks and full disks
                path.unlink(missing_ok=True)
                # It would be played back into the new one.
                path.with_name(f'{path.name}-journal').unlink(missing_ok=True)
    try:
        yield scans
    finally:
        store.close()


class _Store:
    """The scans of a dataset in an SQLite file, which one run has for itself."""

    def __init__(self, output_dir: Path, path: Path | None, n_procs: int) -> None:
        self._output_dir, self._n_procs = output_dir, n_procs
        # Without a name, SQLite makes a temporary file that is gone when it is closed.
        self._path = path or ''
        self._database = sqlite3.connect(':memory:')
        self._common: dict[int, str] = {}
        self._made: dict[tuple[int, Callable[[Any], Any]], Any] = {}

    def close(self) -> None:
        self._database.close()

    def scans(self) -> list[ScanOutputs]:
        """Return all scans, ordered by participant and name; read those that are new."""
        self._open()
        known = dict(self._database.execute('SELECT label, signature FROM person'))
        found: list[ScanOutputs] = []
        changed: list[str] = []
        for label in list_recorded(self._output_dir):
            signature = known.pop(label, None)
            if signature and signature == signature_of(self._output_dir, label)[0]:
                found += self._load(label)
            else:
                changed.append(label)
        for label in known:
            self._forget(label)
        for texts in self._read(changed):
            self._keep(texts)
            found += chain.from_iterable(self._load(person.label) for person in texts.people)
        self._database.execute('COMMIT')
        found.sort(key=lambda scan: (scan.record.participant, scan.record.scan))
        return mark_parts(found)

    def _open(self) -> None:
        """Lock the file; empty it where another version or another place made it."""
        self.close()
        self._database = database = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        database.execute('PRAGMA locking_mode = EXCLUSIVE')
        database.execute('BEGIN EXCLUSIVE')
        database.execute('CREATE TABLE IF NOT EXISTS made_with (text TEXT)')
        made_with = _made_with(self._output_dir)
        if database.execute('SELECT text FROM made_with').fetchall() != [(made_with,)]:
            for name in ('person', 'scan', 'common'):
                database.execute(f'DROP TABLE IF EXISTS {name}')
            for statement in _TABLES.split(';'):
                database.execute(statement)
            database.execute('DELETE FROM made_with')
            database.execute('INSERT INTO made_with VALUES (?)', (made_with,))
        for place, text, checksum in database.execute('SELECT * FROM common'):
            _check(checksum, text)
            self._common[place] = text

    def _forget(self, label: str) -> None:
        self._database.execute('DELETE FROM scan WHERE person = ?', (label,))
        self._database.execute('DELETE FROM person WHERE label = ?', (label,))

    def _read(self, labels: Sequence[str]) -> Iterator[Texts]:
        """Read participants from their files, in several processes if they are many."""
        pieces = [labels[at : at + _BATCH] for at in range(0, len(labels), _BATCH)]
        jobs = [(self._output_dir, piece) for piece in pieces]
        n_procs = min(self._n_procs, _MOST_PROCESSES, len(jobs))
        if n_procs < 2 or len(labels) < _MANY:
            yield from map(read_texts, jobs)
            return
        try:
            yield from map_in_processes(read_texts, jobs, n_procs)
        except BrokenProcessPool as error:
            raise WorkerDiedError(
                'A process that read scans was killed, most likely for lack of memory.',
                'Run again with --nprocs 1. What has been read until then is kept.',
            ) from error

    def _keep(self, texts: Texts) -> None:
        """Put what was read into the file, and make it stay there."""
        execute = self._database.execute
        for place, text in texts.common.items():
            execute(
                'INSERT OR IGNORE INTO common VALUES (?, ?, ?)', (place, text, _checksum(text))
            )
        self._common |= texts.common
        for label, signature, scans in texts.people:
            self._forget(label)
            execute('INSERT INTO person VALUES (?, ?)', (label, signature))
            for scan in scans:
                execute(
                    'INSERT INTO scan (person, facts, body, figures, checksum) '
                    'VALUES (?, ?, ?, ?, ?)',
                    (label, *scan, _checksum(*scan)),
                )
        execute('COMMIT')
        execute('BEGIN')

    def _load(self, label: str) -> Iterator[ScanOutputs]:
        """Give the scans of a participant as they are kept."""
        rows = self._database.execute('SELECT * FROM scan WHERE person = ?', (label,)).fetchall()
        for place, _, facts, body, figures, checksum in rows:
            _check(checksum, facts, body, figures)
            yield self._scan(place, json.loads(facts), body, figures)

    def _scan(self, place: int, facts: dict[str, Any], body: bytes, figures: str) -> ScanOutputs:
        """Return a scan as it was read."""
        record = facts['record']
        for name in COMMON:
            record[name] = self._shared(record[name], dict)
        for name in ('participant_info', 'session_info'):
            record[name] = {sys.intern(k): sys.intern(v) for k, v in record[name].items()}
        for name in ('warnings', 'parts', 'aside'):
            record[name] = tuple(record[name])
        record['problem'] = record['problem'] and Problem(**record['problem'])
        columns = self._shared(facts['columns'], tuple)
        main = self._shared(facts['main'], tuple)
        count = body.count(b'\n') + 1
        return ScanOutputs(
            ScanRecord(**record),
            StoredRows(columns, count, self._body, place, main) if columns else (),
            self._shared(facts['definitions'], dict),
            _StoredFigures(self._figures, place) if figures != '{}' else {},
            tuple(facts['missing']),
            segmentation=facts['segmentation'],
            flags=tuple(facts['flags']),
            alignment=facts['alignment'] and AlignmentFacts(*_tuples(facts['alignment'])),
            table=self._shared(facts['table'], _label_table),
            predicted_dice=self._numbers(facts['predicted_dice']),
            quality=self._numbers(facts['quality']),
        )

    def _numbers(self, kept: list[Any]) -> Mapping[str, float]:
        names, numbers = kept
        return Row(places_of(self._shared(names, tuple)), array('d', numbers)) if numbers else {}

    def _body(self, place: int) -> str:
        [(body,)] = self._database.execute('SELECT body FROM scan WHERE id = ?', (place,))
        return str(body, 'utf-8')

    def _figures(self, place: int) -> dict[str, Path | Packed]:
        [(text,)] = self._database.execute('SELECT figures FROM scan WHERE id = ?', (place,))
        return {
            name: Packed(self._output_dir / where, inside) if inside else self._output_dir / where
            for name, (where, inside) in json.loads(text).items()
        }

    def _shared(self, place: int, make: Callable[[Any], Any]) -> Any:
        """Return the one copy of what has a number."""
        if (place, make) not in self._made:
            self._made[place, make] = make(json.loads(self._common[place]))
        return self._made[place, make]


class _StoredFigures(Mapping[str, Path | Packed]):
    """Figures of a scan, looked up whenever they are asked for."""

    __slots__ = ('_load', '_place')

    def __init__(self, load: Callable[[int], dict[str, Path | Packed]], place: int) -> None:
        self._load, self._place = load, place

    def __getitem__(self, name: str) -> Path | Packed:
        return self._load(self._place)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._load(self._place))

    def __len__(self) -> int:
        return len(self._load(self._place))

    def items(self) -> ItemsView[str, Path | Packed]:
        """Return all, looked up once."""
        return self._load(self._place).items()


def _made_with(output_dir: Path) -> str:
    """Return what all that is kept depends on, beside the files of the participants."""
    tables = sorted(output_dir.glob(str(dataset_path('lookup', seg='x')).replace('x', '*')))
    digest = hashlib.sha256(b''.join(table.read_bytes() for table in tables)).hexdigest()
    # Sentences about files that cannot be read name the folder.
    return f'{__version__} {FORMAT} {digest} {output_dir}'


def _checksum(*contents: str | bytes) -> int:
    total = 0
    for content in contents:
        total = zlib.crc32(content.encode() if isinstance(content, str) else content, total)
    return total


def _check(checksum: int, *contents: str | bytes) -> None:
    if _checksum(*contents) != checksum:
        raise sqlite3.DatabaseError('what was kept has changed')


def _tuples(alignment: list[Any]) -> list[Any]:
    *front, spans = alignment
    front[2] = tuple(front[2])
    return [*front, tuple(Span(*span) for span in spans)]


def _label_table(content: dict[str, Any] | None) -> LabelTable | None:
    if content is None:
        return None
    labels = [
        Label(**{**each, 'levels': each['levels'] and tuple(each['levels'])})
        for each in content['labels']
    ]
    return LabelTable(content['region'], tuple(labels), content['seg'])
