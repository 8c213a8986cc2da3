"""What the group level has read of each scan, kept in one file: the next run reads what is new."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
import time
import zlib
from array import array
from collections.abc import Callable, ItemsView, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bids_muscle import __version__
from bids_muscle.anatomy.labels import Label, LabelTable
from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.records import ScanRecord, list_recorded, read_records
from bids_muscle.errors import Problem
from bids_muscle.reports.alignment import AlignmentFacts, Span
from bids_muscle.reports.figure_files import Packed
from bids_muscle.reports.outputs import ScanOutputs, mark_parts, read_scan
from bids_muscle.reports.page import main_measures
from bids_muscle.reports.rows import Row, StoredRows, places_of, text_of

#: A file that changed so shortly before it was read may change again and look the same (s).
SETTLED_S = 2.0
#: Participants between two commits: what a killed run has read until then is not lost.
_BATCH = 1000
#: To be raised with each change of what is kept, or how.
_FORMAT = 2
#: What of a record the group level does not use; lists of files make up most of it.
_UNUSED = ('outputs', 'steps', 'fingerprint', 'prepared')
#: Fields of a record that are the same for many scans.
_COMMON = ('model', 'versions', 'processing')
#: Endings of files whose content is read; of others it matters that they are there.
_READ = ('.json', '.tsv', '_dseg.nii.gz', '.zip')
#: The figures that the review page shows.
_SHOWN = ('thumbnail', 'segmentation', 'slices', 'extent')
_TABLES = """
CREATE TABLE person (label TEXT PRIMARY KEY, signature TEXT);
CREATE TABLE scan (
  id INTEGER PRIMARY KEY, person TEXT, facts TEXT, body BLOB, figures TEXT, checksum INTEGER
);
CREATE INDEX scan_of_person ON scan (person);
CREATE TABLE common (id INTEGER PRIMARY KEY, content TEXT UNIQUE, checksum INTEGER);
"""


@contextmanager
def kept_scans(output_dir: Path) -> Iterator[list[ScanOutputs]]:
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
    """
    path = output_dir / dataset_path('kept_scans')
    for place in (path, path, None):
        store = _Store(output_dir, place)
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

    def __init__(self, output_dir: Path, path: Path | None) -> None:
        self._output_dir = output_dir
        # Without a name, SQLite makes a temporary file that is gone when it is closed.
        self._path = path or ''
        self._database = sqlite3.connect(':memory:')
        self._texts: dict[str, int] = {}
        self._objects: dict[int, tuple[Any, int]] = {}
        self._made: dict[tuple[int, Callable[[Any], Any]], Any] = {}

    def close(self) -> None:
        self._database.close()

    def scans(self) -> list[ScanOutputs]:
        """Return all scans, ordered by participant and name; read those that are new."""
        self._open()
        known = dict(self._database.execute('SELECT label, signature FROM person'))
        found: list[ScanOutputs] = []
        for number, label in enumerate(list_recorded(self._output_dir), 1):
            signature, settled = _signature(self._output_dir, label)
            if known.pop(label, None) != signature:
                self._read(label, signature if settled else None)
            found += self._load(label)
            if number % _BATCH == 0:
                self._database.execute('COMMIT')
                self._database.execute('BEGIN')
        for label in known:
            self._forget(label)
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
        for text, place, checksum in database.execute('SELECT content, id, checksum FROM common'):
            _check(checksum, text)
            self._texts[text] = place

    def _forget(self, label: str) -> None:
        self._database.execute('DELETE FROM scan WHERE person = ?', (label,))
        self._database.execute('DELETE FROM person WHERE label = ?', (label,))

    def _read(self, label: str, signature: str | None) -> None:
        """Read the scans of a participant from their files and keep them."""
        self._forget(label)
        self._database.execute('INSERT INTO person VALUES (?, ?)', (label, signature))
        for record in read_records(self._output_dir, label):
            scan = read_scan(self._output_dir, record)
            facts = json.dumps(self._facts(scan))
            figures = json.dumps(_figures(scan, self._output_dir))
            body = text_of(scan.rows).encode('utf-8')
            self._database.execute(
                'INSERT INTO scan (person, facts, body, figures, checksum) VALUES (?, ?, ?, ?, ?)',
                (label, facts, body, figures, _checksum(facts, body, figures)),
            )

    def _load(self, label: str) -> Iterator[ScanOutputs]:
        """Give the scans of a participant as they are kept."""
        rows = self._database.execute('SELECT * FROM scan WHERE person = ?', (label,)).fetchall()
        for place, _, facts, body, figures, checksum in rows:
            _check(checksum, facts, body, figures)
            yield self._scan(place, json.loads(facts), body, figures)

    def _facts(self, scan: ScanOutputs) -> dict[str, Any]:
        """Return all but rows and figures; what many scans have alike is a number."""
        record = scan.record.as_dict()
        for name in _UNUSED:
            del record[name]
        for name in _COMMON:
            record[name] = self._share(record[name])
        facts = {
            'record': record,
            'columns': self._share(scan.columns),
            'main': self._share(main_measures(scan.rows)),
            'definitions': self._share_once(scan.definitions, dict),
            'missing': scan.missing,
            'segmentation': scan.segmentation,
            'flags': scan.flags,
            'alignment': _alignment(scan.alignment),
            'table': self._share_once(scan.table, lambda table: table and asdict(table)),
        }
        for name in ('predicted_dice', 'quality'):
            numbers = getattr(scan, name)
            facts[name] = [self._share(list(numbers)), list(numbers.values())]
        return facts

    def _scan(self, place: int, facts: dict[str, Any], body: bytes, figures: str) -> ScanOutputs:
        """Return what :meth:`_facts` was made from."""
        record = facts['record']
        for name in _COMMON:
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

    def _share(self, content: Any) -> int:
        """Return the number of what many scans have alike."""
        text = json.dumps(content)
        if text not in self._texts:
            added = self._database.execute(
                'INSERT INTO common (content, checksum) VALUES (?, ?)', (text, _checksum(text))
            )
            self._texts[text] = int(added.lastrowid or 0)
        return self._texts[text]

    def _share_once(self, content: Any, plain: Callable[[Any], Any]) -> int:
        """Return the same of an object that many scans have, made plain for the first of them."""
        if id(content) not in self._objects:
            # It is held, so that no other object gets its id.
            self._objects[id(content)] = content, self._share(plain(content))
        return self._objects[id(content)][1]

    def _shared(self, place: int, make: Callable[[Any], Any]) -> Any:
        """Return the one copy of what has a number."""
        if (place, make) not in self._made:
            [(text,)] = self._database.execute('SELECT content FROM common WHERE id = ?', (place,))
            self._made[place, make] = make(json.loads(text))
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
    return f'{__version__} {_FORMAT} {digest} {output_dir}'


def _signature(output_dir: Path, label: str) -> tuple[str, bool]:
    """Return a digest of all files of a participant, and whether they can be trusted to stay."""
    now_ns = time.time_ns()
    files: list[str] = []
    newest_ns = max(
        _list_files(f'{output_dir}/{folder}sub-{label}', files) for folder in ('logs/', '')
    )
    digest = hashlib.sha256('\n'.join(sorted(files)).encode('utf-8', 'surrogateescape'))
    return digest.hexdigest(), newest_ns < now_ns - SETTLED_S * 1e9


def _list_files(folder: str, files: list[str]) -> int:
    """Add names, and sizes and times where content is read; return the newest time (ns)."""
    newest_ns = 0
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return 0
    for entry in entries:
        if entry.is_dir():
            newest_ns = max(newest_ns, _list_files(entry.path, files))
        elif entry.name.endswith(_READ):
            try:
                stat = entry.stat()
            except OSError:  # a link to nothing
                continue
            files.append(f'{entry.path} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}')
            newest_ns = max(newest_ns, stat.st_mtime_ns, stat.st_ctime_ns)
        else:
            files.append(entry.path)
    return newest_ns


def _checksum(*contents: str | bytes) -> int:
    total = 0
    for content in contents:
        total = zlib.crc32(content.encode() if isinstance(content, str) else content, total)
    return total


def _check(checksum: int, *contents: str | bytes) -> None:
    if _checksum(*contents) != checksum:
        raise sqlite3.DatabaseError('what was kept has changed')


def _figures(scan: ScanOutputs, output_dir: Path) -> dict[str, tuple[str, str]]:
    """Return where the figures are: a file, and the name within it where it is an archive."""
    found = {}
    for name in _SHOWN:
        if figure := scan.figures.get(name):
            path = figure.archive if isinstance(figure, Packed) else figure
            inside = figure.name if isinstance(figure, Packed) else ''
            found[name] = (path.relative_to(output_dir).as_posix(), inside)
    return found


def _alignment(facts: AlignmentFacts | None) -> list[Any] | None:
    """Return what is said of the alignment; one level with a confidence stands for all."""
    if facts is None:
        return None
    sure = [list(vars(span).values()) for span in facts.spans if span.confidence][:1]
    return [facts.atlas, facts.overlap, facts.reasons, facts.source, sure]


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
