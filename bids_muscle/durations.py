"""Spans of time in words."""


def duration(seconds: float) -> str:
    """Return a span of time in the two units that matter.

    Parameters
    ----------
    seconds
        The span (s).

    Examples
    --------
    >>> [duration(seconds) for seconds in (0.2, 59.4, 61, 3599.9, 18720, 200000)]
    ['0 s', '59 s', '1 min', '1 h 0 min', '5 h 12 min', '2 d 7 h']
    """
    if round(seconds) < 60:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    if minutes < 60:
        return f'{minutes} min'
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f'{hours} h {minutes} min'
    days, hours = divmod(hours, 24)
    return f'{days} d {hours} h'
