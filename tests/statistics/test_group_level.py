"""The group level on made-up outputs: a cohort of 84 with Weber's effects, end to end."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cohorts import MEASURE, group_table

import bids_muscle
from bids_muscle.anatomy.labels import REGIONS, load_label_table
from bids_muscle.cli.main import main
from bids_muscle.cli.norms import main as norms_main
from bids_muscle.dataset.names import derivative_path
from bids_muscle.dataset.records import ScanRecord, write_record
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.writer import write_json, write_tsv
from bids_muscle.errors import BadDataError, ExitCode, UsageError
from bids_muscle.measurement.rows import morph_dictionary
from bids_muscle.phantom.effects import load_effects
from bids_muscle.reports.norms import read_norms
from bids_muscle.reports.participant import write_participant_report
from bids_muscle.reports.published import SOURCES, published_values

PEOPLE = ['age', 'sex', 'bmi']


def write_outputs(
    table: pd.DataFrame, output_dir: Path, acq: str | None = None, **fields: Any
) -> Path:
    """Write what the participant level leaves of the scans of a table."""
    measures = [name for name in table.columns if name.endswith(('_pct', '_ml'))]
    for (who, session), part in table.groupby(['participant_id', 'session_id'], sort=False):
        label, ses = who.removeprefix('sub-'), session.removeprefix('ses-')
        entities = [('sub', label), *([('ses', ses)] if ses != 'n/a' else [])]
        contrasts = part['contrast'].iloc[0].split('+')
        entities.append(('acq', acq or ('T2w' if contrasts == ['T2w'] else 'dixon')))
        scan = Scan(tuple(entities), 'T1w', 'cervical', ())
        record = {
            'status': 'done',
            'inputs': {name: f'{scan.name}_{name}.nii.gz' for name in contrasts},
            'model': {'name': 'net', 'version': '1', 'sha256': 'ab'},
            'versions': {'bids_muscle': '0.1.0'},
            'device': 'cpu',
            'settings_digest': 'cd',
            'participant_info': {name: part[name].iloc[0] for name in PEOPLE if name in part},
        }
        write_record(
            ScanRecord(
                participant=label,
                session=None if ses == 'n/a' else ses,
                scan=scan.name,
                region='cervical',
                **record | fields,
            ),
            scan,
            output_dir,
        )
        columns = ['index', 'name', 'muscle', 'side', *measures, 'reason']
        write_tsv(part[columns], output_dir / derivative_path(scan, 'morph'))
        write_json(morph_dictionary('morph'), output_dir / derivative_path(scan, 'morph_json'))
    return output_dir


def group(output_dir: Path, *words: object, bids_dir: Path = Path('/nowhere')) -> int:
    return main([str(bids_dir), str(output_dir), 'group', *map(str, words)])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t', quoting=csv.QUOTE_NONE))


def stats(output_dir: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(output_dir / f'group_stats_{name}.tsv', sep='\t', na_values='n/a')


@pytest.fixture(scope='module')
def weber(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the group level on a cohort of 84 with two sessions."""
    output_dir = tmp_path_factory.mktemp('weber') / 'out'
    write_outputs(group_table(84, sessions=2), output_dir)
    assert group(output_dir) == ExitCode.OK
    return output_dir


def test_the_effects_of_weber_are_found(weber: Path) -> None:
    ancova = stats(weber, 'rm_ancova').set_index('effect')
    assert set(ancova['n']) == {84}
    assert ancova.loc['sex', 'df2'] == 80
    assert (ancova.loc[['muscle', 'sex', 'age'], 'p'] < 0.05).all()
    sex = stats(weber, 'sex_differences').set_index('muscle').loc['all muscles']
    effects = load_effects().mfi['cervical'].values()
    planted = np.mean([effect['female'] for effect in effects])
    assert sex['difference_ci_low'] < planted < sex['difference_ci_high']
    deep = 'multifidus and semispinalis cervicis'
    age = stats(weber, 'pearson').query('variable == "age"').set_index('muscle')
    assert age.loc[deep, 'r'] > 0.2
    assert (stats(weber, 'change')['p_holm'] < 0.05).all()
    assert (stats(weber, 'paired_t')['p_holm'] >= stats(weber, 'paired_t')['p']).all()


def test_the_figures_of_weber_are_drawn(weber: Path) -> None:
    """A point for each of 84 people, whose pixels may coincide, and a line in each panel."""
    page = (weber / 'group.html').read_text()
    panels = page.split('<svg class="chart panel"')[1:]
    # Seven muscles by age and by BMI; by both sessions, and their difference.
    assert len(panels) == 7 * 4
    for panel in panels:
        dots = panel.split('class="points" d="')[1].split('"')[0].count('M')
        assert 40 < dots <= 84
        assert panel.count('<line class="regression"') + panel.count('<line class="identity"') == (
            0 if 'class="bias"' in panel else 1
        )
        assert panel.count('<line class="limit"') == (2 if 'class="bias"' in panel else 0)
    assert page.count('<rect class="men"') == 8


def test_each_analysis_has_a_sentence_and_a_chart_on_the_page(weber: Path) -> None:
    page = html.unescape((weber / 'group.html').read_text())
    findings = rows(weber / 'group_findings.tsv')
    assert {row['analysis'] for row in findings} == {
        path.stem.removeprefix('group_stats_') for path in weber.glob('group_stats_*.tsv')
    }
    for row in findings:
        assert row['finding'] in page
        assert 'n = 84' in row['finding'] or '65 women minus 19 men' in row['finding'], row
        described = row['analysis'] in ('means', 'agreement')
        assert described or ' (95 % CI ' in row['finding']
    # One more has the estimated means of women and men.
    assert page.count('class="chart forest"') == len(findings) + 1
    effect = stats(weber, 'rm_ancova').iloc[0]['partial_eta_squared']
    assert f'>{effect:.2f} (' in page


def test_the_wide_tables_and_parquet_hold_the_same_numbers(weber: Path) -> None:
    tidy = rows(weber / 'group_muscles.tsv')
    wide = {row['scan']: row for row in rows(weber / 'group_wide.tsv')}
    people = {row['participant_id']: row for row in rows(weber / 'phenotype/bids_muscle.tsv')}
    assert (len(tidy), len(wide), len(people)) == (84 * 2 * 14, 84 * 2, 84)
    for row in tidy[::97]:
        column = f'{MEASURE}_{row["name"].replace(" ", "_")}'
        assert wide[row['scan']][column] == row[MEASURE]
        session = row['session_id'].replace('-', '')
        assert people[row['participant_id']][f'{session}_acqdixon_{column}'] == row[MEASURE]
    for name in ('group_muscles', 'group_wide'):
        table = pd.read_parquet(weber / f'{name}.parquet')
        text = rows(weber / f'{name}.tsv')
        assert list(table.columns) == list(text[0])
        column = next(c for c in table.columns if c.startswith(MEASURE))
        assert table[column].dtype == float
        np.testing.assert_array_equal(table[column], [float(row[column]) for row in text])
        assert table['age'].dtype == float
    for path in (*weber.glob('group_*.tsv'), weber / 'phenotype/bids_muscle.tsv'):
        entries = json.loads(path.with_suffix('.json').read_text())
        header = path.read_text().split('\n', 1)[0].split('\t')
        assert list(entries) == header
        assert all(entry['Description'] for entry in entries.values())


def test_the_same_outputs_give_the_same_bytes_and_leave_nothing_stale(weber: Path) -> None:
    def content() -> dict[str, bytes]:
        paths = [*weber.glob('group*'), *weber.glob('phenotype/*')]
        return {path.name: path.read_bytes() for path in paths}

    before = content()
    assert group(weber, '--formula', f'{MEASURE} ~ age + muscle') == ExitCode.OK
    assert stats(weber, 'formula').set_index('term').loc['age', 'n'] == 84
    assert group(weber) == ExitCode.OK
    assert content() == before


def test_a_formula_that_cannot_be_used_changes_nothing(weber: Path, capsys: Any) -> None:
    def outputs() -> dict[Path, int]:
        # What was read of the scans is kept in logs, whatever the formula.
        paths = (path for path in weber.rglob('*') if path.relative_to(weber).parts[0] != 'logs')
        return {path: path.stat().st_mtime_ns for path in paths}

    before = outputs()
    assert group(weber, '--formula', 'nothing ~ age') == ExitCode.USAGE
    assert MEASURE in capsys.readouterr().err
    assert outputs() == before


def test_what_a_list_excludes_does_not_count(tmp_path: Path) -> None:
    output_dir = write_outputs(group_table(12), tmp_path / 'out')
    listed = tmp_path / 'exclude.tsv'
    listed.write_text(
        'participant_id\tscan\tmuscle\treason\n'
        'sub-01\tn/a\tn/a\tmoved\n02\t\tleft trapezius\t\nsub-99\t\t\tnever came\n'
    )
    assert group(output_dir, '--exclude', listed) == ExitCode.OK
    reasons = {
        (row['participant_id'], row['name']): row['exclusion_reason']
        for row in rows(output_dir / 'group_muscles.tsv')
        if row['excluded'] == 'yes'
    }
    assert len(reasons) == 14 + 1
    assert reasons['sub-01', 'left trapezius'] == 'moved'
    assert reasons['sub-02', 'left trapezius'] == 'excluded by the list'
    wide = {row['participant_id']: row for row in rows(output_dir / 'group_wide.tsv')}
    assert wide['sub-02'][f'{MEASURE}_left_trapezius'] == 'n/a'
    assert wide['sub-02'][f'{MEASURE}_right_trapezius'] != 'n/a'
    sex = stats(output_dir, 'sex_differences').set_index('muscle')
    count = (sex['n_female'] + sex['n_male']).to_dict()
    assert (count['trapezius'], count['levator scapulae']) == (10, 11)
    status = {
        row['participant_id']: row['status'] for row in rows(output_dir / 'group_completeness.tsv')
    }
    assert (status['sub-01'], status['sub-02']) == ('excluded', 'done')
    assert (
        'excludes sub-99, of whom there is no such scan' in (output_dir / 'group.html').read_text()
    )


@pytest.mark.parametrize(
    ('text', 'code'),
    [
        ('participant_id\tmuscle\nsub-01\tleft biceps\n', ExitCode.BAD_DATA),
        ('subject\nsub-01\n', ExitCode.BAD_DATA),
        ('participant_id\tmuscel\nsub-01\tx\n', ExitCode.BAD_DATA),
        ('participant_id\tmuscle\n\tleft trapezius\n', ExitCode.BAD_DATA),
        (None, ExitCode.NO_INPUT),
    ],
)
def test_a_bad_list_is_refused(tmp_path: Path, text: str | None, code: ExitCode) -> None:
    output_dir = write_outputs(group_table(2), tmp_path / 'out')
    listed = tmp_path / 'exclude.tsv'
    if text is not None:
        listed.write_text(text)
    assert group(output_dir, '--exclude', listed) == code
    assert not (output_dir / 'group.html').exists()


def in_sessions(n: int, *names: str) -> pd.DataFrame:
    """Return a cohort with two sessions of these names."""
    table = group_table(n, sessions=2)
    labels = {f'ses-{at}': f'ses-{name}' for at, name in enumerate(names, start=1)}
    return table.assign(session_id=table['session_id'].map(labels))


def changes(output_dir: Path) -> list[float]:
    """Return the changes of the paired test and of the mixed model, trapezius."""
    change, mixed = stats(output_dir, 'change'), stats(output_dir, 'mixed_model')
    of_session = mixed[mixed['term'].str.startswith('session')]
    return [
        *change[change['muscle'] == 'trapezius']['difference'],
        *of_session[of_session['muscle'] == 'trapezius']['estimate'],
    ]


def test_before_comes_before_after(tmp_path: Path) -> None:
    """Sessions were once sorted by the alphabet: the effect had the opposite sign."""
    output_dir = write_outputs(in_sessions(20, 'pre', 'post'), tmp_path / 'out')
    reference = write_outputs(in_sessions(20, '1', '2'), tmp_path / 'reference')
    assert group(output_dir) == group(reference) == ExitCode.OK
    assert changes(output_dir) == changes(reference)
    assert all(change > 0.1 for change in changes(output_dir))
    for name in ('means', 'rm_ancova'):
        numbers = [stats(each, name).select_dtypes('number') for each in (output_dir, reference)]
        pd.testing.assert_frame_equal(*numbers)
    agreement = stats(output_dir, 'agreement')
    assert set(agreement['test']) == {'ses-post'}
    for name in ('change', 'mixed_model'):
        assert set(stats(output_dir, name)['session_order']) == {
            'ses-pre, ses-post (order by labels)'
        }
    findings = {row['analysis']: row['finding'] for row in rows(output_dir / 'group_findings.tsv')}
    assert findings['change'].startswith('From ses-pre to ses-post the measure changed')
    assert 'sessions against ses-pre, order by labels' in findings['mixed_model']
    assert 'at the first session (ses-pre of 20; order by labels)' in findings['means']
    page = (output_dir / 'group.html').read_text()
    assert 'Sessions in chronological order: ses-pre, ses-post (order by labels).' in page
    assert '"sessions": ["ses-pre", "ses-post"]' in page


def test_dates_of_the_dataset_of_today_decide_and_are_kept(tmp_path: Path) -> None:
    table = in_sessions(20, 'b', 'a')
    output_dir = write_outputs(
        table, tmp_path / 'out', session_info={'acq_time': '1999-01-01T10:00:00'}
    )
    bids_dir = tmp_path / 'bids'
    for label in sorted({who.removeprefix('sub-') for who in table['participant_id']}):
        for session, month in (('b', 1), ('a', 3)):
            folder = bids_dir / f'sub-{label}/ses-{session}'
            folder.mkdir(parents=True)
            time = f'2020-0{month}-{label}T10:00:00'
            (folder / f'{folder.parent.name}_{folder.name}_scans.tsv').write_text(
                f'filename\tacq_time\nanat/x.nii.gz\t{time}\n'
            )
    assert group(output_dir, bids_dir=bids_dir) == ExitCode.OK
    assert set(stats(output_dir, 'change')['first_session']) == {'ses-b'}
    assert all(change > 0.1 for change in changes(output_dir))
    assert 'order by acq_time' in (output_dir / 'group.html').read_text()
    # A word of the user goes before the dates, and the page says what they say.
    assert group(output_dir, '--session-order', 'ses-a', 'b', bids_dir=bids_dir) == ExitCode.OK
    assert all(change < -0.1 for change in changes(output_dir))
    assert 'In 20 of 20 participants' in (output_dir / 'group.html').read_text()
    assert group(output_dir, '--session-order', 'b', bids_dir=bids_dir) == ExitCode.USAGE
    # Without the raw data the records know; these have one time for both.
    shutil.rmtree(bids_dir)
    assert group(output_dir) == ExitCode.OK
    assert 'is uncertain' in (output_dir / 'group.html').read_text()


def test_sites_and_late_covariates_come_from_the_raw_data_and_are_kept(tmp_path: Path) -> None:
    table = group_table(40)
    second = table['participant_id'].str[-1].isin(list('02468'))
    table[MEASURE] = (table[MEASURE].astype(float) + 6 * second).map(repr)
    output_dir = write_outputs(table.drop(columns='bmi'), tmp_path / 'out')
    bids_dir = tmp_path / 'bids'
    bids_dir.mkdir()
    people = table.drop_duplicates('participant_id')[['participant_id', *PEOPLE]]
    people = people.assign(site=np.where(second[people.index], 'north', 'south'))
    write_tsv(people, bids_dir / 'participants.tsv')
    assert group(output_dir, bids_dir=bids_dir) == ExitCode.OK
    assert (stats(output_dir, 'site_differences')['p_holm'] < 0.05).all()
    values = stats(output_dir, 'harmonised_values')
    assert len(values) == 40 * 7
    assert set(stats(output_dir, 'rm_ancova')['controlled']) == {'sex, age, bmi'}
    page = (output_dir / 'group.html').read_text()
    assert '2 sites were harmonised by ComBat' in page
    shutil.rmtree(bids_dir)
    assert group(output_dir) == ExitCode.OK
    assert (output_dir / 'group.html').read_text() == page
    assert group(output_dir, '--no-harmonisation') == ExitCode.OK
    assert not (output_dir / 'group_stats_harmonisation.tsv').exists()


def test_who_lacks_which_scan(tmp_path: Path) -> None:
    table = group_table(4, sessions=2)
    lost = (table['participant_id'] == 'sub-04') & (table['session_id'] == 'ses-2')
    output_dir = write_outputs(table[~lost], tmp_path / 'out')
    problem = BadDataError('The image is empty.', 'Export it again.').problem
    failing = table[(table['participant_id'] == 'sub-02') & (table['session_id'] == 'ses-1')]
    write_outputs(failing, output_dir, status='failed', problem=problem)
    (tmp_path / 'bids').mkdir()
    (tmp_path / 'bids/participants.tsv').write_text('participant_id\nsub-01\nsub-05\n')
    (tmp_path / 'bids/sub-06').mkdir()
    assert group(output_dir, bids_dir=tmp_path / 'bids') == ExitCode.OK
    found = {
        (row['participant_id'], row['session_id']): (row['status'], row['reason'])
        for row in rows(output_dir / 'group_completeness.tsv')
    }
    assert len(found) == 12
    assert found['sub-06', 'ses-2'] == ('missing', 'no scan was processed')
    assert found['sub-02', 'ses-1'] == ('failed', 'The image is empty. Export it again.')
    assert found['sub-04', 'ses-2'] == ('missing', 'no scan was processed')
    assert found['sub-05', 'ses-1'][0] == 'missing'
    assert [status for status, _ in found.values()].count('done') == 6


def test_outliers_of_asymmetry_and_mixed_makers_are_pointed_out(tmp_path: Path) -> None:
    table = group_table(9)
    rng = np.random.default_rng(0)
    keys = list(zip(table['participant_id'], table['muscle'], strict=True))
    per_muscle = {key: f'{rng.normal(0, 3):.3f}' for key in dict.fromkeys(keys)}
    per_muscle['sub-07', 'trapezius'] = '60'
    table['volume_asymmetry_pct'] = [per_muscle[key] for key in keys]
    output_dir = write_outputs(table, tmp_path / 'out')
    write_outputs(
        table[table['participant_id'] == 'sub-01'],
        output_dir,
        device='cuda:0',
        versions={'bids_muscle': '0.0.9'},
        model={'name': 'net', 'version': '2', 'sha256': 'ef'},
    )
    assert group(output_dir) == ExitCode.OK
    far = [row for row in rows(output_dir / 'group_outliers.tsv') if row['kind'] == 'asymmetry']
    assert (far[0]['participant_id'], far[0]['name']) == ('sub-07', 'trapezius')
    assert sum(row['scan'] == far[0]['scan'] for row in far) == 1  # not once for each side
    page = (output_dir / 'group.html').read_text()
    for what in ('versions of bids_muscle', 'kinds of device', 'models for the cervical region'):
        assert f'2 different {what}' in page


def test_thresholded_fat_and_mfi_never_meet(tmp_path: Path) -> None:
    dixon, other = group_table(10), group_table(10, seed=2)
    other = other.rename(columns={MEASURE: 'fat_gmm2_pct'}).assign(contrast='T2w')
    output_dir = write_outputs(dixon, tmp_path / 'out')
    write_outputs(other, output_dir)
    assert group(output_dir) == ExitCode.OK
    for name in ('paired_t', 'sex_differences', 'pearson'):
        table = stats(output_dir, name)
        pairs = set(zip(table['contrast'], table['measure'], strict=True))
        assert pairs == {('fat+water', MEASURE), ('T2w', 'fat_gmm2_pct')}
    for row in rows(output_dir / 'group_wide.tsv'):
        filled = {name for name in row if row[name] != 'n/a' and '_pct_' in name}
        assert len({name.startswith('fat_') for name in filled}) == 1


@pytest.mark.parametrize('n', [1, 2, 3])
def test_small_cohorts_have_reasons(tmp_path: Path, n: int) -> None:
    output_dir = write_outputs(group_table(n), tmp_path / 'out')
    assert group(output_dir) == ExitCode.OK
    for path in output_dir.glob('group_stats_*.tsv'):
        for row in rows(path):
            result = next(name for name in ('p', 'icc', 'sd') if name in row)
            assert row[result] != 'n/a' or row['reason'] != 'n/a'
    assert 'nan' not in (output_dir / 'group_findings.tsv').read_text()


def test_norms_of_a_cohort_place_another_one(weber: Path, tmp_path: Path, capsys: Any) -> None:
    """Norms of 84 people, 65 of them women; then people for whom there is a curve, and not."""
    file = tmp_path / 'norms.json'
    words = ['build', str(weber), '--output', str(file), '--population', 'planted people']
    assert norms_main(words) == ExitCode.OK
    text = file.read_text()
    assert '14 curves of 65 people, 14 not made' in capsys.readouterr().out
    assert not any(f'"{each}' in text for each in ('sub-', 'participant'))
    table = group_table(6, seed=2)
    table['age'], table['sex'], table['bmi'] = '35', 'F', '25'
    last = table['participant_id'].unique()[1:]
    table.loc[table['participant_id'] == last[0], 'sex'] = 'M'
    table.loc[table['participant_id'] == last[1], 'age'] = '80'
    table.loc[table['participant_id'] == last[2], 'bmi'] = 'n/a'
    output_dir = write_outputs(table[table['participant_id'] != last[3]], tmp_path / 'out')
    other = table[table['participant_id'] == last[3]]
    write_outputs(other, output_dir, model={'name': 'other', 'version': '2', 'sha256': 'ef'})
    changed = table[table['participant_id'] == last[4]]
    write_outputs(changed, output_dir, settings_digest='xy')
    assert group(output_dir, '--norms', file) == ExitCode.OK
    centiles = pd.read_csv(output_dir / 'group_centiles.tsv', sep='\t', na_values='n/a')
    assert list(centiles) == list(json.loads((output_dir / 'group_centiles.json').read_text()))
    by_person = centiles.groupby('participant_id')
    reasons = by_person['reason'].first().to_dict()
    expected = ('no curve', 'age is outside', 'index is unknown', 'another model: net 1')
    for who, words_ in zip(last[:4], expected, strict=True):
        assert words_ in reasons[who]
        assert by_person.get_group(who)['z'].isna().all()
    placed = by_person.get_group('sub-01')
    assert placed['centile'].between(placed['centile_ci_low'], placed['centile_ci_high']).all()
    assert 'settings' in by_person['remark'].first()[last[4]]
    page = html.unescape((output_dir / 'group.html').read_text())
    for said in (*expected, 'settings that may change a number', 'planted people; 65 people'):
        assert said in page
    shown = write_participant_report(output_dir, '01').read_text()
    assert len(re.findall(r'class="rank">P[<>]?\d+ \(', shown)) == 14
    # Without norms nothing of them is left.
    assert group(output_dir) == ExitCode.OK
    assert not (output_dir / 'group_centiles.tsv').exists()
    assert not (output_dir / 'group_norms.json').exists()


def test_norms_take_the_session_that_came_first(tmp_path: Path) -> None:
    """MFI rises tenfold from the first session, called b, to the second, called a."""
    table = in_sessions(42, 'b', 'a').assign(sex='F')
    table = table[table['muscle'] == 'trapezius'].astype({MEASURE: float})
    first = table[table['session_id'] == 'ses-b'][MEASURE]
    table.loc[table['session_id'] == 'ses-a', MEASURE] *= 10
    output_dir = write_outputs(table, tmp_path / 'out')
    ordered = ('--session-order', 'b', 'a')
    assert group(output_dir, *ordered) == ExitCode.OK
    file = tmp_path / 'norms.json'
    words = ['build', str(output_dir), '--output', str(file), '--population', 'people']
    assert norms_main(words) == ExitCode.OK
    age, bmi = np.array([50.0]), np.array([25.0])
    for curve in read_norms(file).curves.values():
        assert first.min() < curve.value(50, age, bmi)[0] < first.max()
    assert group(output_dir, *ordered, '--norms', file) == ExitCode.OK
    page = html.unescape((output_dir / 'group.html').read_text())
    z = re.findall(r'trapezius (-?[\d.]+) \([^)]*\), n = \d+; below P5', page)
    assert len(z) == 2  # right and left
    assert all(abs(float(each)) < 0.5 for each in z)


def test_files_that_are_no_norms_are_refused(tmp_path: Path, capsys: Any) -> None:
    example = Path(bids_muscle.__file__).parent / 'data/norms/example.json'
    broken = tmp_path / 'norms.json'
    for content in (
        '{}',
        '[1]',
        example.read_text().replace('"covariance": [', '"covariance": [1,'),
    ):
        broken.write_text(content)
        with pytest.raises(BadDataError, match='is not a file of norms'):
            read_norms(broken)
    with pytest.raises(UsageError, match='example made of simulated people'):
        read_norms(example)
    words = ['build', str(tmp_path), '--output', str(broken), '--population', 'x']
    assert norms_main(words) == ExitCode.NO_INPUT
    assert 'Run the group level' in capsys.readouterr().err


def test_published_values_have_a_source_and_known_names() -> None:
    labels = {label.muscle for region in REGIONS for label in load_label_table(region)}
    assert published_values()
    for row in published_values():
        assert row['source'] in SOURCES
        assert row['measure'] in morph_dictionary('morph')
        assert row['comparability'] in ('close', 'limited', 'not comparable')
        assert (row['muscle'] in labels) == (row['comparability'] != 'not comparable')
        assert float(row['mean']) > float(row['sd']) > 0


#: Model in R -> column of the estimate here, and what tells the rows apart.
IN_R = {
    'means': ('mean', []),
    'paired_t': ('difference', ['other_muscle']),
    'sex_differences': ('difference', []),
    'pearson': ('r', ['variable']),
    'mixed_model': ('estimate', ['term']),
}


needs_r = pytest.mark.skipif(
    not shutil.which('Rscript'), reason='needs R: apt install r-base-core'
)


@needs_r
def test_r_reads_the_tables_and_finds_the_same(weber: Path, tmp_path: Path) -> None:
    compare_with_r(weber, tmp_path)


@needs_r
def test_a_muscle_of_which_nobody_has_a_side_is_none_in_r_either(tmp_path: Path) -> None:
    table = group_table(20)
    table.loc[table['name'] == 'left trapezius', MEASURE] = 'n/a'
    output_dir = write_outputs(table, tmp_path / 'out')
    assert group(output_dir) == ExitCode.OK
    assert 'trapezius' not in set(stats(output_dir, 'means')['muscle'])
    compare_with_r(output_dir, tmp_path, IN_R.keys() - {'mixed_model'})


@needs_r
def test_who_has_no_harmonised_value_is_not_analysed_in_r_either(tmp_path: Path) -> None:
    table = group_table(40, sessions=2)
    place = table['participant_id'].str.removeprefix('sub-').astype(int)
    table[MEASURE] = (table[MEASURE].astype(float) + 20 * (place % 2)).map(repr)
    output_dir = write_outputs(table, tmp_path / 'out')
    bids_dir = tmp_path / 'bids'
    bids_dir.mkdir()
    site = np.where(place > 30, 'n/a', np.where(place % 2, 'north', 'south'))
    people = table.assign(site=site).drop_duplicates('participant_id')
    write_tsv(people[['participant_id', *PEOPLE, 'site']], bids_dir / 'participants.tsv')
    assert group(output_dir, bids_dir=bids_dir) == ExitCode.OK
    assert set(stats(output_dir, 'means')['n']) == {30}
    compare_with_r(output_dir, tmp_path)


def compare_with_r(output_dir: Path, folder: Path, models: Collection[str] = tuple(IN_R)) -> None:
    for name in ('group_wide.csv', 'group_wide_codebook.csv', 'group_models.R'):
        shutil.copy(output_dir / name, folder)
    harmonised = output_dir / 'group_stats_harmonised_values.tsv'
    if harmonised.is_file():
        shutil.copy(harmonised, folder)
    subprocess.run(['Rscript', 'group_models.R'], cwd=folder, check=True, capture_output=True)
    found = pd.read_csv(folder / 'group_models_R.csv')
    for model in models:
        column, keys = IN_R[model]
        own = stats(output_dir, model)
        own = own[own['muscle'] != 'all muscles']
        theirs = found[found['model'] == model].rename(columns={'term': (keys or ['t'])[0]})
        both = own.merge(theirs, on=['muscle', *keys], suffixes=('', '_r'))
        if model == 'paired_t':  # R names each pair in the order of the alphabet
            turned = theirs.rename(columns={'muscle': 'other_muscle', 'other_muscle': 'muscle'})
            turned = turned.assign(estimate=-turned['estimate'])
            both = pd.concat([both, own.merge(turned, on=['muscle', *keys], suffixes=('', '_r'))])
        assert len(both) == len(own) == len(theirs) > 0
        estimate = both['estimate_r' if column == 'estimate' else 'estimate']
        np.testing.assert_allclose(estimate, both[column], rtol=1e-4)
        if model == 'means':
            np.testing.assert_array_equal(both['n_r'], both['n'])
        else:
            # The mixed models stop at slightly different variances.
            np.testing.assert_allclose(both['p_holm_r'], both['p_holm'], rtol=0.02, atol=1e-9)


def test_other_programs_are_given_types_and_labels(tmp_path: Path) -> None:
    table = group_table(3).assign(truncated_pct='true')
    table.loc[table['side'] == 'left', 'truncated_pct'] = 'n/a'
    table.loc[table['name'] == 'left levator scapulae', MEASURE] = 'n/a'
    output_dir = write_outputs(table, tmp_path / 'out')
    assert group(output_dir) == ExitCode.OK
    parquet = pd.read_parquet(output_dir / 'group_muscles.parquet')
    assert parquet['truncated_pct'].isna().sum() == 3 * 7
    assert set(parquet['truncated_pct'].dropna()) == {True}
    assert parquet['excluded'].dtype == bool
    assert not parquet['excluded'].any()
    book = pd.read_csv(output_dir / 'group_wide_codebook.csv').set_index('column')
    wide = pd.read_csv(output_dir / 'group_wide.csv')
    assert list(book.index) == list(wide)
    row = book.loc[f'{MEASURE}_left_trapezius']
    assert (row['label'], row['units']) == ('MFI, ratio of means, left trapezius', '%')
    assert (row['type'], row['muscle'], row['side']) == ('number', 'trapezius', 'left')
    assert book['role'].dropna().to_dict() == {'age': 'age', 'sex': 'sex', 'bmi': 'bmi'}
    people = pd.read_csv(output_dir / 'phenotype/bids_muscle.tsv', sep='\t', na_values='n/a')
    assert people.notna().any().all()
    assert len(people.columns) == 1 + 13
    entries = json.loads((output_dir / 'phenotype/bids_muscle.json').read_text())
    assert list(entries) == list(people)
