"""Ordinary least squares with sex and covariates, and why a model cannot be fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bids_muscle.statistics.analysis import listed, too_few

if TYPE_CHECKING:
    import pandas as pd

#: Column of the design that is 1 in all.
INTERCEPT = 'intercept'
#: Sex is coded 0.5 for women and -0.5 for men: its coefficient is women minus men, and the
#: intercept lies in the middle between both (sums of squares of type III).
SEX_CODE = {'F': 0.5, 'M': -0.5}
#: Standardised columns with a smaller singular value than this depend on each other.
_COLLINEAR = 1e-6


@dataclass(frozen=True)
class Design:
    """Design matrix, one column for each term.

    Parameters
    ----------
    terms
        Names of the columns.
    matrix
        (n, q) values.
    left_out
        Terms that are not in the matrix -> why.
    reason
        Why nothing can be fitted, or None.
    """

    terms: tuple[str, ...]
    matrix: np.ndarray
    left_out: dict[str, str] = field(default_factory=dict)
    reason: str | None = None

    @property
    def controlled(self) -> str:
        """The terms beside the intercept, for a table."""
        return ', '.join(self.terms[1:]) or 'none'


@dataclass(frozen=True)
class LinearFit:
    """Least-squares fit of several outcomes on one design.

    Parameters
    ----------
    coefficients
        (q, k) coefficients of q terms for k outcomes.
    scale
        (q, q) inverse of X'X: times the residual variance, the covariance of the coefficients.
    residual
        (k, k) sums of squares and products of the residuals.
    df
        Residual degrees of freedom.
    """

    coefficients: np.ndarray
    scale: np.ndarray
    residual: np.ndarray
    df: int


def make_design(
    people: pd.DataFrame, known: np.ndarray, terms: Sequence[str], *, centred: bool = True
) -> Design:
    """Make the design of those people of whom everything is known.

    Parameters
    ----------
    people
        One row per person, a column for each term; ``sex`` is ``'F'`` or ``'M'``.
    known
        (n,) people to take, all of whom have all terms.
    terms
        Sex and covariates.
    centred
        Whether covariates are taken from their mean. Without it, effects of a within-subject
        factor are tested at age 0 and BMI 0, as SPSS does by default.

    Returns
    -------
    Design
        Terms that nobody has or that are the same in all people are left out, with the reason.
    """
    left_out = {term: f'no participant has {term}' for term in unknown(people, terms)}
    people = people[known]
    if len(people) < 2:
        few = too_few(len(people))
        return Design((INTERCEPT,), np.ones((len(people), 1)), left_out, few)
    columns = {INTERCEPT: np.ones(len(people))}
    for term in (term for term in terms if term not in left_out):
        column = people[term].map(SEX_CODE) if term == 'sex' else people[term]
        values = column.to_numpy(dtype=float)
        if np.ptp(values) == 0:
            left_out[term] = _constant(term, people)
            continue
        columns[term] = values - values.mean() if centred and term != 'sex' else values
    matrix = np.column_stack(list(columns.values()))
    reason = too_few(*matrix.shape)
    if reason is None and is_collinear(matrix[:, 1:]):
        reason = f'{listed(list(columns)[1:])} are collinear'
    return Design(tuple(columns), matrix, left_out, reason)


def unknown(people: pd.DataFrame, terms: Sequence[str]) -> list[str]:
    """Return the terms that nobody has."""
    return [term for term in terms if people[term].isna().all()]


def complete(people: pd.DataFrame, terms: Sequence[str]) -> pd.Series:
    """Return who has all terms, except terms that are missing for everybody."""
    return people[[term for term in terms if people[term].notna().any()]].notna().all(axis=1)


def is_collinear(columns: np.ndarray) -> bool:
    """Whether a column of (n, q) values follows from the others and a constant."""
    if columns.shape[1] < 1:
        return False
    centred = columns - columns.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    if (length == 0).any():
        return True
    return bool(np.linalg.svd(centred / length, compute_uv=False).min() < _COLLINEAR)


def fit(design: Design, outcomes: np.ndarray) -> LinearFit:
    """Fit outcomes by least squares.

    Parameters
    ----------
    design
        One without ``reason``.
    outcomes
        (n, k) values, none missing.
    """
    q, r = np.linalg.qr(design.matrix)
    inverse = np.linalg.inv(r)
    coefficients = inverse @ (q.T @ outcomes)
    residuals = outcomes - design.matrix @ coefficients
    n, n_terms = design.matrix.shape
    return LinearFit(coefficients, inverse @ inverse.T, residuals.T @ residuals, n - n_terms)


def no_variance(residual: float, outcomes: np.ndarray) -> bool:
    """Whether a residual sum of squares is no more than rounding errors of (n, k) outcomes."""
    size = float(np.abs(outcomes).max(initial=0))
    return residual <= outcomes.size * (1e-12 * size) ** 2


def _constant(term: str, people: pd.DataFrame) -> str:
    value = people[term].iloc[0]
    if term == 'sex':
        return f'all {len(people)} participants have sex {value}'
    return f'all {len(people)} participants have {term} {value:g}'
