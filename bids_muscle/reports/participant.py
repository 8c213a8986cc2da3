"""The page of one participant, made from the derivatives and the logs alone."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_muscle.anatomy.labels import MUSCLE, REGIONS, SPINE, UNSIDED, load_label_table
from bids_muscle.dataset.names import participant_path
from bids_muscle.dataset.writer import write_text
from bids_muscle.errors import PARSE_ERRORS
from bids_muscle.imaging.quality import quality_dictionary
from bids_muscle.measurement.muscle import SCAN
from bids_muscle.reports.charts import Bar, Series, bar_chart, histogram_charts
from bids_muscle.reports.loads import load_sections
from bids_muscle.reports.methods import write_methods
from bids_muscle.reports.outputs import (
    MISSING,
    ScanOutputs,
    number,
    read_scans,
)
from bids_muscle.reports.page import (
    data_uri,
    environment,
    format_value,
    grouped_reasons,
    heading,
    main_measures,
)
from bids_muscle.reports.percentiles import Cohort, read_cohort
from bids_muscle.reports.slices import EDGES
from bids_muscle.reports.spine import spine_sections
from bids_muscle.segmentation.quality import DOUBTFUL_DICE
from bids_muscle.statistics.sessions import label_key

#: Right first, as it stands in the pictures.
SIDES = ('right', 'left')

#: Columns with the difference of the sides, by the measure they are about. Those of a threshold
#: are about the one that ``threshold_method`` names.
ASYMMETRIES = {
    'mfi_ratio_of_means_pct': 'mfi_asymmetry_points',
    'volume_ml': 'volume_asymmetry_pct',
}


@dataclass(frozen=True)
class Picture:
    """A picture of the page, and one that is shown in its place while asked for."""

    title: str
    caption: str
    alt: str
    second: str = ''
    prompt: str = ''


#: Pictures by the name of their file.
PICTURES = {
    'spine': Picture(
        'Vertebrae and discs',
        'The sagittal slice through the middle of the spine, with the names of the vertebrae, '
        'counted from the sacrum, and the heights of the discs. Front is left; x is the '
        'position in scanner space.',
        'Sagittal slice with vertebrae and discs in colours.',
    ),
    'segmentation': Picture(
        'Segmentation',
        'Axial slices from superior to inferior: the first and the last with muscle, the one that '
        'shows most of all muscles, where a network drew the outlines the one of which it was '
        'least sure, and those in which single muscles are largest. They are seen from below, the '
        "patient's right is on the left. Each has grey levels of its own. z is the position in "
        'scanner space.',
        'Axial slices with the outline of each muscle in its colour.',
        'slices',
        'the slices without outlines',
    ),
    'extent': Picture(
        'Extent',
        'Coronal and sagittal slice through the muscles; white marks show the axial slices above. '
        'A muscle that reaches the edge is cut off by the field of view.',
        'Coronal and sagittal slice with the outline of each muscle in its colour.',
    ),
    'surfaces': Picture(
        'In three dimensions',
        'The muscles as they were outlined, without perspective, to one scale. Shapes between '
        'slices are interpolated; holes, splinters and flat ends are those of the outlines.',
        'The muscles in their colours from the front, from behind, from below and at an angle.',
    ),
    'fatfraction': Picture(
        'Fat fraction',
        'Fat signal as a share of fat and water, with the outlines of the muscles. Black: no '
        'signal, or not defined.',
        'Maps of the fat fraction from 0 to 100 % on the same axial slices.',
    ),
    'alignment': Picture(
        'Alignment with the atlas',
        'The muscles of the atlas on the scan, after alignment: they should lie about where the '
        'muscles are, not outline them.',
        'Axial slices with the outlines of the muscles of the atlas.',
        'template',
        'the atlas itself',
    ),
    'uncorrected': Picture(
        'Bias field',
        'Before the correction. After it, one tissue should have one brightness from the skin to '
        'the spine. Fat is measured without it.',
        'Axial slices before bias correction.',
        'corrected',
        'the slices after the correction',
    ),
    'bias': Picture(
        'The field that was divided out',
        'Relative to 1: orange was too bright, violet too dark.',
        'Axial slices with the bias field in colours from 0.5 to 2.',
    ),
}
PLANES = ('axial', 'coronal', 'sagittal')
UNKNOWN_COLOUR = '#888888'


@dataclass(frozen=True)
class Light:
    """A traffic light: ``level`` is ok, check, unusable or failed."""

    level: str
    word: str
    reason: str


def write_participant_report(output_dir: Path, participant: str) -> Path:
    """Write the page of one participant.

    Parameters
    ----------
    output_dir
        The derivatives dataset.
    participant
        Label without ``sub-``.

    Returns
    -------
    Path
        ``output_dir/sub-<participant>.html``.

    Raises
    ------
    BadDataError
        If the label cannot be part of a file name.
    OutputError
        If the page cannot be written.
    """
    path = output_dir / participant_path(participant, 'report')
    scans = read_scans(output_dir, participant)
    paragraphs, references = write_methods(scans)
    cohort = read_cohort(output_dir)
    settings = _settings(output_dir, participant)
    infos = [scan.record.participant_info for scan in scans if scan.record.participant_info]
    page = environment().get_template('participant.html.j2')
    text = page.render(
        title=f'sub-{participant}',
        script='viewer.js',
        light=participant_light(scans),
        sessions=sorted({s.record.session for s in scans if s.record.session}, key=label_key),
        info=_shown_info(infos[0]) if infos else [],
        scans=[_scan_context(scan, place, cohort) for place, scan in enumerate(scans, start=1)],
        settings=settings,
        command=_command(settings, participant),
        spines=spine_sections(output_dir, participant),
        loads=load_sections(output_dir, participant),
        paragraphs=paragraphs,
        references=references,
    )
    write_text(text, path)
    return path


def scan_light(scan: ScanOutputs) -> Light:
    """Say whether a scan can be used as it is."""
    if not scan.done:
        problem = scan.record.problem
        return Light('failed', 'Failed', problem.message if problem else 'No reason was recorded.')
    if scan.unusable:
        few = ', '.join(scan.unusable)
        if len(scan.unusable) > 3:
            few = f'{len(scan.unusable)} of {len(scan.rows)} muscles'
        return Light(
            'unusable',
            'Do not use without correction',
            f'The outlines of {few} are likely to be wrong: they do not count in the cohort until '
            'a person corrects the map or passes the scan',
        )
    main = main_measures(scan.rows)
    # Fat by thresholds is known of muscles alone.
    others = {label.name for label in scan.table or () if label.kind != MUSCLE}
    muscles = [row for row in scan.rows if row['name'] not in others]
    unknown = sum(any(number(row[name]) is None for name in main) for row in muscles)
    reasons = []
    if scan.notes:
        reasons.append(_plural(len(scan.notes), 'warning'))
    if unknown:
        reasons.append(f'{unknown} of {_plural(len(muscles), "muscle")} with values n/a')
    if reasons:
        return Light('check', 'Check', ', '.join(reasons))
    return Light('ok', 'Complete', 'No warnings, no value missing')


def participant_light(scans: Sequence[ScanOutputs]) -> Light:
    """Say whether a participant's results can be used as they are.

    Examples
    --------
    >>> participant_light([]).reason
    'No scan was found or processed.'
    """
    if not scans:
        return Light('failed', 'No result', 'No scan was found or processed.')
    lights = [scan_light(scan) for scan in scans]
    if len(lights) == 1:
        return lights[0]
    failed = sum(light.level == 'failed' for light in lights)
    unusable = sum(light.level == 'unusable' for light in lights)
    check = sum(light.level == 'check' for light in lights)
    if failed == len(lights):
        return Light('failed', 'Failed', f'All {failed} scans failed')
    if failed or unusable or check:
        counts = {'failed': failed, 'not to be used without correction': unusable}
        counts['to check'] = check
        said = ', '.join(f'{count} {what}' for what, count in counts.items() if count)
        level, word = ('unusable', 'Do not use all') if unusable else ('check', 'Check')
        return Light(level, word, f'Of {len(lights)} scans: {said}')
    return Light('ok', 'Complete', f'{len(lights)} scans, no warnings, no value missing')


def _scan_context(scan: ScanOutputs, place: int, cohort: Cohort | None) -> dict[str, Any]:
    record = scan.record
    table = scan.table
    colours = {str(label.index): label.color for label in table} if table else {}
    main = main_measures(scan.rows)
    others = tuple(name for name in scan.measures if name not in main)
    muscles, compared = _muscles(scan, main, colours, cohort)
    return {
        'anchor': f'scan-{place}',
        'record': record,
        'light': scan_light(scan),
        'spine': record.region == SPINE,
        'manual': scan.manual,
        'part_of': scan.part_of,
        'notes': [_linked(note) for note in scan.notes],
        'worst': scan.least_sure,
        'contrast': scan.contrast,
        'pictures': {name: _picture(scan, name) for name in PICTURES if name in scan.figures},
        'viewer': _viewer(scan),
        'histograms': _histograms(scan, colours),
        'quality': _quality(scan),
        'image_quality': [
            (definition['LongName'], definition['Description'], scan.quality.get(name))
            for name, definition in (quality_dictionary() if scan.quality else {}).items()
            if name in scan.quality
        ],
        'doubtful_dice': DOUBTFUL_DICE,
        'alignment': scan.alignment,
        'charts': [_chart(scan, column, colours) for column in main[:2]],
        'headings': [
            (heading(column, scan.definitions), _asymmetry(scan, column)) for column in main
        ],
        'muscles': muscles,
        'compared': compared,
        'extent': _extent(scan.rows),
        'by_thresholds': any(row.get('threshold_method', MISSING) != MISSING for row in scan.rows),
        'remarks': grouped_reasons(scan.rows),
        'other_headings': [heading(column, scan.definitions) for column in others],
        'other_rows': [(row['name'], [row[column] for column in others]) for row in scan.rows],
        'definitions': [
            (heading(name, scan.definitions), scan.definitions[name])
            for name in (*main, *others)
            if name in scan.definitions
        ],
    }


def _linked(note: str) -> dict[str, Any]:
    """Split a sentence around the first slice that it names, to which the page links.

    Examples
    --------
    >>> _linked('Psoas major is almost missing in slices 3-4. Check it.')['link']
    'slices 3-4'
    """
    match = re.search(r'slices? (\d+)(?:[-, ]+\d+)*', note)
    if match is None:
        return {'before': note, 'link': '', 'slice': None, 'after': ''}
    return {
        'before': note[: match.start()],
        'link': match[0],
        'slice': int(match[1]),
        'after': note[match.end() :],
    }


def _picture(scan: ScanOutputs, name: str) -> dict[str, Any]:
    """Return a picture as the page shows it, with the one in its place if that is there."""
    picture = PICTURES[name]
    second = scan.figures.get(picture.second)
    return {
        'title': picture.title,
        'caption': picture.caption,
        'prompt': picture.prompt,
        'alt': f'{scan.record.scan}: {picture.alt}',
        'uri': data_uri(scan.figures[name]),
        'second': data_uri(second) if second else '',
    }


def _settings(output_dir: Path, participant: str) -> str:
    """Return the settings of the last run as TOML, or nothing."""
    try:
        path = output_dir / participant_path(participant, 'settings')
        return path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError):
        return ''


def _command(settings: str, participant: str) -> str:
    """Return the command that does with these settings the same again, or nothing."""
    try:
        given = tomllib.loads(settings)['input']
        folders = [str(given['bids_dir']), str(given['output_dir'])]
    except (tomllib.TOMLDecodeError, KeyError, TypeError):
        return ''
    file = Path(folders[1]) / participant_path(participant, 'settings')
    return shlex.join(
        [
            *('bids_muscle', *folders, 'participant', '--participant-label', participant),
            *('--config-file', str(file)),
        ]
    )


def _histograms(scan: ScanOutputs, colours: Mapping[str, str]) -> list[dict[str, object]]:
    """Lay out the histograms of the fat fraction, one for each muscle with both sides."""
    try:
        text = scan.figures['histograms'].read_text(encoding='utf-8')
        counts = {
            label: [int(count) for count in each] for label, each in json.loads(text).items()
        }
    except (OSError, *PARSE_ERRORS, KeyError, TypeError, AttributeError):
        return []
    muscles: dict[str, list[Series]] = {}
    for row in scan.rows:
        found = counts.get(row['index'], [])
        if sum(found):
            colour = colours.get(row['index'], UNKNOWN_COLOUR)
            muscles.setdefault(row['muscle'], []).append(Series(row['side'], colour, tuple(found)))
    return histogram_charts(muscles)


def _quality(scan: ScanOutputs) -> list[tuple[str, list[float | None]]]:
    """Predicted Dice of each muscle, right then left."""
    muscles: dict[str, dict[str, float | None]] = {}
    for row in scan.rows if scan.predicted_dice else ():
        sides = muscles.setdefault(row['muscle'], {})
        sides[row['side']] = scan.predicted_dice.get(row['name'])
    return [(name, [sides.get(side) for side in SIDES]) for name, sides in muscles.items()]


def _viewer(scan: ScanOutputs) -> dict[str, Any] | None:
    """Return what the scroller through all slices shows, or None without its files."""
    table = scan.table
    if table is None or not {*PLANES, 'outlines'} <= set(scan.figures):
        return None
    try:
        outlines = json.loads(scan.figures['outlines'].read_text(encoding='utf-8'))
        planes = [
            {
                'name': plane,
                'width': int(layout['width']),
                'height': int(layout['height']),
                'last': len(layout['slices']) - 1,
                'edges': EDGES[plane],
            }
            for plane, layout in ((plane, outlines['planes'][plane]) for plane in PLANES)
        ]
    except (OSError, *PARSE_ERRORS, KeyError, TypeError):
        return None
    shown = {row['name'] for row in scan.rows}
    muscles = [
        {'index': str(label.index), 'name': label.name, 'colour': label.color}
        for label in table
        if label.name in shown or not label.source
    ]
    return {
        'planes': planes,
        'muscles': muscles,
        'data': {
            'outlines': outlines,
            'muscles': muscles,
            'sheets': {plane: data_uri(scan.figures[plane]) for plane in PLANES},
        },
    }


def _asymmetry(scan: ScanOutputs, column: str) -> str:
    """Return the column with the difference of the sides of a measure, or nothing."""
    by_method = {f'fat_{row.get("threshold_method")}_pct' for row in scan.rows}
    name = 'threshold_asymmetry_points' if by_method == {column} else ASYMMETRIES.get(column, '')
    return name if name in scan.measures else ''


def _muscles(
    scan: ScanOutputs,
    columns: Sequence[str],
    colours: Mapping[str, str],
    cohort: Cohort | None,
) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of the table of measures, and of how many scans percentiles are at most.

    A row is a muscle; its cells are the right and the left value of each measure and, where it
    has one, the difference of the sides. What has no side has one cell over all of these.
    """
    compared = 0
    muscles: dict[tuple[str, bool], dict[str, Mapping[str, str]]] = {}
    for row in scan.rows:
        muscles.setdefault((row['muscle'], row['side'] == UNSIDED), {})[row['side']] = row
    rows = []
    for (name, unsided), sides in muscles.items():
        cells: list[dict[str, Any]] = []
        own_sides = (UNSIDED,) if unsided else SIDES
        for column in columns:
            difference = _asymmetry(scan, column)
            span = len(SIDES) + bool(difference) if unsided else 1
            for side in own_sides:
                text = sides[side][column] if side in sides else MISSING
                rank = None
                if cohort and (value := number(text)) is not None:
                    row = sides[side]
                    where = scan.record.region or MISSING, scan.contrast, row['name']
                    extent = row.get('extent', MISSING)
                    rank = cohort.percentile((*where, extent, column), value)
                    compared = max(compared, rank[1] if rank else 0)
                first = side == own_sides[0]
                percentile = rank[0] if rank else None
                cells.append({'text': text, 'rank': percentile, 'first': first, 'span': span})
            if difference and not unsided:
                text = next(iter(sides.values()))[difference]
                cells.append({'text': text, 'rank': None, 'first': False, 'span': 1})
        shown = [colours.get(sides[s]['index'], UNKNOWN_COLOUR) for s in own_sides if s in sides]
        rows.append({'name': name, 'colours': shown, 'cells': cells})
    return rows, compared


def _chart(scan: ScanOutputs, column: str, colours: Mapping[str, str]) -> dict[str, object]:
    bars = [
        Bar(
            row['muscle'],
            row['side'],
            colours.get(row['index'], UNKNOWN_COLOUR),
            number(row[column]),
            format_value(row[column]),
        )
        for row in scan.rows
    ]
    return bar_chart(bars, heading(column, scan.definitions))


def _shown_info(info: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, text) for name, text in info.items() if name != 'participant_id']


def _extent(rows: Sequence[Mapping[str, str]]) -> str:
    """Say which part of the muscles is measured, or nothing where the table does not."""
    # Structures that only models of other programs know have no such levels.
    known = {label.muscle for region in REGIONS for label in load_label_table(region)}
    muscles: dict[str, list[str]] = {}
    for row in (row for row in rows if row['muscle'] in known):
        if row['muscle'] not in muscles.setdefault(row.get('extent', MISSING), []):
            muscles[row.get('extent', MISSING)].append(row['muscle'])
    muscles.pop(MISSING, None)
    if not muscles:
        return ''
    if set(muscles) == {SCAN}:
        return (
            'Where the vertebral levels at which muscles are measured begin and end is not known: '
            'measures are of all that the scan shows, which depends on its field of view.'
        )
    parts = [f'{extent} ({", ".join(names)})' for extent, names in muscles.items()]
    named = next(iter(muscles)) if len(muscles) == 1 else '; '.join(parts)
    return (
        f'Muscles are measured within these vertebral levels: {named}. What lies above and below '
        'them counts in no other column than those of the volume outside.'
    )


def _plural(count: int, noun: str) -> str:
    return f'{count} {noun}' if count == 1 else f'{count} {noun}s'
