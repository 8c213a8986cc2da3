"""Artefacts of real scans, each a function on the signal of one scan."""

from __future__ import annotations

from collections.abc import Mapping

#: Artefact -> share of scans that have it unless the user says otherwise.
ARTEFACTS: Mapping[str, float] = {}
