"""The user's own model by formula, and what a formula may hold.

Statsmodels evaluates formulas, and settings files are passed on.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.errors import UsageError
from bids_muscle.statistics.analysis import (
    AFTER_HOLM,
    MIN_DF,
    Analysis,
    is_effect,
    p_text,
    too_few,
)
from bids_muscle.statistics.effect_size import CONFIDENCE, holm, partial_eta_squared

if TYPE_CHECKING:
    import pandas as pd

_ESTIMATE = ('estimate', 'estimate_ci_low', 'estimate_ci_high')
_ETA = ('partial_eta_squared', 'partial_eta_squared_ci_low', 'partial_eta_squared_ci_high')
FORMULA_COLUMNS = (
    'formula', 'term', 'n', 'n_observations', *_ESTIMATE, 'estimate_se',
    't', 'df', 'f', 'df1', 'df2', 'p', 'p_holm', *_ETA, 'reason',
)  # fmt: skip

_TRANSFORMS = {'C', 'I', 'Q', 'Treatment', 'center', 'standardize'}
_NUMPY = {'exp', 'log', 'log10', 'log2', 'sqrt'}
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.MatMult)
_MAX_CHARACTERS = 1000
_MAX_EXPONENT = 4


def fit_formula(frame: pd.DataFrame, formula: str) -> Analysis:
    """Fit the user's own linear model.

    Parameters
    ----------
    frame
        One row per participant, session and muscle, with ``participant_id``, the measures and the
        columns of participants.tsv.
    formula
        As in R and statsmodels, such as ``'volume_ml ~ age * sex + muscle'``.

    Returns
    -------
    Analysis
        One row per coefficient, and behind those of a term with several one for their joint test.
        Where participants have several rows, standard errors are robust to their dependence
        (clustered by participant).

    Raises
    ------
    UsageError
        If the formula cannot be read, names a column that is not there or holds more than
        :func:`check_formula` allows.
    """
    import pandas as pd
    import statsmodels.formula.api as smf

    columns = f'Write outcome ~ terms with these columns: {", ".join(map(str, frame.columns))}.'
    try:
        check_formula(formula, set(frame.columns))
        model = smf.ols(formula, frame)
    except UsageError as error:
        raise UsageError(error.message, f'{error.remedy} {columns}') from error
    except Exception as error:  # the formula is evaluated, so it may raise anything
        raise UsageError(
            f'The formula {formula!r} cannot be used: {str(error).splitlines()[0]}.', columns
        ) from error
    who = frame.loc[model.data.row_labels, 'participant_id']
    shared = {'formula': formula, 'n': who.nunique(), 'n_observations': len(who)}
    names, reason = list(model.exog_names), None
    if np.linalg.matrix_rank(model.exog) < len(names):
        reason = 'terms are collinear or too many'
    elif len(who) < len(names) + MIN_DF:
        reason = f'{len(who)} rows are too few for {len(names)} coefficients'
    else:
        reason = too_few(shared['n'])
    rows = [{'term': name, 'reason': reason} for name in names]
    if reason is None:
        rows = list(_tests(model, who.to_numpy()))
    table = pd.DataFrame([shared | row for row in rows], columns=list(FORMULA_COLUMNS))
    table['p_holm'] = holm(table['p'].where(table['term'] != 'Intercept').to_numpy(dtype=float))
    counts = f'n = {shared["n"]}'
    if shared['n_observations'] > shared['n']:
        counts += f', {shared["n_observations"]} values'
    terms = [_term_text(row) for row in table.to_dict('records') if row['term'] != 'Intercept']
    said = reason or f'{"; ".join(terms) or "no term"} (p after Holm correction; {AFTER_HOLM}: *)'
    return Analysis(table, (f'{formula}, {counts}: {said}.',))


def _tests(model: Any, who: np.ndarray) -> Iterator[dict[str, Any]]:
    """Fit an OLS model of statsmodels; give the cells of each coefficient, and of joint tests."""
    if len(np.unique(who)) < len(who):
        _, groups = np.unique(who, return_inverse=True)
        result = model.fit(cov_type='cluster', cov_kwds={'groups': groups}, use_t=True)
        df = float(groups.max())
    else:
        result = model.fit()
        df = float(result.df_resid)
    interval = result.conf_int(alpha=1 - CONFIDENCE).to_numpy()
    names = model.exog_names
    # A coefficient is called by its term, with the level of a factor in brackets.
    for term, places in groupby(range(len(names)), lambda i: re.sub(r'\[.*?\]', '', names[i])):
        own = list(places)
        for i in own:
            t = float(result.tvalues.iloc[i])
            yield {
                'term': names[i],
                **dict(zip(_ESTIMATE, (result.params.iloc[i], *interval[i]), strict=True)),
                'estimate_se': result.bse.iloc[i],
                't': t,
                'df': df,
                'p': result.pvalues.iloc[i],
                **_eta(t**2, 1, df),
            }
        # With clustered errors, more coefficients than participants have no joint test.
        if 1 < len(own) <= df:
            test = result.f_test(np.eye(len(names))[own])
            f, k = float(np.squeeze(test.fvalue)), len(own)
            yield {
                'term': f'{term} (all {k} coefficients)',
                'f': f,
                'df1': k,
                'df2': df,
                'p': float(test.pvalue),
                **_eta(f, k, df),
            }


def _eta(f: float, df1: float, df2: float) -> dict[str, float]:
    found = partial_eta_squared(f, df1, df2) if np.isfinite(f) else (np.nan,) * 3
    return dict(zip(_ETA, found, strict=True))


def _term_text(row: dict[str, Any]) -> str:
    """Return a term of the model in words; a star marks an effect."""
    star = '*' if is_effect(row['p_holm']) else ''
    p = f'{p_text(row["p_holm"])}{star}'
    if np.isfinite(row['estimate']):
        estimate, low, high = (f'{row[name]:.3g}' for name in _ESTIMATE)
        return f'{row["term"]} {estimate} (95 % CI {low} to {high}, {p})'
    return f'{row["term"]} F({row["df1"]:.0f}, {row["df2"]:.0f}) = {row["f"]:.2f} ({p})'


def check_formula(formula: str, columns: Collection[str]) -> None:
    """Refuse a formula that is more than a linear model of columns.

    Allowed are column names, numbers, ``~ + - * / : ** ( )``, ``C()``, ``Q('column')``, ``I()``,
    ``Treatment()``, ``center()``, ``standardize()``, and exp, log, log2, log10 and sqrt of numpy.

    Parameters
    ----------
    formula
        Outcome ~ terms.
    columns
        Names that it may use.

    Raises
    ------
    UsageError
        If it holds anything else.

    Examples
    --------
    >>> check_formula('np.log(fat) ~ center(age) * C(sex) + I(age ** 2)', ('fat', 'age', 'sex'))
    >>> check_formula("fat ~ __import__('os').system('ls')", ('fat',))
    Traceback (most recent call last):
    ...
    bids_muscle.errors.UsageError: The formula holds __import__('os').system. Use column names, ...
    """
    if len(formula) > _MAX_CHARACTERS:
        raise _refusal(f'has more than {_MAX_CHARACTERS} characters')
    sides = formula.split('~')
    if len(sides) != 2 or not all(side.strip() for side in sides):
        raise _refusal('is not of the form outcome ~ terms')
    for side in sides:
        try:
            # An interaction is no operator of Python, but @ has its place and is not in formulas.
            tree = ast.parse(_outside_strings(side, ':', '@').strip(), mode='eval')
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise _refusal(f'cannot be read at {side.strip()!r}') from error
        _check(tree.body, columns)


def _outside_strings(text: str, old: str, new: str) -> str:
    if new in re.sub(r"'[^']*'|\"[^\"]*\"", '', text):
        raise _refusal(f'holds {new}')
    parts = re.split(r"('[^']*'|\"[^\"]*\")", text)
    return ''.join(part.replace(old, new) if i % 2 == 0 else part for i, part in enumerate(parts))


def _check(node: ast.expr, columns: Collection[str]) -> None:
    match node:
        case ast.Constant(value=bool() | complex() | bytes() | None):
            pass
        case ast.Constant(value=int() | float()):
            return
        case ast.Name(id=name):
            if name in columns:
                return
            raise _refusal(f'uses {name}, which is not a column')
        case ast.UnaryOp(op=ast.UAdd() | ast.USub(), operand=operand):
            _check(operand, columns)
            return
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int() as exponent)):
            # A power of numbers alone could take for ever.
            names = any(isinstance(each, ast.Name) for each in ast.walk(left))
            if names and 0 <= exponent <= _MAX_EXPONENT:
                _check(left, columns)
                return
        case ast.BinOp(left=left, op=op, right=right) if isinstance(
            op, _OPERATORS
        ) and not isinstance(op, ast.Pow):
            _check(left, columns)
            _check(right, columns)
            return
        case ast.Call(
            func=ast.Name(id='Q'), args=[ast.Constant(value=str() as name)], keywords=[]
        ):
            if name in columns:
                return
            raise _refusal(f'uses {name!r}, which is not a column')
        case ast.Call(func=ast.Name(id='Treatment'), args=args, keywords=keywords):
            given = [*args, *(each.value for each in keywords if each.arg == 'reference')]
            if len(given) == len(args) + len(keywords) and all(
                isinstance(each, ast.Constant) and isinstance(each.value, str | int)
                for each in given
            ):
                return
        case ast.Call(func=func, args=[_, *_] as args, keywords=[]) if _is_allowed(func):
            for each in args:
                _check(each, columns)
            return
    raise _refusal(f'holds {_shown(node)}')


def _is_allowed(func: ast.expr) -> bool:
    match func:
        case ast.Name(id=name):
            return name in _TRANSFORMS
        case ast.Attribute(value=ast.Name(id='np'), attr=name):
            return name in _NUMPY
    return False


def _shown(node: ast.expr) -> str:
    named = node.func if isinstance(node, ast.Call) else node
    return ast.unparse(named)[:80]


def _refusal(what: str) -> UsageError:
    return UsageError(
        f'The formula {what}.',
        "Use column names, numbers, ~ + - * / : ** ( ), C(), Q('column'), I(), center(), "
        'standardize(), np.log() and the like.',
    )
