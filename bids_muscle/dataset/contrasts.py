"""Which contrast an image shows, by rules for its BIDS name and sidecar."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from bids_muscle.dataset.scan import DIXON, Contrast
from bids_muscle.errors import BadDataError, MissingInputError, UsageError
from bids_muscle.files import read_small
from bids_muscle.tables import parse_rows

#: Shift between the main fat peak and water, in parts per million (Dixon 1984).
FAT_WATER_SHIFT_PPM = 3.4
#: Gyromagnetic ratio of the proton over 2 pi, in MHz/T.
PROTON_MHZ_PER_T = 42.577
#: An echo counts as in phase or opposed when it is at most this far from it, in cycles.
PHASE_TOLERANCE_CYCLES = 0.1

#: What is left alone, and how a warning says so; nothing is said of localizers.
LEFT_ALONE = {
    'ignore': '',
    'nomagnitude': 'is not a magnitude image (phase, real or imaginary part)',
    'map': 'is a map of another quantity (R2*, T2*, field)',
}
_ANY = 'n/a'
_PHASES = ('in', 'opposed')
_FIXED_COLUMNS = ('contrast', 'suffix')
_ENTITY_COLUMNS = ('acq', 'ce', 'rec', 'run', 'echo', 'part', 'chunk')
#: Columns for two labels; the row is read once for each label.
_EITHER = {'acq or rec': ('acq', 'rec')}
#: Columns of the sidecar: the keys each is compared with, the first that fits.
_SIDECAR_COLUMNS = {
    'ImageType': ('ImageType', 'ImageTypeText', 'ComplexImageComponent'),
    'SeriesDescription': ('SeriesDescription', 'ProtocolName'),
}
#: Image types of several words, split as dcm2niix does.
_SPLIT_TYPE = re.compile(
    r'(?<![^\\])(?:(?:IN|OPP|OPPOSED|OUT(?:\\OF)?)\\PHASE|FAT\\FRAC(?:TION)?|[RT]2\\STAR|'
    r'(?:T1|T2|R2|B0|FIELD|ADC|PHASE|VELOCITY)\\MAP)(?![^\\])',
    re.IGNORECASE,
)
_RELATIVE_PHASE = re.compile(r'(?:IN|OPP|OPPOSED|OUT(?:_OF)?)_PHASE', re.IGNORECASE)
_DIXON_WORD = re.compile(r'dixon|ideal|pdff|lava.?flex|fatsep|wfi', re.IGNORECASE)


@dataclass(frozen=True)
class ContrastRule:
    """One row of the table of contrast rules.

    Parameters
    ----------
    contrast
        What the image shows, or None if it is to be left out.
    suffix
        What the suffix of the file must be.
    entities
        What labels must be, by key.
    sidecar
        What a value of the sidecar must be, by column: ``ImageType``, ``SeriesDescription``.
    phase
        ``'in'`` or ``'opposed'``: what the echo time must give, or None.
    left_alone
        A key of :data:`LEFT_ALONE` where there is no contrast.
    """

    contrast: Contrast | None
    suffix: re.Pattern[str]
    entities: Mapping[str, re.Pattern[str]]
    sidecar: Mapping[str, re.Pattern[str]]
    phase: str | None = None
    left_alone: str = ''


@dataclass(frozen=True)
class Classified:
    """An image that fits a rule.

    Parameters
    ----------
    contrast
        What it shows, or None if it is to be left out.
    entities
        Its labels without what names the contrast: equal for all images of one scan.
    source
        What tells the contrast: ``'name'``, or the key of the sidecar.
    other, other_source
        The image of a Dixon scan that the other of the two, name and sidecar, tells where it is
        not `contrast`; else None.
    left_alone
        Why it is left out where that is worth a word, as in :data:`LEFT_ALONE`.
    unclear
        It belongs to a Dixon scan, but nothing tells which of its images it is.
    """

    contrast: Contrast | None
    entities: Mapping[str, str]
    source: str = 'name'
    other: Contrast | None = None
    other_source: str = ''
    left_alone: str = ''
    unclear: bool = False


def load_contrast_rules(path: Path | None = None) -> tuple[ContrastRule, ...]:
    """Read a table of contrast rules.

    Parameters
    ----------
    path
        Table with tabs, a header and the columns ``contrast``, ``suffix``, and any of ``acq``,
        ``ce``, ``rec``, ``run``, ``echo``, ``part``, ``chunk``, ``acq or rec``, ``ImageType``,
        ``SeriesDescription``, ``phase``; by default the one in the package,
        ``data/contrasts.tsv``, which explains itself.

    Raises
    ------
    MissingInputError
        If the file cannot be read.
    UsageError
        If a line of it cannot be understood.
    """
    path = path or Path(str(resources.files('bids_muscle') / 'data/contrasts.tsv'))
    try:
        lines = read_small(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MissingInputError(
            f'The contrast rules {path} cannot be read: {error}.', 'Check --contrast-rules.'
        ) from error
    # Comments become empty lines, so that errors name the line of the file.
    lines = ['' if line.startswith('#') or not line.strip() else line for line in lines]
    numbers = [number for number, line in enumerate(lines, start=1) if line]
    try:
        rows = list(parse_rows(lines))
    except ValueError as error:
        raise UsageError(
            f'The contrast rules {path} are not a table: {error}.',
            'Separate cells by tabs; n/a matches everything.',
        ) from error
    if not rows:
        raise UsageError(
            f'There is no rule in the contrast rules {path}.',
            'Give a header and one row per rule.',
        )
    columns = (*_FIXED_COLUMNS, *_ENTITY_COLUMNS, *_EITHER, *_SIDECAR_COLUMNS, 'phase')
    unknown = [column for column in rows[0] if column not in columns]
    missing = [column for column in _FIXED_COLUMNS if column not in rows[0]]
    if unknown or missing:
        wrong = f'has {unknown}' if unknown else f'lacks {missing}'
        raise UsageError(
            f'Line {numbers[0]} of the contrast rules {path} {wrong} among its columns.',
            f'Known columns are {", ".join(columns)}, separated by tabs.',
        )
    return tuple(
        rule
        for number, row in zip(numbers[1:], rows, strict=True)
        for rule in _read_rules(path, number, row)
    )


def _read_rules(path: Path, number: int, cells: Mapping[str, str]) -> list[ContrastRule]:
    def bad(what: str, remedy: str) -> UsageError:
        return UsageError(f'Line {number} of the contrast rules {path} {what}.', remedy)

    row = {name: cell.strip() for name, cell in cells.items()}
    contrasts = {str(contrast).lower(): contrast for contrast in Contrast}
    contrast = row.pop('contrast').lower()
    if contrast not in (*contrasts, *LEFT_ALONE):
        raise bad(
            f"names the unknown contrast '{contrast}'",
            f'Use one of {", ".join([*map(str, Contrast), *LEFT_ALONE])}.',
        )
    phase = row.pop('phase', _ANY)
    if phase not in (*_PHASES, _ANY):
        raise bad(f"has the unknown phase '{phase}'", 'Use in, opposed or n/a.')
    patterns = {}
    for column, cell in row.items():
        if cell != _ANY:
            try:
                patterns[column] = re.compile(cell, re.IGNORECASE)
            except re.error as error:
                raise bad(
                    f"has the bad pattern '{cell}' ({error})", 'Correct the regular expression.'
                ) from error
    rule = ContrastRule(
        contrast=contrasts.get(contrast),
        suffix=patterns.pop('suffix', re.compile('.*')),
        sidecar={name: patterns.pop(name) for name in _SIDECAR_COLUMNS if name in patterns},
        entities={name: found for name, found in patterns.items() if name not in _EITHER},
        phase=None if phase == _ANY else phase,
        left_alone=contrast if contrast in LEFT_ALONE else '',
    )
    rules = [rule]
    for column, keys in _EITHER.items():
        if column in patterns:
            rules = [
                replace(each, entities={**each.entities, key: patterns[column]})
                for each in rules
                for key in keys
            ]
    return rules


def classify(
    rules: tuple[ContrastRule, ...],
    suffix: str,
    entities: Mapping[str, str],
    metadata: Mapping[str, Any],
) -> Classified | None:
    """Return what an image shows, by the first rule that matches.

    Rules that read the sidecar and rules that read the name are two witnesses: where they name
    different images of a Dixon scan, that is said. A name that only the suffix speaks of (``T1w``)
    names none.

    Parameters
    ----------
    rules
        From :func:`load_contrast_rules`.
    suffix
        Suffix of the file, such as ``'T1w'``.
    entities
        Labels of the file by key, such as ``{'sub': '01', 'acq': 'dixonwater'}``.
    metadata
        Content of the sidecar.

    Returns
    -------
    Classified or None
        None where no rule fits.

    Raises
    ------
    BadDataError
        If the rule asks for the phase and the sidecar does not tell the echo time and field.

    Examples
    --------
    >>> found = classify(load_contrast_rules(), 'T1w', {'sub': '1', 'acq': 'dixonwater'}, {})
    >>> found.contrast.value, found.entities
    ('water', {'sub': '1', 'acq': 'dixon'})
    """
    first: Classified | None = None
    second: Classified | None = None
    for rule in rules:
        # The second witness is the one that has not spoken yet.
        if first and (bool(rule.sidecar) == (first.source != 'name') or rule.phase):
            continue
        match = _fit(rule, suffix, entities, metadata)
        if match is None:
            continue
        if first is None:
            first = match
            if first.contrast not in DIXON:
                return first
        else:
            second = match
            break
    if first is None or second is None or second.contrast not in DIXON:
        return first
    named = first if first.source == 'name' else second
    if first.contrast == second.contrast:
        return named
    return replace(
        first, entities=named.entities, other=second.contrast, other_source=second.source
    )


def _fit(
    rule: ContrastRule,
    suffix: str,
    entities: Mapping[str, str],
    metadata: Mapping[str, Any],
) -> Classified | None:
    """Return what an image shows by one rule, or None where that does not fit."""
    if not rule.suffix.fullmatch(suffix):
        return None
    source = 'name'
    for column, pattern in rule.sidecar.items():
        key = _matching_key(_SIDECAR_COLUMNS[column], pattern, metadata)
        if key is None:
            return None
        source = key
    remaining = _match_entities(rule, entities)
    if remaining is None:
        return None
    if rule.phase and rule.phase != echo_phase(*echo_and_field(metadata)):
        return None
    asks_nothing = not (rule.entities or rule.sidecar)
    plain = rule.contrast is not None and rule.contrast not in DIXON
    return Classified(
        rule.contrast,
        remaining,
        source,
        left_alone=LEFT_ALONE.get(rule.left_alone, ''),
        unclear=plain and asks_nothing and _has_dixon_word(entities, metadata),
    )


def _has_dixon_word(entities: Mapping[str, str], metadata: Mapping[str, Any]) -> bool:
    """Return whether a label or the sidecar names a Dixon sequence."""
    texts = [entities.get(key, '') for key in ('acq', 'rec')]
    texts += [text for keys in _SIDECAR_COLUMNS.values() for text in _texts(keys, metadata)]
    return any(_DIXON_WORD.search(text) for text in texts)


def echo_phase(echo_time_s: float, field_t: float) -> str | None:
    """Return whether fat and water are in phase or opposed at an echo time.

    Parameters
    ----------
    echo_time_s
        Echo time in seconds.
    field_t
        Field strength in tesla.

    Returns
    -------
    str or None
        ``'in'``, ``'opposed'``, or None where the echo is near neither.

    Examples
    --------
    >>> echo_phase(0.0023, 3.0), echo_phase(0.00115, 3.0), echo_phase(0.0017, 3.0)
    ('in', 'opposed', None)
    """
    shift_hz = FAT_WATER_SHIFT_PPM * PROTON_MHZ_PER_T * field_t
    cycles = shift_hz * echo_time_s
    if abs(cycles - round(cycles)) <= PHASE_TOLERANCE_CYCLES and round(cycles) > 0:
        return 'in'
    return 'opposed' if abs(cycles % 1 - 0.5) <= PHASE_TOLERANCE_CYCLES else None


def _match_entities(rule: ContrastRule, entities: Mapping[str, str]) -> dict[str, str] | None:
    """Return the labels without what names the contrast, or None if they do not fit."""
    remaining = dict(entities)
    for key, pattern in rule.entities.items():
        match = pattern.fullmatch(entities.get(key, ''))
        if match is None:
            return None
        for start, end in reversed([span for span in match.regs[1:] if span != (-1, -1)]):
            label = remaining.get(key, '')
            remaining[key] = label[:start] + label[end:]
        if not remaining.get(key, ''):
            remaining.pop(key, None)
    return remaining


def _matching_key(
    keys: Sequence[str], pattern: re.Pattern[str], metadata: Mapping[str, Any]
) -> str | None:
    """Return the first key of the sidecar that has a value which fits."""
    fits = (key for key in keys if any(map(pattern.fullmatch, _texts([key], metadata))))
    return next(fits, None)


def _texts(keys: Sequence[str], metadata: Mapping[str, Any]) -> list[str]:
    """Return the texts under keys of the sidecar; DICOM separates values by a backslash."""
    values = [metadata.get(key) for key in keys]
    flat = [each for value in values for each in (value if isinstance(value, list) else [value])]
    texts = [text.strip() for each in flat if isinstance(each, str) for text in each.split('\\')]
    return _rejoined(texts) if keys[0].startswith('ImageType') else texts


def _rejoined(texts: list[str]) -> list[str]:
    r"""Undo what dcm2niix does to image types: it splits them at each underscore.

    It also takes IN_PHASE for a phase image and adds PHASE at the end, by which a magnitude image
    would be left alone.

    Examples
    --------
    >>> _rejoined(['DERIVED', 'PRIMARY', 'DIXON', 'OUT', 'PHASE', 'PHASE'])
    ['DERIVED', 'PRIMARY', 'DIXON', 'OUT_PHASE']
    >>> _rejoined(['DERIVED', 'PRIMARY', 'DIXON', 'FAT', 'FRACTION'])
    ['DERIVED', 'PRIMARY', 'DIXON', 'FAT_FRACTION']
    >>> _rejoined(['ORIGINAL', 'PRIMARY', 'P', 'PHASE'])
    ['ORIGINAL', 'PRIMARY', 'P', 'PHASE']
    """
    joined = _SPLIT_TYPE.sub(lambda match: match[0].replace('\\', '_'), '\\'.join(texts))
    types = joined.split('\\')
    relative = any(_RELATIVE_PHASE.fullmatch(each) for each in types)
    return [each for each in types if not (relative and each.upper() == 'PHASE')]


def echo_and_field(metadata: Mapping[str, Any]) -> tuple[float, float]:
    """Return the echo time in seconds and the field in tesla, as a sidecar gives them.

    Raises
    ------
    BadDataError
        If one is missing or in another unit.
    """
    # The limits catch milliseconds for seconds and gauss for tesla.
    limits = {'EchoTime': (0.2, 'seconds'), 'MagneticFieldStrength': (20.0, 'tesla')}
    values = []
    for key, (highest, unit) in limits.items():
        value = metadata.get(key)
        if not isinstance(value, int | float) or not 0 < value < highest:
            raise BadDataError(
                f'Its sidecar has {value!r} as {key}, so it is not known whether fat and water '
                'are in phase.',
                f'Give {key} in {unit} in the sidecar.',
            )
        values.append(float(value))
    return values[0], values[1]
