"""Geometry of the charts; templates/charts.html.j2 turns it into SVG with real text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

#: Width of a chart in its own units, which are CSS pixels at full size.
WIDTH = 460
LABEL_WIDTH = 160
VALUE_WIDTH = 46
GAP = 11
#: The same of a forest chart, whose names and values are longer.
FOREST_PLOT_WIDTH = 270
FOREST_LABEL_WIDTH = 260
#: Room for a letter of a value, in the widest of usual fonts.
LETTER_WIDTH = 7.6
HISTOGRAM_WIDTH = 300
HISTOGRAM_HEIGHT = 120
#: Side of a small scatter plot, and what is at least left of it, and above it.
PANEL = 170
PANEL_LEFT = 46
PANEL_TOP = 50


@dataclass(frozen=True)
class Bar:
    """One value of one muscle and side; ``value`` is None where it is n/a."""

    muscle: str
    side: str
    colour: str
    value: float | None
    text: str


@dataclass(frozen=True)
class SideHistogram:
    """Counts of one side of a muscle, in bins of equal width from 0 to 100 %."""

    side: str
    colour: str
    counts: tuple[int, ...]

    @property
    def shares(self) -> list[float]:
        """Counts as parts of their sum."""
        return [count / sum(self.counts) for count in self.counts]

    @property
    def middle_pct(self) -> float:
        """Upper end of the bin that holds the middle one of all that were counted, percent."""
        half, seen = sum(self.counts) / 2, 0
        for place, count in enumerate(self.counts, start=1):
            seen += count
            if seen >= half:
                return 100 * place / len(self.counts)
        return 100.0


@dataclass(frozen=True)
class Estimate:
    """One effect with its interval.

    Parameters
    ----------
    label
        Name of the row.
    value, low, high
        The effect and its limits.
    mark
        ``'certain'`` if p < 0.05 after correction, else ``'open'``; ``'plain'`` if nothing is
        tested; ``'women'`` or ``'men'``; ``'level-0'`` and so on for groups.
    text
        Text beside it.
    """

    label: str
    value: float
    low: float
    high: float
    mark: str
    text: str


@dataclass(frozen=True)
class Panel:
    """A small scatter plot.

    Parameters
    ----------
    title, text
        Text above it.
    points
        (n, 2) values of x and y.
    lines
        Lines from point to point in values of x and y, each with the name of its style.
    """

    title: str
    text: str
    points: np.ndarray
    lines: tuple[tuple[str, tuple[float, float], tuple[float, float]], ...]


def nice_ticks(highest: float, count: int = 4) -> list[float]:
    """Return round tick values from 0 to at least ``highest``.

    Examples
    --------
    >>> nice_ticks(37)
    [0.0, 10.0, 20.0, 30.0, 40.0]
    >>> nice_ticks(0)
    [0.0, 1.0]
    """
    if not highest > 0:
        return [0.0, 1.0]
    raw = highest / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    return [round(step * k, 10) for k in range(math.ceil(highest / step - 1e-9) + 1)]


def wrap_name(text: str, width: int = 17) -> list[str]:
    """Break a muscle name into lines of at most ``width`` letters where it has spaces.

    Examples
    --------
    >>> wrap_name('multifidus and semispinalis cervicis')
    ['multifidus and', 'semispinalis', 'cervicis']
    """
    import textwrap

    return textwrap.wrap(text, width, break_long_words=False)


def bar_chart(bars: Sequence[Bar], title: str) -> dict[str, object]:
    """Lay out horizontal bars, grouped by muscle, right above left.

    Parameters
    ----------
    bars
        In the order in which they are drawn; bars of one muscle follow each other.
    title
        Name of the chart with its unit.
    """
    ticks = nice_ticks(max((bar.value for bar in bars if bar.value is not None), default=0))
    room = WIDTH - LABEL_WIDTH - VALUE_WIDTH
    scale = room / ticks[-1]
    rows: list[dict[str, object]] = []
    names: list[dict[str, object]] = []
    y, previous = 8, None
    for bar in bars:
        if bar.muscle != previous:
            y += GAP if previous is not None else 0
            names.append({'y': y + 12, 'lines': wrap_name(bar.muscle)})
            previous = bar.muscle
        width = 0 if bar.value is None else round(bar.value * scale, 1)
        rows.append({'bar': bar, 'y': y, 'width': max(width, 0)})
        y += 17
    return {
        **_frame(title, ticks, scale, y),
        'rows': rows,
        'names': names,
        'summary': '; '.join(f'{bar.side} {bar.muscle} {bar.text}' for bar in bars),
    }


def histogram_charts(muscles: Mapping[str, Sequence[SideHistogram]]) -> list[dict[str, object]]:
    """Lay out one histogram for each muscle, both sides as steps, all to one scale.

    Parameters
    ----------
    muscles
        The sides of each muscle, counted in the same bins.
    """
    highest = max((max(each.shares) for both in muscles.values() for each in both), default=1)
    room = HISTOGRAM_HEIGHT - 26
    charts: list[dict[str, object]] = []
    for name, both in muscles.items():
        steps = []
        for each in both:
            width = HISTOGRAM_WIDTH / len(each.counts)
            points = [(0.0, 0.0)]
            for place, share in enumerate(each.shares):
                points += [(place * width, share), ((place + 1) * width, share)]
            points.append((HISTOGRAM_WIDTH, 0.0))
            path = ' '.join(f'{x:.1f},{6 + room * (1 - y / highest):.1f}' for x, y in points)
            steps.append({'series': each, 'points': path})
        charts.append(
            {
                'title': name,
                'steps': steps,
                'width': HISTOGRAM_WIDTH,
                'height': HISTOGRAM_HEIGHT,
                'bottom': 6 + room,
                'ticks': [(pct, HISTOGRAM_WIDTH * pct / 100) for pct in (0, 25, 50, 75, 100)],
                'summary': '; '.join(
                    f'{each.side}: {sum(each.counts)} voxels, half of them below '
                    f'{each.middle_pct:.0f} %'
                    for each in both
                ),
            }
        )
    return charts


def forest_chart(estimates: Sequence[Estimate], title: str, key: str) -> dict[str, object]:
    """Lay out one row for each effect: name, point with interval, and its text.

    Parameters
    ----------
    estimates
        At least one, in the order in which they are drawn; limits that are equal are not drawn.
    title
        Name of the effect size with its unit.
    key
        What lines and dots are.
    """
    bounds = [x for each in estimates for x in (each.value, each.low, each.high)]
    lowest, highest = min(0.0, *bounds), max(0.0, *bounds)
    step = nice_ticks(highest - lowest)[1]
    first = math.floor(lowest / step + 1e-9)
    last = max(math.ceil(highest / step - 1e-9), first + 1)
    left = FOREST_LABEL_WIDTH
    value_x = left + FOREST_PLOT_WIDTH + 12
    scale = FOREST_PLOT_WIDTH / ((last - first) * step)

    def place(value: float) -> float:
        return round(left + (value - first * step) * scale, 1)

    rows: list[dict[str, object]] = []
    y = 8
    for each in estimates:
        lines = wrap_name(each.label, 38)
        whole = each.low < each.high
        rows.append(
            {
                'lines': lines,
                'y': y + 13,
                'middle': y + 9 + 6.5 * (len(lines) - 1),
                'x': place(each.value),
                'interval': (place(each.low), place(each.high)) if whole else None,
                'mark': each.mark,
                'shape': _shape(each.mark),
                'text': each.text,
            }
        )
        y += 13 * len(lines) + 5
    return {
        'title': title,
        'ticks': [(round(k * step, 10), place(k * step)) for k in range(first, last + 1)],
        'zero': place(0.0),
        'key': key,
        'width': value_x + math.ceil(LETTER_WIDTH * max(len(each.text) for each in estimates)),
        'height': y + 30,
        'left': left,
        'value_x': value_x,
        'names': [],
        'rows': rows,
        'summary': '; '.join(f'{each.label} {each.text}' for each in estimates),
    }


def panel_grid(
    panels: Sequence[Panel], title: str, x_title: str, y_title: str, *, square: bool = False
) -> dict[str, object]:
    """Lay out small scatter plots on one scale, one for each muscle.

    Points that fall on one pixel are drawn once, so that large cohorts make no large pages.

    Parameters
    ----------
    panels
        At least one, each with a point at least.
    title, x_title, y_title
        Name of the plots and of the axes.
    square
        Whether both axes have the same scale.
    """
    import numpy as np

    ends = [np.array(line) for panel in panels for _, *line in panel.lines]
    every = np.concatenate([*(panel.points for panel in panels), *ends])
    low, high = every.min(axis=0), every.max(axis=0)
    if square:
        low, high = np.full(2, low.min()), np.full(2, high.max())
    axes = [spanning_ticks(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    widest = max(len(f'{tick:g}') for tick in axes[1])
    left = max(PANEL_LEFT, 10 + math.ceil(LETTER_WIDTH * widest))
    start = np.array([axis[0] for axis in axes])
    scale = np.array([PANEL, -PANEL]) / [axis[-1] - axis[0] for axis in axes]

    def place(values: np.ndarray) -> np.ndarray:
        return np.array([left, PANEL_TOP + PANEL]) + (values - start) * scale

    drawn = []
    for panel in panels:
        pixels = set(zip(*np.rint(place(panel.points)).astype(int).T.tolist(), strict=True))
        drawn.append(
            {
                'title': wrap_name(panel.title, 30),
                'text': panel.text,
                'path': ''.join(f'M{x} {y}h0' for x, y in sorted(pixels)),
                'lines': [
                    (style, *place(np.array(line)).round(1).ravel().tolist())
                    for style, *line in panel.lines
                ],
            }
        )
    x_places, y_places = (
        [float(place(start + (tick - start) * unit)[k].round(1)) for tick in axes[k]]
        for k, unit in enumerate(np.eye(2))
    )
    return {
        'title': title,
        'x_title': x_title,
        'y_title': y_title,
        'panels': drawn,
        'x_ticks': list(zip(axes[0], x_places, strict=True)),
        'y_ticks': list(zip(axes[1], y_places, strict=True)),
        'left': left,
        'top': PANEL_TOP,
        'side': PANEL,
    }


def _shape(mark: str) -> str:
    """Return the shape of a dot, so that groups differ by more than their colour."""
    kind, _, place = mark.partition('-')
    if kind == 'level':
        return ('circle', 'square', 'triangle', 'diamond')[int(place) % 4]
    return 'square' if mark == 'men' else 'circle'


def spanning_ticks(lowest: float, highest: float) -> list[float]:
    """Return round tick values from below the lowest to above the highest value.

    Examples
    --------
    >>> spanning_ticks(-3.2, 4.1)
    [-4.0, -2.0, 0.0, 2.0, 4.0, 6.0]
    """
    span, size = highest - lowest, max(abs(highest), abs(lowest))
    # A difference that is the same in all people has the width of rounding errors.
    step = nice_ticks(span if span > 1e-9 * size else size or 1.0)[1]
    first, last = math.floor(lowest / step + 1e-9), math.ceil(highest / step - 1e-9)
    return [round(k * step, 10) for k in range(first, max(last, first + 1) + 1)]


def _frame(title: str, ticks: Sequence[float], scale: float, bottom: int) -> dict[str, object]:
    """Lay out what all charts have: title, extent and the marks of the axis."""
    return {
        'title': title,
        'ticks': [(tick, round(LABEL_WIDTH + tick * scale, 1)) for tick in ticks],
        'width': WIDTH,
        'height': bottom + 30,
        'left': LABEL_WIDTH,
    }
