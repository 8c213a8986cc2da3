"""Heights of people, as tables give them."""

from __future__ import annotations

#: From a baby to the tallest people, in metres.
_PLAUSIBLE_M = (0.4, 2.5)


def to_metres(height: float) -> float | None:
    """Return a height given in m or cm in metres; None where it is neither.

    Examples
    --------
    >>> [to_metres(height) for height in (172, 1.72, 17, float('nan'))]
    [1.72, 1.72, None, None]
    """
    low, high = _PLAUSIBLE_M
    return next((height / unit for unit in (1, 100) if low <= height / unit <= high), None)
