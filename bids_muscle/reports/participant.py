"""The page of one participant, made from the derivatives and the logs alone."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_muscle.anatomy.labels import SPINE
from bids_muscle.dataset.names import participant_path
from bids_muscle.dataset.writer import write_text
from bids_muscle.imaging.quality import quality_dictionary
from bids_muscle.reports.lights import participant_light, scan_light
from bids_muscle.reports.links import link_places
from bids_muscle.reports.loads import load_sections
from bids_muscle.reports.measures import measures_content
from bids_muscle.reports.methods import write_methods
from bids_muscle.reports.norms import Norms
from bids_muscle.reports.outputs import ScanOutputs, edited_scans, read_scans
from bids_muscle.reports.page import environment, heading
from bids_muscle.reports.percentiles import Cohort, read_reference
from bids_muscle.reports.pictures import PICTURES, show_picture, viewer_content
from bids_muscle.reports.spine import spine_sections
from bids_muscle.segmentation.quality import DOUBTFUL_DICE
from bids_muscle.statistics.sessions import label_key

#: Parts of the names of images that are opened in a viewer.
_VIEWABLE = ('_desc-preproc_', '_dseg.', '_fatfrac.')


def write_participant_report(
    output_dir: Path, participant: str, scans: Sequence[ScanOutputs] | None = None
) -> Path:
    """Write the page of one participant.

    Parameters
    ----------
    output_dir, participant, scans
        As for :func:`participant_page`.

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
    write_text(participant_page(output_dir, participant, scans), path)
    return path


def participant_page(
    output_dir: Path,
    participant: str,
    scans: Sequence[ScanOutputs] | None = None,
    *,
    served: bool = False,
) -> str:
    """Return the page of one participant.

    Parameters
    ----------
    output_dir
        The derivatives dataset.
    participant
        Label without ``sub-``.
    scans
        Those of the participant, where they have been read already.
    served
        Whether it comes from the server, with links to the editor.
    """
    scans = read_scans(output_dir, participant) if scans is None else scans
    paragraphs, references = write_methods(scans)
    reference = read_reference(output_dir)
    settings = _settings(output_dir, participant)
    infos = [scan.record.person for scan in scans]
    shown = [_scan_context(scan, place, reference) for place, scan in enumerate(scans, start=1)]
    viewers = {each['record'].scan: each for each in shown}
    spines = spine_sections(output_dir, participant)
    for section in spines:
        named = section.get('remarks', ())
        section['remarks'] = _linked_names(named, viewers.get(section['name']))
    page = environment().get_template('participant.html.j2')
    return page.render(
        title=f'sub-{participant}',
        served=served,
        script='viewer.js page.js',
        light=participant_light(scans),
        sessions=sorted({s.record.session for s in scans if s.record.session}, key=label_key),
        info=_shown_info(infos),
        scans=shown,
        settings=settings,
        command=_command(settings, participant),
        spines=spines,
        loads=load_sections(output_dir, participant),
        paragraphs=paragraphs,
        references=references,
    )


def _scan_context(
    scan: ScanOutputs, place: int, reference: Norms | Cohort | None
) -> dict[str, Any]:
    record = scan.record
    context: dict[str, Any] = {
        'anchor': f'scan-{place}',
        'edited': edited_scans(scan),
        'record': record,
        'light': scan_light(scan),
        'spine': record.region == SPINE,
        'manual': scan.manual,
        'part_of': scan.part_of,
        'contrast': scan.contrast,
        'files': [
            path
            for path in record.outputs
            if path.endswith('.nii.gz') and any(kind in path for kind in _VIEWABLE)
        ],
        'pictures': {n: show_picture(scan, n) for n in PICTURES if n in scan.figures},
        'viewer': viewer_content(scan),
        'image_quality': [
            (heading(name, quality_dictionary()), definition['Description'], scan.quality[name])
            for name, definition in (quality_dictionary() if scan.quality else {}).items()
            if name in scan.quality
        ],
        'doubtful_dice': DOUBTFUL_DICE,
        'alignment': scan.alignment,
        **measures_content(scan, reference),
    }
    places, worst = _places(context), scan.least_sure
    return context | {
        'notes': [link_places(note, places) for note in scan.notes],
        'worst': worst and (link_places(worst[0], places), worst[1]),
        'remarks': _linked_names(context['remarks'], context),
    }


def _places(context: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the number of each structure to which the slice viewer of a scan can go, by name."""
    viewer = context['viewer'] if context else None
    there = viewer['data']['outlines']['muscles'] if viewer else {}
    labels = viewer['muscles'] if viewer else ()
    return {each['name']: each['index'] for each in labels if each['index'] in there}


def _linked_names(
    remarks: Iterable[tuple[str, str]], context: Mapping[str, Any] | None
) -> list[tuple[list[dict[str, str]], str]]:
    """Split the names of each remark into links to the slice viewer of a scan."""
    places = _places(context)
    anchor = context['anchor'] if context else ''
    return [
        ([part | {'anchor': anchor} for part in link_places(names, places)], reason)
        for names, reason in remarks
    ]


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


def _shown_info(infos: Iterable[Mapping[str, str]]) -> list[tuple[str, str]]:
    """Return what is known of a person; what differs between sessions in their order."""
    found: dict[str, dict[str, None]] = {}
    for name, text in (cell for info in infos for cell in info.items()):
        found.setdefault(name, {})[text] = None
    return [(name, ', '.join(texts)) for name, texts in found.items() if name != 'participant_id']
