"""Cohort tables: tidy, joined with the participants, defined, with outliers found."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.dataset.records import ScanRecord
from bids_muscle.errors import GridMismatchError, MissingInputError
from bids_muscle.reports.cohort_input import GroupOptions
from bids_muscle.reports.cohort_values import read_values
from bids_muscle.reports.completeness import cause_table, completeness
from bids_muscle.reports.copies import mark_copies
from bids_muscle.reports.group import write_group
from bids_muscle.reports.outliers import Outlier, robust_scores
from bids_muscle.reports.outputs import ScanOutputs, read_scans

AddScan = Callable[..., Path]
PROBLEM = GridMismatchError('fat.nii.gz has another grid.', 'Export it again.').problem


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a TSV file; each has all columns."""
    with path.open(encoding='utf-8', newline='') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t', strict=True))
    assert all(None not in row and None not in row.values() for row in rows)
    return rows


def outliers_of(output_dir: Path) -> tuple[Outlier, ...]:
    values = read_values(read_scans(output_dir))
    return robust_scores(values, ['mfi_ratio_of_means_pct']).outliers


def muscles(mfi_pct: float) -> list[dict[str, object]]:
    """Return a muscle table with the same MFI everywhere."""
    return [
        {
            'index': label.index,
            'name': label.name,
            'muscle': label.muscle,
            'side': label.side,
            'mfi_ratio_of_means_pct': mfi_pct,
            'reason': None,
        }
        for label in load_label_table('lumbar')
    ]


def test_muscles_are_joined_with_their_own_participant(add_scan: AddScan) -> None:
    add_scan('01', rows=muscles(11.5), participant_info={'participant_id': 'sub-01', 'age': '30'})
    add_scan('02', rows=muscles(22.25), session='a')
    output_dir = add_scan(
        '03', rows=muscles(33), participant_info={'participant_id': 'sub-03', 'sex': 'F'}
    )
    write_group(output_dir)
    table = rows_of(output_dir / 'group_muscles.tsv')
    assert len(table) == 24
    columns = ('participant_id', 'session_id', 'age', 'sex', 'mfi_ratio_of_means_pct')
    found = {tuple(row[column] for column in columns) for row in table}
    assert found == {
        ('sub-01', 'n/a', '30', 'n/a', '11.5'),
        ('sub-02', 'ses-a', 'n/a', 'n/a', '22.25'),
        ('sub-03', 'n/a', 'n/a', 'F', '33'),
    }
    order = [(row['participant_id'], int(row['index'])) for row in table]
    assert order == sorted(order)


def test_a_column_of_the_participants_hides_none_of_ours(add_scan: AddScan) -> None:
    info = {'participant_id': 'sub-01', 'side': 'dominant right', 'reason': 'pain'}
    output_dir = add_scan('01', participant_info=info)
    write_group(output_dir)
    table = rows_of(output_dir / 'group_muscles.tsv')
    assert [row['side'] for row in table[:2]] == ['right', 'left']
    assert {row['participants_side'] for row in table} == {'dominant right'}
    assert {row['participants_reason'] for row in table} == {'pain'}


def test_every_scan_has_a_row_with_its_end(add_scan: AddScan) -> None:
    add_scan('02', problem=PROBLEM)
    output_dir = add_scan('01')
    write_group(output_dir)
    table = rows_of(output_dir / 'group_scans.tsv')
    assert [(row['participant_id'], row['status']) for row in table] == [
        ('sub-01', 'done'),
        ('sub-02', 'failed'),
    ]
    assert table[1]['reason'] == 'fat.nii.gz has another grid. Export it again.'
    assert {row['participant_id'] for row in rows_of(output_dir / 'group_muscles.tsv')} == {
        'sub-01'
    }


@pytest.mark.parametrize('name', ['group_muscles', 'group_scans'])
def test_every_column_is_defined(add_scan: AddScan, name: str) -> None:
    output_dir = add_scan('01', participant_info={'participant_id': 'sub-01', 'age': '30'})
    write_group(output_dir)
    dictionary = json.loads((output_dir / f'{name}.json').read_text())
    columns = rows_of(output_dir / f'{name}.tsv')[0]
    assert list(dictionary) == list(columns)
    assert all(entry['Description'] for entry in dictionary.values())


def test_an_empty_cohort_has_headers(tmp_path: Path) -> None:
    write_group(tmp_path)
    header = (tmp_path / 'group_muscles.tsv').read_text().rstrip('\n').split('\t')
    assert header[0] == 'participant_id'
    assert rows_of(tmp_path / 'group_scans.tsv') == []


def test_a_far_value_is_found_and_only_that(add_scan: AddScan) -> None:
    for number, mfi_pct in enumerate((10.0, 11.0, 12.0, 13.0, 14.0)):
        add_scan(f'0{number}', rows=muscles(mfi_pct))
    far = muscles(12.0)
    far[0]['mfi_ratio_of_means_pct'] = 60.0
    output_dir = add_scan('09', rows=far)
    found = outliers_of(output_dir)
    assert [(each.participant, each.name) for each in found] == [('09', 'right multifidus')]
    # Six values 10 11 12 13 14 60: median 12.5, MAD 1.5.
    assert found[0].robust_z == pytest.approx(0.6745 * 47.5 / 1.5)


def test_contrasts_are_not_compared(add_scan: AddScan) -> None:
    for number in range(6):
        add_scan(f'0{number}', rows=muscles(10.0 + number))
    output_dir = add_scan('09', rows=muscles(60.0), inputs={'T2w': 'x.nii.gz'})
    assert not robust_scores(
        read_values(read_scans(output_dir)), ['mfi_ratio_of_means_pct']
    ).outliers
    page = write_group(output_dir)[-1].read_text()
    assert 'lumbar region, water+fat' in page
    assert 'lumbar region, T2w' in page


def test_few_values_have_no_outlier(add_scan: AddScan) -> None:
    for number, mfi_pct in enumerate((10.0, 11.0, 12.0, 90.0)):
        output_dir = add_scan(f'0{number}', rows=muscles(mfi_pct))
    assert not robust_scores(
        read_values(read_scans(output_dir)), ['mfi_ratio_of_means_pct']
    ).outliers


def test_a_folder_that_failed_has_its_row_and_is_no_reason_elsewhere() -> None:
    """What stands for the scans of a folder that cannot be read has no kind of scan."""

    def scan(name: str, session: str, broken: bool = False) -> ScanOutputs:
        who = name.split('_')[0].removeprefix('sub-')
        problem = MissingInputError(f'/data/{name} cannot be read.', 'Mend it.').problem
        status = 'failed' if broken else 'done'
        record = ScanRecord(
            participant=who,
            session=session,
            scan=name,
            region=None,
            status=status,
            problem=problem if broken else None,
        )
        return ScanOutputs(record)

    scans = [
        *(scan(f'sub-01_ses-{session}_acq-T2w', session) for session in 'ab'),
        scan('sub-01_ses-c', 'c', broken=True),
        scan('sub-02_ses-a', 'a', broken=True),
    ]
    table = completeness(scans, ())
    found = {
        (row['participant_id'], row['session_id']): (row['status'], row['reason'].split('.')[0])
        for row in table.to_dict('records')
    }
    assert len(table) == len(found)
    assert found == {
        ('sub-01', 'ses-a'): ('done', 'n/a'),
        ('sub-01', 'ses-b'): ('done', 'n/a'),
        ('sub-01', 'ses-c'): ('failed', '/data/sub-01_ses-c cannot be read'),
        ('sub-02', 'ses-a'): ('missing', '/data/sub-02_ses-a cannot be read'),
        ('sub-02', 'ses-b'): ('missing', 'no scan was processed'),
    }
    assert set(cause_table(table)['participants']) == {'sub-01', 'sub-02'}


def test_the_images_of_one_scan_do_not_count_for_two_people(
    add_scan: AddScan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same, other = 'a' * 64, 'b' * 64
    add_scan('01', images_sha256=same)
    add_scan('02', images_sha256=same)
    add_scan('03', session='pre', images_sha256=other)
    add_scan('03', session='post', images_sha256=other)
    add_scan('04', images_sha256='c' * 64)
    add_scan('05', images_sha256='d' * 64)
    add_scan('06')
    output_dir = add_scan('07')  # of an earlier version, whose records have no checksum

    def excluded(**options: Path) -> dict[str, str]:
        write_group(output_dir, GroupOptions(**options))
        rows = rows_of(output_dir / 'group_scans.tsv')
        return {row['scan']: row['exclusion_reason'] for row in rows if row['excluded'] == 'yes'}

    reasons = excluded()
    first, second = 'sub-01_acq-dixon', 'sub-02_acq-dixon'
    sessions = {f'sub-03_ses-{label}_acq-dixon' for label in ('pre', 'post')}
    assert reasons.keys() == {first, second} | sessions
    assert second in reasons[first]
    assert 'which participant' in reasons[first]
    assert all('which session' in reasons[name] for name in sessions)
    said = f'These scans have the same images: {first}, {second}.'
    assert said in capsys.readouterr().err
    assert said in (output_dir / 'group.html').read_text()

    wrong = tmp_path / 'wrong.tsv'
    wrong.write_text('participant_id\treason\nsub-02\tuploaded twice\n')
    reasons = excluded(exclude=wrong)
    assert reasons.keys() == {second} | sessions
    assert reasons[second] == 'uploaded twice'


def test_a_copy_in_one_session_is_no_repeat(add_scan: AddScan) -> None:
    output_dir = add_scan('01', images_sha256='a' * 64)
    scans = read_scans(output_dir)
    again = replace(scans[0], record=replace(scans[0].record, scan='sub-01_acq-dixon_run-2'))
    marked, notes = mark_copies([*scans, again])
    assert not marked[0].exclusion()
    assert 'no repeat' in marked[1].exclusion()
    assert len(notes) == 1
