"""What a page says about the alignment of a scan with its atlas and the levels of its slices."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bids_muscle.errors import PARSE_ERRORS
from bids_muscle.tables import read_rows


@dataclass(frozen=True)
class Span:
    """Neighbouring slices of one level."""

    level: str
    first: int
    last: int
    low_mm: float
    high_mm: float
    confidence: float | None


@dataclass(frozen=True)
class AlignmentFacts:
    """How well a scan is aligned.

    Parameters
    ----------
    atlas
        Name of the atlas; empty where the region has none, and with it the next two.
    overlap
        Mean Dice of the muscles of the atlas and those segmented.
    reasons
        Why the alignment is not trusted; empty if it is.
    source
        Where the levels come from.
    spans
        Levels from superior to inferior, those not known among them.
    """

    atlas: str
    overlap: float
    reasons: tuple[str, ...]
    source: str
    spans: tuple[Span, ...]


def read_alignment(table: Path, sidecar: Path) -> AlignmentFacts | None:
    """Read the table of levels of a scan and its sidecar; None where one is missing or broken."""
    try:
        facts = json.loads(sidecar.read_text(encoding='utf-8'))
        return AlignmentFacts(
            str(facts.get('Atlas', '')),
            float(facts.get('MuscleDice', 0)),
            tuple(map(str, facts.get('Reasons', ()))),
            str(facts['LevelSource']),
            _spans(read_rows(table)),
        )
    except (OSError, KeyError, TypeError, *PARSE_ERRORS):
        return None


def _spans(rows: Sequence[Mapping[str, str]]) -> tuple[Span, ...]:
    spans = []
    for level, group in itertools.groupby(reversed(rows), key=lambda row: row['level']):
        own = list(group)[::-1]
        confidences = [float(row['confidence']) for row in own if row['confidence'] != 'n/a']
        spans.append(
            Span(
                level,
                int(own[0]['slice']),
                int(own[-1]['slice']),
                float(own[0]['z_mm']),
                float(own[-1]['z_mm']),
                sum(confidences) / len(confidences) if confidences else None,
            )
        )
    return tuple(spans)
