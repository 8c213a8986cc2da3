"""The methods text: what was done to the scans, with references, to be used in a paper."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from bids_muscle.anatomy.labels import BODY, SPINE
from bids_muscle.dataset.records import ScanRecord
from bids_muscle.dataset.scan import Contrast
from bids_muscle.imaging.impossible import SWAPPED_BACK
from bids_muscle.measurement.muscle import SCAN
from bids_muscle.reports.measures import extents_of
from bids_muscle.reports.outputs import ScanOutputs
from bids_muscle.reports.page import main_measures

_CLASSIFIED = (
    'The share of fat was estimated with {model}: voxels {rule} were classified as fat. A '
    'threshold detects streaks of fat but not diffuse fat, so this share is not MFI.'
)
_BRIGHTER = 'brighter than the midpoint between the means of muscle and fat'
_LIKELIER = 'brighter than muscle and more likely to be fat'
#: How each main measure was obtained.
_MEASURED = {
    'mfi_ratio_of_means_pct': (
        'Muscle fat infiltration (MFI) was calculated as the mean fat signal divided by the sum '
        'of the mean fat and the mean water signal over the voxels of a muscle, without bias '
        'correction.'
    ),
    'mfi_mean_of_voxels_pct': (
        'Muscle fat infiltration (MFI) was calculated as the mean fat fraction over the voxels of '
        'a muscle with signal above the noise.'
    ),
    'fat_kmeans2_pct': _CLASSIFIED.format(model='k-means (two clusters)', rule=_BRIGHTER),
    'fat_kmeans3_pct': _CLASSIFIED.format(model='k-means (three clusters)', rule=_BRIGHTER),
    'fat_gmm2_pct': _CLASSIFIED.format(model='a two-class Gaussian mixture', rule=_LIKELIER),
    'fat_gmm3_pct': _CLASSIFIED.format(model='a three-class Gaussian mixture', rule=_LIKELIER),
    'volume_ml': 'Muscle volume was calculated as the number of voxels times the voxel volume.',
    'mean_csa_cm2': (
        'Mean cross-sectional area (CSA) was calculated over the slices that contain the muscle, '
        'without correction for obliquity.'
    ),
    'max_csa_cm2': 'Maximum CSA was the largest area of the muscle in a slice.',
}


@dataclass(frozen=True)
class Sentence:
    """One sentence and its references.

    These are keys of ``data/citations/references.json``, or the citation of a model as its makers
    give it.
    """

    text: str
    cites: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reference:
    """One entry of the list of references."""

    number: int
    text: str
    doi: str
    bibtex: str


@dataclass(frozen=True)
class Paragraph:
    """What was done to the scans named in it.

    Sentences are without their full stop and with their reference numbers.
    """

    scans: tuple[str, ...]
    sentences: tuple[tuple[str, tuple[int, ...]], ...]


def write_methods(
    scans: Sequence[ScanOutputs], *, further: Sequence[Sentence] = ()
) -> tuple[list[Paragraph], list[Reference]]:
    """Describe how the finished scans were processed, one paragraph per way of processing.

    Parameters
    ----------
    scans
        Scans of a page; those that failed are left out, as nothing ran to its end.
    further
        What else was done with all of them: a last paragraph without scans.

    Returns
    -------
    paragraphs
        In the order of the scans.
    references
        Numbered in the order of their first use.
    """
    ways: dict[tuple[Sentence, ...], list[str]] = {}
    for scan in scans:
        if scan.done:
            ways.setdefault(_sentences(scan), []).append(scan.record.scan)
    if further:
        ways[tuple(further)] = []
    order = _first_use(sentence for way in ways for sentence in way)
    paragraphs = [
        Paragraph(
            tuple(names),
            tuple(
                (each.text.removesuffix('.'), tuple(order[key] for key in each.cites))
                for each in way
            ),
        )
        for way, names in ways.items()
    ]
    return paragraphs, [
        Reference(place, *_cited(key), _bibtex(key)) for key, place in order.items()
    ]


def _sentences(scan: ScanOutputs) -> tuple[Sentence, ...]:
    record = scan.record
    sentences = [
        Sentence(
            f'Images in the Brain Imaging Data Structure (BIDS) were processed with bids_muscle'
            f'{_version(record.versions, "bids_muscle")}, a BIDS App based on Nipype'
            f'{_version(record.versions, "nipype")}.',
            ('bids-apps', 'nipype', 'bids'),
        ),
        _signal_sentence(
            record.inputs,
            bounded=record.processing.get('bounded', False),
            fitted_echoes=record.processing.get('fitted_echoes', False),
        ),
    ]
    if any(warning.endswith(SWAPPED_BACK) for warning in record.warnings):
        sentences.append(
            Sentence(
                'Where two images were swapped, in part or as a whole, they were swapped back.'
            )
        )
    if record.processing.get('bias_correction'):
        text = 'Before segmentation, intensity non-uniformity was corrected with N4.'
        if 'external' in record.model:
            text = (
                'Intensity non-uniformity was corrected with N4, but not in the images given to '
                'the neural network.'
            )
        sentences.append(Sentence(text, ('n4',)))
    elif 'bias_correction' in record.processing:
        sentences.append(Sentence('Intensity non-uniformity was not corrected.'))
    if scan.manual:
        sentences.append(
            Sentence(
                f'The {_what(record)} were segmented or corrected manually, left and right '
                'separately.'
            )
        )
    elif record.region == SPINE:
        sentences.append(_spine_sentence(record.model, record.versions))
    elif record.model:
        sentences.append(_model_sentence(_what(record), record.model, record.versions))
    if scan.alignment and scan.alignment.atlas:
        sentences.append(
            Sentence(
                f'The scan was registered to the atlas {scan.alignment.atlas}. Source of the '
                f'vertebral level of each slice: {scan.alignment.source}.'
            )
        )
    elif scan.alignment and any(span.confidence for span in scan.alignment.spans):
        sentences.append(
            Sentence(f'Source of the vertebral level of each slice: {scan.alignment.source}.')
        )
    if scan.record.parts:
        sentences.append(
            Sentence(
                f'{len(set(scan.record.parts) - set(scan.record.aside))} scans of adjacent parts '
                'of the body were resampled to one grid by their headers and measured as one '
                'scan. Voxels in an overlap were counted once.'
            )
        )
    sentences += _measure_sentences(scan)
    return tuple(sentences)


def _signal_sentence(inputs: Mapping[str, str], *, bounded: bool, fitted_echoes: bool) -> Sentence:
    names = ', '.join(inputs) or 'unknown'
    if bounded:
        return Sentence(
            'Water and fat images were computed as half the sum and half the difference of the '
            'magnitude in-phase and opposed-phase images. Where a voxel contains more fat than '
            'water the two are swapped, so the fat fraction cannot exceed 50 %.',
            ('dixon', 'weber2021'),
        )
    if fitted_echoes:
        return Sentence(
            'Water and fat signals were estimated from the magnitudes of all echoes by least '
            'squares, with a six-peak fat model and a common R2* (proton density fat fraction).',
            ('dixon',),
        )
    if {Contrast.WATER, Contrast.FAT} <= set(inputs):
        return Sentence(
            'The water and fat images of a Dixon acquisition were used as reconstructed by the '
            'scanner.',
            ('dixon',),
        )
    return Sentence(f'The image contrast was {names}.')


def _what(record: ScanRecord) -> str:
    """Return what was segmented."""
    where = 'body' if record.region == BODY else f'{record.region or "unknown"} region'
    return f'muscles {"and other structures " if record.seg else ""}of the {where}'


def _model_sentence(what: str, model: Mapping[str, str], versions: Mapping[str, str]) -> Sentence:
    digest = model.get('sha256', '')
    checksum = f', weights SHA-256 {digest[:12]}' if digest else ''
    licence = f', licence {model["license"]}' if 'license' in model else ''
    way = f', run with MONAI{_version(versions, "monai")}'
    if 'external' in model:
        way = f', run with the processing steps of {model["external"]}'
        if 'overlap' in model:
            way += f' but windows that overlap by {100 * float(model["overlap"]):g} %'
    return Sentence(
        f'The {what} were segmented, left and right separately, with the '
        f'convolutional neural network {model.get("name", "without a name")}'
        f'{_version(model, "version")}{checksum}{licence}{way}{_limits(model)}.',
        (*([model['citation']] if 'citation' in model else []), 'monai'),
    )


def _limits(model: Mapping[str, str]) -> str:
    """Return the first sentence of the limits of a model, which says what it was trained on."""
    first = model.get('limits', '').partition('. ')[0].rstrip('.')
    return f' ({first[0].lower()}{first[1:]})' if first else ''


def _spine_sentence(model: Mapping[str, str], versions: Mapping[str, str]) -> Sentence:
    digest = model.get('sha256', '')
    return Sentence(
        'Vertebral bodies and discs were segmented on sagittal slices with the convolutional '
        f'neural network {model.get("name", "without a name")}{_version(model, "version")}, '
        f'weights SHA-256 {digest[:12]}, run with MONAI{_version(versions, "monai")}, and named '
        'from the sacrum upwards. The height of a disc is the shorter side of the smallest '
        'rectangle around it on the sagittal slice through its centroid.',
        ('monai', 'hess2022'),
    )


def _measure_sentences(scan: ScanOutputs) -> list[Sentence]:
    sentences = _extent_sentences(scan)
    for column in main_measures(scan.rows):
        source = str(scan.definitions.get(column, {}).get('Source', ''))
        cites = ('weber2021',) if 'Weber 2021' in source else ()
        sentences.append(Sentence(_MEASURED[column], cites))
    return sentences


def _extent_sentences(scan: ScanOutputs) -> list[Sentence]:
    """Say which part of the muscles all measures are of."""
    extents = extents_of(scan.rows)
    levels = ', '.join(sorted(set(extents) - {SCAN}))
    said = [
        f'Each muscle was measured within its own vertebral levels ({levels}), as far as the scan '
        'shows them'
        if levels
        else '',
        f'{"muscles whose levels were not known" if levels else "Muscles"} were measured wherever '
        'the scan shows them, which depends on its field of view'
        if SCAN in extents
        else '',
    ]
    text = '; '.join(filter(None, said))
    return [Sentence(f'{text}.')] if text else []


def _version(versions: Mapping[str, str], name: str) -> str:
    return f' {versions[name]}' if versions.get(name) else ''


def _first_use(sentences: Iterable[Sentence]) -> dict[str, int]:
    keys = dict.fromkeys(key for sentence in sentences for key in sentence.cites)
    return {key: place for place, key in enumerate(keys, start=1)}


@cache
def _references() -> dict[str, dict[str, Any]]:
    path = resources.files('bids_muscle') / 'data/citations/references.json'
    return {entry['id']: entry for entry in json.loads(path.read_text(encoding='utf-8'))}


def _cited(key: str) -> tuple[str, str]:
    """Return a reference as text and its DOI.

    Examples
    --------
    >>> _cited('n4')[1]
    '10.1109/TMI.2010.2046908'
    """
    if key not in _references():
        text, _, doi = key.partition(', https://doi.org/')
        return f'{text}.', doi
    entry = _references()[key]
    authors = ', '.join(
        'et al.' if 'literal' in person else f'{person["family"]} {_initials(person["given"])}'
        for person in entry['author']
    )
    published_in = entry.get('container-title') or entry['publisher']
    volume = f';{entry["volume"]}' if 'volume' in entry else ''
    page = f':{entry["page"]}' if 'page' in entry else ''
    year = entry['issued']['date-parts'][0][0]
    text = f'{authors.rstrip(".")}. {entry["title"]}. {published_in}. {year}{volume}{page}.'
    return text, entry.get('DOI', '')


def _bibtex(key: str) -> str:
    """Return a reference as an entry of BibTeX.

    Examples
    --------
    >>> print(_bibtex('robust-z').splitlines()[0])
    @book{robust-z,
    """
    if key not in _references():
        text, doi = _cited(key)
        short = ''.join(re.findall(r'^\w+|\b\d{4}\b', text)).lower()
        found = [f'  note = {{{text}}},', *([f'  doi = {{{doi}}},'] if doi else [])]
        return '\n'.join([f'@misc{{{short},', *found, '}'])
    entry = _references()[key]
    kind = {'article-journal': 'article', 'book': 'book'}.get(entry['type'], 'misc')
    fields = {
        'author': ' and '.join(
            'others' if 'literal' in person else f'{person["family"]}, {person["given"]}'
            for person in entry['author']
        ),
        'title': f'{{{entry["title"]}}}',  # the second pair of braces keeps capital letters
        'journal': entry.get('container-title'),
        'publisher': entry.get('publisher'),
        'year': entry['issued']['date-parts'][0][0],
        'volume': entry.get('volume'),
        'pages': entry.get('page'),
        'doi': entry.get('DOI'),
    }
    lines = [f'  {name} = {{{value}}},' for name, value in fields.items() if value]
    return '\n'.join([f'@{kind}{{{key},', *lines, '}'])


def _initials(given: str) -> str:
    return ''.join(name[0] for name in given.split())
