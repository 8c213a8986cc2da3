"""The flow of participants and scans, from the dataset to what is analysed, as in CONSORT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_muscle.reports.charts import wrap_name
from bids_muscle.reports.completeness import cause_of
from bids_muscle.reports.group_notes import by_series
from bids_muscle.reports.outputs import ScanOutputs
from bids_muscle.reports.page import environment
from bids_muscle.reports.parts import kind_of
from bids_muscle.statistics.variables import Variable

if TYPE_CHECKING:
    from markupsafe import Markup

#: So many reasons have a line of their own.
MOST_REASONS = 6
_LETTERS, _LINE = 46, 16
_WIDTH, _GAP, _BETWEEN = 320, 40, 26


@dataclass(frozen=True)
class FlowStep:
    """Those who are left, and who was left out before.

    Parameters
    ----------
    title
        Who is left.
    participants, scans
        How many.
    left_out
        Why others were left out; empty where nobody was.
    participants_lost, scans_lost
        How many: what the step before has more.
    reasons
        Lines, each with the number of participants or scans; they add up.
    """

    title: str
    participants: int
    scans: int
    left_out: str = ''
    participants_lost: int = 0
    scans_lost: int = 0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Flow:
    """The steps, and what the last one consists of.

    Parameters
    ----------
    steps
        The first one is the dataset, the last one what is analysed.
    parts
        Lines about those who are analysed, by series of scans and by group.
    """

    steps: tuple[FlowStep, ...]
    parts: tuple[str, ...]


def flow_of(
    scans: Sequence[ScanOutputs],
    people: Iterable[str],
    unusable: Sequence[str] = (),
    variables: Sequence[Variable] = (),
) -> Flow:
    """Count participants and scans from the dataset to the analysis.

    A participant is lost at the step at which the last scan is. Parts of a joined scan are no
    scans of their own.

    Parameters
    ----------
    scans
        All scans of the dataset, each with what excludes it.
    people
        Labels of participants of participants.tsv.
    unusable
        Folders that look like participants and are none.
    variables
        Columns that were asked for; groups are counted.
    """
    scans = [scan for scan in scans if not scan.part_of]
    there = [scan for scan in scans if kind_of(scan)]
    named = {scan.record.participant for scan in scans} | set(people)
    with_scans = {scan.record.participant for scan in there}
    why = {
        scan.record.participant: str(scan.record.problem.message)
        for scan in scans
        if scan.record.problem and scan.record.participant not in with_scans
    }
    without = Counter(why.get(who, 'no scan was found') for who in named - with_scans)
    without['name of the folder is no BIDS label'] += len(unusable)
    steps = [
        FlowStep('In the dataset', len(named) + len(unusable), len(there)),
        FlowStep(
            'With scans',
            len(with_scans),
            len(there),
            'Without scans',
            len(named - with_scans) + len(unusable),
            0,
            _lines(+without),
        ),
    ]
    for title, left_out, keep, reason in _STEPS:
        kept = [scan for scan in there if keep(scan)]
        lost = [scan for scan in there if not keep(scan)]
        before, after = ({scan.record.participant for scan in each} for each in (there, kept))
        reasons = _lines(Counter(reason(scan) for scan in lost))
        sizes = (len(before) - len(after), len(lost))
        steps.append(
            FlowStep(title, len(after), len(kept), left_out if lost else '', *sizes, reasons)
        )
        there = kept
    # A step at which nothing is lost says nothing, but for the first and the last.
    middle = [each for each in steps[1:-1] if each.participants_lost or each.scans_lost]
    shown = [steps[0], *middle, steps[-1]]
    return Flow(tuple(shown), tuple(_parts(there, variables)))


def _excluded_why(scan: ScanOutputs) -> str:
    return cause_of(scan.exclusion()) or 'each of its muscles is excluded'


_STEPS: tuple[
    tuple[str, str, Callable[[ScanOutputs], bool], Callable[[ScanOutputs], str]], ...
] = (
    (
        'Processed',
        'Could not be processed',
        lambda scan: scan.done,
        lambda scan: cause_of(scan.record.problem.message if scan.record.problem else 'n/a'),
    ),
    (
        'With measured muscles',
        'Without measured muscles',
        lambda scan: bool(scan.rows),
        lambda scan: 'no muscle is measured in this kind of scan',
    ),
    ('Analysed', 'Excluded', lambda scan: bool(scan.kept), _excluded_why),
)


def _lines(counts: Counter[str]) -> tuple[str, ...]:
    """Return a line for each of the most frequent reasons; the lines add up."""
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    shown, rest = ordered[:MOST_REASONS], ordered[MOST_REASONS:]
    lines = [f'{count}: {reason.rstrip(".")}' for reason, count in shown]
    if rest:
        lines.append(f'{sum(count for _, count in rest)}: {len(rest)} other reasons')
    return tuple(lines)


def _parts(scans: Sequence[ScanOutputs], variables: Sequence[Variable]) -> Iterable[str]:
    for region, contrast, members in by_series(scans):
        yield f'{region}, {contrast}: {_counts(members)}'
    people = {scan.record.participant for scan in scans}
    for variable in (each for each in variables if each.kind == 'groups'):
        values = variable.values or {}
        counts = Counter(str(values.get(who, 'n/a')) for who in people)
        sizes = [
            f'{level} {counts[level]}' for level in (*variable.levels, 'n/a') if counts[level]
        ]
        yield f'{variable.name}: {", ".join(sizes)}'
    if excluded := sum(len(scan.rows) - len(scan.kept) for scan in scans):
        yield f'{excluded} single muscles of these scans are excluded'


def _counts(scans: Sequence[ScanOutputs]) -> str:
    return counts_text(len({scan.record.participant for scan in scans}), len(scans))


def counts_text(participants: int, scans: int) -> str:
    """Write how many participants and scans.

    Examples
    --------
    >>> counts_text(1, 12)
    '1 participant (12 scans)'
    """
    people = f'{participants} participant{"s" if participants != 1 else ""}'
    return f'{people} ({scans} scan{"s" if scans != 1 else ""})'


def flow_svg(flow: Flow) -> Markup:
    """Draw the flow: a box for each step below the other, beside it who was left out.

    The colours are those of the text around it, so that it fits into a page as well as on paper.
    """
    boxes: list[tuple[int, int, int, list[str]]] = []
    arrows: list[tuple[float, float, float, float]] = []
    y, top = 10, 0
    last = flow.steps[-1]
    for step in flow.steps:
        side = [step.left_out, counts_text(step.participants_lost, step.scans_lost), *step.reasons]
        if step.left_out:
            lines = _wrapped(side)
            height = _height(lines)
            x = _WIDTH + _GAP + 10
            y += _BETWEEN // 4
            boxes.append((x, y, height, lines))
            middle = y + height / 2
            arrows += [(10 + _WIDTH / 2, middle, x, middle)]
            y += height + _BETWEEN // 4
        elif boxes:
            y += _BETWEEN
        if boxes:
            arrows.append((10 + _WIDTH / 2, top, 10 + _WIDTH / 2, y + _BETWEEN / 2))
            y += _BETWEEN // 2
        own = [step.title, counts_text(step.participants, step.scans)]
        lines = _wrapped([*own, *(flow.parts if step is last else ())])
        boxes.append((10, y, _height(lines), lines))
        y += _height(lines)
        top = y
        y += _BETWEEN // 2
    chart = {
        'width': 2 * _WIDTH + _GAP + 20,
        'height': y,
        'box_width': _WIDTH,
        'line': _LINE,
        'boxes': boxes,
        'arrows': arrows,
        'summary': '. '.join(
            f'{step.title}: {counts_text(step.participants, step.scans)}' for step in flow.steps
        ),
    }
    drawn: Markup = environment().get_template('flow.svg.j2').module.flow(chart)  # type: ignore[attr-defined]
    return drawn


def _wrapped(texts: Iterable[str]) -> list[str]:
    return [line for text in texts for line in wrap_name(text, _LETTERS)]


def _height(lines: Sequence[str]) -> int:
    return _LINE * len(lines) + 14
