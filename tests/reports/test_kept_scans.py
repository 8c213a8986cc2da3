"""The group level reads again only what has changed, and writes the same bytes as without that."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from test_cohort import muscles

from bids_muscle.dataset.names import dataset_path, derivative_path
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.writer import write_json
from bids_muscle.reports import kept_scans as module
from bids_muscle.reports import scan_texts
from bids_muscle.reports.group import write_group
from bids_muscle.reports.kept_scans import kept_scans
from bids_muscle.reports.outputs import read_scans
from bids_muscle.reports.scan_texts import SHOWN

AddScan = Callable[..., Path]


@pytest.fixture
def cohort(add_scan: AddScan, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six scans of three people; their files are new, and trusted to stay nevertheless."""
    monkeypatch.setattr(scan_texts, 'SETTLED_S', -1)
    for number in range(3):
        info = {'participant_id': f'sub-0{number}', 'age': str(30 + number), 'sex': 'F'}
        for session in ('a', 'b'):
            output_dir = add_scan(
                f'0{number}',
                rows=muscles(10 + number),
                session=session,
                participant_info=info,
            )
            entities = (('sub', f'0{number}'), ('ses', session), ('acq', 'dixon'))
            iqm = derivative_path(Scan(entities, 'T1w', 'lumbar', ()), 'iqm')
            write_json({'snr': 20.0 + number, 'flags': ['noisy']}, output_dir / iqm)
    return output_dir


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the scans whose files are read, as they are."""
    names: list[str] = []

    def noted(output_dir: Path, record: object) -> object:
        names.append(record.scan)  # type: ignore[attr-defined]
        return read_scan(output_dir, record)  # type: ignore[arg-type]

    read_scan = scan_texts.read_scan
    monkeypatch.setattr(scan_texts, 'read_scan', noted)
    return names


def sums(output_dir: Path) -> dict[str, str]:
    """Run the group level; return the digest of each file that it wrote."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in write_group(output_dir)
    }


def fresh(output_dir: Path) -> dict[str, str]:
    """Return what the group level writes when nothing is kept."""
    kept = output_dir / dataset_path('kept_scans')
    aside = kept.rename(kept.with_suffix('.aside'))
    found = sums(output_dir)
    aside.rename(kept)
    return found


def test_nothing_is_read_twice(cohort: Path, read: list[str]) -> None:
    first = sums(cohort)
    assert len(read) == 6
    assert sums(cohort) == first
    assert len(read) == 6


def test_what_is_kept_is_what_was_read(cohort: Path) -> None:
    with kept_scans(cohort) as kept:
        for one, other in zip(kept, read_scans(cohort), strict=True):
            assert list(map(dict, one.rows)) == list(map(dict, other.rows))
            assert one.record.scan == other.record.scan
            assert one.record.participant_info == other.record.participant_info
            assert dict(one.quality) == dict(other.quality)
            assert (one.flags, one.missing) == (other.flags, other.missing)
            assert (one.definitions, one.table) == (other.definitions, other.table)
            assert one.segmentation == other.segmentation
            shown = {name: path for name, path in other.figures.items() if name in SHOWN}
            assert dict(one.figures) == shown


def test_a_new_scan_a_changed_one_and_one_that_is_gone(
    cohort: Path, read: list[str], add_scan: AddScan
) -> None:
    before = sums(cohort)
    read.clear()
    add_scan('09', rows=muscles(12))
    assert sums(cohort) == fresh(cohort) != before
    assert read[0] == 'sub-09_acq-dixon'
    read.clear()
    add_scan('01', rows=muscles(99), session='b')
    changed = sums(cohort)
    assert read == ['sub-01_ses-a_acq-dixon', 'sub-01_ses-b_acq-dixon']
    assert changed == fresh(cohort) != before
    read.clear()
    shutil.rmtree(cohort / 'sub-02')
    shutil.rmtree(cohort / 'logs/sub-02')
    gone = sums(cohort)
    assert not read
    assert gone == fresh(cohort)
    assert 'sub-02' not in (cohort / 'group_muscles.tsv').read_text()


def test_the_same_size_and_another_time_is_a_change(cohort: Path, read: list[str]) -> None:
    sums(cohort)
    read.clear()
    path = next((cohort / 'sub-00').rglob('*_morph.tsv'))
    path.write_text(path.read_text().replace('\t10', '\t11'))
    sums(cohort)
    assert {name[:6] for name in read} == {'sub-00'}
    assert '\t11\t' in (cohort / 'group_muscles.tsv').read_text()


def test_files_that_have_just_changed_are_read_again(
    cohort: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a tick of the clock a file can change and keep its size and its time."""
    monkeypatch.setattr(scan_texts, 'SETTLED_S', 1000)
    assert sums(cohort) == sums(cohort)
    assert len(read) == 12


@pytest.mark.parametrize('damage', ['no database', 'cut', 'other bytes', 'other version'])
def test_a_broken_file_is_made_anew(cohort: Path, read: list[str], damage: str) -> None:
    first, kept = sums(cohort), cohort / dataset_path('kept_scans')
    content = kept.read_bytes()
    if damage == 'no database':
        kept.write_text('nothing')
    elif damage == 'cut':
        kept.write_bytes(content[: len(content) // 2])
    elif damage == 'other bytes':
        kept.write_bytes(content.replace(b'right psoas major', b'right psoas minor'))
    else:
        with sqlite3.connect(kept) as database:
            database.execute("UPDATE made_with SET text = 'earlier'")
    read.clear()
    assert sums(cohort) == first
    assert len(read) == 6
    read.clear()
    assert sums(cohort) == first
    assert not read


def test_a_killed_run_leaves_what_it_had_read(
    cohort: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, kept = sums(cohort), cohort / dataset_path('kept_scans')
    kept.unlink()
    monkeypatch.setattr(module, '_BATCH', 1)
    read.clear()
    if not (child := os.fork()):  # killed while it reads the third participant
        read_scan = scan_texts.read_scan
        scan_texts.read_scan = lambda folder, record: (  # type: ignore[assignment]
            os._exit(9) if record.participant == '02' else read_scan(folder, record)
        )
        write_group(cohort)
    os.waitpid(child, 0)
    assert sums(cohort) == first
    assert {name[:6] for name in read} == {'sub-02'}


def in_processes(output_dir: Path, n_procs: int) -> tuple[dict[str, str], list[str]]:
    """Run the group level with nothing kept; return digests, and the texts that it kept."""
    kept = output_dir / dataset_path('kept_scans')
    kept.unlink(missing_ok=True)
    with kept_scans(output_dir, n_procs) as scans:
        written = write_group(output_dir, scans=scans)
    with sqlite3.connect(kept) as database:
        texts = sorted(line for line in database.iterdump() if 'INTO "person"' not in line)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in written}, texts


@pytest.mark.parametrize('broken', [False, True])
def test_several_processes_read_the_same(
    cohort: Path, read: list[str], monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    if broken:
        next((cohort / 'logs/sub-00').glob('*.json')).write_text('{')
        next((cohort / 'sub-01').rglob('*_morph.tsv')).write_bytes(b'\xff')
        shutil.rmtree(cohort / 'sub-02')
    one = in_processes(cohort, 1)
    assert len(read) == 6
    monkeypatch.setattr(module, '_BATCH', 1)
    monkeypatch.setattr(module, '_MANY', 1)
    assert in_processes(cohort, 2) == one
    assert len(read) == 6
    scans = (cohort / 'group_scans.tsv').read_text()
    assert ('cannot be read' in scans) == ('not a muscle table' in scans) == broken


def test_a_file_in_use_is_not_waited_for(cohort: Path, read: list[str]) -> None:
    first, kept = sums(cohort), cohort / dataset_path('kept_scans')
    before = kept.read_bytes()
    read.clear()
    with kept_scans(cohort) as scans:
        assert sums(cohort) == first
        assert len(scans) == len(read) == 6
    assert kept.read_bytes() == before
