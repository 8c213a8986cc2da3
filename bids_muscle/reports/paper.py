"""Methods and results of a cohort as text for a paper: Markdown, and the same on the page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from bids_muscle.reports.flow import Flow, counts_text
from bids_muscle.reports.methods import Paragraph, Reference, Sentence, write_methods
from bids_muscle.reports.outputs import ScanOutputs
from bids_muscle.segmentation.quality import UNUSABLE_DICE
from bids_muscle.statistics.analysis import MIN_DF, listed
from bids_muscle.statistics.cohort import CohortAnalysis

#: More ways of processing would be a text that nobody reads.
MOST_WAYS = 6
#: Columns of which one has a value where an analysis could be made.
_RESULTS = ('p', 'shift', 'sdc', 'icc')
#: What each analysis is, in the order of the text; those that have a result are told.
_ANALYSES = {
    'harmonisation': Sentence(
        'Differences between sites were removed by ComBat, keeping sex, age, body mass index (as '
        'far as they were known) and session.',
        ('combat',),
    ),
    'site_differences': Sentence(
        'Sites were compared by analysis of covariance with sex, age and body mass index, as far '
        'as they were known.'
    ),
    'rm_ancova': Sentence(
        'Differences between muscles, and effects of sex, age and body mass index as far as they '
        'were known, were tested by repeated-measures analysis of covariance with sums of squares '
        'of type III and the correction of Greenhouse and Geisser.',
        ('weber2021',),
    ),
    'paired_t': Sentence('Pairs of muscles were compared by paired t tests.'),
    'sex_differences': Sentence(
        'Women and men were compared in each muscle by analysis of covariance with age and body '
        'mass index, as far as they were known.'
    ),
    'pearson': Sentence(
        'Partial correlations of Pearson and of Spearman were computed with age and body mass '
        'index, each controlled for the others and sex, as far as they were known.'
    ),
    'change': Sentence(
        'Each later session was compared with the first by paired t tests, and with those who '
        'missed a session by a mixed model with a random intercept of each participant, fitted by '
        'restricted maximum likelihood and tested by t with containment degrees of freedom.'
    ),
    'rate': Sentence(
        'The change per year is the mean of the slopes of all participants followed for at least '
        '30 days.'
    ),
    'detectable': Sentence(
        'The smallest detectable change of one person is 1.96 times the square root of 2 times '
        'the standard error of measurement.',
        ('devet2006',),
    ),
    'agreement': Sentence(
        'Agreement of repeated scans, one pair of each participant, is described by limits of '
        'agreement and by the intraclass correlation ICC(2,1).',
        ('bland-altman',),
    ),
}
_PACKAGES = ('numpy', 'scipy', 'pandas', 'statsmodels')


@dataclass(frozen=True)
class Section:
    """A heading and its paragraphs; `level` 2 is methods or results, 3 is within them."""

    title: str
    level: int
    paragraphs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Paper:
    """The text, and the references that it numbers."""

    sections: tuple[Section, ...]
    references: tuple[Reference, ...]

    def to_markdown(self, flow: str) -> str:
        """Return it as Markdown.

        Parameters
        ----------
        flow
            Name of the file with the flow chart.
        """
        lines = []
        for section in self.sections:
            lines += ['#' * (section.level - 1) + f' {_escaped(section.title)}', '']
            for paragraph in section.paragraphs:
                lines += [_escaped(paragraph), '']
        lines += [f'![Flow of participants and scans]({flow})', '', '# References', '']
        for each in self.references:
            doi = f' https://doi.org/{each.doi}' if each.doi else ''
            lines.append(f'{each.number}. {_escaped(each.text)}{doi}')
        return '\n'.join(lines) + '\n'


def write_paper(
    scans: Sequence[ScanOutputs],
    flow: Flow,
    analyses: Mapping[str, CohortAnalysis],
    people: Mapping[str, Mapping[str, Any]],
    series: Sequence[Mapping[str, Any]],
    *,
    order: str,
    formula: str | None,
    exclusion_list: bool = False,
) -> Paper:
    """Write methods and results.

    Parameters
    ----------
    scans
        All scans of the dataset.
    flow
        From :func:`~bids_muscle.reports.flow.flow_of`.
    analyses
        From :func:`~bids_muscle.reports.statistics.analyse_cohort`.
    people
        Sex, age and so on by participant, None where unknown.
    series
        What the page shows of each region and contrast, with the sentences of all analyses.
    order
        The sessions in the order of time, or nothing.
    formula
        The user's own model.
    exclusion_list
        Whether the user gave a list of exclusions.
    """
    kept = [scan for scan in scans if scan.kept]
    further = _statistics_sentences(analyses, formula)
    processed = [scan for scan in scans if scan.done and not scan.exclusion()]
    ways, references = write_methods(processed, further=further)
    *ways, statistics = ways
    analysed = {scan.record.participant for scan in kept}
    judges = [
        *['raters'] * any(scan.verdict for scan in scans),
        *['a list of exclusions'] * exclusion_list,
        *[f'a predicted Dice below {UNUSABLE_DICE:g}'] * any(s.predicted_dice for s in scans),
    ]
    sections = [
        Section('Methods', 2),
        Section('Participants and scans', 3, tuple(_participants(flow, kept, order, judges))),
        Section('Image processing', 3, tuple(_processing(ways))),
        Section('Statistical analysis', 3, (_numbered(statistics),)),
        Section('Results', 2),
        Section(
            'Participants',
            3,
            (*_flow_text(flow), *_described([people[who] for who in sorted(analysed)])),
        ),
    ]
    for each in series:
        for block in each['analyses']:
            title = f'{each["region"]} region, {each["contrast"]}: {block["measure"]}'
            sentences = [
                sentence for analysis in block['analyses'] for sentence in analysis['sentences']
            ]
            sections.append(Section(title[0].upper() + title[1:], 3, tuple(sentences)))
    return Paper(tuple(sections), tuple(references))


def _participants(
    flow: Flow, kept: Sequence[ScanOutputs], order: str, judges: Sequence[str]
) -> Iterator[str]:
    first, last = flow.steps[0], flow.steps[-1]
    why = f' Scans and muscles were left out where {" or ".join(judges)} spoke against them.'
    yield (
        f'Of {counts_text(first.participants, first.scans)} in the dataset, '
        f'{counts_text(last.participants, last.scans)} were analysed.{why if judges else ""}'
    )
    manual = sum(scan.manual for scan in kept)
    if manual:
        yield f'In {manual} of {len(kept)} scans a person outlined or corrected the muscles.'
    if order:
        yield (
            f'Sessions in the order of time: {order}. Analyses of one session take the first of '
            'each participant.'
        )


def _processing(ways: Sequence[Paragraph]) -> Iterator[str]:
    ways = sorted(ways, key=lambda way: -len(way.scans))
    for way in ways[:MOST_WAYS]:
        scans = f'{len(way.scans)} scan{"s" if len(way.scans) != 1 else ""}: '
        yield f'{scans if len(ways) > 1 else ""}{_numbered(way)}'
    if rest := ways[MOST_WAYS:]:
        count = sum(len(way.scans) for way in rest)
        yield (
            f'{count} scans were processed in {len(rest)} other ways; the page of each '
            'participant describes them.'
        )


def _statistics_sentences(
    analyses: Mapping[str, CohortAnalysis], formula: str | None
) -> list[Sentence]:
    """Say which analyses were run, by which rule an effect is called one, and with what."""
    told = [
        *_group_sentences(analyses),
        *(each for name, each in _ANALYSES.items() if _has_result(analyses.get(name))),
    ]
    sentences = [Sentence('Each muscle is the mean of left and right.'), *told]
    if formula:
        sentences.append(
            Sentence(
                f'The linear model {formula} was fitted by least squares; standard errors are '
                'robust to several values of one participant.'
            )
        )
    if told or formula:
        sentences.append(
            Sentence(
                'Tests are two-sided; p was corrected for all tests of an analysis in the same '
                'region, contrast and measure by the method of Holm, and p < 0.05 is called '
                f'an effect. Fewer than {MIN_DF} degrees of freedom of the residuals were not '
                'tested.',
                ('holm',),
            )
        )
    packages = [f'{name} {number}' for name in _PACKAGES if (number := _version(name))]
    sentences.append(
        Sentence(
            f'Statistics were computed by bids_muscle {_version("bids_muscle")} with '
            f'{", ".join(packages)}.'
        )
    )
    return sentences


def _has_result(analysis: CohortAnalysis | None) -> bool:
    """Return whether an analysis says more than why it could not be made."""
    if analysis is None:
        return False
    columns = [name for name in _RESULTS if name in analysis.table]
    return bool(analysis.table[columns].notna().any(axis=None))


def _group_sentences(analyses: Mapping[str, CohortAnalysis]) -> Iterator[Sentence]:
    """Say which columns of the participants were tested, and whether somebody asked for them."""
    if not _has_result(analyses.get('groups')):
        return
    table = analyses['groups'].table
    table = table[table['p'].notna()]
    names = listed(list(dict.fromkeys(table['variable'])))
    explored = (table['explored'] == 'yes').all()
    yield Sentence(
        f'{"All suitable columns" if explored else "Columns"} of the table of participants '
        f'({names}) were tested{", as an exploration," if explored else ""} in each muscle and in '
        'the mean of all muscles by analysis of covariance of measured values, with sex, age, '
        'body mass index and site as far as they were known.'
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ''


def _flow_text(flow: Flow) -> Iterator[str]:
    """Give the flow in words."""
    first, *later = flow.steps
    said = [f'The dataset has {counts_text(first.participants, first.scans)}']
    said += [
        f'{step.left_out.lower()}: {counts_text(step.participants_lost, step.scans_lost)} '
        f'({"; ".join(step.reasons)})'
        for step in later
        if step.left_out
    ]
    last = flow.steps[-1]
    said.append(f'analysed: {counts_text(last.participants, last.scans)}')
    yield '; '.join(said) + '.'
    if flow.parts:
        yield f'Analysed: {"; ".join(flow.parts)}.'


def _described(people: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Describe sex, age, BMI and sites of those who are analysed, as far as they are known."""
    parts = []
    sexes = [person['sex'] for person in people if person['sex']]
    if sexes:
        parts.append(f'{sexes.count("F")} women and {sexes.count("M")} men')
    for name, text, unit in (('age', 'age', 'years'), ('bmi', 'body mass index', 'kg/m²')):
        values = np.array([p[name] for p in people if p[name] is not None], dtype=float)
        if len(values) > 1:
            parts.append(
                f'mean {text} {values.mean():.1f} {unit} (SD {values.std(ddof=1):.1f}, '
                f'{values.min():.1f} to {values.max():.1f}; n = {len(values)})'
            )
    sites = {person['site'] for person in people if person['site']}
    if len(sites) > 1:
        parts.append(f'{len(sites)} sites')
    if parts:
        yield f'Participants who were analysed: {", ".join(parts)}.'


def _numbered(paragraph: Paragraph) -> str:
    """Return a paragraph with the numbers of its references."""
    return ' '.join(
        f'{text} [{", ".join(map(str, numbers))}].' if numbers else f'{text}.'
        for text, numbers in paragraph.sentences
    )


def _escaped(text: str) -> str:
    r"""Return text that Markdown shows as it is.

    Examples
    --------
    >>> _escaped('volume_ml * <b>')
    'volume\\_ml \\* \\<b>'
    """
    return re.sub(r'([\\`*_<#|~])', r'\\\1', ' '.join(text.split()))
