"""Ratings: read, matched with the segmentations they are about, merged, and what follows."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bids_muscle.errors import BadDataError, MissingInputError
from bids_muscle.reports.cohort_input import GroupOptions
from bids_muscle.reports.group import write_group
from bids_muscle.reports.outputs import read_scans
from bids_muscle.reports.ratings import COLUMNS, FORMAT, keep_rating, read_ratings
from bids_muscle.statistics.agreement import cohen_kappa

AddScan = Callable[..., Path]
HOSTILE = '<script>alert(1)</script>'


def rating(output_dir: Path, participant: str, **given: Any) -> dict[str, Any]:
    """Return a rating of the segmentation that is there now."""
    [scan] = read_scans(output_dir, participant)
    return {
        'scan': scan.record.scan,
        'segmentation': scan.segmentation,
        'rating': 'pass',
        'muscles': [],
        'comment': '',
        'rater': 'AB',
        'rated_at': '2026-01-01T00:00:00Z',
        **given,
    }


def as_json(path: Path, *ratings: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps({'format': FORMAT, 'ratings': ratings}))
    return path


def as_tsv(path: Path, *ratings: Mapping[str, Any]) -> Path:
    """Write ratings as the review page does."""
    rows = [{**each, 'muscles': '; '.join(each['muscles'])} for each in ratings]
    lines = [[row[name] or 'n/a' for name in COLUMNS] for row in rows]
    path.write_text(''.join('\t'.join(cells) + '\n' for cells in [COLUMNS, *lines]))
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


@pytest.fixture
def cohort(add_scan: AddScan) -> Path:
    """Three scans."""
    for participant in ('01', '02', '03'):
        output_dir = add_scan(participant)
    return output_dir


def test_tsv_and_json_say_the_same(cohort: Path, tmp_path: Path) -> None:
    given = [
        rating(cohort, '01', comment='"quoted" \u2028 text', muscles=['left multifidus']),
        rating(cohort, '02', rating='fail'),
    ]
    [one, two] = read_ratings([as_tsv(tmp_path / 'r.tsv', *given)])
    again = read_ratings([as_json(tmp_path / 'r.json', *given)])
    nowhere = {'file': '', 'place': ''}
    assert [vars(each) | nowhere for each in (one, two)] == [
        vars(each) | nowhere for each in again
    ]
    assert one.comment == '"quoted" \u2028 text'
    assert (one.muscles, two.rating) == (('left multifidus',), 'fail')


def test_what_fails_is_excluded_and_stays_in_the_tables(cohort: Path, tmp_path: Path) -> None:
    ratings = [
        rating(cohort, '01', rating='fail', comment='leaks'),
        rating(cohort, '02', rating='artefact', muscles=['right psoas major']),
    ]
    paths = write_group(cohort, GroupOptions(ratings=[as_tsv(tmp_path / 'r.tsv', *ratings)]))
    muscles = table(cohort / 'group_muscles.tsv')
    assert len(muscles) == 24
    excluded = {
        (row['participant_id'], row['name']): row['exclusion_reason']
        for row in muscles
        if row['excluded'] == 'yes'
    }
    assert len(excluded) == 9
    assert {who for who, _ in excluded} == {'sub-01', 'sub-02'}
    assert excluded['sub-02', 'right psoas major'] == 'marked as wrong in the review'
    # Their values are still there.
    assert all(row['volume_ml'] != '' for row in muscles)
    scans = {row['participant_id']: row for row in table(cohort / 'group_scans.tsv')}
    assert [scans[f'sub-0{k}']['qc_rating'] for k in (1, 2, 3)] == ['fail', 'artefact', 'n/a']
    assert [scans[f'sub-0{k}']['excluded'] for k in (1, 2, 3)] == ['yes', 'no', 'no']
    assert scans['sub-01']['qc_comments'] == 'AB: leaks'
    # Two of three scans count, and one of them without its psoas.
    data = paths[-1].read_text().split('id="data">')[1].split('</script>')[0]
    counted = [place for scan in json.loads(data)['scans'] for place in scan['counts']]
    assert [counted.count(place) for place in range(8)] == [2, 2, 2, 2, 1, 2, 2, 2]


@pytest.mark.parametrize('side', ['left', 'right'])
def test_sides_are_compared_only_where_both_count(
    add_scan: AddScan, muscle_rows: Callable[..., list[dict[str, Any]]], tmp_path: Path, side: str
) -> None:
    for k in range(6):
        difference = {'volume_asymmetry_pct': k or 60}
        output_dir = add_scan(f'0{k}', rows=[{**row, **difference} for row in muscle_rows()])
    wrong = rating(output_dir, '00', muscles=[f'{side} multifidus'])
    write_group(output_dir, GroupOptions(ratings=[as_tsv(tmp_path / 'r.tsv', wrong)]))
    muscles = {
        row['name']: row
        for row in table(output_dir / 'group_muscles.tsv')
        if row['participant_id'] == 'sub-00'
    }
    for name in ('left multifidus', 'right multifidus'):
        row = muscles[name]
        assert row['excluded'] == ('yes' if name.startswith(side) else 'no')
        assert row['volume_asymmetry_pct'] == 'n/a'
        assert 'only one side counts' in row['reason']
    assert muscles['left psoas major']['volume_asymmetry_pct'] == '60'
    for name in ('group_wide.tsv', 'phenotype/bids_muscle.tsv'):
        [row] = [each for each in table(output_dir / name) if each['participant_id'] == 'sub-00']
        cells = {key.rpartition('pct_')[2]: row[key] for key in row if '_asymmetry_' in key}
        assert (cells['multifidus'], cells['psoas_major']) == ('n/a', '60')
    found = {
        row['name']
        for row in table(output_dir / 'group_outliers.tsv')
        if row['kind'] == 'asymmetry'
    }
    assert 'psoas major' in found
    assert 'multifidus' not in found


def test_the_list_to_redo_and_its_form_for_sct(cohort: Path, tmp_path: Path) -> None:
    ratings = [rating(cohort, '01', rating='fail'), rating(cohort, '02'), rating(cohort, '03')]
    ratings[2]['muscles'] = ['left multifidus']
    paths = write_group(cohort, GroupOptions(ratings=[as_json(tmp_path / 'r.json', *ratings)]))
    redo = table(cohort / 'group_redo.tsv')
    assert [(row['participant_id'], row['image']) for row in redo] == [
        ('sub-01', 'water.nii.gz'),
        ('sub-03', 'water.nii.gz'),
    ]
    yaml = (cohort / 'qc_fail.yml').read_text()
    assert yaml == 'FILES_SEG:\n- "water.nii.gz"\n- "water.nii.gz"\n'
    for name in ('group_redo', 'group_raters'):
        dictionary = json.loads((cohort / f'{name}.json').read_text())
        assert list(dictionary) == (cohort / f'{name}.tsv').read_text().split('\n')[0].split('\t')
    # Without ratings nothing is left that contradicts the tables.
    write_group(cohort)
    assert not [path for path in paths if 'redo' in path.name and path.exists()]
    assert {row['excluded'] for row in table(cohort / 'group_scans.tsv')} == {'no'}


def test_raters_are_merged_to_the_worst_and_compared(cohort: Path, tmp_path: Path) -> None:
    first = [rating(cohort, each, rating=r) for each, r in (('01', 'pass'), ('02', 'fail'))]
    second = [
        rating(cohort, each, rating=r, rater='CD', muscles=['left multifidus'])
        for each, r in zip(('01', '02', '03'), ('artefact', 'fail', 'pass'), strict=True)
    ]
    files = [as_tsv(tmp_path / 'a.tsv', *first), as_json(tmp_path / 'b.json', *second)]
    write_group(cohort, GroupOptions(ratings=files))
    scans = {row['participant_id']: row for row in table(cohort / 'group_scans.tsv')}
    assert [scans[f'sub-0{k}']['qc_rating'] for k in (1, 2, 3)] == ['artefact', 'fail', 'pass']
    assert scans['sub-01']['qc_raters'] == 'AB: pass; CD: artefact'
    [pair] = table(cohort / 'group_raters.tsv')
    assert (pair['rater_1'], pair['rater_2'], pair['n_scans']) == ('AB', 'CD', '2')
    # One of two alike; by chance one in four would be (both say fail): (1/2 - 1/4) / (3/4).
    assert float(pair['agreement_pct']) == 50
    assert float(pair['cohen_kappa']) == pytest.approx(1 / 3)


def test_the_last_rating_of_a_rater_counts(cohort: Path, tmp_path: Path) -> None:
    late = rating(cohort, '01', rating='pass', rated_at='2026-02-01T00:00:00Z')
    early = rating(cohort, '01', rating='fail')
    write_group(cohort, GroupOptions(ratings=[as_tsv(tmp_path / 'r.tsv', late, early)]))
    [row] = [r for r in table(cohort / 'group_scans.tsv') if r['participant_id'] == 'sub-01']
    assert (row['qc_rating'], row['excluded']) == ('pass', 'no')


def test_a_rating_of_another_segmentation_does_not_count(cohort: Path, tmp_path: Path) -> None:
    old = rating(cohort, '01', rating='fail', segmentation='0' * 12)
    path = as_tsv(tmp_path / 'r.tsv', old, rating(cohort, '02'))
    page = write_group(cohort, GroupOptions(ratings=[path]))[-1].read_text()
    assert 'another segmentation' in page
    assert 'sub-01_acq-dixon.' in page.split('so rate')[1].split('</li>')[0]
    assert {row['excluded'] for row in table(cohort / 'group_scans.tsv')} == {'no'}


def test_ratings_of_another_dataset_are_told_and_the_page_comes(
    cohort: Path, tmp_path: Path
) -> None:
    foreign = as_tsv(tmp_path / 'r.tsv', {**rating(cohort, '01'), 'scan': 'sub-99_acq-dixon'})
    with pytest.raises(BadDataError, match='sub-99_acq-dixon'):
        write_group(cohort, GroupOptions(ratings=[foreign]))
    told = f'{foreign} is about none of the scans of this dataset'
    assert told in (cohort / 'group.html').read_text()
    # Together with a file that is of this dataset nothing is wrong.
    own = as_tsv(tmp_path / 'own.tsv', rating(cohort, '01', rating='fail'))
    write_group(cohort, GroupOptions(ratings=[foreign, own]))
    page = (cohort / 'group.html').read_text()
    assert told in page
    assert 'rated fail in the review' in page


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'rating': 'good'}, "rating 2: 'good' is not a rating"),
        ({'rating': HOSTILE}, 'is not a rating'),
        ({'comment': None}, 'rating 2: it lacks'),
        ({'muscles': 'left multifidus'}, 'rating 2: it lacks'),
        ({'muscles': ['biceps']}, "rating 2: 'biceps' is not a muscle"),
    ],
)
def test_a_broken_rating_is_named(
    cohort: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = as_json(tmp_path / 'r.json', rating(cohort, '01'), rating(cohort, '02', **change))
    with pytest.raises(BadDataError, match=said):
        write_group(cohort, GroupOptions(ratings=[path]))


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('r.tsv', b''),
        ('r.tsv', b'scan\trating\nsub-01\tpass\n'),
        ('r.tsv', bytes(range(256))),
        ('r.json', b'{"half'),
        ('r.json', b'[]'),
        ('r.json', b'{"format": "other", "ratings": []}'),
    ],
)
def test_what_is_no_rating_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadDataError, match='is not a rating file'):
        read_ratings([tmp_path / name])


def test_a_short_row_and_an_absent_file_are_named(cohort: Path, tmp_path: Path) -> None:
    path = as_tsv(tmp_path / 'r.tsv', rating(cohort, '01'))
    path.write_text(path.read_text() + 'sub-02\tpass\n')
    with pytest.raises(BadDataError, match='line 3 has 2 cells, not 7'):
        read_ratings([path])
    with pytest.raises(MissingInputError, match=r'none\.tsv'):
        read_ratings([tmp_path / 'none.tsv'])


def test_kappa_of_a_known_table() -> None:
    # Cohen's measure for 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no is 0.4.
    pairs = (
        [('yes', 'yes')] * 20 + [('yes', 'no')] * 5 + [('no', 'yes')] * 10 + [('no', 'no')] * 15
    )
    agreement_pct, kappa = cohen_kappa(*zip(*pairs, strict=True))
    assert (agreement_pct, kappa) == (pytest.approx(70), pytest.approx(0.4))
    assert cohen_kappa(['pass'] * 3, ['pass'] * 3)[0] == 100
    assert math.isnan(cohen_kappa(['pass'] * 3, ['pass'] * 3)[1])
    assert all(math.isnan(value) for value in cohen_kappa([], []))


def test_ratings_of_the_server_are_read_from_the_output_folder(cohort: Path) -> None:
    for rater, word in (('Anna', 'pass'), ('Ben', 'fail')):
        row = {
            **rating(cohort, '01', rating=word, rater=rater),
            'rated_at': '2026-01-01T00:00:00Z',
        }
        keep_rating(cohort / f'ratings/{rater}.tsv', row)
    write_group(cohort)
    scans = {row['participant_id']: row for row in table(cohort / 'group_scans.tsv')}
    assert scans['sub-01']['exclusion_reason'] == 'rated fail in the review'
    assert table(cohort / 'group_raters.tsv')[0]['n_scans'] == '1'
