"""Cohorts with planted effects and with none: what is found, and how often what is not there.

    python benchmarks/planted_effects.py --cohorts 200

Each cohort has 48 people with two sessions, a year apart, four muscles, and two sites whose people
differ in age by 20 years. Left and right are equal. Without effects there is one site.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pandas as pd

from bids_muscle.statistics.cohort import AnalysisPlan, CohortAnalysis, analyse
from bids_muscle.statistics.sessions import SessionOrder

N, MUSCLES = 48, ('first', 'second', 'third', 'fourth')
MEASURE = 'volume_ml'
#: In ml: for patients, women, each year of age, the site in the south, and the second session.
PLANTED = {'group': 2.0, 'sex': 1.5, 'age': 0.1, 'site': 5.0, 'session': 0.5}
SD_PERSON, SD_MUSCLE, SD_SESSION = 1.5, 0.8, 0.5
ALL = 'all muscles'


def cohort(rng: np.random.Generator, effects: dict[str, float]) -> pd.DataFrame:
    """Draw one cohort as the table of the group level."""
    south = (rng.random(N) < 0.5) if effects['site'] else np.zeros(N, bool)
    people = pd.DataFrame(
        {
            'participant_id': [f'sub-{k:02d}' for k in range(N)],
            'site': np.where(south, 'south', 'north'),
            'age': rng.normal(np.where(south, 55, 35), 8).round(1),
            'sex': rng.choice(['F', 'M'], N),
            'bmi': rng.normal(26, 4, N).round(1),
            'group': rng.choice(['control', 'patient'], N),
            'coin': rng.choice(['heads', 'tails'], N),
            'pain': rng.normal(5, 2, N).round(1),
        }
    )
    person = (
        60
        + effects['group'] * (people['group'] == 'patient')
        + effects['sex'] * (people['sex'] == 'F')
        + effects['age'] * people['age']
        + effects['site'] * south
        + rng.normal(0, SD_PERSON, N)
    ).to_numpy()
    rows = []
    for place, muscle in enumerate(MUSCLES):
        own = person + 10 * place + rng.normal(0, SD_MUSCLE, N)
        for session in (0, 1):
            value = own + effects['session'] * session + rng.normal(0, SD_SESSION, N)
            for side in ('left', 'right'):
                part = people[['participant_id']].assign(
                    session_id=f'ses-{session}', region='lumbar', contrast='fat+water'
                )
                rows.append(part.assign(muscle=muscle, side=side, **{MEASURE: value}))
    table = pd.concat(rows, ignore_index=True).assign(reason='n/a')
    return table.merge(people, on='participant_id').astype(str)


def analysed(table: pd.DataFrame, groups: list[str]) -> dict[str, CohortAnalysis]:
    """Run all analyses."""
    years = {who: {'ses-0': 0.0, 'ses-1': 1.0} for who in table['participant_id']}
    order = SessionOrder(('ses-0', 'ses-1'), 'acq_time')
    return analyse(table, AnalysisPlan(groups=groups, years=years, order=order))


def estimates(found: dict[str, CohortAnalysis]) -> Iterator[tuple[str, str, pd.Series, str]]:
    """Give each estimate: what it is of, what was planted, its row, the name of its column."""
    groups = found['groups'].table.set_index(['variable', 'muscle'])
    for name in ('group', 'age', 'site'):
        yield f'groups: {name}', name, groups.loc[(name, ALL)], 'estimate'
    sex = found['sex_differences'].table.set_index('muscle').loc[ALL]
    yield 'sex_differences', 'sex', sex, 'difference'
    for name in ('change', 'rate'):
        yield name, 'session', found[name].table.iloc[0], 'difference'
    mixed = found['mixed_model'].table
    yield (
        'mixed_model: session',
        'session',
        mixed[mixed['term'] == 'session ses-1'].iloc[0],
        'estimate',
    )


def nulls(found: dict[str, CohortAnalysis], *, planted: bool) -> Iterator[tuple[str, bool]]:
    """Give each test of what is not there, and whether it was called an effect."""
    groups = found['groups'].table
    for name in ('coin', 'pain') if planted else ('group', 'coin', 'pain'):
        own = groups[groups['variable'] == name].set_index('muscle')
        yield f'groups: {name}, all muscles', own.loc[ALL, 'p'] < 0.05
    if planted:
        nothing = groups['variable'].isin(['coin', 'pain'])
    else:
        nothing = groups['p'].notna()
        yield 'sex_differences, all muscles', found['sex_differences'].table['p'].iloc[0] < 0.05
        for name in ('change', 'rate', 'sex_differences'):
            yield f'{name}, any muscle (Holm)', (found[name].table['p_holm'] < 0.05).any()
        yield 'change, first muscle', found['change'].table['p'].iloc[0] < 0.05
        mixed = found['mixed_model'].table
        yield 'mixed_model: session, first muscle', mixed['p'].iloc[0] < 0.05
        ancova = found['rm_ancova'].table.set_index('effect')
        for effect in ('sex', 'age', 'bmi', 'muscle x age'):
            if effect in ancova.index:
                yield f'rm_ancova: {effect}', ancova.loc[effect, 'p'] < 0.05
    yield 'groups, any muscle and column (Holm)', (groups[nothing]['p_holm'] < 0.05).any()
    bmi = found['pearson'].table.query('variable == "bmi"')
    yield 'pearson: bmi, first muscle', bmi['p'].iloc[0] < 0.05


def slopes_of_age(table: pd.DataFrame, found: dict[str, CohortAnalysis]) -> dict[str, float]:
    """Return the slope on age, with sex and BMI, of measured and of harmonised values."""
    people = table.drop_duplicates('participant_id').set_index('participant_id')
    values = found['harmonised_values'].table
    values = values[values['session_id'] == 'ses-0'].groupby('participant_id')
    x = np.column_stack(
        [
            np.ones(len(people)),
            people['age'].astype(float),
            people['sex'] == 'F',
            people['bmi'].astype(float),
        ]
    ).astype(float)
    return {
        name: float(np.linalg.lstsq(x, values[name].mean()[people.index])[0][1])
        for name in ('measured', 'harmonised')
    }


def main() -> None:
    """Draw the cohorts, and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--cohorts', type=int, default=200)
    count = parser.parse_args().cohorts
    covered: dict[str, list[tuple[float, bool, bool]]] = defaultdict(list)
    called: dict[tuple[str, str], list[bool]] = defaultdict(list)
    slopes: dict[str, list[float]] = defaultdict(list)
    for place in range(count):
        rng = np.random.default_rng([2026, place])
        table = cohort(rng, PLANTED)
        found = analysed(table, ['group', 'coin', 'pain', 'age', 'site'])
        for name, planted, row, column in estimates(found):
            low, high = row[f'{column}_ci_low'], row[f'{column}_ci_high']
            covered[name].append((row[column], low < PLANTED[planted] < high, row['p'] < 0.05))
        for name, is_called in nulls(found, planted=True):
            called['with effects', name].append(bool(is_called))
        for name, slope in slopes_of_age(table, found).items():
            slopes[name].append(slope)
        nothing = analysed(cohort(rng, dict.fromkeys(PLANTED, 0.0)), ['group', 'coin', 'pain'])
        for name, is_called in nulls(nothing, planted=False):
            called['without', name].append(bool(is_called))
    print('| planted | true | mean estimate | in its interval (%) | found (%) |')
    print('|---|---|---|---|---|')
    names = {'sex_differences': 'sex', 'change': 'session', 'rate': 'session'}
    for name, each in covered.items():
        true = PLANTED[names.get(name, name.rpartition(': ')[2])]
        values, inside, seen = (
            np.array(column, dtype=float) for column in zip(*each, strict=True)
        )
        print(
            f'| {name} | {true:g} | {values.mean():.3f} | {100 * inside.mean():.1f} | '
            f'{100 * seen.mean():.1f} |'
        )
    print('\n| cohorts | not there | called an effect (%) |\n|---|---|---|')
    for (kind, name), each in called.items():
        print(f'| {kind} | {name} | {100 * np.mean(each):.1f} |')
    for name, each in slopes.items():
        print(f'\nslope of age, {name}: {np.mean(each):.3f} (SD {np.std(each):.3f})')


if __name__ == '__main__':
    main()
