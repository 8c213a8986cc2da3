"""Agreement of two people who judged the same things."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import nan


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> tuple[float, float]:
    """Return the share of equal judgements and Cohen's kappa, which corrects it for chance.

    Parameters
    ----------
    first, second
        Judgements of two raters on the same things, in the same order.

    Returns
    -------
    agreement_pct, kappa
        Equal judgements in percent, and (p_o - p_e) / (1 - p_e), where p_o is the share of equal
        judgements and p_e the share expected from how often each rater uses each judgement [1]_.
        Kappa is NaN where both raters always gave one and the same judgement; both are NaN
        without judgements.

    Raises
    ------
    ValueError
        If the lengths differ.

    References
    ----------
    .. [1] Cohen J. A coefficient of agreement for nominal scales. Educ Psychol Meas 20:37-46,
       1960.

    Examples
    --------
    >>> cohen_kappa(['pass', 'pass', 'fail', 'fail'], ['pass', 'pass', 'fail', 'pass'])
    (75.0, 0.5)
    """
    count = len(first)
    observed = sum(one == two for one, two in zip(first, second, strict=True))
    if not count:
        return nan, nan
    often, also = Counter(first), Counter(second)
    # In whole numbers, so that certain agreement by chance is exactly that.
    by_chance = sum(often[judgement] * also[judgement] for judgement in often)
    kappa = nan
    if by_chance != count**2:
        kappa = (observed * count - by_chance) / (count**2 - by_chance)
    return 100 * observed / count, kappa
