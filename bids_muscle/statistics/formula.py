"""What a formula may hold: statsmodels evaluates formulas, and settings files are passed on."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection

from bids_muscle.errors import UsageError

_TRANSFORMS = {'C', 'I', 'Q', 'Treatment', 'center', 'standardize'}
_NUMPY = {'exp', 'log', 'log10', 'log2', 'sqrt'}
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.MatMult)
_MAX_CHARACTERS = 1000
_MAX_EXPONENT = 4


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
            raise _refusal(f'names {name}, which is no column')
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
            raise _refusal(f'names {name!r}, which is no column')
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
