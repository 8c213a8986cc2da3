"""A formula is a model, not a program."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_muscle.errors import UsageError
from bids_muscle.statistics.formula import check_formula, fit_formula

COLUMNS = ('volume_ml', 'age', 'sex', 'muscle', 'body mass', 'np', 'participant_id')


@pytest.mark.parametrize(
    'formula',
    [
        'volume_ml ~ age * sex + muscle',
        'np.log(volume_ml) ~ center(age):sex + age:muscle - 1',
        "volume_ml ~ C(sex, Treatment('F')) + C(muscle, Treatment(reference='psoas: major'))",
        "I(volume_ml / 10) ~ standardize(Q('body mass')) + I(age ** 2) + (age + sex) ** 2",
        'volume_ml ~ age / sex + np.sqrt(age) + 0',
    ],
)
def test_models_pass(formula: str) -> None:
    check_formula(formula, COLUMNS)


@pytest.mark.parametrize(
    'formula',
    [
        "volume_ml ~ __import__('os').system('touch {path}')",
        "volume_ml ~ I(__import__('os').system('touch {path}'))",
        "volume_ml ~ C(age, open('{path}', 'w'))",
        "I(open('{path}', 'w')) ~ age",
        "volume_ml ~ Q('age').__class__",
        'volume_ml ~ age.__class__.__mro__',
        "volume_ml ~ np.fromfile('/etc/passwd')",
        "volume_ml ~ np.load('{path}', allow_pickle=True)",
        'volume_ml ~ np.log(age, out=age)',
        "volume_ml ~ Q(open('{path}', 'w'))",
        "volume_ml ~ C(sex, Treatment(open('{path}', 'w')))",
        "volume_ml ~ C(sex, Treatment(base='F'))",
        'volume_ml ~ [x for x in age]',
        'volume_ml ~ (lambda: age)()',
        "volume_ml ~ f'{{age}}'",
        'volume_ml ~ age if sex else muscle',
        'volume_ml ~ I(age := 3)',
        'volume_ml ~ I(9 ** 9 ** 9)',
        'volume_ml ~ I(age ** 9 ** 9)',
        'volume_ml ~ (age + sex) ** 99',
        'volume_ml ~ I(age ** -1)',
        'volume_ml ~ age @ sex',
        'volume_ml ~ age[0]',
        'volume_ml ~ True',
        'volume_ml ~ age ~ sex',
        'volume_ml ~ ' + '(' * 900 + 'age' + ')' * 80,
        'volume_ml ~ ' + ' + '.join(['age'] * 1000),
        "volume_ml ~ Q('age') if open('{path}', 'w') else age # ':'",
    ],
)
def test_programs_are_refused_before_they_run(formula: str, tmp_path: Path) -> None:
    path = tmp_path / 'touched'
    start = time.monotonic()
    with pytest.raises(UsageError, match='formula'):
        check_formula(formula.replace('{path}', str(path)), COLUMNS)
    assert not path.exists()
    assert time.monotonic() - start < 30  # 9 ** 9 ** 9 would not end


@settings(max_examples=200, deadline=None)
@given(st.text('volume_mlages~+-*/:@()\'"QCI,.= 019__import\n#', max_size=60))
def test_any_text_ends_in_an_answer(text: str) -> None:
    try:
        check_formula(text, COLUMNS)
    except UsageError:
        return
    assert text.count('~') == 1


def test_a_refusal_names_the_columns() -> None:
    import pandas as pd

    frame = pd.DataFrame({'participant_id': ['a', 'b'], 'volume_ml': [1.0, 2.0]})
    with pytest.raises(UsageError, match=r'uses age, which is not a column.*participant_id'):
        fit_formula(frame, 'volume_ml ~ age')
