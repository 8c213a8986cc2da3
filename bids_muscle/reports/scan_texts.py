"""The scans of participants as text, as the group level keeps them from one run to the next."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from bids_muscle.dataset.records import read_records
from bids_muscle.reports.alignment import AlignmentFacts
from bids_muscle.reports.figure_files import Packed
from bids_muscle.reports.outputs import ScanOutputs, read_scan
from bids_muscle.reports.page import main_measures
from bids_muscle.reports.rows import text_of

#: To be raised with each change of what is kept, or how.
FORMAT = 5
#: A file that changed so shortly before it was read may change again and look the same (s).
SETTLED_S = 2.0
#: Fields of a record that are the same for many scans.
COMMON = ('model', 'versions', 'processing')
#: The figures that the review page shows.
SHOWN = ('thumbnail', 'segmentation', 'slices', 'extent')
#: What of a record the group level does not use; lists of files make up most of it.
_UNUSED = ('outputs', 'steps', 'fingerprint', 'prepared')
#: Endings of files whose content is read; of others it matters that they are there.
_READ = ('.json', '.tsv', '_dseg.nii.gz', '.zip')


class PersonTexts(NamedTuple):
    """What is kept of a participant.

    Parameters
    ----------
    label
        Without ``sub-``.
    signature
        Of the files; None where they may still change.
    scans
        Facts, rows and figures of each scan.
    """

    label: str
    signature: str | None
    scans: list[tuple[str, bytes, str]]


class Texts(NamedTuple):
    """What is kept of some participants, and what their scans have in common, by its number."""

    people: list[PersonTexts]
    common: dict[int, str]


def read_texts(job: tuple[Path, Sequence[str]]) -> Texts:
    """Read participants from their files.

    Equal contents have equal numbers, whoever reads them, so that several processes can.

    Parameters
    ----------
    job
        The derivatives dataset, and labels of participants.
    """
    (output_dir, labels), common = job, _Common()
    people = []
    for label in labels:
        signature, settled = signature_of(output_dir, label)
        scans = [read_scan(output_dir, record) for record in read_records(output_dir, label)]
        texts = [
            (
                json.dumps(_facts(scan, common)),
                text_of(scan.rows).encode('utf-8'),
                json.dumps(_figures(scan, output_dir)),
            )
            for scan in scans
        ]
        people.append(PersonTexts(label, signature if settled else None, texts))
    return Texts(people, common.texts)


class _Common:
    """Gives numbers to what many scans have alike."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self._known: dict[Hashable, tuple[int, Any]] = {}

    def share(self, content: tuple[Any, ...] | Mapping[str, Any]) -> int:
        """Return the number of a content that is small."""
        items = tuple(content.items()) if isinstance(content, Mapping) else content
        return self._number((type(content), items), content)

    def share_object(self, content: Any, plain: Callable[[Any], Any]) -> int:
        """Return the number of an object that many scans have, made plain at first."""
        return self._number(id(content), content, plain)

    def _number(
        self, key: Hashable, content: Any, plain: Callable[[Any], Any] = lambda content: content
    ) -> int:
        if key not in self._known:
            text = json.dumps(plain(content))
            number = int(hashlib.sha256(text.encode('utf-8')).hexdigest()[:15], 16)
            self.texts[number] = text
            # The content is held, so that no other object gets its id.
            self._known[key] = number, content
        return self._known[key][0]


def _facts(scan: ScanOutputs, common: _Common) -> dict[str, Any]:
    """Return all but rows and figures; what many scans have alike is a number."""
    record = scan.record.as_dict()
    for name in _UNUSED:
        del record[name]
    for name in COMMON:
        record[name] = common.share(record[name])
    facts = {
        'record': record,
        'columns': common.share(scan.columns),
        'main': common.share(main_measures(scan.rows)),
        'definitions': common.share_object(scan.definitions, dict),
        'missing': scan.missing,
        'segmentation': scan.segmentation,
        'flags': scan.flags,
        'alignment': _alignment(scan.alignment),
        'table': common.share_object(scan.table, lambda table: table and asdict(table)),
    }
    for name in ('predicted_dice', 'quality'):
        numbers = getattr(scan, name)
        facts[name] = [common.share(tuple(numbers)), list(numbers.values())]
    return facts


def signature_of(output_dir: Path, label: str) -> tuple[str, bool]:
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


def _figures(scan: ScanOutputs, output_dir: Path) -> dict[str, tuple[str, str]]:
    """Return where the figures are: a file, and the name within it where it is an archive."""
    found = {}
    for name in SHOWN:
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
